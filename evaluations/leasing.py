"""Claim a work unit, keep it, write under its fence, give it back: RELIABILITY §2.

A claim raises the unit's epoch. Every later write first demands "this unit, still leased, still this epoch" under a
row lock in the same transaction, so a worker that was stopped, cut off or merely slow can never write after another
one took over. Only the database's clock decides when a lease has lapsed; the worker's own monotonic clock makes it
stop earlier (at 0.8 of the lease) when it cannot renew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Greatest, Now

from evaluations.models import Generation, WorkUnit

FENCED = os.environ.get("LUMIGATOR_TEST_NO_FENCE") != "1"
"""The negative control of the fault tests switches the fence off, and they must notice (RELIABILITY §3, 3)."""


class Fenced(Exception):
    """Another worker owns the unit now, or it was cancelled: stop, and drop what was not yet written."""


class Stopped(Exception):
    """The worker is shutting down, or the experiment no longer runs: give the unit back."""


@dataclass
class Lease:
    """A claimed unit. `stop` is set by the renewer when the experiment no longer runs."""

    unit: WorkUnit
    deadline: float = field(default_factory=lambda: time.monotonic() + 0.8 * settings.LEASE_SECONDS)
    stop: bool = False
    lost: bool = False

    @property
    def epoch(self) -> int:
        return self.unit.epoch

    @property
    def is_held(self) -> bool:
        """Whether this worker may still believe that the unit is its own."""
        return not self.lost and time.monotonic() < self.deadline

    @property
    def must_stop(self) -> bool:
        return self.stop or not self.is_held


CLAIM = """
UPDATE evaluations_workunit SET
    state = 'leased', epoch = epoch + 1, attempts = attempts + 1, owner = %(owner)s, inflight = '{{}}',
    lease_until = clock_timestamp() + %(ttl)s * interval '1 second'
WHERE id = (
    SELECT unit.id FROM evaluations_workunit unit
    JOIN evaluations_experiment experiment ON experiment.id = unit.experiment_id
    WHERE unit.state = 'ready' AND unit.kind = %(kind)s AND unit.next_at <= clock_timestamp()
      AND experiment.state = CASE unit.kind WHEN 'plan' THEN 'planning' ELSE 'running' END
      {filters}
    ORDER BY {order} unit.id LIMIT 1
    FOR UPDATE OF unit SKIP LOCKED
)
RETURNING id
"""


NEAR = """
unit.lo = %(near)s DESC,
EXISTS (
    SELECT FROM evaluations_workunit busy
    WHERE busy.experiment_id = unit.experiment_id AND busy.state = 'leased' AND busy.kind = unit.kind
      AND busy.metric = unit.metric AND busy.lo = unit.lo
),
unit.lo,
"""
"""Scoring goes slice by slice, not candidate by candidate: what a metric remembers of the references of a slice then
serves all candidates, however many documents there are. Two workers take different slices."""


def claim(
    kind: str,
    owner: str,
    *,
    experiment: int | None = None,
    candidate: int | None = None,
    metric: str | None = None,
    near: int | None = None,
) -> Lease | None:
    """Lease the oldest ready unit of `kind` that matches, or None when there is none. Two claims never get the same.
    With `near`, the first index of a slice, one of that slice comes first, then those that nobody works on."""
    wanted = {"unit.experiment_id": experiment, "unit.candidate_id": candidate, "unit.metric": metric}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    filters = " ".join(f"AND {name} = %({name})s" for name in chosen)
    values = {"owner": owner, "kind": kind, "ttl": settings.LEASE_SECONDS, "near": near, **chosen}
    with connection.cursor() as cursor:
        cursor.execute(CLAIM.format(filters=filters, order="" if near is None else NEAR), values)
        row = cursor.fetchone()
    return Lease(WorkUnit.objects.get(pk=row[0])) if row else None


def renew(leases: Sequence[Lease]) -> None:
    """Extend every lease by its full length from now, and learn which were lost and which should stop."""
    if not leases:
        return
    asked = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE evaluations_workunit unit SET lease_until = clock_timestamp() + %s * interval '1 second'
            FROM unnest(%s::bigint[], %s::bigint[]) AS held (id, epoch), evaluations_experiment experiment
            WHERE unit.id = held.id AND unit.epoch = held.epoch AND unit.state = 'leased'
              AND experiment.id = unit.experiment_id
            RETURNING unit.id, unit.epoch, experiment.state
            """,
            [settings.LEASE_SECONDS, [lease.unit.pk for lease in leases], [lease.epoch for lease in leases]],
        )
        kept = {(pk, epoch): state for pk, epoch, state in cursor.fetchall()}
    for lease in leases:
        state = kept.get((lease.unit.pk, lease.epoch))
        lease.lost = lease.lost or state is None
        lease.stop = lease.stop or (state is not None and state not in ("running", "planning"))
        if state is not None:
            lease.deadline = asked + 0.8 * settings.LEASE_SECONDS


def _mine(lease: Lease) -> dict[str, object]:
    fence = {"epoch": lease.epoch, "state": "leased"} if FENCED else {}
    return {"pk": lease.unit.pk, **fence}


FENCE = """
SELECT id FROM evaluations_workunit
WHERE id = %(unit)s AND (%(is_unfenced)s OR (epoch = %(epoch)s AND state = 'leased')) FOR NO KEY UPDATE
"""
"""`fenced` within one statement: a row, locked, where the unit is still ours. Its values are `fence_of`."""


def fence_of(lease: Lease) -> dict[str, Any]:
    """The values of `FENCE`."""
    return {"unit": lease.unit.pk, "epoch": lease.epoch, "is_unfenced": not FENCED}


@contextmanager
def fenced(lease: Lease) -> Iterator[None]:
    """A transaction that holds the unit's row lock under the lease's epoch. Raises Fenced when it is no longer ours."""
    with transaction.atomic():
        if not WorkUnit.objects.select_for_update(no_key=True).filter(**_mine(lease)).exists():
            raise Fenced(f"work unit {lease.unit.pk}: epoch {lease.epoch} is over")
        yield


def record_outcomes(lease: Lease, generations: Sequence[Generation]) -> None:
    """Write outcomes in one transaction under the fence; the first outcome of an example stays. Raises Fenced."""
    with fenced(lease):
        for generation in generations:
            generation.unit_id, generation.epoch = lease.unit.pk, lease.epoch
        Generation.objects.bulk_create(generations, ignore_conflicts=True)


def mark_inflight(lease: Lease, indexes: Sequence[int]) -> None:
    """Leave the breadcrumb: these examples are being worked on now."""
    WorkUnit.objects.filter(**_mine(lease)).update(inflight=list(indexes))


def release(lease: Lease, *, after: float = 0.0, attempted: bool = True) -> bool:
    """Give the unit back, to be claimed again after that many seconds. False when it was no longer ours. Who stopped
    or gave way has not `attempted` it: many attempts make a unit suspect."""
    attempts = F("attempts") if attempted else Greatest(F("attempts") - 1, 0)
    return bool(
        WorkUnit.objects.filter(**_mine(lease))
        .filter(state="leased")
        .update(state="ready", owner="", lease_until=None, inflight=[], next_at=_in(after), attempts=attempts)
    )


def close(lease: Lease, state: str = "done", *, problem: str = "") -> None:
    """Inside `fenced`: the unit ends. Its epoch moves on, so that whatever still holds it can write no more."""
    WorkUnit.objects.filter(pk=lease.unit.pk).update(
        state=state, owner="", lease_until=None, inflight=[], done_at=Now(), problem=problem, epoch=F("epoch") + 1
    )


class _In(Now):
    """Now plus some seconds, by the database's clock."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return "clock_timestamp() + %s * interval '1 second'", [self.seconds]


def _in(seconds: float) -> Now:
    return _In(seconds)
