"""Stats turn per-document scores into what may honestly be said about candidates; `compare` is the whole answer.

The rules: paired sign-flip tests; Holm over a family that is fixed before the scores are seen; intervals of the
difference, never overlapping intervals; a best group instead of a forced winner; silence where the data is too small.
Numpy only. The same scores, keys and seed give the same numbers in whatever order they arrive: candidates are put in
the order of their keys, and documents in the order of their row keys, before anything is summed or drawn.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from evaluations.distributions import mcnemar_exact
from evaluations.resampling import (
    MAX_RESAMPLES,
    TIE,
    Floats,
    Gaps,
    Interval,
    SignFlip,
    Units,
    bootstrap_means,
    by_group,
    flip_gaps,
    interval,
    interval_of,
    p_best,
    rank_intervals,
    resamples_for,
    sign_flip,
    sign_flip_many,
    standard_error,
)
from evaluations.significance import (
    NonInferiority,
    benjamini_hochberg,
    holm,
    mde,
    n_needed,
    non_inferiority,
    one_sided,
    wilson,
    win_tie_loss,
)
from evaluations.verdicts import Comparison, Contrast, Standing, Verdict

__all__ = [
    "Comparison",
    "Contrast",
    "Interval",
    "NonInferiority",
    "Part",
    "SignFlip",
    "Standing",
    "Units",
    "benjamini_hochberg",
    "bootstrap_means",
    "by_group",
    "compare",
    "compare_parts",
    "holm",
    "interval",
    "mcnemar_exact",
    "mde",
    "n_needed",
    "non_inferiority",
    "one_sided",
    "p_best",
    "rank_intervals",
    "resamples_for",
    "sign_flip",
    "sign_flip_many",
    "standard_error",
    "wilson",
    "win_tie_loss",
]

EXAMPLES_BELOW = 10  # units; fewer give no interval and no test
RANKING_FROM = 30  # units; fewer name no leader and exclude nobody
FIRST_PASS = 100_000  # flips for every contrast at most; only those left undecided pay for more
BORDER = 3  # Monte-Carlo errors on either side of Holm's threshold that count as undecided
METHODS = {"sign_flip": "1", "interval": "1", "p_best": "1"}  # raise one when its numbers change

Family = Literal["auto", "reference", "pairs"]


@dataclass(frozen=True)
class Part:
    """Scores of one metric part: `matrix` (documents, candidates), nan where the metric does not apply."""

    matrix: npt.ArrayLike
    higher_is_better: bool = True


@dataclass(frozen=True)
class _Rules:
    """What was decided before the scores were seen; `reference` and `eligible` follow the order of the keys."""

    names: list[str]
    eligible: list[bool]
    reference: int | None
    family: str
    alpha: float
    confidence: float
    seed: int
    bootstrap: int
    max_resamples: int
    unit: str  # "documents" or "groups"


@dataclass
class _Evidence:
    """One part in key order: k candidates, m = k(k - 1)/2 pairs (i < j, difference j - i), g units."""

    scores: Floats  # (documents, k)
    gaps: Floats  # (documents, m)
    candidates: Units  # (g, k)
    contrasts: Units  # (g, m)
    pairs: list[tuple[int, int]]
    linear: bool  # every gap of a unit is exactly the gap of its candidates' sums: all share their documents
    higher_is_better: bool
    boot: Floats | None = None  # (resamples, k)
    boot_gaps: Floats | None = None  # (resamples, m)
    tests: list[SignFlip | None] = field(default_factory=list)  # m
    resamples: int = 0  # flips of the first pass

    def pair(self, i: int, j: int) -> int:
        return self.pairs.index((min(i, j), max(i, j)))


def compare(matrix: npt.ArrayLike, *, keys: Sequence[str], higher_is_better: bool = True, **options: Any) -> Comparison:
    """`compare_parts` for one metric part: (documents, candidates) scores, nan where the metric does not apply."""
    return compare_parts({"": Part(matrix, higher_is_better)}, keys=keys, **options)[""]


def compare_parts(
    parts: Mapping[str, Part],
    *,
    keys: Sequence[str],
    row_keys: Sequence[Any] | None = None,
    groups: Sequence[Hashable | None] | None = None,
    eligible: Sequence[bool] | None = None,
    reference: str | None = None,
    family: Family = "auto",
    alpha: float = 0.05,
    confidence: float = 0.95,
    seed: int = 0,
    bootstrap: int = 10_000,
    max_resamples: int = MAX_RESAMPLES,
) -> dict[str, Comparison]:
    """Compare candidates on several metric parts of the same documents, drawing resamples once for all parts.

    `keys` name the candidates and `row_keys` the documents (unique, sortable). They fix an order that does not depend
    on how the caller sorted; without row keys, reordered rows move the numbers within their Monte-Carlo error.
    `groups` labels documents that belong together (None: on its own). `eligible` is False for baselines: they are
    shown and tested, in a family of their own, but cannot lead or join the best group.

    `family` says what Holm corrects over in `versus_reference`. "reference": the contrasts with a `reference`
    declared before the scores were seen. "pairs": all pairs, the only honest choice when the leader is picked by its
    score, since contrasts with it are the extremes of all pairs. "auto" (default) takes "reference" if one is
    declared. `pairs` and the best group always rest on all pairs. Each part is its own family: for parts other than
    the primary metric, `benjamini_hochberg` over their p-values is the caller's to apply.

    Flips are `resamples_for` the largest family, at most 100,000; contrasts whose Holm decision is then within three
    Monte-Carlo errors get tenfold, up to `max_resamples`, and are "borderline" if that does not settle them.

    Raises ValueError on keys, labels or shapes that do not fit together.
    """
    order, rows = _canonical(parts, keys, row_keys)
    if groups is not None and len(groups) != len(rows):
        raise ValueError(f"{len(groups)} group labels for {len(rows)} documents: give one label (or None) a document")
    labels = None if groups is None else [groups[row] for row in rows]
    names = [keys[j] for j in order]
    if eligible is not None and len(eligible) != len(keys):
        raise ValueError(f"{len(eligible)} eligible flags for {len(keys)} candidates: give one a candidate")
    if reference is not None and reference not in names:
        raise ValueError(f"the reference {reference!r} is not a candidate; candidates are {', '.join(names)}")
    if family == "reference" and reference is None:
        raise ValueError('family "reference" needs a reference declared beforehand; use "pairs" when the best leads')
    rules = _Rules(
        names=names,
        eligible=[True] * len(keys) if eligible is None else [bool(eligible[j]) for j in order],
        reference=None if reference is None else names.index(reference),
        family="pairs" if family == "pairs" or reference is None else "reference",
        alpha=alpha,
        confidence=confidence,
        seed=seed,
        bootstrap=bootstrap,
        max_resamples=max_resamples,
        unit="documents" if groups is None else "groups",
    )
    evidence = {name: _gather(part, order, rows, labels) for name, part in parts.items()}
    _bootstrap_together(list(evidence.values()), rules)
    _flip_together(list(evidence.values()), rules)
    return {name: _tell(seen, rules) for name, seen in evidence.items()}


def _canonical(
    parts: Mapping[str, Part], keys: Sequence[str], row_keys: Sequence[Any] | None
) -> tuple[list[int], list[int]]:
    """Positions of candidates by key and of documents by row key. Raises ValueError on misfits and duplicates."""
    if not keys:
        raise ValueError("no candidate to compare: give at least one key")
    shapes = {name: np.shape(part.matrix) for name, part in parts.items()}
    for name, shape in shapes.items():
        if len(shape) != 2 or shape[1] != len(keys):
            raise ValueError(f"scores {name!r} have shape {shape}: expected (documents, {len(keys)} candidates)")
    if len({shape[0] for shape in shapes.values()}) > 1:
        raise ValueError(f"parts cover different numbers of documents: {shapes}; pad what is absent with nan")
    documents = next(iter(shapes.values()))[0] if shapes else 0
    if row_keys is not None and len(row_keys) != documents:
        raise ValueError(f"{len(row_keys)} row keys for {documents} documents: give one a document")
    for what, values in (("candidate", keys), ("row", row_keys or [])):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise ValueError(f"{what} key {twice[0]!r} appears more than once: keys must be unique")
    rows = list(range(documents)) if row_keys is None else sorted(range(documents), key=row_keys.__getitem__)
    return sorted(range(len(keys)), key=keys.__getitem__), rows


def _gather(part: Part, order: list[int], rows: list[int], labels: Sequence[Hashable | None] | None) -> _Evidence:
    scores = np.asarray(part.matrix, dtype=np.float64)[np.ix_(rows, order)]
    pairs = list(itertools.combinations(range(len(order)), 2))
    first, second = scores[:, [i for i, _ in pairs]], scores[:, [j for _, j in pairs]]
    gaps = second - first
    # Equal scores that were summed in different ways differ in the last digit; that is no win.
    rounding = (gaps != 0) & (np.abs(gaps) <= TIE * np.maximum(np.abs(first), np.abs(second)))
    gaps[rounding] = 0.0
    absent = np.isnan(scores)
    linear = bool((absent == absent[:, :1]).all()) and not rounding.any()
    candidates, contrasts = by_group(scores, labels), by_group(gaps, labels)
    return _Evidence(scores, gaps, candidates, contrasts, pairs, linear, part.higher_is_better)


def _bootstrap_together(evidence: list[_Evidence], rules: _Rules) -> None:
    """Resample the units once for all candidates and pairs of all parts; below a ranking nothing needs it."""
    if not any((seen.candidates.present >= RANKING_FROM).any() for seen in evidence):
        return
    tables = [units for seen in evidence for units in (seen.candidates, seen.contrasts)[: 1 if seen.linear else 2]]
    sums, sizes = np.hstack([units.sums for units in tables]), np.hstack([units.sizes for units in tables])
    means = bootstrap_means(sums, sizes, resamples=rules.bootstrap, seed=rules.seed)
    pieces = iter(np.split(means, np.cumsum([units.sums.shape[1] for units in tables])[:-1], axis=1))
    for seen in evidence:
        seen.boot = boot = next(pieces)
        seen.boot_gaps = _boot_gaps(boot, seen.pairs) if seen.linear else next(pieces)


def _boot_gaps(boot: Floats, pairs: list[tuple[int, int]]) -> Floats:
    """Differences of resampled means; equal candidates differ by 0, not by the rounding of a product."""
    left, right = boot[:, [i for i, _ in pairs]], boot[:, [j for _, j in pairs]]
    gaps = right - left
    return np.asarray(np.where(np.abs(gaps) <= TIE * np.abs(left), 0.0, gaps))


def _flip_together(evidence: list[_Evidence], rules: _Rules) -> None:
    """Test every pair of every part with the same flips, then give undecided ones tenfold, up to the cap."""
    if not evidence:
        return
    gaps = Gaps.joined([_gaps(seen) for seen in evidence])
    tested = np.hstack([seen.contrasts.present for seen in evidence]) >= EXAMPLES_BELOW
    families, offset = [], 0
    for seen in evidence:
        for family in _families(seen, rules).values():
            families.append([offset + m for m in family if tested[offset + m]])
        offset += len(seen.pairs)
    largest = max((len(family) for family in families), default=0)
    resamples = first = min(resamples_for(largest, rules.alpha), FIRST_PASS, rules.max_resamples)
    tests = flip_gaps(gaps, tested, resamples=resamples, seed=rules.seed)
    while resamples < rules.max_resamples:
        again = sorted({m for family in families for m in _to_repeat(family, tests, rules.alpha)})
        if not again:
            break
        resamples = min(10 * resamples, rules.max_resamples)
        retried = flip_gaps(gaps.only(again), np.ones(len(again), bool), resamples=resamples, seed=rules.seed)
        for m, test in zip(again, retried, strict=True):
            tests[m] = test
    rest = iter(tests)
    for seen in evidence:
        seen.tests, seen.resamples = list(itertools.islice(rest, len(seen.pairs))), first


def _gaps(seen: _Evidence) -> Gaps:
    """The pairs' unit sums, on the basis of the candidates where that is the same thing."""
    if not seen.linear:
        return Gaps.of(seen.contrasts.sums)
    sums = seen.candidates.sums
    left, right = (np.array([pair[side] for pair in seen.pairs], dtype=np.int64) for side in (0, 1))
    # Centring each unit changes no difference and keeps the sums as small as the differences, so ties stay ties.
    return Gaps(sums - sums.mean(axis=1, keepdims=True), left, right)


def _families(seen: _Evidence, rules: _Rules) -> dict[str, list[int]]:
    """Pair numbers that Holm corrects together. The declared reference adds a family; it does not shrink "pairs"."""
    both = [rules.eligible[i] and rules.eligible[j] for i, j in seen.pairs]
    families = {
        "pairs": [m for m, inside in enumerate(both) if inside],
        "baselines": [m for m, inside in enumerate(both) if not inside],
    }
    if rules.family == "reference":
        families["reference"] = [
            m
            for m, pair in enumerate(seen.pairs)
            if rules.reference in pair and all(rules.eligible[c] for c in pair if c != rules.reference)
        ]
    return families


def _undecided(family: list[int], tests: list[SignFlip | None], alpha: float) -> list[int]:
    """Tests of a family whose Holm decision would change if all p-values moved by three Monte-Carlo errors."""
    made = [(m, test) for m in family if (test := tests[m]) is not None]
    low = holm([max(0.0, test.p - BORDER * test.se) for _, test in made])
    high = holm([min(1.0, test.p + BORDER * test.se) for _, test in made])
    return [m for (m, _), least, most in zip(made, low, high, strict=True) if (least <= alpha) != (most <= alpha)]


def _to_repeat(family: list[int], tests: list[SignFlip | None], alpha: float) -> list[int]:
    """The undecided tests that more flips can sharpen; if those are all exact, their neighbours in rank are."""
    undecided = _undecided(family, tests, alpha)
    loose = [m for m in family if (test := tests[m]) is not None and not test.exact]
    return [m for m in undecided if m in loose] or (loose if undecided else [])


def _tell(seen: _Evidence, rules: _Rules) -> Comparison:
    """Put the evidence of one part into words and records."""
    families = _families(seen, rules)
    told = {name: _contrasts(seen, rules, name, members) for name, members in families.items()}
    pairs = told["pairs"] | told["baselines"]
    ranking = _ranking(seen)
    present = seen.candidates.present
    able = [c for c in ranking if rules.eligible[c] and present[c] > 0]
    contenders = [c for c in able if present[c] >= RANKING_FROM]
    leader = contenders[0] if contenders else None
    best = able if leader is None else [c for c in able if c == leader or _keeps_up(seen, pairs, c, leader, rules)]
    first = leader if leader is not None else next(iter(able), None)
    reference = rules.reference if rules.reference is not None else first
    versus = []
    for c in ranking:
        if reference is not None and c != reference:
            m = seen.pair(c, reference)
            versus.append((told.get("reference", {}).get(m) or pairs[m]).about(rules.names[c]))
    between = [contrast for contrast in versus if rules.eligible[rules.names.index(contrast.b)]] or versus
    scored = ~np.isnan(seen.scores).all(axis=1)
    return Comparison(
        standings=tuple(_standings(seen, rules, ranking, contenders, best)),
        leader=None if leader is None else rules.names[leader],
        reference=None if reference is None else rules.names[reference],
        ranked=leader is not None,
        best_group=tuple(rules.names[c] for c in best),
        versus_reference=tuple(versus),
        pairs=tuple(pairs[seen.pair(a, b)].about(rules.names[b]) for a, b in itertools.combinations(ranking, 2)),
        mde=next((contrast.detectable for contrast in between if contrast.detectable is not None), None),
        rows=len(seen.scores),
        n=int(scored.sum()),
        groups=int((seen.candidates.sizes > 0).any(axis=1).sum()),
        higher_is_better=seen.higher_is_better,
        warnings=tuple(_warnings(seen, rules, contenders, leader, pairs)),
        signature=_signature(seen, rules),
    )


def _ranking(seen: _Evidence) -> list[int]:
    """Candidates by mean, best first, without any score last; means that differ only by rounding keep key order."""
    means = seen.candidates.column_means if seen.higher_is_better else -seen.candidates.column_means
    place = [math.inf if math.isnan(mean) else -float(f"{mean:.12g}") for mean in means]
    return sorted(range(len(place)), key=place.__getitem__)


def _keeps_up(seen: _Evidence, pairs: dict[int, Contrast], c: int, leader: int, rules: _Rules) -> bool:
    return pairs[seen.pair(c, leader)].about(rules.names[c]).verdict != "worse"


def _contrasts(seen: _Evidence, rules: _Rules, family: str, members: list[int]) -> dict[int, Contrast]:
    """The contrasts of one Holm family, told about the second key in key order."""
    made = [m for m in members if seen.tests[m] is not None]
    adjusted = dict(zip(made, holm([test.p for m in made if (test := seen.tests[m])]), strict=True))
    open_ones = set(_undecided(members, seen.tests, rules.alpha))
    return {m: _contrast(seen, rules, family, m, adjusted.get(m), m in open_ones) for m in members}


def _contrast(seen: _Evidence, rules: _Rules, family: str, m: int, p_holm: float | None, undecided: bool) -> Contrast:
    i, j = seen.pairs[m]
    test = seen.tests[m]
    sums, sizes = seen.contrasts.sums[:, m], seen.contrasts.sizes[:, m]
    boot = None if seen.boot_gaps is None else seen.boot_gaps[:, m]
    span = _interval(sums, sizes, boot, rules)
    win, tie, loss = win_tie_loss(seen.gaps[:, m], higher_is_better=seen.higher_is_better)
    error = standard_error(sums, sizes) if span.n >= EXAMPLES_BELOW else None
    sd = None if error is None else error * math.sqrt(span.n)
    lower, upper = (None, None) if error is None else one_sided(span.mean or 0.0, error, span.n, boot)
    return Contrast(
        a=rules.names[i],
        b=rules.names[j],
        difference=span.mean,
        low=span.low,
        high=span.high,
        method=span.method,
        p=None if test is None else test.p,
        p_holm=p_holm,
        mc_error=None if test is None else test.se,
        resamples=0 if test is None else test.resamples,
        exact=test is not None and test.exact,
        verdict=_verdict(span, p_holm, undecided, seen.higher_is_better, rules.alpha),
        family=family,
        win=win,
        tie=tie,
        loss=loss,
        n=int(sizes.sum()),
        groups=span.n,
        detectable=mde(sd, span.n) if sd is not None and error is not None and error > TIE else None,
        reason=span.reason,
        lower=lower,
        upper=upper,
        sd=sd,
    )


def _verdict(span: Interval, p_holm: float | None, undecided: bool, higher_is_better: bool, alpha: float) -> Verdict:
    if span.n < RANKING_FROM or p_holm is None or span.mean is None:
        return "too little data"
    if undecided:
        return "borderline"
    if p_holm > alpha:
        return "no clear difference"
    return "better" if (span.mean > 0) == higher_is_better else "worse"


def _interval(sums: Floats, sizes: Floats, boot: Floats | None, rules: _Rules) -> Interval:
    """`interval_of`, silent below the number of units at which bounds mean something."""
    units = int((sizes > 0).sum())
    if 0 < units < EXAMPLES_BELOW:
        reason = f"{units} {rules.unit}: fewer than {EXAMPLES_BELOW} support no interval and no test"
        return Interval(float(sums.sum() / sizes.sum()), None, None, "none", units, reason)
    return interval_of(sums, sizes, boot, confidence=rules.confidence)


def _standings(
    seen: _Evidence, rules: _Rules, ranking: list[int], contenders: list[int], best: list[int]
) -> list[Standing]:
    # Contenders in key order, so that ties are summed in one order.
    racing = sorted(contenders)
    shares: dict[int, float] = {}
    ranks: dict[int, tuple[int, int]] = {}
    if seen.boot is not None and len(racing) > 1:  # who runs alone is best in every resample, and that says nothing
        means = seen.boot[:, racing]
        found = p_best(means, higher_is_better=seen.higher_is_better)
        shares = {c: float(share) for c, share in zip(racing, found, strict=True)}
        ranks = dict(zip(racing, rank_intervals(means, higher_is_better=seen.higher_is_better), strict=True))
    standings = []
    for c in ranking:
        sums, sizes = seen.candidates.sums[:, c], seen.candidates.sizes[:, c]
        span = _interval(sums, sizes, None if seen.boot is None else seen.boot[:, c], rules)
        low, high = ranks.get(c, (None, None))
        standings.append(
            Standing(
                key=rules.names[c],
                interval=span,
                n=int(sizes.sum()),
                groups=span.n,
                eligible=rules.eligible[c],
                best_group=c in best,
                p_best=shares.get(c),
                rank_low=low,
                rank_high=high,
            )
        )
    return standings


def _warnings(
    seen: _Evidence, rules: _Rules, contenders: list[int], leader: int | None, pairs: dict[int, Contrast]
) -> list[str]:
    """What a reader must know before the numbers, in sentences."""
    present = seen.candidates.present
    said = []
    most = int(present[rules.eligible].max(initial=0))
    if not any(rules.eligible):
        said.append("All of these are baselines: none can lead.")
    elif most < EXAMPLES_BELOW:
        said.append(
            f"Only {most} {rules.unit}: read the examples. Intervals and tests need {EXAMPLES_BELOW}, "
            f"a ranking {RANKING_FROM}."
        )
    elif leader is None:
        said.append(
            f"Only {most} {rules.unit}: no ranking below {RANKING_FROM}; the intervals say how little is known."
        )
    for c, name in enumerate(rules.names):
        if present[c] == 0:
            said.append(f"{name} has no score here and is not compared.")
        elif leader is not None and rules.eligible[c] and c not in contenders:
            said.append(f"{name} has scores for {present[c]} {rules.unit} only: too few to lead or to be ruled out.")
    counts = seen.candidates.sizes.sum(axis=0)[present > 0]
    if len(counts) and counts.min() != counts.max():
        said.append(
            f"Means rest on different documents ({int(counts.min())} to {int(counts.max())}); differences use only "
            "the documents that both candidates have."
        )
    if leader is not None:
        for c in sorted(contenders):
            if c != leader and pairs[seen.pair(c, leader)].about(rules.names[c]).verdict == "better":
                said.append(
                    f"{rules.names[c]} is better than {rules.names[leader]} on the documents both have, although its "
                    "mean over all its documents is not."
                )
    return said


def _signature(seen: _Evidence, rules: _Rules) -> dict[str, Any]:
    """Everything that could change the numbers, to be stored and shown with them."""
    return {
        "seed": rules.seed,
        "resamples": seen.resamples,
        "max_resamples": rules.max_resamples,
        "bootstrap": rules.bootstrap if seen.boot is not None else 0,
        "alpha": rules.alpha,
        "confidence": rules.confidence,
        "correction": "holm",
        "family": rules.family,
        "tests": {name: len(members) for name, members in _families(seen, rules).items()},
        "aggregation": "mean over documents",
        "unit": rules.unit,
        "n": int((~np.isnan(seen.scores).all(axis=1)).sum()),
        "groups": int((seen.candidates.sizes > 0).any(axis=1).sum()),
        "versions": {"numpy": np.__version__, **METHODS},
    }
