"""Running does the generate units of one candidate after another: examples in, outcomes out, under the fence.

Local models run in a model host (a child process) or inline; their outcomes are committed batch by batch. Paid APIs
are the business of `calling`.

Locks are taken in one order everywhere, so that no two transactions wait for each other: leased units (by id), then
the experiment, then its ready units and the ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from datasets_app.models import Example
from evaluations import leasing, poison, reusing, tasks
from evaluations.announcing import announce
from evaluations.calling import call_all
from evaluations.leasing import Lease, Stopped
from evaluations.models import Candidate, Experiment, Generation, WorkUnit
from evaluations.steering import locked
from evaluations.warming import WarmModel, never
from models_registry.hosting import HostCancelled
from models_registry.providers import Output, ProviderError, Request

log = logging.getLogger(__name__)
NO_KEYS: Mapping[int, str] = {}


def generate(
    lease: Lease,
    candidate: Candidate,
    model: WarmModel,
    stopping: Callable[[], bool],
    dropping: Callable[[], bool] = never,
) -> None:
    """Do one generate unit to its end, or as far as possible. From `stopping` on nothing new is begun; when `dropping`
    comes true too, even the batch or the calls in hand are given up.

    Raises Fenced when the unit was taken away, Stopped when it should be given back, and ProviderError when this
    candidate cannot go on at all.
    """
    requests = list(_requests(lease, candidate))
    keys = reusing.keys_of(candidate, model, requests)
    requests = reusing.reuse(lease, candidate, keys, requests)
    if model.is_network:
        later = call_all(lease, candidate, model, requests, stopping, dropping, keys)
    else:
        later = None
        _run_batches(lease, candidate, model, requests, stopping, dropping, keys)
    if later is not None:
        leasing.release(lease, after=later)
        return
    finish(lease)


def _requests(lease: Lease, candidate: Candidate) -> Iterator[Request]:
    """What is still to do in this unit: its examples that have no outcome yet."""
    unit = lease.unit
    examples = Example.objects.filter(dataset=unit.experiment.dataset_id, index__in=unit.indexes)
    done = Generation.objects.filter(candidate=candidate, example__in=examples).values("example_id")
    prompt = candidate.spec.get("prompt") or ""
    for example in examples.exclude(pk__in=done).order_by("index"):
        yield Request(
            key=example.pk,
            source=example.source,
            prompt=tasks.render(prompt, example.source) if prompt else None,
            references=tuple(example.references) if candidate.uses_references else (),
            seed=unit.experiment.seed,
        )


def _run_batches(
    lease: Lease,
    candidate: Candidate,
    model: WarmModel,
    requests: Sequence[Request],
    stopping: Callable[[], bool],
    dropping: Callable[[], bool] = never,
    keys: Mapping[int, str] = NO_KEYS,
) -> None:
    def cancelled() -> bool:
        return lease.must_stop or dropping()

    if not requests:
        return

    def starting(begun: list[int]) -> bool:
        # One batch is done at least, or work that is always asked to give way would never end.
        if cancelled() or (left < len(requests) and stopping()):
            return False
        leasing.mark_inflight(lease, _indexes(begun))
        return True

    left = len(requests)
    try:
        for outputs in model.generate(requests, starting=starting, cancelled=cancelled):
            leasing.record_outcomes(lease, [_kept(candidate, output, keys) for output in outputs])
            left -= len(outputs)
    except HostCancelled:
        raise Stopped from None
    if left and (cancelled() or stopping()):
        raise Stopped


def _kept(candidate: Candidate, output: Output, keys: Mapping[int, str]) -> Generation:
    return Generation.of(candidate, output, cache_key=keys.get(output.key, ""))


def _indexes(keys: Sequence[int]) -> list[int]:
    return list(Example.objects.filter(pk__in=keys).values_list("index", flat=True))


def finish(lease: Lease) -> None:
    """Every example of the unit has an outcome: the unit is done, and its scoring becomes ready, in one transaction."""
    from evaluations.steering import finalize_when_complete

    unit = lease.unit
    with leasing.fenced(lease):
        have = unit.outcomes().count()
        if have != len(unit.indexes):
            raise RuntimeError(f"work unit {unit.pk} ended with {have} outcomes for {len(unit.indexes)} examples")
        leasing.close(lease)
        _score_next(unit.experiment, unit, unit.indexes)
        finalize_when_complete(locked(unit.experiment_id))  # last: whoever makes a paid call waits for this lock


def _score_next(experiment: Experiment, unit: WorkUnit, indexes: Sequence[int]) -> None:
    """Make the score units of these examples of a generate unit that has ended."""
    from evaluations.planning import score_units

    assert unit.candidate is not None
    if not indexes:
        return
    for frozen in experiment.metrics:
        units = score_units(experiment, unit.candidate, frozen, indexes, unit.round)
        WorkUnit.objects.bulk_create(_with_parent(units, unit), ignore_conflicts=True)
        announce("score", experiment, metric=frozen["name"])


def _with_parent(units: Iterator[WorkUnit], parent: WorkUnit) -> list[WorkUnit]:
    made = list(units)
    for unit in made:
        unit.parent = parent
    return made


def stop_candidate(candidate: Candidate, error: ProviderError) -> None:
    """Nothing of this candidate can work now: say why, cancel its units, let the others go on. What its units have
    already produced stays, and is scored."""
    from evaluations.steering import finalize_when_complete

    mine = WorkUnit.objects.filter(candidate=candidate, kind="generate")
    with transaction.atomic():
        held = list(mine.filter(state="leased").select_for_update(no_key=True).order_by("pk"))
        experiment = locked(candidate.experiment_id)
        Candidate.objects.filter(pk=candidate.pk).update(problem=str(error)[:2000], problem_code=error.code[:40])
        # A unit leased since then is not waited for, its owner may wait for us; it will meet the same error itself.
        units = held + list(mine.filter(state="ready").select_for_update(no_key=True).order_by("pk"))
        mine.filter(pk__in=[unit.pk for unit in units]).update(
            state="cancelled", problem=error.code, done_at=Now(), epoch=F("epoch") + 1, lease_until=None, inflight=[]
        )
        for unit in units:
            _score_next(experiment, unit, sorted(unit.outcomes().values_list("example__index", flat=True)))
        finalize_when_complete(experiment)


def crash(lease: Lease, error: ProviderError) -> None:
    """The model died, hung or failed on this unit: remember it, and isolate the example that does it."""
    log.warning("work unit %s: %s", lease.unit.pk, error)
    poison.crashed(lease.unit.pk, lease.epoch, code=error.code, message=str(error))
