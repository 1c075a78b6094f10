"""Copying: what was lifted as a whole, and how extractive the rest is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_app.copying import LEAST_CHARACTERS, extract, fragments, how_copied, words
from evaluations.metrics import Item, extractiveness

SOURCE = "The cat sat on the mat, and the dog slept in the hall."
TEXT = st.lists(st.sampled_from(["a", "b", "c", "d", "river", "bridge"]), min_size=1, max_size=40).map(" ".join)


@pytest.mark.parametrize(
    ("reference", "how"),
    [
        (SOURCE, "whole"),
        ("The cat sat on the mat", "beginning"),
        ("the dog slept in", "inside"),
        ("the dog slept on", ""),
        ("the dog", ""),  # two words prove nothing
        ("", ""),
    ],
)
def test_how_a_reference_was_copied(reference, how):
    assert how_copied(reference, SOURCE) == how


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_what_was_cut_out_of_a_document_is_found(before, reference, after):
    how = how_copied(reference, before + reference + after)
    assert bool(how) == (len(reference) >= LEAST_CHARACTERS)


def test_fragments_by_hand():
    """Of 6 words 4 and 1 are copied: (4 + 1)/6 and (16 + 1)/6; 13 words of the document for 6."""
    reference, source = words("The cat sat on a mat."), words(SOURCE)
    assert fragments(reference, source) == [4, 1]
    assert extract(reference, source) == pytest.approx((5 / 6, 17 / 6, 13 / 6))


def test_without_words_there_is_nothing_to_describe():
    assert extract((), words(SOURCE)) is None
    assert extract(words(SOURCE), words("…")) is None


@settings(deadline=None, max_examples=150)
@given(TEXT, TEXT)
def test_the_measures_are_those_of_the_metric(reference, source):
    told = extractiveness.score([Item(text=reference, source=source)], {})[0]
    found = extract(words(reference), words(source))
    assert found == pytest.approx((told["coverage"], told["density"], told["compression"]))


def test_scripts_without_blanks_are_cut_into_characters():
    assert words("桥梁 kaputt") == ("桥", "梁", "kaputt")
    assert words("Don't stop_it") == ("don't", "stop", "it")


def test_a_text_of_two_words_takes_no_quadratic_time():
    text = tuple("ab"[(i * i) % 7 % 2] for i in range(200_000))
    assert extract(text, text).coverage == 1
