"""Scoring does the score units: one metric on one slice of a candidate's outcomes, whoever made them."""

from __future__ import annotations

import logging
import math
from typing import Any

from django.db import IntegrityError, transaction

from datasets_app.models import Example
from evaluations import leasing
from evaluations.leasing import Lease
from evaluations.metrics import Absent, Counted, Item, Metric, Value, available
from evaluations.models import Generation, Score, Signature, WorkUnit
from evaluations.steering import finalize_when_complete, locked

log = logging.getLogger(__name__)
FAILS_ON_ANYTHING = 5
"""A metric that fails on so many outputs from the first on, one by one, is broken or lacks something."""


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
        # What could not be computed then makes room for what can be computed now; values stay.
        stale = Score.objects.filter(candidate=unit.candidate_id, signature=signature, state="not_computed")
        stale.filter(example__in=[generation.example_id for generation, _ in rows]).delete()
        Score.objects.bulk_create(scores, ignore_conflicts=True, batch_size=2000)
        leasing.close(lease)
        finalize_when_complete(locked(unit.experiment_id))


def mark_not_computed(unit: WorkUnit, reason: str) -> None:
    """The unit could not be scored, whatever was tried: every score it owes is absent, and says why."""
    metric = available()[unit.metric]
    options = next(frozen["options"] for frozen in unit.experiment.metrics if frozen["name"] == metric.name)
    signature = keep_signature(metric, options)
    absent = Absent("not_computed", f"scoring failed: {reason}")
    scores = [_score(each, part.name, absent, signature) for each in unit.outcomes() for part in metric.parts]
    Score.objects.bulk_create(scores, ignore_conflicts=True, batch_size=2000)


def keep_signature(metric: Metric, options: dict[str, Any]) -> Signature:
    """The stored signature of this metric with these options, as this installation computes it."""
    digest, detail = metric.sign(options)
    try:
        with transaction.atomic():
            return Signature.objects.get_or_create(digest=digest, defaults={"metric": metric.name, "detail": detail})[0]
    except IntegrityError:
        return Signature.objects.get(digest=digest)


def _rows(lease: Lease) -> list[tuple[Generation, Example]]:
    generations = lease.unit.outcomes().select_related("example").order_by("example__index")
    return [(generation, generation.example) for generation in generations]


def _values(metric: Metric, options: dict[str, Any], rows: list[tuple[Generation, Example]]) -> list[dict[str, Value]]:
    """What the metric says of every row; for an output that is not there, why it has no score."""
    asked = {**metric.defaults, **options}
    if why := metric.available(asked):
        return [_all(metric, Absent("not_computed", why)) for _ in rows]
    items = [
        Item(generation.text if generation.status == "ok" else "", tuple(example.references), example.source)
        for generation, example in rows
    ]
    scored = _asked(metric, items, asked)
    return [
        value if generation.status == "ok" else _why_absent(generation, value)
        for (generation, _), value in zip(rows, scored, strict=True)
    ]


def _asked(metric: Metric, items: list[Item], options: dict[str, Any]) -> list[dict[str, Value]]:
    """The metric's answers. Where it fails, the outputs that make it fail are found and get that reason; where it
    fails on whatever it is given, that is no output's fault: raises what it raised."""
    try:
        return _checked(metric, items, options)
    except Exception:
        if len(items) < 2:
            raise
    found: list[dict[str, Value]] = []
    failures = 0
    for item in items:
        try:
            found += _checked(metric, [item], options)
        except Exception as exc:
            failures += 1
            if failures == min(len(items), FAILS_ON_ANYTHING) == len(found) + 1:
                raise
            log.exception("metric %s fails on one output", metric.name)
            reason = f"{metric.name} fails on this output ({type(exc).__name__})"
            found.append(_all(metric, Absent("not_computed", reason)))
    return found


def _checked(metric: Metric, items: list[Item], options: dict[str, Any]) -> list[dict[str, Value]]:
    """One answer for each item. Raises ValueError when the metric gave another number of them."""
    answers = metric.score(items, options) if items else []
    if len(answers) != len(items):
        raise ValueError(f"metric {metric.name} gave {len(answers)} answers for {len(items)} outputs")
    return answers


def _all(metric: Metric, value: Value) -> dict[str, Value]:
    return {part.name: value for part in metric.parts}


def _why_absent(generation: Generation, of_nothing: dict[str, Value]) -> dict[str, Value]:
    """Why an output that is not there has no score; `of_nothing` is what the metric says of an empty text in its place.
    Where no output of this document could have a score (no reference, no source), its absence is nobody's failure: at
    the floor it would pull the mean below those of the others."""
    reason = _why_failed(generation)
    return {
        part: value
        if isinstance(value, Absent) and value.state == "not_applicable"
        else Absent("failed", reason, value.counts if isinstance(value, Absent) else ())
        for part, value in of_nothing.items()
    }


def _why_failed(generation: Generation) -> str:
    if generation.status == "error":
        return f"the model gave no output ({generation.error_code})"
    return f"the model gave no output ({generation.get_status_display().lower()})"


def _score(generation: Generation, part: str, value: Value, signature: Signature) -> Score:
    score = Score(
        candidate_id=generation.candidate_id, example_id=generation.example_id, part=part, signature=signature
    )
    if isinstance(value, Absent):
        score.state, score.reason, score.counts = value.state, value.reason[:200], list(value.counts) or None
    elif not math.isfinite(value):  # JSON and means know no NaN
        score.state, score.reason = "not_computed", f"the metric gave {value}, which is no number"
    else:
        score.value = float(value)
        score.counts = list(value.counts) if isinstance(value, Counted) else None
    return score
