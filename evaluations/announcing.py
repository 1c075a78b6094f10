"""Announcing rings the doorbells of an experiment that has work ready. Losing a ring costs seconds, never work."""

from __future__ import annotations

from django.db.models import Count

from evaluations.models import Experiment, WorkUnit
from lumigator import doorbell

PARALLEL = 4
"""Bells per group of ready units: as many workers as may usefully share it."""


def announce(kind: str, experiment: Experiment, *, metric: str = "") -> None:
    """Ring, once this transaction is committed, for work of `kind` ("sweep" means all that is ready)."""
    if kind == "plan":
        doorbell.ring("plan", "cpu", experiment.pk)
    elif kind == "finalize":
        doorbell.ring("finalize", "cpu", experiment.pk)
    elif kind == "score":
        ready = WorkUnit.objects.filter(experiment=experiment, state="ready", kind="score", metric=metric)
        for queue in ready.values_list("queue", flat=True).distinct():
            doorbell.ring("score", queue, experiment.pk, metric)
    else:
        _announce_ready(experiment)


def _announce_ready(experiment: Experiment) -> None:
    ready = WorkUnit.objects.filter(experiment=experiment, state="ready", kind="generate")
    for candidate, queue, count in ready.values_list("candidate_id", "queue").annotate(n=Count("pk")):
        doorbell.ring("advance", queue, candidate, times=min(count, PARALLEL))
    scores = WorkUnit.objects.filter(experiment=experiment, state="ready", kind="score")
    for name in scores.values_list("metric", flat=True).distinct():
        announce("score", experiment, metric=name)
