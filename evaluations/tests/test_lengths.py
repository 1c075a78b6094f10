"""Lengths are counted, also those of nothing; the ratio waits for a reference."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations.metrics import Absent, Item
from evaluations.metrics.lengths import metric, score


@pytest.mark.parametrize("check", metric.checks, ids=lambda check: check.title)
def test_the_check_values_are_met(check) -> None:
    assert score([check.item], check.options)[0] == pytest.approx(dict(check.expected), abs=1e-12)


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_an_empty_output_is_nothing_long(blank: str) -> None:
    scored = score([Item(blank, ("Two words.",))], {})[0]
    assert scored == {"length_words": 0.0, "length_sentences": 0.0, "length_characters": 0.0, "length_ratio": 0.0}


@pytest.mark.parametrize("references", [(), ("", " \n")])
def test_without_a_reference_only_the_ratio_is_missing(references: tuple[str, ...]) -> None:
    scored = score([Item("Three short words.", references)], {})[0]
    assert scored == {
        "length_words": 3.0,
        "length_sentences": 1.0,
        "length_characters": 18.0,
        "length_ratio": Absent("not_applicable", "no reference summary"),
    }


def test_a_reference_without_words_cannot_be_divided_by() -> None:
    ratio = score([Item("Three short words.", ("…",))], {})[0]["length_ratio"]
    assert ratio == Absent("not_applicable", "the reference summary has no words")


def test_several_references_count_with_their_mean() -> None:
    assert score([Item("a b c", ("a", "a b c d e", " "))], {})[0]["length_ratio"] == 1.0


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(["fees", "don't", "3.5", "Rat"]), min_size=1, max_size=30), st.integers(1, 5))
def test_a_text_n_times_as_long_is_n_times_as_long(text: list[str], times: int) -> None:
    once = " ".join(text)
    scored = score([Item(" ".join([once] * times), (once,))], {})[0]
    assert (scored["length_words"], scored["length_ratio"]) == (len(text) * times, pytest.approx(times))


def test_no_length_is_better() -> None:
    assert all(part.higher_is_better is None and part.high is None for part in metric.parts)
    assert not metric.needs_reference
