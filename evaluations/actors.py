"""The doorbells: each actor says what may have work, and the worker process that hears it does that work.

Messages carry ids, never data; a message that is lost, doubled, late or nonsense changes nothing but latency.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dramatiq
from django.db.models import Count

from evaluations.models import Experiment, WorkUnit
from lumigator import doorbell

if TYPE_CHECKING:
    from evaluations.sweeping import Waiting
    from evaluations.working import WorkerProcess

PARALLEL = 4
"""Bells per group of ready units: as many workers as may usefully share it."""


@dramatiq.actor(queue_name="cpu")
def plan(experiment_id: int) -> None:
    _worker().plan(experiment_id)


@dramatiq.actor(queue_name="gpu")
def advance(candidate_id: int) -> None:
    _worker().advance(candidate_id)


@dramatiq.actor(queue_name="cpu")
def score(experiment_id: int, metric: str) -> None:
    _worker().score(experiment_id, metric)


@dramatiq.actor(queue_name="cpu")
def finalize(experiment_id: int) -> None:
    _worker().finalize(experiment_id)


def _worker() -> WorkerProcess:
    from evaluations.working import current

    return current()


def announce(kind: str, experiment: Experiment, *, metric: str = "") -> None:
    """Ring, once this transaction is committed, for work of `kind` ("sweep" means all that is ready)."""
    if kind == "plan":
        doorbell.ring(plan, "cpu", experiment.pk)
    elif kind == "finalize":
        doorbell.ring(finalize, "cpu", experiment.pk)
    elif kind == "score":
        doorbell.ring(score, "cpu", experiment.pk, metric)
    else:
        _announce_ready(experiment)


def _announce_ready(experiment: Experiment) -> None:
    ready = WorkUnit.objects.filter(experiment=experiment, state="ready", kind="generate")
    for candidate, queue, count in ready.values_list("candidate_id", "queue").annotate(n=Count("pk")):
        doorbell.ring(advance, queue, candidate, times=min(count, PARALLEL))
    scores = WorkUnit.objects.filter(experiment=experiment, state="ready", kind="score")
    for name in scores.values_list("metric", flat=True).distinct():
        announce("score", experiment, metric=name)


def send_for(work: Waiting) -> bool:
    """Ring for one `sweeping.Waiting` now; False when Redis cannot be reached."""
    actor, args = call_for(work)
    return doorbell.send(actor, work.queue, *args)


def call_for(work: Waiting) -> tuple[Any, tuple[Any, ...]]:
    """The actor and arguments that do one `sweeping.Waiting`."""
    if work.kind == "generate":
        return advance, (work.candidate,)
    if work.kind == "score":
        return score, (work.experiment, work.metric)
    return {"plan": plan, "finalize": finalize}[work.kind], (work.experiment,)
