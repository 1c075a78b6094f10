"""Concluding puts together what a comparison needs beside its rows, part by part: who leads and who keeps up, how far
one may replace another, who stays on the front, how the values are spread, and what the slices say.

Finalize stores it with the experiment; `comparing` only reads it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evaluations import fronts, gathering, resampling, slicing, stats
from evaluations.histograms import shared_bins
from evaluations.metrics import part_owner
from evaluations.models import Candidate, Experiment

DRAWN = {"front_resamples": fronts.RESAMPLES, "slice_resamples": slicing.RESAMPLES, "slice_q": slicing.Q}
"""What else the numbers depend on, beside the signature of the tests."""
Comparisons = Mapping[tuple[str, str], stats.Comparison]


@dataclass
class Table:
    """Scores of one part under one signature: a row per document, a column per candidate; NaN where there is none."""

    part: str
    signature: str
    matrix: np.ndarray[Any, Any]
    states: dict[int, Counter[str]] = field(default_factory=dict)
    counts: dict[int, tuple[list[int], list[list[int]]]] = field(default_factory=dict)
    """{candidate: (rows, their counts)} where the metric has a value of the whole corpus."""


def finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def statistics(
    experiment: Experiment,
    candidates: list[Candidate],
    summaries: dict[int, dict[str, Any]],
    documents: dict[int, int],
    groups: list[str | None] | None,
    tables: Sequence[Table],
    comparisons: Comparisons,
) -> dict[str, Any]:
    """{part: {signature: what is told of it}} for `Experiment.statistics`, all of it JSON.

    `documents` is {example: row}, `groups` the group of each row, or None, and `summaries` finalize's {candidate:
    summary}. The columns of the tables are the candidates, in order.
    """
    told = _parts(candidates, tables, comparisons)
    _add_fronts(told, experiment, candidates, tables, groups, gathering.prices(candidates, documents, summaries))
    _add_slices(told, experiment, candidates, tables, comparisons, gathering.documents(experiment, documents, groups))
    return told


def _parts(candidates: list[Candidate], tables: Sequence[Table], comparisons: Comparisons) -> dict[str, Any]:
    """What the comparison needs beside the rows: per part the leader, the best group, P(best), the bounds that
    non-inferiority is judged by, the distribution, warnings, signature."""
    told: dict[str, Any] = defaultdict(dict)
    for table in tables:
        found = comparisons[table.part, table.signature]
        told[table.part][table.signature] = {
            "leader": int(found.leader) if found.leader else None,
            "ranked": found.ranked,
            "best_group": [int(key) for key in found.best_group],
            "p_best": {int(each.key): finite(each.p_best) for each in found.standings},
            "ranks": {int(each.key): [each.rank_low, each.rank_high] for each in found.standings},
            "detectable": finite(found.mde),
            "n": found.n,
            "groups": found.groups,
            "warnings": [_in_labels(candidates, warning) for warning in found.warnings],
            "signature": {**found.signature, **DRAWN},
            "bounds": [_bound(pair) for pair in found.pairs if pair.lower is not None],
            "distribution": _distribution(candidates, table),
        }
    return dict(told)


def _bound(pair: stats.Contrast) -> dict[str, Any]:
    """A pair's one-sided bounds, told about b."""
    return {
        "a": int(pair.a),
        "b": int(pair.b),
        "difference": finite(pair.difference),
        "lower": finite(pair.lower),
        "upper": finite(pair.upper),
        "sd": finite(pair.sd),
        "n": pair.n,
        "groups": pair.groups,
    }


def _distribution(candidates: list[Candidate], table: Table) -> dict[str, Any]:
    bins = shared_bins(table.matrix)
    if not bins:
        return {}
    counts = {candidate.pk: row for candidate, row in zip(candidates, bins["counts"], strict=True)}
    return {"edges": bins["edges"], "counts": counts}


def _add_fronts(
    told: dict[str, Any],
    experiment: Experiment,
    candidates: list[Candidate],
    tables: Sequence[Table],
    groups: list[str | None] | None,
    prices: gathering.Prices,
) -> None:
    """In how many resamples each candidate is on the front, for every part that may be ranked. A ceiling never is."""
    ranked = [table for table in tables if told[table.part][table.signature]["ranked"]]
    runners = [place for place, candidate in enumerate(candidates) if not candidate.uses_references]
    ranked = [table for table in ranked if part_owner()[table.part].part(table.part).higher_is_better is not None]
    if not ranked or not runners:
        return
    codes, units = resampling.group_codes(groups if groups is not None else [None] * len(ranked[0].matrix))
    costs, times = (drawn[:, runners] for drawn in prices.drawn(codes, units, experiment.seed))
    summed = [resampling.by_group(table.matrix[:, runners], codes.tolist()) for table in ranked]
    means = resampling.bootstrap_means(
        np.hstack([each.sums for each in summed]),
        np.hstack([each.sizes for each in summed]),
        resamples=fronts.RESAMPLES,
        seed=experiment.seed,
    )
    keys = [candidates[place].pk for place in runners]
    for table, quality in zip(ranked, np.split(means, len(ranked), axis=1), strict=True):
        higher = part_owner()[table.part].part(table.part).higher_is_better is not False
        told[table.part][table.signature]["front"] = {
            name: dict(zip(keys, fronts.front_shares(quality, price, higher_is_better=higher), strict=True))
            for name, price in (("cost", costs), ("latency", times))
        }


def _add_slices(
    told: dict[str, Any],
    experiment: Experiment,
    candidates: list[Candidate],
    tables: Sequence[Table],
    comparisons: Comparisons,
    documents: slicing.Documents,
) -> None:
    """The slices of the part that decides: everybody's means, and the models against the leader."""
    slices, left_out = slicing.slices_of(documents)
    column = {candidate.pk: place for place, candidate in enumerate(candidates)}
    for table in tables:
        if table.part != experiment.primary_metric:
            continue
        found = comparisons[table.part, table.signature]
        reference = column[int(found.leader)] if found.leader else None
        models = [column[each.pk] for each in candidates if not each.is_baseline and not each.problem]
        cut = slicing.compared(
            slices,
            table.matrix,
            reference=reference,
            rivals=[place for place in models if place != reference],
            groups=documents.groups,
            higher_is_better=part_owner()[table.part].part(table.part).higher_is_better is not False,
            seed=experiment.seed,
        )
        told[table.part][table.signature]["slices"] = {
            "left_out": left_out,
            "rows": [
                {
                    "key": each.key,
                    "kind": each.kind,
                    "label": each.label,
                    "where": each.where,
                    **inside,
                    "cells": {candidates[place].pk: cell for place, cell in enumerate(inside["cells"])},
                }
                for each, inside in zip(slices, cut, strict=True)
            ],
        }


def _in_labels(candidates: list[Candidate], sentence: str) -> str:
    """The statistics know candidates by their keys; people know them by their labels."""
    for candidate in candidates:
        sentence = sentence.replace(key_of(candidate), candidate.label)
    return sentence


def key_of(candidate: Candidate) -> str:
    """A candidate's key in the statistics: sortable, and like no other text."""
    return f"{candidate.pk:012d}"
