"""Poison: find the one example that kills its worker, so that it costs one outcome and not the run.

A unit that crashed twice is split: the examples that were being worked on (the breadcrumb) become units of one; the
rest goes back as one unit. Without a breadcrumb it is cut in halves. A single example that crashes twice gets the
outcome `worker_crash`. An experiment that keeps crashing is paused.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import F, Sum
from django.db.models.functions import Now

from datasets_app.models import Example
from evaluations.leasing import Lease, _in
from evaluations.models import Experiment, Generation, WorkUnit

CRASHES_BEFORE_SPLIT = 2
CRASH_BUDGET = 20
INNOCENT_EXPIRIES = 4
"""A worker that vanishes says little about the example: machines are rebooted. Only a unit that keeps losing its
workers is suspected; a model host that dies under its worker's eyes is suspected at once."""


def crashed(unit_id: int, epoch: int, *, code: str, message: str) -> bool:
    """Book a crash of a leased unit and decide what becomes of it. False when the unit was no longer at that epoch."""
    with transaction.atomic():
        unit = WorkUnit.objects.select_for_update().filter(pk=unit_id, epoch=epoch, state="leased").first()
        if unit is None:
            return False
        counts = code != "lease_expired" or unit.attempts > INNOCENT_EXPIRIES
        crashes = unit.crash_count + int(counts)
        rest = _without_outcome(unit)
        if unit.kind == "generate" and crashes >= CRASHES_BEFORE_SPLIT and len(rest) == 1:
            _give_up(unit, rest[0], code, message)
            rest = []
        if unit.kind == "generate" and crashes >= CRASHES_BEFORE_SPLIT and len(rest) > 1:
            _split(unit, rest)
            return True
        if unit.kind == "score" and crashes >= 2 * CRASHES_BEFORE_SPLIT:
            _fail(unit, message)
            return True
        delay = min(60.0, 2.0**crashes) if counts else 0.0
        WorkUnit.objects.filter(pk=unit.pk).update(
            state="ready",
            crash_count=crashes,
            owner="",
            lease_until=None,
            inflight=[],
            problem=message[:500],
            next_at=_in(delay if rest else 0.0),
            epoch=F("epoch") + 1,
        )
    _mind_the_budget(unit.experiment)
    return True


def _without_outcome(unit: WorkUnit) -> list[int]:
    done = Generation.objects.filter(candidate=unit.candidate_id, example__index__in=unit.indexes)
    return sorted(set(unit.indexes) - set(done.values_list("example__index", flat=True)))


def _give_up(unit: WorkUnit, index: int, code: str, message: str) -> None:
    example = Example.objects.get(dataset=unit.experiment.dataset_id, index=index)
    code = "hang" if code == "hang" else "worker_crash"
    Generation.objects.bulk_create(
        [
            Generation(
                candidate_id=unit.candidate_id,
                example=example,
                status=Generation.Status.ERROR,
                error_code=code,
                error=f"the model died on this document twice: {message}"[:2000],
                unit_id=unit.pk,
                epoch=unit.epoch,
            )
        ],
        ignore_conflicts=True,
    )


def _split(unit: WorkUnit, rest: list[int]) -> None:
    suspects = sorted(set(unit.inflight) & set(rest))
    if suspects and len(suspects) < len(rest):
        pieces = [[index] for index in suspects] + [[index for index in rest if index not in suspects]]
    elif suspects and len(suspects) <= 8:
        pieces = [[index] for index in suspects]
    else:
        half = len(rest) // 2
        pieces = [rest[:half], rest[half:]]
    done = [index for index in unit.indexes if index not in rest]
    if done:
        pieces.append(done)
    WorkUnit.objects.bulk_create(
        [
            WorkUnit(
                experiment_id=unit.experiment_id,
                candidate_id=unit.candidate_id,
                parent=unit,
                kind=unit.kind,
                metric=unit.metric,
                queue=unit.queue,
                round=unit.round,
                lo=piece[0],
                indexes=piece,
                crash_count=1 if len(piece) == 1 else 0,
            )
            for piece in pieces
        ],
        ignore_conflicts=True,
    )
    WorkUnit.objects.filter(pk=unit.pk).update(
        state="split", epoch=F("epoch") + 1, owner="", lease_until=None, inflight=[], done_at=Now()
    )


def _fail(unit: WorkUnit, message: str) -> None:
    from evaluations.finalizing import finalize_when_complete, locked

    WorkUnit.objects.filter(pk=unit.pk).update(
        state="failed", problem=message[:500], epoch=F("epoch") + 1, owner="", lease_until=None, done_at=Now()
    )
    finalize_when_complete(locked(unit.experiment_id))


def _mind_the_budget(experiment: Experiment) -> None:
    crashes = experiment.units.aggregate(total=Sum("crash_count"))["total"] or 0
    if crashes >= CRASH_BUDGET:
        from evaluations.planning import pause

        pause(
            experiment, "crash_budget", f"Workers crashed {crashes} times in this experiment; see the units' problems."
        )


def expire(lease: Lease) -> bool:
    """The lease ran out: its worker is gone or cut off."""
    return crashed(lease.unit.pk, lease.epoch, code="lease_expired", message="the worker vanished")
