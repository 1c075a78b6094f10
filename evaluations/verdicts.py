"""Verdicts are the records in which a comparison is told: contrasts of two, standings of one, and the whole.

All are frozen, hold plain Python numbers and turn into JSON types through `as_dict`; an absent number is None.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from evaluations.resampling import Interval

Verdict = Literal["better", "worse", "no clear difference", "borderline", "too little data"]
TURNED: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Contrast:
    """Candidate `b` against `a` on the documents both have: `difference` is mean(b - a) with its interval.

    `verdict` speaks of b; "borderline" means that more flips could still change it. `win`, `tie` and `loss` count
    documents on which b is better, equal, worse. `p_holm` is corrected over `family` ("reference", "pairs" or
    "baselines"). `mc_error` is the Monte-Carlo error of p (0 when exact) and `resamples` the flips behind it.
    `detectable` is the smallest true difference that this many units show with 80 % power in one test, None where
    no unit differs. `n` counts documents, `groups` units. Absent bounds and p-values come with `reason`.
    `lower` and `upper` are the one-sided bounds (5 % beyond each) that non-inferiority is judged by, and `sd` is the
    standard deviation of the difference from unit to unit.
    """

    a: str
    b: str
    difference: float | None
    low: float | None
    high: float | None
    method: str
    p: float | None
    p_holm: float | None
    mc_error: float | None
    resamples: int
    exact: bool
    verdict: Verdict
    family: str
    win: int
    tie: int
    loss: int
    n: int
    groups: int
    detectable: float | None
    reason: str = ""
    lower: float | None = None
    upper: float | None = None
    sd: float | None = None

    def reversed(self) -> Contrast:
        """The same evidence, told about a."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            difference=_negated(self.difference),
            low=_negated(self.high),
            high=_negated(self.low),
            lower=_negated(self.upper),
            upper=_negated(self.lower),
            verdict=TURNED.get(self.verdict, self.verdict),
            win=self.loss,
            loss=self.win,
        )

    def about(self, key: str) -> Contrast:
        """This contrast with `key`, which is one of its two, as b."""
        return self if self.b == key else self.reversed()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Standing:
    """One candidate: its mean with interval, and its place where a ranking is allowed (else None).

    `p_best` is the share of bootstrap resamples in which it has the best mean among the eligible candidates, and
    `rank_low`..`rank_high` its 95 % rank interval there (1 is best); all None where it has no rival. `n` counts
    documents, `groups` units.
    """

    key: str
    interval: Interval
    n: int
    groups: int
    eligible: bool
    best_group: bool
    p_best: float | None
    rank_low: int | None
    rank_high: int | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """What one metric part says about all candidates; `standings` come best mean first, candidates without any last.

    `leader` is the eligible candidate with the best mean, None if the data is too small to rank (`ranked`).
    `versus_reference` tells of every other candidate against `reference`: the declared one, else the best mean.
    `pairs` tell of the lower-placed candidate b against the higher-placed a. `best_group` holds every eligible
    candidate that is not significantly worse than the leader. `mde` is the detectable difference of the contrast that
    matters: the reference against the best of the other eligible candidates that differs from it anywhere (the best
    baseline if there are no others). `rows` counts the documents given, `n` those with any score, `groups` their units.
    """

    standings: tuple[Standing, ...]
    leader: str | None
    reference: str | None
    ranked: bool
    best_group: tuple[str, ...]
    versus_reference: tuple[Contrast, ...]
    pairs: tuple[Contrast, ...]
    mde: float | None
    rows: int
    n: int
    groups: int
    higher_is_better: bool
    warnings: tuple[str, ...]
    signature: dict[str, Any]

    def standing(self, key: str) -> Standing:
        """The standing of one candidate. Raises KeyError."""
        for standing in self.standings:
            if standing.key == key:
                return standing
        raise KeyError(key)

    def versus(self, key: str) -> tuple[Contrast, ...]:
        """Every pair that `key` is in, told about the other candidate and corrected over all pairs."""
        return tuple(pair.about(pair.b if pair.a == key else pair.a) for pair in self.pairs if key in (pair.a, pair.b))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _negated(value: float | None) -> float | None:
    return None if value is None else 0.0 - value  # 0.0 - 0.0 is 0.0, where -0.0 would print as "-0"
