"""Lengths: estimated tokens, figures, histograms, context windows, what is far above the others."""

from array import array
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_app import lengths

LENGTHS = st.lists(st.integers(0, 200_000), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("four", 1),
        ("a" * 400, 100),
        ("ж" * 30, 20),  # two bytes each
        ("漢" * 30, 30),  # three
        ("🙂" * 30, 30),  # four
        ("ab" * 4 + "ж" * 3 + "漢", 5),
    ],
)
def test_tokens_are_estimated_by_script(text, tokens):
    assert lengths.estimated_tokens(text) == tokens


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=200), st.text(max_size=200))
def test_a_longer_text_never_has_fewer_tokens(one, other):
    assert 0 <= lengths.estimated_tokens(one) <= lengths.estimated_tokens(one + other) <= len(one + other)


@settings(deadline=None, max_examples=100)
@given(LENGTHS)
def test_every_length_is_in_one_bin_or_above(values):
    found = lengths.histogram(array("I", values))
    edges, counts = found["edges"], found["counts"]
    expected = [sum(low <= value < high for value in values) for low, high in pairwise(edges)]
    assert counts == expected
    assert sum(counts) + found["n_above"] == len(values)
    assert edges[0] <= min(values)
    assert len(counts) <= lengths.BINS + 1
    assert len({high - low for low, high in pairwise(edges)}) == 1


def test_one_huge_text_does_not_flatten_the_others():
    found = lengths.histogram(array("I", [*range(100, 200), 50_000]))
    assert found["n_above"] == 1
    assert found["edges"][-1] < 1000


def test_of_nothing_there_is_nothing():
    assert lengths.figures(array("I")) is None
    assert lengths.histogram(array("I")) is None
    assert not lengths.far_out(array("I")).any()


def test_a_window_is_exceeded_by_what_is_longer_than_it():
    found = lengths.beyond_windows(array("I", [512, 513, 1024, 5000]))
    assert [one["n"] for one in found] == [3, 1, 1, 1, 0, 0, 0, 0]
    assert found[0]["window"] == 512


def test_far_out_is_what_stands_apart():
    usual = [30, 32, 35, 36, 38, 40, 41, 44]
    assert lengths.far_out(array("I", [*usual, 60])).sum() == 0
    assert lengths.far_out(array("I", [*usual, 400])).tolist() == [False] * 8 + [True]
    assert lengths.far_out(array("I", [1, 1, 1, 400])).sum() == 0, "four are too few to say so"
