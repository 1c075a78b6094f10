"""Distributions give the probabilities that the small-sample rules need: Student's t and the fair-coin binomial.

Only the standard library is used. The regularised incomplete beta function is evaluated by its continued fraction
(NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov/8.17#v) with the modified Lentz recurrence;
Student's t and the binomial tail both follow from it (DLMF 8.17.5).
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

PRECISION = 1e-15
FLOOR = 1e-300  # keeps the Lentz recurrence away from a division by zero
MAX_TERMS = 100_000  # about sqrt(max(a, b)) are used; this many would mean a defect, not a hard case


def normal_quantile(probability: float) -> float:
    """The z with P(Z <= z) = `probability` in (0, 1), Z standard normal."""
    return NormalDist().inv_cdf(probability)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta I_x(a, b) in [0, 1], for a, b > 0 and x in [0, 1].

    Raises ValueError outside that domain.
    """
    if not (a > 0 and b > 0 and 0 <= x <= 1):
        raise ValueError(f"incomplete_beta needs a, b > 0 and 0 <= x <= 1, not a={a}, b={b}, x={x}")
    if x in (0.0, 1.0):
        return x
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    front = math.exp(log_front)
    # The fraction converges fast below the mean of the Beta(a, b) and slowly above it: use the mirror image there.
    if x < (a + 1) / (a + b + 2):
        return min(1.0, front * _beta_fraction(a, b, x) / a)
    return max(0.0, 1.0 - front * _beta_fraction(b, a, 1 - x) / b)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction 1/(1 + d1/(1 + d2/(1 + ...))) of DLMF 8.17.22."""
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    result = d
    for m in range(1, MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            step = c * d
            result *= step
        if abs(step - 1.0) < PRECISION:
            return result
    raise ArithmeticError(f"the beta fraction did not converge for a={a}, b={b}, x={x}")


def _away_from_zero(value: float) -> float:
    return value if abs(value) > FLOOR else FLOOR


def t_tail(t: float, df: float) -> float:
    """P(T > t) for t >= 0 and Student's t with `df` > 0 degrees of freedom."""
    return 0.5 * incomplete_beta(df / 2, 0.5, df / (df + t * t))


@lru_cache(maxsize=1024)
def t_quantile(probability: float, df: float) -> float:
    """The t with P(T <= t) = `probability` in (0, 1), by bisection of the tail.

    Raises ValueError for a probability outside (0, 1) or df <= 0.
    """
    if not (0 < probability < 1 and df > 0):
        raise ValueError(f"t_quantile needs 0 < probability < 1 and df > 0, not {probability} and {df}")
    if probability == 0.5:
        return 0.0
    tail, low, high = min(probability, 1 - probability), 0.0, 1.0
    while t_tail(high, df) > tail:
        low, high = high, 2 * high
    while high - low > 1e-14 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, df) > tail else (low, middle)
    return math.copysign((low + high) / 2, probability - 0.5)


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact McNemar p-value of `b` documents won against `c` lost; documents alike on both sides say nothing.

    Under the null each of the b + c is a fair coin: p = min(1, 2 P(X <= min(b, c))). No discordant document gives 1.
    Raises ValueError for a negative count. Source: McNemar 1947, in its exact (binomial) form.
    """
    if b < 0 or c < 0:
        raise ValueError(f"counts cannot be negative: b={b}, c={c}")
    fewer, n = min(b, c), b + c
    if 2 * fewer >= n - 1:  # both tails together cover every outcome
        return 1.0
    return min(1.0, 2 * incomplete_beta(n - fewer, fewer + 1, 0.5))
