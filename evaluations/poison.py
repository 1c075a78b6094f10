"""Poison: find the one example that kills its worker, so that it costs one outcome and not the run.

A unit that crashed twice is split: the examples that were being worked on (the breadcrumb) become units of one; the
rest goes back as one unit. Without a breadcrumb it is cut in halves. A single example that crashes once more, alone,
gets the outcome `worker_crash`. Work that is not about examples fails after some tries, with its reason. An
experiment that keeps crashing is paused.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import F, Sum
from django.db.models.functions import Now
from django.utils import timezone

from datasets_app.models import Example
from evaluations.leasing import Lease, _in
from evaluations.models import Generation, WorkUnit

CRASHES_BEFORE_SPLIT = 2
CRASHES_BEFORE_FAILING = 4
CRASH_BUDGET = 20
"""The experiment is paused at this many crashes of a round, and again, after a resume, at each multiple of it."""
INNOCENT_EXPIRIES = 4
"""A worker that vanishes says little about the example: machines are rebooted. Only a unit that keeps losing its
workers is suspected; a model host that dies under its worker's eyes is suspected at once."""


def crashed(unit_id: int, epoch: int, *, code: str, message: str) -> bool:
    """Book a crash of a leased unit and decide what becomes of it. False when the unit was no longer at that epoch, or
    when its lease expired but somebody is in the middle of a write to it: a worker that was frozen there must not hold
    up the recovery of the others."""
    with transaction.atomic():
        rows = WorkUnit.objects.select_for_update(no_key=True, skip_locked=code == "lease_expired")
        unit = rows.filter(pk=unit_id, epoch=epoch, state="leased").first()
        if unit is None:
            return False
        counts = code != "lease_expired" or unit.attempts > INNOCENT_EXPIRIES
        unit.crash_count += int(counts)
        if unit.kind == "generate":
            _isolate(unit, code, message, counts)
        elif unit.crash_count >= CRASHES_BEFORE_FAILING:
            _fail(unit, message)
        else:
            _try_again(unit, message, counts)
        if counts:
            _mind_the_budget(unit)
    return True


def _isolate(unit: WorkUnit, code: str, message: str, counts: bool) -> None:
    rest = _without_outcome(unit)
    is_suspect = unit.parent_id is not None and len(unit.indexes) == 1
    if not rest or unit.crash_count < (1 if is_suspect else CRASHES_BEFORE_SPLIT):
        _try_again(unit, message, counts and bool(rest))
    elif len(rest) == 1:
        _give_up(unit, rest[0], code, message)
        _try_again(unit, message, wait=False)
    else:
        _split(unit, rest, message)


def _try_again(unit: WorkUnit, message: str, wait: bool) -> None:
    WorkUnit.objects.filter(pk=unit.pk).update(
        state="ready",
        crash_count=unit.crash_count,
        owner="",
        lease_until=None,
        inflight=[],
        problem=message[:500],
        next_at=_in(min(60.0, 2.0**unit.crash_count) if wait else 0.0),
        epoch=F("epoch") + 1,
    )


def _without_outcome(unit: WorkUnit) -> list[int]:
    return sorted(set(unit.indexes) - set(unit.outcomes().values_list("example__index", flat=True)))


def _give_up(unit: WorkUnit, index: int, code: str, message: str) -> None:
    assert unit.candidate_id is not None
    example = Example.objects.get(dataset=unit.experiment.dataset_id, index=index)
    code = "worker_crash" if code in ("lease_expired", "bug") else code
    Generation.objects.bulk_create(
        [
            Generation(
                candidate_id=unit.candidate_id,
                example=example,
                status=Generation.Status.ERROR,
                error_code=code,
                error=f"the model fails on this document again and again: {message}"[:2000],
                unit_id=unit.pk,
                epoch=unit.epoch,
            )
        ],
        ignore_conflicts=True,
    )


def _split(unit: WorkUnit, rest: list[int], message: str) -> None:
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
            )
            for piece in pieces
        ],
        ignore_conflicts=True,
    )
    WorkUnit.objects.filter(pk=unit.pk).update(
        state="split",
        crash_count=unit.crash_count,
        problem=message[:500],
        epoch=F("epoch") + 1,
        owner="",
        lease_until=None,
        inflight=[],
        done_at=Now(),
    )


def _fail(unit: WorkUnit, message: str) -> None:
    """A unit that is not about outputs: scores stay absent, but without a plan or an end the experiment has failed."""
    from evaluations.steering import finalize_when_complete, locked

    WorkUnit.objects.filter(pk=unit.pk).update(
        state="failed",
        crash_count=unit.crash_count,
        problem=message[:500],
        epoch=F("epoch") + 1,
        owner="",
        lease_until=None,
        done_at=Now(),
    )
    experiment = locked(unit.experiment_id)
    if unit.kind == "score":
        from evaluations.scoring import mark_not_computed

        mark_not_computed(unit, message)
        finalize_when_complete(experiment)
        return
    experiment.move("running", since=("paused",), pause_reason="")  # it would be resumed into nothing
    problem = f"the {unit.get_kind_display().lower()} step failed {unit.crash_count} times: {message}"
    experiment.move("failed", since=("planning", "running"), problem=problem[:2000], finished_at=timezone.now())


def _mind_the_budget(unit: WorkUnit) -> None:
    """Pause at the budget. Under the experiment's lock, so that crashes count one after the other."""
    from evaluations.steering import locked, pause

    experiment = locked(unit.experiment_id)
    crashes = experiment.units.filter(round=unit.round).aggregate(total=Sum("crash_count"))["total"] or 0
    if crashes and crashes % CRASH_BUDGET == 0:
        pause(
            experiment, "crash_budget", f"Workers crashed {crashes} times in this experiment; see the units' problems."
        )


def expire(lease: Lease) -> bool:
    """The lease ran out: its worker is gone or cut off."""
    return crashed(lease.unit.pk, lease.epoch, code="lease_expired", message="the worker vanished")
