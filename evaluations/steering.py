"""Steering moves an experiment from state to state: start, pause, resume, cancel, and what ends by itself.

Each function is one short transaction around a conditional UPDATE; none does any of the work. Locks are taken in one
order everywhere: leased units, then the experiment, then its ready units.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from evaluations.announcing import announce
from evaluations.models import Experiment, Generation, Score, WorkUnit
from evaluations.states import ENDED

RETRYABLE = (
    "worker_crash", "hang", "oom", "rate_limited", "unavailable", "unreachable", "malformed_response", "timeout",
    "connection_lost", "unexpected",
)  # fmt: skip


def locked(experiment_id: int) -> Experiment:
    """The experiment under a row lock, until the transaction ends; foreign keys to it can still be written."""
    return Experiment.objects.select_for_update(no_key=True).get(pk=experiment_id)


ONLY_SCORES = "*"
"""What a plan unit carries as its metric where nothing is to be generated."""


def start(experiment: Experiment, *, only_scores: bool = False) -> bool:
    """Plan, and run what is missing; with `only_scores` no more than the scoring. False when the experiment already
    runs, or is paused: resume goes on with it."""
    with transaction.atomic():
        moved = experiment.move(
            "planning",
            since=("draft", *ENDED),
            round=F("round") + 1,
            pause_reason="",
            problem="",
            started_at=experiment.started_at or timezone.now(),
            finished_at=None,
        )
        if not moved:
            return False
        # A plan that failed half-way leaves ready units; beside the new ones they would ask for the same outputs twice.
        _cancel_ready(experiment)
        WorkUnit.objects.create(
            experiment=experiment,
            kind="plan",
            queue="cpu",
            round=experiment.round,
            metric=ONLY_SCORES if only_scores else "",
        )
        announce("plan", experiment)
    return True


def resume(experiment: Experiment, *, retry_errors: bool = True) -> bool:
    """Go on after a pause, a cancellation or a failure: only what has no outcome is done again. With `retry_errors`
    the errors that trying again may cure are forgotten first. Finished work is never redone or billed again."""
    if experiment.state == "paused":
        if not experiment.move("running", since=("paused",), pause_reason="", problem=""):
            return False
        announce("sweep", experiment)
        return True
    with transaction.atomic():  # somebody else may have resumed it since it was read: what runs forgets nothing
        if retry_errors and locked(experiment.pk).has_ended:
            forget_errors(experiment)
        return start(experiment)


def forget_errors(experiment: Experiment) -> int:
    """Delete the outcomes (and their scores) that failed in a way that trying again may cure; how many there were."""
    with transaction.atomic():
        failed = Generation.objects.filter(
            candidate__experiment=experiment, status=Generation.Status.ERROR, error_code__in=RETRYABLE
        )
        for candidate in experiment.candidates.all():
            mine = failed.filter(candidate=candidate).values("example")
            Score.objects.filter(candidate=candidate, example__in=mine).delete()
        count, _ = failed.delete()
    return count


def rescore(experiment: Experiment) -> bool:
    """Score anew, with the metrics as this installation has them now, what was scored with others. False unless the
    experiment has ended. Nothing is generated that has an outcome."""
    return experiment.has_ended and start(experiment, only_scores=True)


def pause(experiment: Experiment, reason: str = "operator", problem: str = "") -> bool:
    """Stop handing out work. Workers finish the call they are in and give the rest back."""
    return experiment.move("paused", since=("running",), pause_reason=reason, problem=problem)


def cancel(experiment: Experiment) -> bool:
    """Stop for good: units not yet begun are cancelled now, workers drop the others within seconds (the sweeper
    takes them away after a minute). What is finished stays. A draft is cancelled at once."""
    with transaction.atomic():
        if experiment.move("cancelled", since=("draft",), finished_at=timezone.now()):
            return True
        if not experiment.move("cancelling", finished_at=timezone.now()):
            return False
        _cancel_ready(experiment)
        settle_cancelled(experiment)
    return True


def _cancel_ready(experiment: Experiment) -> None:
    WorkUnit.objects.filter(experiment=experiment, state="ready").update(state="cancelled", done_at=timezone.now())


def settle_cancelled(experiment: Experiment) -> bool:
    """A cancelling experiment whose last unit ended is cancelled, with the units that its workers gave back or made
    since. True when that happened now."""
    if WorkUnit.objects.filter(experiment=experiment, state="leased").exists():
        return False
    if not experiment.move("cancelled", since=("cancelling",)):
        return False
    _cancel_ready(experiment)
    return True


def finalize_when_complete(experiment: Experiment) -> bool:
    """Make the finalize unit when no other unit of this round is open. Called under the experiment's lock, by
    whatever ended a unit, so that exactly one caller sees the last one end."""
    if experiment.state == "cancelling":
        return settle_cancelled(experiment)
    if experiment.state not in ("running", "paused"):
        return False
    if WorkUnit.objects.filter(experiment=experiment, state__in=("ready", "leased")).exclude(kind="finalize").exists():
        return False
    WorkUnit.objects.bulk_create(
        [WorkUnit(experiment=experiment, kind="finalize", queue="cpu", round=experiment.round)], ignore_conflicts=True
    )
    announce("finalize", experiment)
    return True
