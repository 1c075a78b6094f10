"""Scoring does the score units: one metric on one slice of a candidate's outcomes, whoever made them."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction

from datasets_app.models import Example
from evaluations import leasing
from evaluations.finalizing import finalize_when_complete, locked
from evaluations.leasing import Lease
from evaluations.metrics import Absent, Item, Metric, Value, available
from evaluations.models import Generation, Score, Signature


def score(lease: Lease) -> None:
    """Score one unit and end it. Each output gets a row per part: a value, or why there is none. Raises Fenced."""
    unit = lease.unit
    metric = available()[unit.metric]
    options = next(frozen["options"] for frozen in unit.experiment.metrics if frozen["name"] == metric.name)
    signature = keep_signature(metric, options)
    rows = _rows(lease)
    values = _values(metric, options, rows)
    scores = [
        _score(generation, part.name, value[part.name], signature)
        for (generation, _), value in zip(rows, values, strict=True)
        for part in metric.parts
    ]
    with leasing.fenced(lease):
        Score.objects.bulk_create(scores, ignore_conflicts=True, batch_size=2000)
        leasing.close(lease)
        finalize_when_complete(locked(unit.experiment_id))


def keep_signature(metric: Metric, options: dict[str, Any]) -> Signature:
    """The stored signature of this metric with these options, as this installation computes it."""
    digest, detail = metric.sign(options)
    try:
        with transaction.atomic():
            return Signature.objects.get_or_create(digest=digest, defaults={"metric": metric.name, "detail": detail})[0]
    except IntegrityError:
        return Signature.objects.get(digest=digest)


def _rows(lease: Lease) -> list[tuple[Generation, Example]]:
    unit = lease.unit
    generations = (
        Generation.objects.filter(candidate=unit.candidate_id, example__index__in=unit.indexes)
        .select_related("example")
        .order_by("example__index")
    )
    return [(generation, generation.example) for generation in generations]


def _values(metric: Metric, options: dict[str, Any], rows: list[tuple[Generation, Example]]) -> list[dict[str, Value]]:
    """What the metric says of every row; it is asked only about the answers."""
    if why := metric.available({**metric.defaults, **options}):
        return [_all(metric, Absent("not_computed", why)) for _ in rows]
    answered = [(generation, example) for generation, example in rows if generation.status == "ok"]
    items = [Item(generation.text, tuple(example.references), example.source) for generation, example in answered]
    scored = iter(metric.score(items, {**metric.defaults, **options}) if items else [])
    return [
        next(scored) if generation.status == "ok" else _all(metric, Absent("failed", _why_failed(generation)))
        for generation, _ in rows
    ]


def _all(metric: Metric, value: Value) -> dict[str, Value]:
    return {part.name: value for part in metric.parts}


def _why_failed(generation: Generation) -> str:
    if generation.status == "error":
        return f"the model gave no output ({generation.error_code})"
    return f"the model gave no output ({generation.get_status_display().lower()})"


def _score(generation: Generation, part: str, value: Value, signature: Signature) -> Score:
    score = Score(
        candidate_id=generation.candidate_id, example_id=generation.example_id, part=part, signature=signature
    )
    if isinstance(value, Absent):
        score.state, score.reason = value.state, value.reason[:200]
    else:
        score.value = float(value)
    return score
