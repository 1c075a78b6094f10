"""Browsing shows the documents of an experiment: a page of them with everybody's score, or one with every output."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from django.db.models import Exists, F, Max, Min, OuterRef, Q, QuerySet

from datasets_app.models import Example
from evaluations import filtering
from evaluations.comparing import signatures_of
from evaluations.models import Candidate, Experiment, Generation, Score

Document = dict[str, Any]


def examples(
    experiment: Experiment,
    *,
    sort: str = "spread",
    order: str = "desc",
    after: str = "",
    metric: str = "",
    part_of: str = "",
    size: int = 50,
) -> Document:
    """A page of documents with every candidate's score on one metric. `sort`: "index", "spread" (the largest
    disagreement between candidates) or the id of a candidate (its score). `after` continues where a page ended.
    `part_of` is the key of one of the comparison's slices. Raises ValueError for another sort or a broken `after`,
    LookupError for another slice."""
    part = metric or experiment.primary_metric
    digest = signatures_of(experiment).get(part)
    candidates = list(experiment.candidates.all())
    scores = Score.objects.filter(candidate__in=candidates, part=part, signature=digest)
    descending = order != "asc"
    keyed: Any
    if sort == "index" or digest is None:
        keyed = _taking_part(experiment).values("index", example_id=F("pk")).annotate(value=F("index"))
        descending = order == "desc" and sort == "index"
    elif sort == "spread":
        keyed = scores.values("example_id", index=F("example__index")).annotate(value=Max("value") - Min("value"))
    elif sort.isdigit() and int(sort) in {candidate.pk for candidate in candidates}:
        keyed = scores.filter(candidate=int(sort)).values("example_id", "value", index=F("example__index"))
    else:
        raise ValueError(f"cannot sort by {sort!r}: use index, spread or the id of a candidate")
    keyed = keyed.filter(value__isnull=False)
    if part_of:
        keyed = filtering.inside(keyed, experiment, part_of, "" if keyed.model is Example else "example__")
    if after:
        keyed = keyed.filter(_beyond(after, descending))
    direction = "-" if descending else ""
    page = list(keyed.order_by(f"{direction}value", "index")[: size + 1])
    more, page = len(page) > size, page[:size]
    return {
        "metric": part,
        "sort": sort,
        "order": "desc" if descending else "asc",
        "rows": _example_rows(candidates, scores, page),
        "next": f"{page[-1]['value']!r}:{page[-1]['index']}" if more and page else "",
    }


def _taking_part(experiment: Experiment) -> QuerySet[Example]:
    """The documents that any candidate has an outcome for: a question to each, so that a page stops at its end."""
    outcomes = Generation.objects.filter(example=OuterRef("pk"), candidate__experiment=experiment)
    return Example.objects.filter(Exists(outcomes), dataset=experiment.dataset_id)


def _beyond(after: str, descending: bool) -> Q:
    value, _, index = after.rpartition(":")
    try:
        edge, position = float(value), int(index)
        if not math.isfinite(edge):  # no score is, and an index cannot be compared with it
            raise ValueError
    except ValueError:
        raise ValueError(f"{after[:60]!r} is not a place in this list: start from its beginning") from None
    further = Q(value__lt=edge) if descending else Q(value__gt=edge)
    return further | Q(value=edge, index__gt=position)


def _example_rows(candidates: list[Candidate], scores: Any, page: list[Document]) -> list[Document]:
    wanted = [row["example_id"] for row in page]
    found = Example.objects.in_bulk(wanted)
    values: dict[int, dict[int, float | None]] = defaultdict(dict)
    for candidate, example, value in scores.filter(example__in=wanted).values_list("candidate", "example", "value"):
        values[example][candidate] = value
    rows = []
    for row in page:
        example = found[row["example_id"]]
        mine = [value for value in values[example.pk].values() if value is not None]
        rows.append(
            {
                "index": example.index,
                "label": example.label,
                "snippet": " ".join(example.source[:400].split())[:160],
                "spread": max(mine) - min(mine) if mine else None,
                "scores": {candidate.pk: values[example.pk].get(candidate.pk) for candidate in candidates},
            }
        )
    return rows


def example(experiment: Experiment, index: int) -> Document:
    """One document with everything every candidate made of it. Raises Example.DoesNotExist."""
    found = Example.objects.get(dataset=experiment.dataset_id, index=index)
    signatures = signatures_of(experiment)
    scores: dict[int, dict[str, Document]] = defaultdict(dict)
    for row in Score.objects.filter(candidate__experiment=experiment, example=found):
        if signatures.get(row.part) == row.signature_id:
            scores[row.candidate_id][row.part] = {"value": row.value, "state": row.state, "reason": row.reason}
    made = {
        each.candidate_id: each for each in Generation.objects.filter(candidate__experiment=experiment, example=found)
    }
    outputs = [
        _output(candidate, made.get(candidate.pk), scores[candidate.pk]) for candidate in experiment.candidates.all()
    ]
    taking_part = _taking_part(experiment).values_list("index", flat=True)
    return {
        "example": {**found.as_dict(), "label": found.label},
        "outputs": outputs,
        "previous": taking_part.filter(index__lt=index).order_by("-index").first(),
        "next": taking_part.filter(index__gt=index).order_by("index").first(),
    }


def _output(candidate: Candidate, made: Generation | None, scores: dict[str, Document]) -> Document:
    known = {
        "candidate": candidate.pk,
        "label": candidate.label,
        "is_baseline": candidate.is_baseline,
        "scores": scores,
    }
    if made is None:
        return {**known, "status": "missing", "text": "", "error": candidate.problem or "no outcome yet"}
    return {
        **known,
        "status": made.status,
        "text": made.text,
        "reasoning": made.reasoning,
        "error": made.error,
        "error_code": made.error_code,
        "finish_reason": made.finish_reason,
        "input_tokens": made.input_tokens,
        "input_tokens_read": made.input_tokens_read,
        "output_tokens": made.output_tokens,
        "latency_ms": made.latency_ms,
        "cost_usd": None if made.cost_micro is None else made.cost_micro / 1_000_000,
    }
