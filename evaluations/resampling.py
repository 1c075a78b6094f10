"""Resampling answers "could this difference be luck?" and "how far could the mean move?" from per-document scores.

The unit is the group (a document without a group is its own unit); a mean is always the plain mean over documents,
so a unit enters as a sum of scores and a size. Signs and draws depend on the seed, the number of resamples and the
number of units only, never on scores: every column of one call shares them, which keeps all comparisons paired.

Sources: sign-flip (approximate randomization) test, Riezler & Maxwell 2005; (c + 1)/(R + 1), Phipson & Smyth 2010;
bootstrap by group and clustered standard errors, Miller 2024, "Adding Error Bars to Evals".
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluations.distributions import mcnemar_exact, t_quantile

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TIE = 1e-12  # relative: summation order moves a sum by about 1e-14, a real score difference by far more
EXACT_LIMIT = 10_000  # enumerate every sign pattern up to this many: 13 units that differ
MAX_RESAMPLES = 1_000_000
BOOTSTRAP_FROM = 100  # units; below it the percentile bootstrap is too narrow and the t interval is right
BLOCK = 1_000_000  # numbers in one block of signs, draws or products: 8 MB, measured fastest between 1 and 16 MB
SIGNS, DRAWS = 1, 2  # separate random streams of one seed


@dataclass(frozen=True)
class Units:
    """Scores summed inside each unit: `sums` and `sizes` are (units, columns); absent scores count in neither."""

    sums: Floats
    sizes: Floats

    @property
    def means(self) -> Floats:
        """Mean of each unit (units, columns), nan where the unit has no score."""
        return _divide(self.sums, self.sizes)

    @property
    def column_means(self) -> Floats:
        """Plain mean over documents (columns,), nan where a column has no score at all."""
        return _divide(self.sums.sum(axis=0), self.sizes.sum(axis=0))

    @property
    def present(self) -> Ints:
        """How many units have a score, per column."""
        return np.asarray((self.sizes > 0).sum(axis=0), dtype=np.int64)


@dataclass(frozen=True)
class Gaps:
    """Columns written as differences of fewer ones: column m is `sums[:, right[m]] - sums[:, left[m]]`.

    Flips and draws are linear, so k candidates cost k products, and their k(k - 1)/2 differences next to nothing
    (8 candidates, 10 metric parts: 80 columns in place of 280).
    """

    sums: Floats  # (units, basis)
    left: Ints
    right: Ints

    def __len__(self) -> int:
        return len(self.left)

    @staticmethod
    def of(columns: Floats) -> Gaps:
        """Columns that stand for themselves: differences from a column of zeros."""
        zeros = np.zeros((len(columns), 1))
        right = np.arange(1, columns.shape[1] + 1, dtype=np.int64)
        return Gaps(np.hstack([zeros, columns]), np.zeros_like(right), right)

    @staticmethod
    def joined(several: Sequence[Gaps]) -> Gaps:
        """All columns of `several` (at least one, same units), in order."""
        starts = np.cumsum([0] + [gaps.sums.shape[1] for gaps in several[:-1]])
        return Gaps(
            np.hstack([gaps.sums for gaps in several]),
            np.concatenate([gaps.left + start for gaps, start in zip(several, starts, strict=True)]),
            np.concatenate([gaps.right + start for gaps, start in zip(several, starts, strict=True)]),
        )

    def only(self, chosen: Sequence[int]) -> Gaps:
        """The chosen columns, on just the basis they need."""
        used, where = np.unique(np.concatenate([self.left[chosen], self.right[chosen]]), return_inverse=True)
        return Gaps(np.ascontiguousarray(self.sums[:, used]), where[: len(chosen)], where[len(chosen) :])

    def column(self, m: int) -> Floats:
        return np.asarray(self.sums[:, self.right[m]] - self.sums[:, self.left[m]])

    def between(self, products: Floats) -> Floats:
        """(rows, basis) products turned into (rows, columns)."""
        return np.asarray(products[:, self.right] - products[:, self.left])


@dataclass(frozen=True)
class SignFlip:
    """A two-sided p-value, its Monte-Carlo standard error (0 when exact) and the sign patterns looked at."""

    p: float
    se: float
    exact: bool
    resamples: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Interval:
    """A mean with its bounds; `method` is "t", "bootstrap", "wilson" or "none", and "none" comes with its `reason`.

    `n` counts the units that the interval rests on.
    """

    mean: float | None
    low: float | None
    high: float | None
    method: str
    n: int
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def by_group(values: npt.ArrayLike, groups: Sequence[Hashable | None] | None = None) -> Units:
    """Sum (documents, columns) scores, nan for absent, into units in order of first appearance.

    `groups` holds one label a document; None as a label, or no groups at all, makes the document its own unit.
    Raises ValueError on an infinite score and on a label count that differs from the document count.
    """
    table = _table(values)
    absent = np.isnan(table)
    filled = np.where(absent, 0.0, table)
    if groups is None:
        return Units(filled, (~absent).astype(np.float64))
    if len(groups) != len(table):
        raise ValueError(f"{len(groups)} group labels for {len(table)} documents: give one label (or None) a document")
    codes, total = group_codes(groups)
    return Units(_summed(filled, codes, total), _summed((~absent).astype(np.float64), codes, total))


def _summed(table: Floats, codes: Ints, units: int) -> Floats:
    """Column sums inside each unit: (units, columns)."""
    sums = np.empty((units, table.shape[1]))
    for j in range(table.shape[1]):
        sums[:, j] = np.bincount(codes, weights=table[:, j], minlength=units)
    return sums


def group_codes(groups: Sequence[Hashable | None]) -> tuple[Ints, int]:
    """Unit number of each document, by first appearance, and the number of units; None is a unit of its own."""
    seen: dict[object, int] = {}
    codes = [seen.setdefault(object() if label is None else label, len(seen)) for label in groups]
    return np.array(codes, dtype=np.int64), len(seen)


def standard_error(sums: Floats, sizes: Floats) -> float | None:
    """Standard error of the mean over documents when whole units are drawn; None below two units.

    With units of one document this is the familiar SD/sqrt(n). Units of size 0 are left out.
    """
    sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    units, documents = len(sums), float(sizes.sum())
    if units < 2:
        return None
    residuals = sums - sizes * (sums.sum() / documents)
    return math.sqrt(units / (units - 1) * float(residuals @ residuals)) / documents


def sign_flip(
    differences: npt.ArrayLike, weights: npt.ArrayLike | None = None, *, resamples: int = 10_000, seed: int = 0
) -> SignFlip:
    """Two-sided paired sign-flip test that the mean of (units,) differences is zero.

    `weights` are the units' document counts when differences are unit means. See `sign_flip_many`.
    Raises ValueError when no difference is present.
    """
    column = np.asarray(differences, dtype=np.float64).reshape(-1, 1)
    [result] = sign_flip_many(column, weights, resamples=resamples, seed=seed)
    if result is None:
        raise ValueError("no pair to test: every difference is absent; compare candidates that share documents")
    return result


def sign_flip_many(
    differences: npt.ArrayLike, weights: npt.ArrayLike | None = None, *, resamples: int = 10_000, seed: int = 0
) -> list[SignFlip | None]:
    """The sign-flip test for each column of (units, columns) differences; nan pairs are left out column by column.

    p is exact when 2^z <= 10,000 for the z differences that are not zero (flipping a zero changes nothing, so the
    zeros halve no probability), and when all nonzero differences are equally large (then it is McNemar's exact
    test). Otherwise p = (c + 1)/(R + 1), where c counts flips whose |sum| reaches the observed one, ties included.
    None stands for a column without any pair.
    """
    table = _table(differences)
    present = ~np.isnan(table)
    sizes = np.ones(len(table)) if weights is None else np.asarray(weights, dtype=np.float64)
    sums = np.where(present, table, 0.0) * (sizes[:, None] if sizes.ndim == 1 else sizes)
    return flip_gaps(Gaps.of(sums), np.asarray(present.any(axis=0)), resamples=resamples, seed=seed)


def flip_gaps(gaps: Gaps, tested: npt.NDArray[np.bool_], *, resamples: int, seed: int) -> list[SignFlip | None]:
    """`sign_flip_many` on columns given as gaps of unit sums, 0 for an absent pair; None where not tested."""
    if not 1 <= resamples <= MAX_RESAMPLES:
        raise ValueError(f"resamples must lie between 1 and {MAX_RESAMPLES:,}, not {resamples:,}")
    results: list[SignFlip | None] = [_exact(gaps.column(m)) if tested[m] else None for m in range(len(gaps))]
    left = [m for m, result in enumerate(results) if result is None and tested[m]]
    if left:
        reached = _count_reached(gaps.only(left), resamples, seed)
        for m, count in zip(left, reached, strict=True):
            p = (int(count) + 1) / (resamples + 1)
            results[m] = SignFlip(p, math.sqrt(p * (1 - p) / resamples), False, resamples)
    return results


def _exact(sums: Floats) -> SignFlip | None:
    """The exact test where it is cheap, else None."""
    tolerance = TIE * float(np.abs(sums).sum())
    moved = sums[np.abs(sums) > tolerance]
    if len(moved) == 0:
        return SignFlip(1.0, 0.0, True, 1)
    if 2 ** len(moved) <= EXACT_LIMIT:
        patterns = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        flipped = np.abs((2.0 * patterns - 1.0) @ moved)
        reached = flipped >= abs(float(moved.sum())) - tolerance
        return SignFlip(float(reached.mean()), 0.0, True, len(patterns))
    size = np.abs(moved)
    if size.max() - size.min() <= TIE * size.max():
        wins = int((moved > 0).sum())
        return SignFlip(mcnemar_exact(wins, len(moved) - wins), 0.0, True, 0)
    return None


def _count_reached(gaps: Gaps, resamples: int, seed: int) -> Ints:
    """How many of `resamples` random flips reach |observed sum|, per column; one bit a unit and flip, shared."""
    units = len(gaps.sums)
    scale = np.abs(gaps.sums).sum(axis=0)
    total = gaps.between(gaps.sums.sum(axis=0, keepdims=True))
    threshold = np.abs(total) - TIE * (scale[gaps.right] + scale[gaps.left])
    words = -(-units // 64)
    bits = np.random.PCG64(np.random.SeedSequence((seed, SIGNS, resamples)))
    reached = np.zeros(len(gaps), dtype=np.int64)
    width = max(units, len(gaps))
    buffer = np.empty((_block_rows(width), units))
    for start, stop in _blocks(resamples, width):
        raw = bits.random_raw((stop - start) * words).view(np.uint8).reshape(stop - start, -1)
        heads = buffer[: stop - start]
        np.copyto(heads, np.unpackbits(raw, axis=1, count=units))
        # With heads in {0, 1} the flipped sum is 2 * heads @ column - total: no matrix of signs is built.
        reached += (np.abs(2.0 * gaps.between(heads @ gaps.sums) - total) >= threshold).sum(axis=0)
    return reached


def resamples_for(tests: int, alpha: float = 0.05) -> int:
    """Flips needed so that Holm over `tests` can reject: max(10,000, 200 m/alpha), up to a power of ten, at most 1e6.

    Raises ValueError unless tests >= 0 and 0 < alpha < 1.
    """
    if tests < 0 or not 0 < alpha < 1:
        raise ValueError(f"tests must be >= 0 and alpha inside (0, 1), not {tests} and {alpha}")
    wanted, resamples = round(200 * tests / alpha, 6), 10_000
    while resamples < wanted and resamples < MAX_RESAMPLES:
        resamples *= 10
    return resamples


def bootstrap_means(
    sums: npt.ArrayLike, sizes: npt.ArrayLike | None = None, *, resamples: int = 10_000, seed: int = 0
) -> Floats:
    """Means of every column in every bootstrap resample of whole units: (resamples, columns).

    `sums` and `sizes` are (units, columns) as `by_group` gives them; without sizes each unit counts once. Draws are
    made once a block as counts (`bincount`) and multiplied with all columns, so that pairing between columns holds
    and differences of columns are free. nan where a resample holds no score of a column.
    """
    table = np.ascontiguousarray(_table(sums))
    if sizes is None:
        distinct, where = np.ones((len(table), 1)), np.zeros(table.shape[1], dtype=np.int64)
    else:
        distinct, where = _distinct_columns(np.asarray(sizes, dtype=np.float64))
    means = np.full((resamples, table.shape[1]), np.nan)
    if len(table) == 0:
        return means
    for start, stop, counts in unit_draws(len(table), table.shape[1], resamples, seed):
        means[start:stop] = _divide(counts @ table, (counts @ distinct)[:, where])
    return means


def bootstrap_totals(sums: npt.ArrayLike, *, resamples: int = 10_000, seed: int = 0) -> Floats:
    """Sums of every column over each bootstrap resample of whole units: (resamples, columns) from (units, columns).

    The draws are those of `bootstrap_means`, so a value made of totals is paired with the means of the same units.
    """
    table = np.ascontiguousarray(_table(sums))
    totals = np.zeros((resamples, table.shape[1]))
    if len(table):
        for start, stop, counts in unit_draws(len(table), table.shape[1], resamples, seed):
            totals[start:stop] = counts @ table
    return totals


def unit_draws(units: int, columns: int, resamples: int, seed: int) -> Iterator[tuple[int, int, Floats]]:
    """Blocks of how often each unit was drawn: rows (resamples of the block, units), each summing to `units`."""
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, DRAWS, resamples))))
    for start, stop in _blocks(resamples, max(units, columns)):
        rows = stop - start
        drawn = random.integers(0, units, size=(rows, units), dtype=np.int64)
        drawn += np.arange(rows, dtype=np.int64)[:, None] * units
        counts = np.bincount(drawn.ravel(), minlength=rows * units)
        yield start, stop, counts.reshape(rows, units).astype(np.float64)


def _block_rows(width: int) -> int:
    return max(1, BLOCK // max(width, 1))


def _blocks(resamples: int, width: int) -> Iterator[tuple[int, int]]:
    """Steps through the resamples so that a block `width` numbers wide stays in cache; the size changes no number."""
    rows = _block_rows(width)
    for start in range(0, resamples, rows):
        yield start, min(start + rows, resamples)


def _distinct_columns(sizes: Floats) -> tuple[Floats, Ints]:
    """The different columns of `sizes`, and which one each column is: mostly all columns are one and the same."""
    seen: dict[bytes, int] = {}
    where = np.array([seen.setdefault(column.tobytes(), len(seen)) for column in sizes.T], dtype=np.int64)
    first = [int(np.argmax(where == j)) for j in range(len(seen))]
    return np.ascontiguousarray(sizes[:, first]), where


def interval(
    values: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 10_000,
) -> Interval:
    """Interval of the mean of (units,) values, nan for absent: t below 100 units, percentile bootstrap from there on.

    `weights` are the units' document counts when values are unit means.
    """
    means = np.asarray(values, dtype=np.float64).ravel()
    sizes = np.ones(len(means)) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    kept = ~np.isnan(means) & (sizes > 0)
    sums, sizes = (means * sizes)[kept], sizes[kept]
    boot = None
    if len(sums) >= BOOTSTRAP_FROM:
        boot = bootstrap_means(sums[:, None], sizes[:, None], resamples=resamples, seed=seed)[:, 0]
    return interval_of(sums, sizes, boot, confidence=confidence)


def interval_of(sums: Floats, sizes: Floats, boot: Floats | None, *, confidence: float = 0.95) -> Interval:
    """`interval` from unit sums and sizes (units,) and, for 100 units or more, their bootstrap means (resamples,)."""
    _check_confidence(confidence)
    units = int((sizes > 0).sum())
    if units == 0:
        return Interval(None, None, None, "none", 0, "no value")
    mean = float(sums.sum() / sizes.sum())
    error = standard_error(sums, sizes)
    if error is None:
        return Interval(mean, None, None, "none", units, "one unit has no spread: at least two are needed")
    if units < BOOTSTRAP_FROM:
        half = t_quantile(0.5 + confidence / 2, units - 1) * error
        return Interval(mean, mean - half, mean + half, "t", units)
    if boot is None:
        raise ValueError(f"{units} units need their bootstrap means: pass boot")
    low, high = np.nanquantile(boot, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(mean, float(low), float(high), "bootstrap", units)


def p_best(boot: Floats, *, higher_is_better: bool = True) -> Floats:
    """Share of resamples in which each candidate of (resamples, candidates) has the best mean; a tie is shared."""
    best = _best_mask(boot if higher_is_better else -boot)
    return np.asarray((best / best.sum(axis=1, keepdims=True)).mean(axis=0))


def _best_mask(boot: Floats) -> npt.NDArray[np.bool_]:
    filled = np.where(np.isnan(boot), -np.inf, boot)
    top = filled.max(axis=1, keepdims=True)
    return np.asarray(filled >= top - TIE * np.abs(top))


def rank_intervals(boot: Floats, *, higher_is_better: bool = True, confidence: float = 0.95) -> list[tuple[int, int]]:
    """First and last plausible rank (1 is best) of each candidate of (resamples, candidates).

    A rank is 1 + the number of candidates that are better by more than rounding.
    """
    _check_confidence(confidence)
    score = boot if higher_is_better else -boot
    slack = TIE * np.abs(score)
    ranks = np.stack([1 + (score > (score + slack)[:, [j]]).sum(axis=1) for j in range(score.shape[1])], axis=1)
    tail = 0.5 - confidence / 2
    low = np.quantile(ranks, tail, axis=0, method="inverted_cdf")
    high = np.quantile(ranks, 1 - tail, axis=0, method="inverted_cdf")
    return [(int(first), int(last)) for first, last in zip(low, high, strict=True)]


def _table(values: npt.ArrayLike) -> Floats:
    """A (rows, columns) float array; ValueError on another shape or an infinite number."""
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"expected a table (rows, columns), got an array of shape {table.shape}")
    if np.isinf(table).any():
        row, column = np.argwhere(np.isinf(table))[0]
        raise ValueError(f"infinite value in row {row}, column {column}: give nan for a score that is absent")
    return table


def _divide(above: Floats, below: Floats) -> Floats:
    """Quotient with nan where the divisor is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(below > 0, above / below, np.nan))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie inside (0, 1), not {confidence}: 0.95 means 95 %")
