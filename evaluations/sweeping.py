"""Sweeping mends what crashes leave behind: lapsed leases, forgotten doorbells, experiments nobody finished.

Every worker sweeps every few seconds; each step is idempotent, takes few rows, skips what another worker has locked,
and wraps each experiment by itself, so that one broken row cannot stop the others.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from django.db import DatabaseError, connection, transaction
from django.db.models import Min, Q

from datasets_app import ingesting
from evaluations import poison, probing
from evaluations.billing import abandon_calls, abandon_orphans
from evaluations.models import Experiment, Worker, WorkUnit
from evaluations.steering import finalize_when_complete, settle_cancelled
from models_registry import trying

log = logging.getLogger(__name__)
LIMIT = 500
HARD_CANCEL_SECONDS = 60
ORPHAN_SECONDS = 300
"""Older than any call can be (120 s): nobody will ever settle it."""
FILES_EVERY_SECONDS = 3600.0
_files_swept_at = float("-inf")


@dataclass(frozen=True)
class Waiting:
    """Ready work that a bell may be rung for."""

    kind: str
    queue: str
    experiment: int
    candidate: int | None
    metric: str
    check: int | None = None
    dataset: int | None = None

    @property
    def bell(self) -> tuple[str, tuple[int | str, ...]]:
        """The name of the actor that does this, and its arguments."""
        if self.kind == "check":
            return "check", (self.check or 0,)
        if self.kind == "import_dataset":
            return "import_dataset", (self.dataset or 0,)
        if self.kind == "generate":
            return "advance", (self.candidate or 0,)
        return self.kind, (self.experiment, self.metric) if self.kind == "score" else (self.experiment,)


def sweep() -> int:
    """One sweep; how many leases had lapsed."""
    lapsed = _lapsed()
    for unit_id, epoch in lapsed:
        _safely(_expire, unit_id, epoch)
    _take_from_cancelled()
    _bring_scoring_back()
    _safely(abandon_orphans, ORPHAN_SECONDS)
    _safely(probing.mend)
    _safely(_sweep_files)
    for pk in Experiment.objects.filter(state__in=("running", "cancelling"))[:LIMIT].values_list("pk", flat=True):
        _safely(_conclude, pk)
    return len(lapsed)


def _sweep_files() -> None:
    """Now and then: listing what storage holds takes calls, and what lies there too long does no harm for an hour."""
    global _files_swept_at
    if time.monotonic() - _files_swept_at > FILES_EVERY_SECONDS:
        _files_swept_at = time.monotonic()
        if n := ingesting.sweep():
            log.info("%s files that nothing names any more are deleted", n)


def _lapsed() -> list[tuple[int, int]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, epoch FROM evaluations_workunit WHERE state = 'leased' AND lease_until < clock_timestamp()"
            " ORDER BY lease_until LIMIT %s",
            [LIMIT],
        )
        return cursor.fetchall()


def _expire(unit_id: int, epoch: int) -> None:
    unit = WorkUnit.objects.get(pk=unit_id)
    if poison.crashed(unit_id, epoch, code="lease_expired", message=f"its worker ({unit.owner}) vanished"):
        log.warning("work unit %s: the lease of %s lapsed", unit_id, unit.owner)
        abandon_calls(unit)


def _take_from_cancelled() -> None:
    """A minute after a cancel, workers that still hold a unit lose it: their late writes are refused by the fence."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE evaluations_workunit unit
            SET state = 'cancelled', epoch = unit.epoch + 1, lease_until = NULL, done_at = clock_timestamp()
            WHERE unit.id IN (
                SELECT held.id FROM evaluations_workunit held
                JOIN evaluations_experiment experiment ON experiment.id = held.experiment_id
                WHERE experiment.state = 'cancelling' AND held.state = 'leased'
                  AND experiment.finished_at < clock_timestamp() - %s * interval '1 second'
                FOR NO KEY UPDATE OF held SKIP LOCKED
            )
            """,
            [HARD_CANCEL_SECONDS],
        )


def _bring_scoring_back() -> None:
    """Scoring that waits for a GPU which is gone is done on the CPU."""
    waiting_for_gpu = WorkUnit.objects.filter(state="ready", kind="score", queue="gpu")
    if waiting_for_gpu.exists() and not Worker.objects.alive().filter(has_gpu=True, queues__contains=["gpu"]).exists():
        waiting_for_gpu.update(queue="cpu")


def _conclude(pk: int) -> None:
    """End a cancelled experiment whose workers are gone; make the finalize unit that a crash may have prevented."""
    with transaction.atomic():
        rows = Experiment.objects.select_for_update(no_key=True, skip_locked=True)
        experiment = rows.filter(pk=pk).first()
        if experiment is None:  # somebody changes it just now; another sweep follows
            return
        if experiment.state == "cancelling":
            WorkUnit.objects.filter(experiment=experiment, state="ready").update(state="cancelled")
            settle_cancelled(experiment)
        elif experiment.state == "running":
            open_units = WorkUnit.objects.filter(experiment=experiment, state__in=("ready", "leased"))
            if not open_units.exists():
                finalize_when_complete(experiment)


def _safely(step: object, *args: object) -> None:
    try:
        step(*args)  # type: ignore[operator]
    except DatabaseError:
        raise
    except Exception:
        log.exception("a sweep step failed; the others go on")


def waiting(queues: tuple[str, ...]) -> list[Waiting]:
    """Groups of ready work for these queues, oldest first: one bell each can put an idle worker to it."""
    due = Q(state="ready", queue__in=queues, next_at__lte=_clock())
    runs = Q(kind="plan", experiment__state="planning") | (~Q(kind="plan") & Q(experiment__state="running"))
    groups = WorkUnit.objects.filter(due & runs).values_list("kind", "queue", "experiment_id", "candidate_id", "metric")
    found = groups.annotate(oldest=Min("id")).order_by("oldest")[:LIMIT]
    checks = [Waiting("check", each.queue, 0, None, "", each.pk) for each in trying.waiting(queues)[:LIMIT]]
    if "cpu" in queues:
        checks += [Waiting("import_dataset", "cpu", 0, None, "", dataset=pk) for pk in ingesting.waiting()]
    work = (
        Waiting(kind, queue, exp, cand if kind == "generate" else None, metric)
        for kind, queue, exp, cand, metric, _ in found
    )
    return [*checks, *dict.fromkeys(work)]


def _clock() -> object:
    from evaluations.leasing import _in

    return _in(0.0)
