"""The rules of comparison, each on data small enough to check by hand or by brute force."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations import resampling, stats
from evaluations.distributions import incomplete_beta, t_quantile, t_tail

KEYS = ["amber", "birch", "cedar"]


def scores(documents: int, shifts: list[float], seed: int = 1, noise: float = 0.1) -> np.ndarray:
    """Per-document scores that share each document's difficulty, shifted by candidate."""
    random = np.random.default_rng(seed)
    difficulty = random.normal(0.4, 0.1, (documents, 1))
    return difficulty + random.normal(0, noise, (documents, len(shifts))) + np.array(shifts)


def brute_force_p(differences: list[float]) -> float:
    observed = abs(math.fsum(differences))
    flips = itertools.product([1, -1], repeat=len(differences))
    reached = [
        abs(math.fsum(sign * d for sign, d in zip(signs, differences, strict=True))) >= observed - 1e-12
        for signs in flips
    ]
    return sum(reached) / len(reached)


# Student's t and the binomial


@pytest.mark.parametrize(
    ("probability", "df", "published"),
    [
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 9, 2.262),
        (0.975, 29, 2.045),
        (0.975, 100, 1.984),
        (0.95, 5, 2.015),
        (0.95, 30, 1.697),
        (0.995, 10, 3.169),
        (0.9995, 4, 8.610),
        (0.90, 60, 1.296),
    ],
)
def test_t_quantiles_match_the_published_table(probability: float, df: float, published: float) -> None:
    assert t_quantile(probability, df) == pytest.approx(published, abs=6e-4)
    assert t_quantile(1 - probability, df) == pytest.approx(-published, abs=6e-4)


def test_t_with_one_and_two_degrees_of_freedom_has_a_closed_form() -> None:
    for p in (0.6, 0.9, 0.99, 0.999):
        assert t_quantile(p, 1) == pytest.approx(math.tan(math.pi * (p - 0.5)), rel=1e-10)
        assert t_quantile(p, 2) == pytest.approx((2 * p - 1) / math.sqrt(2 * p * (1 - p)), rel=1e-10)


@given(st.floats(0.001, 0.999), st.integers(1, 500))
@settings(deadline=None, max_examples=60)
def test_the_t_quantile_inverts_the_tail(probability: float, df: int) -> None:
    t = t_quantile(probability, df)
    assert t_tail(abs(t), df) == pytest.approx(min(probability, 1 - probability), rel=1e-9)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=60)
def test_the_incomplete_beta_is_a_binomial_tail(a: int, b: int, x: float) -> None:
    n = a + b - 1
    tail = math.fsum(math.comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))
    assert incomplete_beta(a, b, x) == pytest.approx(tail, rel=1e-9, abs=1e-15)


def test_distributions_agree_with_scipy_where_it_is_installed() -> None:
    reference = pytest.importorskip("scipy.stats")
    for p, df in itertools.product([0.6, 0.975, 0.999999], [1, 7, 99, 4999]):
        assert t_quantile(p, df) == pytest.approx(reference.t.ppf(p, df), rel=1e-8)
    assert stats.mcnemar_exact(12, 31) == pytest.approx(reference.binomtest(12, 43).pvalue, rel=1e-10)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None, max_examples=80)
def test_mcnemar_is_the_binomial_sum(b: int, c: int) -> None:
    n = b + c
    expected = min(1.0, 2 * sum(math.comb(n, k) for k in range(min(b, c) + 1)) / 2**n)
    assert stats.mcnemar_exact(b, c) == pytest.approx(expected, rel=1e-10)


# Sign flips


@given(st.lists(st.integers(-4, 4).map(lambda v: v / 10), min_size=1, max_size=9))
@settings(deadline=None, max_examples=80)
def test_exact_enumeration_equals_brute_force_with_zeros_and_ties(differences: list[float]) -> None:
    result = stats.sign_flip(differences)
    assert result.exact and result.se == 0
    assert result.p == pytest.approx(brute_force_p(differences), abs=1e-15)


def test_two_hundred_documents_that_differ_once_are_no_evidence() -> None:
    differences = np.zeros(200)
    differences[17] = 0.3
    assert stats.sign_flip(differences).p == 1.0


def test_identical_systems_give_p_one() -> None:
    assert stats.sign_flip(np.zeros(500)).p == 1.0


def test_ties_survive_summation_order() -> None:
    # Tenths have no exact binary form, so equal sums come out different in the last digit, by order.
    differences = np.array([0.1, 0.2, -0.3, 0.7, -0.7, 0.4, -0.1, 0.3, 0.6, -0.6, 0.2, -0.2, 0.05, -0.05, 0.5, -0.4])
    orders = [np.random.default_rng(seed).permutation(len(differences)) for seed in range(5)]
    # Whole numbers have no rounding at all: the same flips must be counted.
    whole = np.round(differences * 20)
    for order in orders:
        assert stats.sign_flip(differences[order]).p == stats.sign_flip(whole[order]).p


def test_equal_steps_are_mcnemar_for_any_number_of_documents() -> None:
    differences = [0.3] * 40 + [-0.3] * 20 + [0.0] * 100
    result = stats.sign_flip(differences)
    assert result.exact
    assert result.p == stats.mcnemar_exact(40, 20)


def test_random_flips_agree_with_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = scores(13, [0.0], seed=4)[:, 0] - 0.37
    exact = stats.sign_flip(differences)
    monkeypatch.setattr(resampling, "EXACT_LIMIT", 0)
    sampled = stats.sign_flip(differences, resamples=100_000, seed=3)
    assert exact.exact and not sampled.exact
    assert 0.01 < exact.p < 0.99
    assert abs(sampled.p - exact.p) <= 4 * sampled.se


def test_random_flips_count_ties() -> None:
    # Steps of one and two tie all the time; the exact distribution of the flipped sum is a product of two-point ones.
    steps = np.array([1.0] * 14 + [-1.0] * 4 + [2.0] * 5 + [-2.0] * 4)
    distribution = np.ones(1)
    for step in steps:
        distribution = np.convolve(distribution, [0.5, *[0] * (2 * int(abs(step)) - 1), 0.5])
    sums = np.arange(len(distribution)) - np.abs(steps).sum()
    exact = distribution[np.abs(sums) >= abs(steps.sum())].sum()
    result = stats.sign_flip(steps / 10, resamples=100_000)
    assert not result.exact
    assert abs(result.p - exact) <= 4 * result.se
    assert distribution[np.abs(sums) > abs(steps.sum())].sum() < exact - 20 * result.se


def test_p_is_never_zero_and_counts_the_observed_arrangement() -> None:
    result = stats.sign_flip(np.linspace(1, 2, 60), resamples=999)
    assert result.p == 1 / 1000


def test_many_columns_share_flips_and_leave_out_absent_pairs() -> None:
    table = scores(60, [-0.38, -0.41, -0.4])
    table[5:25, 1] = np.nan
    together = stats.sign_flip_many(table, resamples=5_000, seed=2)
    for column, result in enumerate(together):
        assert result == stats.sign_flip(table[:, column], resamples=5_000, seed=2)
    # Absent is as good as zero for a flip: neither moves the sum.
    assert stats.sign_flip(np.nan_to_num(table[:, 1]), resamples=5_000, seed=2) == together[1]


def test_blocks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    table = scores(70, [-0.38, -0.41])
    flips, boot = stats.sign_flip_many(table), stats.bootstrap_means(table, resamples=300)
    monkeypatch.setattr(resampling, "BLOCK", 1000)
    assert stats.sign_flip_many(table) == flips
    np.testing.assert_allclose(stats.bootstrap_means(table, resamples=300), boot, rtol=1e-13)


def test_a_column_without_pairs_has_no_test() -> None:
    table = np.column_stack([np.full(20, np.nan), np.linspace(-1, 2, 20)])
    assert stats.sign_flip_many(table)[0] is None
    with pytest.raises(ValueError, match="no pair to test"):
        stats.sign_flip(table[:, 0])


def test_weights_make_a_group_count_as_its_documents() -> None:
    documents = np.array([[0.2], [0.4], [-0.1], [0.3]])
    units = stats.by_group(documents, ["x", "x", "y", None])
    result = stats.sign_flip(units.means[:, 0], units.sizes[:, 0])
    assert result.p == brute_force_p([0.6, -0.1, 0.3])


def test_infinite_scores_are_refused_by_place() -> None:
    with pytest.raises(ValueError, match="row 1, column 0"):
        stats.sign_flip_many([[0.0], [math.inf]])


@pytest.mark.parametrize(
    ("tests", "alpha", "resamples"),
    [
        (0, 0.05, 10_000),
        (1, 0.05, 10_000),
        (2, 0.05, 10_000),
        (3, 0.05, 100_000),
        (25, 0.05, 100_000),
        (28, 0.05, 1_000_000),
        (10_000, 0.05, 1_000_000),
        (7, 0.01, 1_000_000),
    ],
)
def test_resamples_let_holm_reject(tests: int, alpha: float, resamples: int) -> None:
    assert stats.resamples_for(tests, alpha) == resamples
    if 0 < tests < 1000:
        assert tests / (resamples + 1) <= alpha / 100


# Groups


def test_a_group_is_one_unit_and_none_is_its_own() -> None:
    values = [[1.0, math.nan], [2.0, 4.0], [3.0, math.nan], [4.0, 8.0]]
    units = stats.by_group(values, [7, None, 7, None])
    np.testing.assert_array_equal(units.sums, [[4, 0], [2, 4], [4, 8]])
    np.testing.assert_array_equal(units.sizes, [[2, 0], [1, 1], [1, 1]])
    np.testing.assert_array_equal(units.means, [[2, math.nan], [2, 4], [4, 8]])
    np.testing.assert_array_equal(units.present, [3, 2])
    np.testing.assert_array_equal(units.column_means, [2.5, 6])


def test_labels_must_match_documents() -> None:
    with pytest.raises(ValueError, match="2 group labels for 3 documents"):
        stats.by_group([[1.0], [2.0], [3.0]], ["a", "b"])


def test_the_standard_error_of_single_documents_is_the_familiar_one() -> None:
    values = scores(25, [0.0])[:, 0]
    expected = values.std(ddof=1) / 5
    assert stats.standard_error(values, np.ones(25)) == pytest.approx(expected)


def test_documents_copied_inside_their_group_add_no_certainty() -> None:
    values = scores(40, [0.0])
    once = stats.interval(values[:, 0])
    copied = stats.by_group(np.repeat(values, 5, axis=0), np.repeat(np.arange(40), 5).tolist())
    assert stats.interval(copied.means[:, 0], copied.sizes[:, 0]).as_dict() == pytest.approx(once.as_dict())


# Intervals


def test_a_small_sample_gets_the_t_interval() -> None:
    # Ten values with mean 5.5 and SD 3.0277: 5.5 +- 2.262 * 3.0277 / sqrt(10).
    span = stats.interval(np.arange(1, 11))
    assert (span.mean, span.method, span.n) == (5.5, "t", 10)
    assert (span.low, span.high) == pytest.approx((3.334, 7.666), abs=1e-3)


def test_a_hundred_units_get_the_bootstrap_close_to_the_normal_interval() -> None:
    values = scores(400, [0.0])[:, 0]
    span = stats.interval(values, seed=5)
    half = 1.96 * values.std() / 20
    assert span.method == "bootstrap"
    assert span.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert span.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert span == stats.interval(values, seed=5)
    assert span != stats.interval(values, seed=6)


def test_bounds_that_cannot_be_computed_are_absent_with_a_reason() -> None:
    nothing, one = stats.interval([math.nan, math.nan]), stats.interval([0.3])
    assert (nothing.mean, nothing.low, nothing.method, nothing.n) == (None, None, "none", 0)
    assert nothing.reason == "no value"
    assert (one.mean, one.low, one.high) == (0.3, None, None)
    assert "at least two" in one.reason


def test_bootstrap_draws_whole_units_shared_by_all_columns() -> None:
    values = scores(50, [0.0, 0.3], noise=0.0)
    boot = stats.bootstrap_means(values, resamples=200)
    np.testing.assert_allclose(boot[:, 1] - boot[:, 0], 0.3)
    assert boot[:, 0].std() > 0
    sizes = np.tile(np.arange(1.0, 51.0)[:, None], (1, 2))
    np.testing.assert_allclose(stats.bootstrap_means(sizes * 0.7, sizes, resamples=50), 0.7)


def test_bootstrap_counts_are_drawn_with_replacement() -> None:
    # The variance of a resampled mean is the population variance over n.
    values = np.arange(30.0)[:, None]
    boot = stats.bootstrap_means(values, resamples=20_000)
    assert boot.mean() == pytest.approx(values.mean(), abs=0.05)
    assert boot.var() == pytest.approx(values.var() / 30, rel=0.05)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_matches_published_values(successes: int, n: int, low: float, high: float) -> None:
    span = stats.wilson(successes, n)
    assert (span.low, span.high) == pytest.approx((low, high), abs=1e-4)


def test_a_rate_of_nothing_is_absent() -> None:
    assert stats.wilson(0, 0).mean is None
    with pytest.raises(ValueError, match="3 of 2"):
        stats.wilson(3, 2)


# Many tests, enough data, a margin


def test_holm_and_benjamini_hochberg_on_a_worked_example() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert stats.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])


@given(st.lists(st.floats(0, 1), max_size=12), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=80)
def test_adjusted_p_values_keep_order_and_follow_their_tests(p: list[float], random: Any) -> None:
    order = random.sample(range(len(p)), len(p))
    for adjust in (stats.holm, stats.benjamini_hochberg):
        adjusted = adjust(p)
        assert all(raw <= value <= 1 for raw, value in zip(p, adjusted, strict=True))
        ranked = [value for _, value in sorted(zip(p, adjusted, strict=True))]
        assert ranked == sorted(ranked)
        assert adjust([p[i] for i in order]) == pytest.approx([adjusted[i] for i in order])
    assert all(b <= h + 1e-15 for b, h in zip(stats.benjamini_hochberg(p), stats.holm(p), strict=True))


def test_a_test_that_was_not_made_cannot_be_adjusted() -> None:
    with pytest.raises(ValueError, match="leave out tests"):
        stats.holm([0.2, math.nan])


@pytest.mark.parametrize(("n", "points"), [(30, 5.1), (100, 2.8), (200, 2.0), (500, 1.25), (1000, 0.9), (5000, 0.4)])
def test_detectable_differences_for_a_typical_rouge_spread(n: int, points: float) -> None:
    assert 100 * stats.mde(0.10, n) == pytest.approx(points, abs=0.05)


@given(st.floats(0.01, 1), st.floats(0.005, 0.5))
@settings(deadline=None, max_examples=50)
def test_n_needed_is_the_first_n_that_detects(sd: float, delta: float) -> None:
    n = stats.n_needed(sd, delta)
    assert stats.mde(sd, n) <= delta * (1 + 1e-9)
    assert n == 1 or stats.mde(sd, n - 1) > delta * (1 - 1e-9)


def test_win_tie_loss_counts_documents_and_turns_with_the_direction() -> None:
    differences = [0.2, -0.1, 0.0, 1e-14, math.nan, 0.3]
    assert stats.win_tie_loss(differences) == (2, 2, 1)
    assert stats.win_tie_loss(differences, higher_is_better=False) == (1, 2, 2)


@pytest.mark.parametrize("documents", [50, 400])
def test_non_inferiority_has_three_answers(documents: int) -> None:
    loss = scores(documents, [0.0], noise=0.05)[:, 0]
    loss -= loss.mean() + 0.01
    error = loss.std(ddof=1) / math.sqrt(documents)
    proven = stats.non_inferiority(loss, margin=0.01 + 3 * error)
    unclear = stats.non_inferiority(loss, margin=abs(loss.mean()) + error)
    assert proven.verdict == "non-inferior" and proven.n_needed is None
    assert proven.bound == pytest.approx(loss.mean() - 1.66 * error, abs=0.15 * error)
    assert unclear.verdict == "inconclusive"
    # One error of room needs (1.645 + 0.842)^2 = 6.2 times the documents.
    assert unclear.n_needed == pytest.approx(6.18 * documents, rel=0.01)
    assert stats.non_inferiority(loss - 0.5, margin=0.01).verdict == "worse"


def test_non_inferiority_of_a_cost_looks_the_other_way() -> None:
    rise = np.full(40, 0.2) + scores(40, [-0.4])[:, 0] / 10
    assert stats.non_inferiority(rise, 0.1).verdict == "non-inferior"
    assert stats.non_inferiority(rise, 0.1, higher_is_better=False).verdict == "worse"


def test_more_data_is_not_promised_to_help_a_loss_beyond_the_margin() -> None:
    loss = scores(30, [-0.43], noise=0.2)[:, 0]
    result = stats.non_inferiority(loss, margin=abs(loss.mean()) / 2)
    assert (result.verdict, result.n_needed) == ("inconclusive", None)
    assert "more documents would not" in result.reason


# P(best) and ranks


def test_p_best_shares_ties_and_follows_the_direction() -> None:
    boot = np.array([[0.3, 0.2, 0.1], [0.2, 0.2, 0.1], [0.1, 0.2, 0.3], [0.3, 0.2, math.nan]])
    np.testing.assert_allclose(stats.p_best(boot), [0.625, 0.125, 0.25])
    np.testing.assert_allclose(stats.p_best(boot[:3], higher_is_better=False), [1 / 3, 0, 2 / 3])


def test_rank_intervals_span_what_resamples_show() -> None:
    boot = np.array([[0.9, 0.2, 0.1]] * 50 + [[0.9, 0.1, 0.2]] * 50)
    assert stats.rank_intervals(boot) == [(1, 1), (2, 3), (2, 3)]


# The comparison


def test_a_clear_winner_leads_alone() -> None:
    result = stats.compare(scores(120, [0.0, 0.3, 0.1]), keys=KEYS)
    assert (result.leader, result.best_group, result.ranked) == ("birch", ("birch",), True)
    assert [standing.key for standing in result.standings] == ["birch", "cedar", "amber"]
    assert {contrast.b: contrast.verdict for contrast in result.versus_reference} == {
        "cedar": "worse",
        "amber": "worse",
    }
    assert result.standing("birch").p_best == 1.0
    assert (result.standing("birch").rank_low, result.standing("birch").rank_high) == (1, 1)
    contrast = result.versus_reference[0]
    assert contrast.low < contrast.difference < contrast.high < 0
    assert contrast.win + contrast.tie + contrast.loss == contrast.n == 120
    assert contrast.loss > contrast.win
    assert result.warnings == ()


def test_a_close_race_is_a_group_and_says_what_could_have_been_seen() -> None:
    matrix = scores(120, [0.0, 0.001, -0.2])
    result = stats.compare(matrix, keys=KEYS)
    assert set(result.best_group) == {"amber", "birch"}
    close = next(contrast for contrast in result.versus_reference if contrast.b in result.best_group)
    assert close.verdict == "no clear difference"
    assert close.detectable == pytest.approx(2.80 * np.std(matrix[:, 1] - matrix[:, 0], ddof=1) / 120**0.5, rel=1e-3)
    assert result.mde >= close.detectable


def test_lower_can_be_better() -> None:
    matrix = scores(60, [0.0, 0.2, -0.2])
    result = stats.compare(matrix, keys=KEYS, higher_is_better=False)
    mirrored = stats.compare(-matrix, keys=KEYS)
    assert result.leader == mirrored.leader == "cedar"
    assert [c.verdict for c in result.pairs] == [c.verdict for c in mirrored.pairs] == ["worse"] * 3
    assert [(c.win, c.loss) for c in result.pairs] == [(c.win, c.loss) for c in mirrored.pairs]
    assert result.pairs[0].difference == pytest.approx(-mirrored.pairs[0].difference)
    assert [s.p_best for s in result.standings] == pytest.approx([s.p_best for s in mirrored.standings])


def test_identical_candidates_differ_by_exactly_nothing() -> None:
    matrix = np.repeat(scores(150, [0.0]), 3, axis=1)
    result = stats.compare(matrix, keys=KEYS)
    assert result.best_group == ("amber", "birch", "cedar")
    for contrast in result.pairs:
        assert (contrast.p, contrast.p_holm, contrast.difference, contrast.low, contrast.high) == (1, 1, 0, 0, 0)
        assert (contrast.win, contrast.tie, contrast.loss, contrast.detectable) == (0, 150, 0, None)
    assert [standing.p_best for standing in result.standings] == pytest.approx([1 / 3] * 3)
    assert result.mde is None


def test_a_difference_in_the_last_digit_is_no_difference() -> None:
    first = scores(150, [0.0])
    second = (first + 0.1) - 0.1
    assert (second > first).any() and (second < first).any()
    contrast = stats.compare(np.hstack([first, np.maximum(first, second)]), keys=KEYS[:2]).pairs[0]
    assert (contrast.p, contrast.difference, contrast.low, contrast.high, contrast.tie) == (1, 0, 0, 0, 150)


@given(st.integers(0, 10**6), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=12)
def test_the_order_of_candidates_and_rows_changes_nothing(seed: int, grouped: bool, holes: bool) -> None:
    random = np.random.default_rng(seed)
    matrix = scores(104, [0.0, 0.03, 0.05], seed=seed)
    if holes:
        matrix[random.random(matrix.shape) < 0.02] = np.nan
    groups = [int(label) if label < 80 else None for label in random.integers(0, 100, 104)] if grouped else None
    rows, columns = random.permutation(104), random.permutation(3)
    options: dict[str, Any] = {"seed": 3, "bootstrap": 500, "max_resamples": 10_000}
    straight = stats.compare(
        matrix, keys=KEYS, row_keys=list(range(104)), groups=groups, eligible=[True, True, False], **options
    )
    shuffled = stats.compare(
        matrix[np.ix_(rows, columns)],
        keys=[KEYS[j] for j in columns],
        row_keys=rows.tolist(),
        groups=None if groups is None else [groups[i] for i in rows],
        eligible=[bool(j != 2) for j in columns],
        **options,
    )
    assert straight == shuffled


def test_fewer_than_ten_documents_are_examples_only() -> None:
    result = stats.compare(scores(9, [0.0, 0.5, 0.2]), keys=KEYS)
    assert (result.leader, result.ranked, result.mde) == (None, False, None)
    assert set(result.best_group) == set(KEYS)
    for standing in result.standings:
        assert standing.interval.mean is not None and standing.interval.low is None
    for contrast in result.pairs:
        assert (contrast.p, contrast.low, contrast.verdict) == (None, None, "too little data")
        assert contrast.difference is not None
        assert "fewer than 10" in contrast.reason
    assert result.warnings[0].startswith("Only 9 documents: read the examples")


def test_fewer_than_thirty_documents_give_intervals_but_no_ranking() -> None:
    result = stats.compare(scores(29, [0.0, 0.5, 0.2]), keys=KEYS)
    assert (result.leader, result.ranked, result.reference) == (None, False, "birch")
    assert set(result.best_group) == set(KEYS)
    assert {contrast.verdict for contrast in result.pairs} == {"too little data"}
    assert all(contrast.low is not None and contrast.p is not None for contrast in result.pairs)
    assert all(standing.p_best is None for standing in result.standings)
    assert "no ranking below 30" in result.warnings[0]


def test_groups_decide_whether_the_data_is_enough() -> None:
    groups = [i // 10 for i in range(200)]
    result = stats.compare(scores(200, [0.0, 0.5, 0.2]), keys=KEYS, groups=groups)
    assert (result.rows, result.n, result.groups, result.ranked) == (200, 200, 20, False)
    assert "20 groups" in result.warnings[0]
    assert result.pairs[0].n == 200 and result.pairs[0].groups == 20


def test_a_baseline_cannot_lead_and_does_not_cost_the_candidates_power() -> None:
    matrix = scores(80, [0.0, 0.03, 0.3])
    alone = stats.compare(matrix[:, :2], keys=KEYS[:2])
    beside = stats.compare(matrix, keys=KEYS, eligible=[True, True, False])
    assert beside.leader == alone.leader == "birch"
    assert "cedar" not in beside.best_group
    assert beside.standing("cedar").p_best is None
    assert beside.standings[0].key == "cedar"
    between = next(c for c in beside.pairs if c.family == "pairs")
    assert between.p_holm == alone.pairs[0].p_holm == between.p
    against = next(c for c in beside.versus_reference if c.b == "cedar")
    assert (against.family, against.verdict) == ("baselines", "better")


def test_a_declared_reference_is_corrected_for_its_own_contrasts_only() -> None:
    matrix = scores(50, [0.0, 0.035, 0.02], seed=8)
    declared = stats.compare(matrix, keys=KEYS, reference="amber")
    assert declared.reference == "amber"
    assert {c.family for c in declared.versus_reference} == {"reference"}
    assert stats.holm([c.p for c in declared.versus_reference]) == [c.p_holm for c in declared.versus_reference]
    assert stats.holm([c.p for c in declared.pairs]) == [c.p_holm for c in declared.pairs]
    assert declared.signature["tests"] == {"pairs": 3, "baselines": 0, "reference": 2}
    # Whoever leads by score is judged over all pairs, with or without the declaration.
    assert declared.best_group == stats.compare(matrix, keys=KEYS).best_group


def test_a_leader_picked_by_score_cannot_claim_the_smaller_family() -> None:
    with pytest.raises(ValueError, match="needs a reference declared beforehand"):
        stats.compare(scores(40, [0, 0, 0]), keys=KEYS, family="reference")


def test_absent_scores_are_left_out_of_their_pairs_and_counted() -> None:
    matrix = scores(300, [0.0, 0.03, 0.0])
    matrix[:90, 1] = np.nan
    result = stats.compare(matrix, keys=KEYS)
    contrast = next(c for c in result.pairs if {c.a, c.b} == {"amber", "birch"}).about("birch")
    gap = matrix[90:, 1] - matrix[90:, 0]
    half = 1.96 * gap.std(ddof=1) / 210**0.5
    assert (contrast.n, contrast.win + contrast.tie + contrast.loss) == (210, 210)
    assert contrast.difference == pytest.approx(gap.mean())
    assert contrast.high - contrast.low == pytest.approx(2 * half, rel=0.1)
    assert contrast.p == stats.sign_flip(matrix[:, 1] - matrix[:, 0], resamples=contrast.resamples).p
    assert result.standing("birch").n == 210 and result.standing("amber").n == 300
    assert any("210 to 300" in warning for warning in result.warnings)


def test_a_few_lucky_documents_do_not_lead() -> None:
    matrix = scores(60, [0.0, 0.05, 0.9])
    matrix[12:, 2] = np.nan
    result = stats.compare(matrix, keys=KEYS)
    assert result.leader != "cedar"
    assert "cedar" in result.best_group
    assert result.standing("cedar").p_best is None
    assert any(warning.startswith("cedar has scores for 12 documents only") for warning in result.warnings)


def test_a_candidate_without_scores_is_named_and_not_compared() -> None:
    matrix = scores(60, [0.0, 0.05, 0.0])
    matrix[:, 2] = np.nan
    result = stats.compare(matrix, keys=KEYS)
    assert result.standings[-1].key == "cedar" and result.standings[-1].interval.mean is None
    assert "cedar" not in result.best_group
    assert {c.verdict for c in result.pairs if "cedar" in (c.a, c.b)} == {"too little data"}
    assert any("cedar has no score" in warning for warning in result.warnings)


def test_a_different_selection_of_documents_cannot_hide_a_loss() -> None:
    # cedar skipped the hard half and so has the best mean, but loses on every document it shares.
    matrix = scores(120, [0.0, -0.3, -0.05], noise=0.01)
    matrix[:60, :2] -= 0.5
    matrix[:60, 2] = np.nan
    result = stats.compare(matrix, keys=KEYS)
    assert result.leader == "cedar"
    assert any(warning.startswith("amber is better than cedar") for warning in result.warnings)


def test_an_undecided_contrast_gets_more_flips_and_then_says_so() -> None:
    # 1.966 standard errors put p close to .05: undecided at 10,000 flips.
    noise = scores(200, [-0.4], noise=0.1, seed=9)
    noise -= noise.mean()
    shift = 1.966 * noise.std(ddof=1) / 200**0.5
    matrix = np.hstack([np.zeros_like(noise), noise + shift])
    capped = stats.compare(matrix, keys=KEYS[:2], max_resamples=10_000).pairs[0]
    assert abs(capped.p - 0.05) < 3 * capped.mc_error
    assert (capped.verdict, capped.resamples) == ("borderline", 10_000)
    assert stats.compare(matrix, keys=KEYS[:2], max_resamples=100_000).pairs[0].resamples == 100_000


def test_borderline_candidates_stay_in_the_best_group() -> None:
    noise = scores(200, [-0.4], noise=0.1, seed=9)
    noise -= noise.mean()
    matrix = np.hstack([np.zeros_like(noise), noise + 1.966 * noise.std(ddof=1) / 200**0.5])
    result = stats.compare(matrix, keys=KEYS[:2], max_resamples=10_000)
    assert set(result.best_group) == {"amber", "birch"}


def test_parts_together_equal_parts_apart() -> None:
    first, second = scores(110, [0.0, 0.05, 0.02]), scores(110, [0.1, 0.0, 0.02], seed=2)
    second[3, 1] = np.nan
    parts = {"one": stats.Part(first), "two": stats.Part(second, higher_is_better=False)}
    together = stats.compare_parts(parts, keys=KEYS, max_resamples=10_000)
    for name, part in parts.items():
        apart = stats.compare(part.matrix, keys=KEYS, higher_is_better=part.higher_is_better, max_resamples=10_000)
        assert [c.p for c in apart.pairs] == [c.p for c in together[name].pairs]
        assert [c.low for c in apart.pairs] == pytest.approx([c.low for c in together[name].pairs])
        assert apart.best_group == together[name].best_group


def test_a_contrast_told_backwards_is_the_same_evidence() -> None:
    contrast = stats.compare(scores(80, [0.0, 0.2, 0.1]), keys=KEYS).pairs[0]
    back = contrast.reversed()
    assert (back.a, back.b, back.difference) == (contrast.b, contrast.a, -contrast.difference)
    assert (back.low, back.high, back.win) == (-contrast.high, -contrast.low, contrast.loss)
    assert {contrast.verdict, back.verdict} == {"better", "worse"}
    assert back.reversed() == contrast


def test_versus_tells_of_everyone_else() -> None:
    result = stats.compare(scores(80, [0.0, 0.2, 0.1]), keys=KEYS)
    assert [(c.a, c.b) for c in result.versus("cedar")] == [("cedar", "birch"), ("cedar", "amber")]
    assert result.versus("birch") == result.versus_reference


def test_one_candidate_has_an_interval_and_no_rival() -> None:
    result = stats.compare(scores(40, [0.0]), keys=["amber"])
    assert (result.leader, result.best_group, result.pairs, result.mde) == ("amber", ("amber",), (), None)


def test_who_runs_alone_is_not_said_to_be_probably_the_best() -> None:
    result = stats.compare(scores(60, [0.0, -0.2, -0.1]), keys=KEYS, eligible=[True, False, False])
    alone = result.standing("amber")
    assert (alone.p_best, alone.rank_low, alone.rank_high) == (None, None, None)
    assert result.leader == "amber"


@pytest.mark.parametrize("documents", [40, 150])
def test_the_one_sided_bounds_are_those_that_non_inferiority_is_judged_by(documents: int) -> None:
    matrix = scores(documents, [0.0, 0.01])
    [pair] = stats.compare(matrix, keys=KEYS[:2]).pairs
    told = stats.non_inferiority(matrix[:, KEYS.index(pair.b)] - matrix[:, KEYS.index(pair.a)], 0.5)
    assert (pair.lower, pair.upper) == (pytest.approx(told.bound), pytest.approx(told.upper))
    assert pair.low < pair.lower < pair.difference < pair.upper < pair.high
    back = pair.reversed()
    assert (back.lower, back.upper, back.sd) == (-pair.upper, -pair.lower, pair.sd)


def test_the_bounds_of_groups_are_wider_than_those_of_documents() -> None:
    random = np.random.default_rng(2)
    labels = [f"g{number // 4}" for number in range(160)]
    shared = np.repeat(random.normal(0, 0.1, 40), 4)
    matrix = np.stack([random.normal(0.5, 0.01, 160), 0.5 + shared], axis=1)
    [alone] = stats.compare(matrix, keys=KEYS[:2]).pairs
    [together] = stats.compare(matrix, keys=KEYS[:2], groups=labels).pairs
    assert together.upper - together.lower > 1.5 * (alone.upper - alone.lower)


def test_nothing_scored_is_said_and_not_counted_as_zero() -> None:
    for matrix in (np.empty((0, 3)), np.full((40, 3), np.nan)):
        result = stats.compare(matrix, keys=KEYS)
        assert (result.leader, result.reference, result.best_group, result.n) == (None, None, (), 0)
        assert {standing.interval.mean for standing in result.standings} == {None}
        assert {contrast.reason for contrast in result.pairs} == {"no value"}


def test_baselines_alone_have_no_leader() -> None:
    result = stats.compare(scores(60, [0.0, 0.1, 0.2]), keys=KEYS, eligible=[False] * 3)
    assert (result.leader, result.ranked, result.best_group) == (None, False, ())
    assert [contrast.family for contrast in result.pairs] == ["baselines"] * 3
    assert result.warnings == ("All of these are baselines: none can lead.",)


def test_one_model_beside_baselines_still_learns_what_it_could_have_seen() -> None:
    result = stats.compare(scores(60, [0.0, 0.1, 0.2]), keys=KEYS, eligible=[True, False, False])
    assert (result.leader, result.best_group) == ("amber", ("amber",))
    assert result.mde == result.versus_reference[0].detectable


def test_the_record_is_json_and_signed() -> None:
    result = stats.compare(scores(120, [0.0, 0.1, 0.0]), keys=KEYS, seed=11)
    told = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert told["best_group"] == ["birch"]
    signature = told["signature"]
    assert (signature["seed"], signature["bootstrap"], signature["correction"]) == (11, 10_000, "holm")
    assert signature["resamples"] == stats.resamples_for(3)
    assert (signature["n"], signature["groups"], signature["versions"]["numpy"]) == (120, 120, np.__version__)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": []}, "no candidate to compare"),
        ({"keys": ["a", "b"]}, "expected (documents, 2 candidates)"),
        ({"keys": ["a", "b", "a"]}, "candidate key 'a' appears more than once"),
        ({"row_keys": [0] * 20}, "row key 0 appears more than once"),
        ({"row_keys": [1, 2]}, "2 row keys for 20 documents"),
        ({"groups": [1]}, "1 group labels for 20 documents"),
        ({"eligible": [True]}, "1 eligible flags for 3 candidates"),
        ({"reference": "dune"}, "'dune' is not a candidate"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        stats.compare(scores(20, [0, 0, 0]), **{"keys": KEYS, **options})
    assert message in str(caught.value)
