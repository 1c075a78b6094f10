"""What the rules promise in the long run, measured by simulation on scores shaped like real ones.

Scores lie in [0, 1], are skewed, share each document's difficulty and have a floor of zeros (failed outputs). Bands
hold the promised range of the statistics guide; seeds are fixed, so a failure is a change in the code.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evaluations import stats
from evaluations.resampling import interval_of


def rouge_like(random: np.random.Generator, documents: int, columns: int) -> np.ndarray:
    """(documents, columns) scores; every column is drawn alike."""
    difficulty = random.beta(3, 4, (documents, 1))
    values = np.clip(difficulty * random.gamma(6, 1 / 6, (documents, columns)), 0, 1)
    return np.where(random.random((documents, columns)) < 0.05, 0.0, values)


def gaps(seed: int, documents: int, simulations: int) -> np.ndarray:
    """(documents, simulations) differences of two equal systems, a fresh pair in each column."""
    random = np.random.default_rng(seed)
    pairs = [rouge_like(random, documents, 2) for _ in range(simulations)]
    return np.stack([pair[:, 1] - pair[:, 0] for pair in pairs], axis=1)


def rejected(differences: np.ndarray, resamples: int = 2_000) -> float:
    tests = stats.sign_flip_many(differences, resamples=resamples, seed=1)
    return float(np.mean([test.p <= 0.05 for test in tests if test is not None]))


@pytest.mark.parametrize("documents", [10, 20, 30, 100, 200])
def test_equal_systems_are_told_apart_in_one_of_twenty_tests(documents: int) -> None:
    # 3,000 simulations: a true 5 % stays within .038-.062 (three standard errors).
    assert 0.035 <= rejected(gaps(documents, documents, 3_000)) <= 0.065


def test_eight_equal_candidates_rarely_show_any_difference() -> None:
    random = np.random.default_rng(8)
    sides = list(itertools.combinations(range(8), 2))
    tables = [rouge_like(random, 40, 8) for _ in range(400)]
    left, right = [i for i, _ in sides], [j for _, j in sides]
    tests = stats.sign_flip_many(np.hstack([t[:, right] - t[:, left] for t in tables]), resamples=4_000, seed=2)
    all_pairs = picked = 0
    for number, table in enumerate(tables):
        p = [test.p for test in tests[28 * number : 28 * (number + 1)] if test is not None]
        best = int(table.mean(axis=0).argmax())
        all_pairs += min(stats.holm(p)) <= 0.05
        picked += min(stats.holm([p[m] for m, pair in enumerate(sides) if best in pair])) <= 0.05
    assert all_pairs / 400 <= 0.06
    # Why a leader picked by its score is never corrected over its own seven contrasts only.
    assert picked / 400 >= 0.08


@pytest.mark.parametrize("documents", [30, 60, 100, 200])
def test_intervals_of_the_difference_hold_the_truth_in_nineteen_of_twenty(documents: int) -> None:
    differences = gaps(1000 + documents, documents, 2_000)  # true mean 0; 95 % within .935-.965
    boot = stats.bootstrap_means(differences, resamples=2_000, seed=3)
    sizes = np.ones(documents)
    spans = [interval_of(differences[:, j], sizes, boot[:, j]) for j in range(differences.shape[1])]
    held = np.mean([span.low <= 0 <= span.high for span in spans])  # type: ignore[operator]
    assert 0.93 <= held <= 0.97
    assert {span.method for span in spans} == {"t" if documents < 100 else "bootstrap"}


@pytest.mark.parametrize("documents", [50, 200])
def test_the_detectable_difference_is_detected_four_times_in_five(documents: int) -> None:
    null = gaps(7, documents, 2_000)
    shift = stats.mde(float(gaps(8, 200, 500).std()), documents)
    assert 0.75 <= rejected(null + shift) <= 0.85


def test_flipping_groups_is_right_where_flipping_documents_is_not() -> None:
    random = np.random.default_rng(4)
    labels = np.repeat(np.arange(40), random.integers(2, 8, 40))
    shared = random.normal(0, 0.1, (40, 2_000))[labels]  # what documents of one customer have in common
    differences = shared + random.normal(0, 0.05, shared.shape)
    units = stats.by_group(differences, labels.tolist())
    assert rejected(differences) > 0.15
    tests = stats.sign_flip_many(units.means, units.sizes, resamples=2_000, seed=1)
    assert 0.035 <= np.mean([test.p <= 0.05 for test in tests if test is not None]) <= 0.065


@pytest.mark.parametrize("documents", [40, 150])
def test_an_inferior_candidate_is_accepted_in_one_of_twenty_at_most(documents: int) -> None:
    # The truth lies exactly on the margin, the hardest case of "is not worse by more than this".
    differences = gaps(60 + documents, documents, 400) - 0.02
    proven = [
        stats.non_inferiority(differences[:, j], 0.02, resamples=500).verdict == "non-inferior" for j in range(400)
    ]
    assert np.mean(proven) <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def test_the_best_candidate_stays_in_the_best_group() -> None:
    kept = 0
    for number in range(40):
        table = rouge_like(np.random.default_rng(900 + number), 60, 5)
        table[:, 2] += 0.02
        result = stats.compare(table, keys=list("abcde"), bootstrap=200, max_resamples=10_000)
        kept += "c" in result.best_group
    assert kept >= 38


def test_the_seed_moves_p_within_its_stated_error() -> None:
    differences = gaps(12, 120, 1)[:, 0] + 0.01
    runs = [stats.sign_flip(differences, resamples=10_000, seed=seed) for seed in range(60)]
    spread = float(np.std([run.p for run in runs]))
    assert spread == pytest.approx(runs[0].se, rel=0.35)
