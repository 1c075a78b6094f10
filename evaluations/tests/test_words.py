"""How numbers, money, time, verdicts and differences of text are worded on a page."""

from __future__ import annotations

import re
import time
from html import unescape
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations import states
from evaluations.templatetags import words

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</ins><svg onload=alert(1)>",
    "{{ 7|add:7 }}{% debug %}",
    "javascript:alert(1)//&lt;b&gt;",
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (0, "0%"), (1, "100%"), (0.5, "50%"), (0.16, "16%"), (0.9996, ">99%"), (0.002, "<1%"),
        (float("nan"), "–"), ("text", "–"), (1.25, "125%"),
    ],
)  # fmt: skip
def test_a_share_is_never_rounded_to_all_or_nothing(value: Any, shown: str) -> None:
    assert words.percent(value) == shown


@pytest.mark.parametrize(
    ("micro", "shown"),
    [
        (None, "unpriced"), (0, "$0"), (1, "$0.0000010"), (1_230, "$0.0012"), (12_300, "$0.012"), (123_456, "$0.12"),
        (1_500_000, "$1.50"), (12_345_678_901, "$12,346"), (-2_000_000, "−$2.00"),
    ],
)  # fmt: skip
def test_an_unknown_price_is_unpriced_and_a_small_one_keeps_two_digits(micro: Any, shown: str) -> None:
    assert words.usd(micro) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.0, "0"), (-0.0, "0"), (0.0123, "+0.012"), (-0.0123, "−0.012"), (12.34, "+12.3")],
)
def test_a_difference_has_its_sign(value: Any, shown: str) -> None:
    assert words.signed(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"), (-1, "–"), (0.42, "420 ms"), (0.9999, "1.0 s"), (3.21, "3.2 s"), (9.97, "10 s"),
        (59.7, "1 min 00 s"), (250, "4 min 10 s"), (7500, "2 h 05 min"), (273_600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_a_time_span_has_two_units_at_most(seconds: Any, shown: str) -> None:
    assert words.duration(seconds) == shown


def test_a_latency_below_a_millisecond_is_not_nothing() -> None:
    assert [words.milliseconds(value) for value in (None, 0, 1, 1400)] == ["–", "<1 ms", "1 ms", "1.4 s"]


def test_a_p_value_is_never_zero() -> None:
    assert [words.p_value(value) for value in (None, 0.00001, 0.0341, 1.0)] == ["–", "<0.001", "0.034", "1.000"]


def test_large_numbers_keep_three_digits() -> None:
    assert [words.compact(value) for value in (None, 512, 139_000_000, 7.24e9)] == ["–", "512", "139 M", "7.24 B"]


@pytest.mark.parametrize("name", list(words.VERDICTS))
def test_a_verdict_is_said_in_words_beside_its_glyph(name: str) -> None:
    shown = words.verdict(name)
    assert re.sub("<[^>]*>", "", shown).endswith(name)
    assert 'aria-hidden="true"' in shown


def test_only_clear_verdicts_have_a_glyph_of_their_own() -> None:
    for unclear in ("no clear difference", "too little data", None):
        assert words.verdict_glyph(unclear) == ""
    assert "▼" in words.verdict_glyph("worse")


def test_a_metric_part_is_called_as_people_call_it() -> None:
    assert [words.part_label(name) for name in ("rougeLsum", "gone", None)] == ["ROUGE-Lsum", "gone", "None"]


@pytest.mark.parametrize("state", states.EXPERIMENT.values(), ids=lambda state: state.name)
def test_a_state_is_shown_alike_from_an_object_and_from_a_mapping(state: states.State) -> None:
    shown = words.state(state)
    assert shown == words.state({"label": state.label, "tone": state.tone})
    assert state.label in shown
    assert f'class="state {state.tone}"' in shown


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_words_are_only_words(hostile: str) -> None:
    everything = [
        words.verdict(hostile),
        words.state({"label": hostile, "tone": hostile}),
        words.word_diff(hostile, "an honest reference"),
        words.word_diff("an honest text", hostile),
        words.word_diff(hostile, hostile),
        words.breakable(hostile),
    ]
    for html in everything:
        tags = set(re.findall(r"<(/?\w+)", html))
        assert tags <= {"span", "/span", "ins", "/ins", "del", "/del", "wbr"}, html


def text_of(html: str, *, without: str) -> str:
    """The text that stays when the elements called `without` are taken out."""
    return unescape(re.sub("<[^>]*>", "", re.sub(f"<{without}>.*?</{without}>", "", html, flags=re.DOTALL)))


def test_a_difference_marks_both_sides() -> None:
    html = words.word_diff("The council approved the budget.", "The council rejected the budget.")
    assert html == "The council <del>rejected</del> <ins>approved</ins> the budget."


def test_equal_texts_have_no_mark_whatever_their_white_space() -> None:
    assert words.word_diff("one  two\nthree", "one two three") == "one  two\nthree"


def test_a_struck_word_never_touches_the_next_one() -> None:
    assert words.word_diff("rain fell", "Heavy rain fell") == "<del>Heavy</del> rain fell"


prose = st.lists(
    st.sampled_from(["the", "a", "rain", "fell", "&", "<", ">", "town,", "don't", "9%", "über", "end.", "\n"]),
    max_size=30,
).map(" ".join)


@given(prose, prose)
@settings(deadline=None, max_examples=150)
def test_a_difference_holds_both_texts_word_for_word(text: str, reference: str) -> None:
    html = words.word_diff(text, reference)
    squeezed = lambda words_: re.sub(r"\s+", "", words_)  # noqa: E731
    assert squeezed(text_of(html, without="del")) == squeezed(text)
    assert squeezed(text_of(html, without="ins")) == squeezed(reference)


def test_an_output_that_repeats_itself_for_ever_is_shown_unmarked_and_at_once() -> None:
    began = time.perf_counter()
    html = words.word_diff("a b c d " * 5000, "d c b a " * 5000)
    assert time.perf_counter() - began < 2
    assert "<del>" not in html
    assert "too long" in html


@pytest.mark.parametrize(
    ("path", "place", "marked"),
    [
        ("/datasets/4/", "datasets", True),
        ("/datasets-old/", "datasets", False),
        ("/", "datasets", False),
        (None, "api", False),
    ],
)
def test_the_place_one_is_in_is_marked(path: str | None, place: str, marked: bool) -> None:
    assert bool(words.current(path, place)) is marked
