"""Repetition finds what an output says again, and has no value where nothing could be said twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations.metrics import Absent, Item
from evaluations.metrics.repetition import metric, score


def of(text: str) -> dict[str, object]:
    return dict(score([Item(text)], {})[0])


@pytest.mark.parametrize("check", metric.checks, ids=lambda check: check.title)
def test_the_check_values_are_met(check) -> None:
    assert score([check.item], check.options)[0] == pytest.approx(dict(check.expected), abs=1e-12)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from("abc"), min_size=3, max_size=30))
def test_it_is_the_share_of_triples_that_occurred_before(text: list[str]) -> None:
    triples = [text[start : start + 3] for start in range(len(text) - 2)]
    again = sum(triple in triples[:place] for place, triple in enumerate(triples))
    assert of(" ".join(text))["repetition"] == again / len(triples)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(["Fees rise.", "FEES RISE!", "Taxes stay.", "Rain fell."]), min_size=1, max_size=12))
def test_it_is_the_share_of_sentences_that_occurred_before(text: list[str]) -> None:
    plain = [sentence.lower().strip(".!") for sentence in text]
    again = sum(sentence in plain[:place] for place, sentence in enumerate(plain))
    assert of(" ".join(text))["repeated_sentences"] == again / len(plain)


def test_a_text_of_different_words_repeats_nothing() -> None:
    assert of("Every word here is another one.") == {"repetition": 0.0, "repeated_sentences": 0.0}


def test_a_repeated_item_of_a_list_is_a_repeated_sentence() -> None:
    assert of("- fees rise\n- taxes stay\n- fees rise\n- fees rise")["repeated_sentences"] == 2 / 4


def test_a_script_without_blanks_is_read_too() -> None:
    found = of("停车费上涨。停车费上涨。")
    assert found == {"repetition": 3 / 8, "repeated_sentences": 1 / 2}


def test_too_few_words_for_a_triple_have_no_value() -> None:
    found = of("Fees rise.")
    assert found["repetition"] == Absent("not_applicable", "the output has 2 of the 3 words that this needs")
    assert found["repeated_sentences"] == 0.0


def test_an_output_of_marks_has_no_value() -> None:
    found = of("?! …")
    assert found["repetition"] == Absent("not_applicable", "the output has 0 of the 3 words that this needs")
    assert found["repeated_sentences"] == Absent("not_applicable", "the output has no words")


@pytest.mark.parametrize("blank", ["", " \n"])
def test_an_empty_output_failed(blank: str) -> None:
    failed = Absent("failed", "the output is empty")
    assert of(blank) == {"repetition": failed, "repeated_sentences": failed}


def test_less_is_better() -> None:
    assert all(part.higher_is_better is False for part in metric.parts)
