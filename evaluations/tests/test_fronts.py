"""How often a candidate is on the front: known fronts, unknown prices, and the same draws for everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations.fronts import bootstrap_medians, front_shares
from evaluations.histograms import shared_bins
from evaluations.resampling import bootstrap_means


def test_who_is_both_worse_and_dearer_is_never_on_the_front() -> None:
    quality = np.array([[0.5, 0.4, 0.3]] * 10)
    assert front_shares(quality, np.array([3.0, 1.0, 2.0])) == [1.0, 1.0, 0.0]


def test_a_front_that_depends_on_the_documents_is_a_share() -> None:
    quality = np.array([[0.5, 0.4], [0.5, 0.4], [0.5, 0.4], [0.3, 0.4]])
    assert front_shares(quality, np.array([2.0, 1.0])) == [0.75, 1.0]


def test_equal_candidates_share_the_front() -> None:
    assert front_shares(np.full((5, 2), 0.4), np.array([1.0, 1.0])) == [1.0, 1.0]


def test_who_has_no_price_is_on_no_front_and_beats_nobody() -> None:
    shares = front_shares(np.array([[0.9, 0.4]] * 3), np.array([np.nan, 1.0]))
    assert shares == [None, 1.0]


def test_where_lower_is_better_the_front_turns() -> None:
    quality, price = np.array([[0.5, 0.4]] * 3), np.array([1.0, 1.0])
    assert front_shares(quality, price, higher_is_better=False) == [0.0, 1.0]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=7), st.permutations(range(7)))
@settings(deadline=None, max_examples=100)
def test_one_resample_gives_the_front_that_the_figure_draws(points: list[tuple[int, int]], order: list[int]) -> None:
    from evaluations.templatetags.charts import front_of

    quality, price = np.array([[float(q) for _, q in points]]), np.array([float(p) for p, _ in points])
    expected = set(front_of([(float(p), float(q)) for p, q in points]))
    shares = front_shares(quality, price)
    assert {j for j, share in enumerate(shares) if share} == expected
    places = [place for place in order if place < len(points)]
    assert front_shares(quality[:, places], price[places]) == [shares[place] for place in places]


def test_medians_are_those_of_the_drawn_documents() -> None:
    random = np.random.default_rng(3)
    values = random.integers(0, 50, (31, 2)).astype(float)
    values[4, 0] = np.nan
    found = bootstrap_medians(values, np.arange(31), 31, resamples=200, seed=9)
    # The draws are known by what they do to a column that marks one document.
    counts = np.rint(bootstrap_means(np.eye(31), resamples=200, seed=9) * 31).astype(int)
    expected = [[np.nanmedian(np.repeat(values[:, j], row)) for j in range(2)] for row in counts]
    np.testing.assert_allclose(found, expected)


def test_documents_of_a_group_are_drawn_together() -> None:
    values = np.array([[1.0], [1.0], [9.0], [9.0], [9.0]])
    found = bootstrap_medians(values, np.array([0, 0, 1, 1, 1]), 2, resamples=400, seed=1)
    assert set(found.ravel()) <= {1.0, 9.0}


def test_a_column_without_a_value_has_no_median() -> None:
    assert np.isnan(bootstrap_medians(np.full((4, 1), np.nan), np.arange(4), 4, resamples=3)).all()


def test_all_candidates_share_their_bins() -> None:
    told = shared_bins([[0.0, 0.5], [1.0, 0.5], [0.2, np.nan]], bins=4)
    assert told == {"edges": [0.0, 0.25, 0.5, 0.75, 1.0], "counts": [[2, 0, 0, 1], [0, 0, 2, 0]]}


@pytest.mark.parametrize(("values", "counts"), [([[0.3], [0.3]], [[2]]), ([[0.0]], [[1]])])
def test_equal_values_have_one_bin(values: list[list[float]], counts: list[list[int]]) -> None:
    assert shared_bins(values)["counts"] == counts


def test_without_values_there_are_no_bins() -> None:
    assert shared_bins([[np.nan]]) == {}
