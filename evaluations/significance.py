"""Significance holds the short rules: many tests at once, rates, non-inferiority, and how much data is enough.

Sources: Wilson 1927 (rates); Holm 1979; Benjamini & Hochberg 1995; Card et al. 2020 (power of NLP comparisons).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evaluations.distributions import normal_quantile, t_quantile
from evaluations.resampling import BOOTSTRAP_FROM, TIE, Interval, bootstrap_means, standard_error

POWER, ALPHA = 0.8, 0.05


@dataclass(frozen=True)
class NonInferiority:
    """May B replace A? `bound` is the one-sided limit of how much worse B may be, in score units, B minus A oriented
    so that negative is worse; `verdict` is "non-inferior", "worse" (by more than the margin) or "inconclusive".

    `n_needed` is given when the verdict is "inconclusive" and more data could help; `reason` says why it is absent.
    """

    verdict: str
    margin: float
    difference: float | None
    bound: float | None
    upper: float | None
    n: int
    n_needed: int | None
    method: str
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values in the order given: reject where the adjusted value is <= alpha. Raises ValueError."""
    p = _probabilities(p_values)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini-Hochberg adjusted p-values in the order given: at level q, a share q of the finds may be false.

    For slices and secondary metrics; label what comes out as exploratory. Raises ValueError.
    """
    p = _probabilities(p_values)
    order = np.argsort(p, kind="stable")
    steps = p[order] * (len(p) / np.arange(1, len(p) + 1))  # the last factor is exactly 1: never below p itself
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0)
    return [float(value) for value in adjusted]


def _probabilities(p_values: Sequence[float]) -> npt.NDArray[np.float64]:
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():  # nan fails this too
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}: leave out tests that were not made")
    return p


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a rate; for n = 0 there is no rate, with the reason. Raises ValueError."""
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n, not {successes} of {n}")
    if n == 0:
        return Interval(None, None, None, "none", 0, "no value")
    z, rate = normal_quantile(0.5 + confidence / 2), successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At 0 of n and n of n the bound is the rate itself; rounding must not push it past.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(rate, low, high, "wilson", n)


def win_tie_loss(
    differences: npt.ArrayLike, tolerance: float = TIE, *, higher_is_better: bool = True
) -> tuple[int, int, int]:
    """On how many documents the difference is better, within `tolerance` of none, and worse; nan counts nowhere."""
    values = np.asarray(differences, dtype=np.float64)
    oriented = values if higher_is_better else -values
    return (
        int((oriented > tolerance).sum()),
        int((np.abs(oriented) <= tolerance).sum()),
        int((oriented < -tolerance).sum()),
    )


def mde(sd: float, n: int, *, power: float = POWER, alpha: float = ALPHA) -> float:
    """Smallest true difference that `n` units detect with this power: (1.96 + 0.84) SD / sqrt(n) = 2.80 SD / sqrt(n).

    `sd` is the standard deviation of the paired differences. Two-sided, one test. Raises ValueError.
    """
    if sd < 0 or n < 1:
        raise ValueError(f"sd must be >= 0 and n >= 1, not {sd} and {n}")
    return _reach(power, alpha) * sd / math.sqrt(n)


def n_needed(sd: float, delta: float, *, power: float = POWER, alpha: float = ALPHA) -> int:
    """Units needed to detect a true difference `delta` with this power: `mde` solved for n. Raises ValueError."""
    if sd < 0 or delta == 0:
        raise ValueError(f"sd must be >= 0 and delta not 0, not {sd} and {delta}")
    return max(1, math.ceil((_reach(power, alpha) * sd / delta) ** 2))


def _reach(power: float, alpha: float) -> float:
    return normal_quantile(1 - alpha / 2) + normal_quantile(power)


def non_inferiority(
    differences: npt.ArrayLike,
    margin: float,
    *,
    weights: npt.ArrayLike | None = None,
    higher_is_better: bool = True,
    alpha: float = ALPHA,
    seed: int = 0,
    resamples: int = 10_000,
) -> NonInferiority:
    """Is B at most `margin` (> 0, score units) worse than A, given (units,) differences B - A, nan for absent?

    Proven iff the lower one-sided 1 - alpha bound is above -margin; "worse" iff the upper one is below it. The bound
    is t below 100 units and bootstrap from there on. `n_needed` supposes that the true difference is the observed
    one. Raises ValueError for a margin that is not positive.
    """
    if not margin > 0:
        raise ValueError(f"the margin must be positive, not {margin}: it is the loss that you would accept")
    values = np.asarray(differences, dtype=np.float64).ravel()
    sizes = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    kept = ~np.isnan(values) & (sizes > 0)
    sums, sizes = (values * sizes)[kept] * (1 if higher_is_better else -1), sizes[kept]
    units, error = len(sums), standard_error(sums, sizes)
    mean = float(sums.sum() / sizes.sum()) if units else None
    if mean is None or error is None:
        reason = f"{units} paired units: at least two are needed for a bound"
        return NonInferiority("inconclusive", margin, mean, None, None, units, None, "none", reason)
    boot = None
    if units >= BOOTSTRAP_FROM:
        boot = bootstrap_means(sums[:, None], sizes[:, None], resamples=resamples, seed=seed)[:, 0]
    bound, upper = one_sided(mean, error, units, boot, alpha=alpha)
    return judged(margin, mean, bound, upper, sd=error * math.sqrt(units), units=units, alpha=alpha)


def one_sided(
    mean: float, error: float, units: int, boot: npt.NDArray[np.float64] | None, *, alpha: float = ALPHA
) -> tuple[float, float]:
    """(lower, upper): the bounds with `alpha` beyond each, t below 100 units and from bootstrap means from there on."""
    if units < BOOTSTRAP_FROM:
        half = t_quantile(1 - alpha, units - 1) * error
        return mean - half, mean + half
    if boot is None:
        raise ValueError(f"{units} units need their bootstrap means: pass boot")
    lower, upper = np.nanquantile(boot, [alpha, 1 - alpha])
    return float(lower), float(upper)


def judged(
    margin: float, difference: float, bound: float, upper: float, *, sd: float, units: int, alpha: float = ALPHA
) -> NonInferiority:
    """The verdict at `margin` (>= 0) on a difference with its one-sided bounds, oriented so that negative is worse.

    `sd` is the standard deviation of the difference from unit to unit. See `non_inferiority`. Raises ValueError.
    """
    if not margin >= 0:
        raise ValueError(f"the margin cannot be negative, as {margin} is: it is the loss that you would accept")
    method = "t" if units < BOOTSTRAP_FROM else "bootstrap"
    if bound > -margin or upper < -margin:
        verdict = "non-inferior" if bound > -margin else "worse"
        return NonInferiority(verdict, margin, difference, bound, upper, units, None, method)
    room = margin + difference
    if room <= 0:
        reason = "the observed loss is as large as the margin: more documents would not prove non-inferiority"
        return NonInferiority("inconclusive", margin, difference, bound, upper, units, None, method, reason)
    # One-sided, so alpha is not halved; 80 % power.
    needed = n_needed(sd, room, alpha=2 * alpha)
    return NonInferiority("inconclusive", margin, difference, bound, upper, units, max(needed, units + 1), method)
