"""Running does the generate units of one candidate after another: examples in, outcomes out, under the fence.

Local models run in a model host (a child process) or inline; their outcomes are committed batch by batch. Paid
APIs are called with several connections at once; every attempt is in the ledger before it is made, and its outcome
is committed before the next one starts. Only this thread talks to the database.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce, Now

from datasets_app.models import Example
from evaluations import leasing, poison, tasks
from evaluations.finalizing import locked
from evaluations.leasing import Lease
from evaluations.models import Call, Candidate, Experiment, Generation, WorkUnit
from evaluations.warming import WarmModel
from models_registry.hosting import HostCancelled
from models_registry.pricing import cost_micro
from models_registry.providers import Output, ProviderError, Request

log = logging.getLogger(__name__)
TRIES = 6
TRIES_UNKNOWN = 2
PATIENCE_SECONDS = 10.0
"""A retry due sooner than this is awaited; for a later one the unit goes back with its time."""
DEFAULT_NEW_TOKENS = 1024


class Stopped(Exception):
    """The worker is shutting down, or the experiment no longer runs: give the unit back."""


def generate(lease: Lease, candidate: Candidate, model: WarmModel, stopping: Callable[[], bool]) -> None:
    """Do one generate unit to its end, or as far as possible. Raises Fenced when the unit was taken away, and
    ProviderError when this candidate cannot go on at all."""
    requests = list(_requests(lease, candidate))
    if model.is_network:
        later = _call_all(lease, candidate, model, requests, stopping)
    else:
        later = None
        _run_batches(lease, candidate, model, requests, stopping)
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
    lease: Lease, candidate: Candidate, model: WarmModel, requests: Sequence[Request], stopping: Callable[[], bool]
) -> None:
    def cancelled() -> bool:
        return lease.must_stop or stopping()

    if not requests:
        return

    def starting(keys: list[int]) -> None:
        leasing.mark_inflight(lease, _indexes(keys))

    try:
        for outputs in model.generate(requests, starting=starting, cancelled=cancelled):
            leasing.record_outcomes(lease, [_generation(candidate, output) for output in outputs])
            if cancelled():
                raise Stopped
    except HostCancelled:
        raise Stopped from None
    if cancelled():
        raise Stopped


def _indexes(keys: Sequence[int]) -> list[int]:
    return list(Example.objects.filter(pk__in=keys).values_list("index", flat=True))


def _generation(candidate: Candidate, output: Output, cost: int | None = None) -> Generation:
    return Generation(
        candidate=candidate,
        example_id=output.key,
        status=output.status,
        text=_storable(output.text),
        reasoning=_storable(output.reasoning),
        error_code=output.error_code,
        error=_storable(output.error)[:2000],
        finish_reason=output.finish_reason[:40],
        input_tokens=output.input_tokens,
        input_tokens_read=output.input_tokens_read,
        cached_tokens=output.cached_tokens,
        output_tokens=output.output_tokens,
        latency_ms=output.latency_ms,
        cost_micro=cost,
    )


def _storable(text: str) -> str:
    """Postgres keeps neither NUL nor lone surrogates; a model may write either. They become U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8") if text else ""


# --- paid APIs ------------------------------------------------------------------------------------------------------


@dataclass
class _Attempt:
    request: Request
    call: Call


def _call_all(
    lease: Lease, candidate: Candidate, model: WarmModel, requests: Sequence[Request], stopping: Callable[[], bool]
) -> float | None:
    """Call the API for every request. None when all have an outcome, else in how many seconds to try the rest."""
    waiting: list[tuple[float, Request]] = [(0.0, request) for request in requests]
    running: dict[Future[Output], _Attempt] = {}
    pool = ThreadPoolExecutor(max_workers=model.concurrency, thread_name_prefix="call")
    try:
        while waiting or running:
            if lease.must_stop or stopping():
                _collect(lease, candidate, running, waiting, patience=True)
                raise Stopped
            waiting.sort(key=lambda each: each[0])
            while waiting and len(running) < model.concurrency and waiting[0][0] <= time.monotonic():
                _, request = waiting.pop(0)
                call = _reserve(lease, candidate, request)
                running[pool.submit(model.generate_one, request)] = _Attempt(request, call)
            if not running:
                due = waiting[0][0] - time.monotonic()
                if due > PATIENCE_SECONDS:
                    return due
                time.sleep(max(0.0, min(due, 0.5)))
                continue
            _collect(lease, candidate, running, waiting)
        return None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _collect(
    lease: Lease,
    candidate: Candidate,
    running: dict[Future[Output], _Attempt],
    waiting: list[tuple[float, Request]],
    *,
    patience: bool = False,
) -> None:
    """Settle the calls that have ended (with `patience`: wait for all of them) and commit their outcomes."""
    while running:
        ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
        for future in ended:
            attempt = running.pop(future)
            again = _settle(lease, candidate, attempt, future)
            if again is not None:
                waiting.append((time.monotonic() + again, attempt.request))
        if ended and not patience:
            return
        if lease.must_stop and not patience:
            return


def _settle(lease: Lease, candidate: Candidate, attempt: _Attempt, future: Future[Output]) -> float | None:
    """Book one ended call and its outcome, in one transaction. How many seconds until another try, if any."""
    error = future.exception()
    if error is None:
        output = future.result()
        price = candidate.spec.get("price") or {}
        cost = cost_micro(
            output.input_tokens,
            output.cached_tokens,
            output.output_tokens,
            price.get("in"),
            price.get("out"),
            price.get("cached"),
        )
        with transaction.atomic():
            _book(attempt.call, Call.State.SETTLED, output.error_code or "ok", cost, output)
            leasing.record_outcomes(lease, [_generation(candidate, output, cost)])
        return None
    if not isinstance(error, ProviderError):
        log.error("candidate %s: the provider raised %s", candidate.pk, type(error).__name__, exc_info=error)
        error = ProviderError(f"internal error: {type(error).__name__}", code="provider_bug", failure="final")
    if error.failure == "unknown":
        _book(attempt.call, Call.State.UNKNOWN, error.code, attempt.call.reserved_micro)
    else:
        _book(attempt.call, Call.State.SETTLED, error.code, 0)
    if error.failure == "stop":
        raise error
    tries = Call.objects.filter(candidate=candidate, example_id=attempt.request.key).count()
    limit = TRIES_UNKNOWN + 1 if error.failure == "unknown" else TRIES
    if error.failure == "final" or tries >= limit:
        failed = Output(attempt.request.key, "error", error_code=error.code, error=str(error))
        leasing.record_outcomes(lease, [_generation(candidate, failed)])
        return None
    if error.retry_after is not None:
        return error.retry_after
    return random.uniform(0, min(60.0, 2.0**tries))  # noqa: S311 - full jitter, not a secret


def _reserve(lease: Lease, candidate: Candidate, request: Request) -> Call:
    """Write the ledger line before the call, and reserve its worst case from the budget. Raises Stopped, with the
    experiment paused, when the budget does not cover it."""
    experiment: Experiment = candidate.experiment
    most = worst_case_micro(candidate, request)
    with leasing.fenced(lease):
        if experiment.budget_micro is not None:
            room = Q(budget_micro__gte=F("spent_micro") + F("reserved_micro") + (most or 0))
            rows = Experiment.objects.filter(room, pk=experiment.pk).update(
                reserved_micro=F("reserved_micro") + (most or 0)
            )
            paid_for = bool(rows)
        else:
            rows = Experiment.objects.filter(pk=experiment.pk).update(reserved_micro=F("reserved_micro") + (most or 0))
            paid_for = True
        if paid_for:
            return Call.objects.create(
                experiment=experiment,
                candidate=candidate,
                example_id=request.key,
                unit_id=lease.unit.pk,
                epoch=lease.epoch,
                reserved_micro=most or 0,
            )
    from evaluations.planning import pause

    pause(
        experiment,
        "budget",
        "The budget does not cover the worst case of the next call: raise it and resume, or read what is finished.",
    )
    raise Stopped


def worst_case_micro(candidate: Candidate, request: Request) -> int | None:
    """The most that one call can cost, in micro-dollars; None when unpriced. No tokenizer makes more tokens than its
    text has bytes, and the answer is bounded by max_new_tokens, so this is a true bound (and a loose one)."""
    price = candidate.spec.get("price") or {}
    text = request.prompt if request.prompt is not None else request.source
    most_out = int((candidate.spec.get("generation") or {}).get("max_new_tokens") or DEFAULT_NEW_TOKENS)
    return cost_micro(len(text.encode()) + 64, 0, most_out, price.get("in"), price.get("out"))


def _book(call: Call, state: str, outcome: str, cost: int | None, output: Output | None = None) -> None:
    with transaction.atomic():
        booked = Call.objects.filter(pk=call.pk, state=Call.State.RESERVED).update(
            state=state,
            outcome=outcome[:40],
            cost_micro=cost,
            input_tokens=output.input_tokens if output else None,
            cached_tokens=output.cached_tokens if output else None,
            output_tokens=output.output_tokens if output else None,
            latency_ms=output.latency_ms if output else None,
            ended_at=Now(),
        )
        if booked:
            Experiment.objects.filter(pk=call.experiment_id).update(
                reserved_micro=F("reserved_micro") - call.reserved_micro,
                spent_micro=F("spent_micro") + Coalesce(Value(cost), 0),
            )


def abandon_calls(unit: WorkUnit) -> None:
    """The unit's worker is gone: calls it had reserved may have been made and billed, so they count at their most."""
    for call in Call.objects.filter(unit_id=unit.pk, state=Call.State.RESERVED, epoch__lte=unit.epoch):
        _book(call, Call.State.UNKNOWN, "worker_gone", call.reserved_micro)


# --- the end of a unit ----------------------------------------------------------------------------------------------


def finish(lease: Lease) -> None:
    """Every example of the unit has an outcome: the unit is done, and its scoring becomes ready, in one transaction."""
    from evaluations import actors
    from evaluations.finalizing import finalize_when_complete
    from evaluations.planning import score_units

    unit = lease.unit
    with leasing.fenced(lease):
        have = Generation.objects.filter(candidate=unit.candidate_id, example__index__in=unit.indexes).count()
        if have != len(unit.indexes):
            raise RuntimeError(f"work unit {unit.pk} ended with {have} outcomes for {len(unit.indexes)} examples")
        leasing.close(lease)
        experiment = locked(unit.experiment_id)
        assert unit.candidate is not None
        for frozen in experiment.metrics:
            units = score_units(experiment, unit.candidate, frozen, unit.indexes, unit.round)
            WorkUnit.objects.bulk_create(_with_parent(units, unit), ignore_conflicts=True)
            actors.announce("score", experiment, metric=frozen["name"])
        finalize_when_complete(experiment)


def _with_parent(units: Iterator[WorkUnit], parent: WorkUnit) -> list[WorkUnit]:
    made = list(units)
    for unit in made:
        unit.parent = parent
    return made


def stop_candidate(candidate: Candidate, error: ProviderError) -> None:
    """Nothing of this candidate can work now: say why, cancel its units, let the others go on."""
    from evaluations.finalizing import finalize_when_complete

    with transaction.atomic():
        Candidate.objects.filter(pk=candidate.pk).update(problem=str(error)[:2000], problem_code=error.code[:40])
        units = WorkUnit.objects.filter(candidate=candidate, kind="generate", state__in=("ready", "leased"))
        units.update(state="cancelled", problem=error.code, done_at=Now(), epoch=F("epoch") + 1, lease_until=None)
        finalize_when_complete(locked(candidate.experiment_id))


def crash(lease: Lease, error: ProviderError) -> None:
    """The model host died or hung on this unit: remember it, and isolate the example that does it."""
    log.warning("work unit %s: %s", lease.unit.pk, error)
    poison.crashed(lease.unit.pk, lease.epoch, code=error.code, message=str(error))
