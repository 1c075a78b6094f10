"""Calling asks a paid API for outputs: several connections at once, every attempt in the ledger before it is made.

Calls run in threads; only the thread that holds the lease talks to the database. An outcome is committed with its bill
before the next call starts. Money is reserved at its worst case before a call and settled after it, so that a budget
is never passed; a call whose end nobody saw counts at its worst case until somebody reconciles it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NoReturn

from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from evaluations import leasing
from evaluations.leasing import Fenced, Lease, Stopped
from evaluations.limiting import Limits, guess
from evaluations.models import Call, Candidate, Experiment, Generation, WorkUnit
from evaluations.planning import DEFAULT_NEW_TOKENS
from evaluations.warming import WarmModel
from models_registry.pricing import cost_micro
from models_registry.providers import Output, ProviderError, Request, available
from models_registry.shortening import most_of_all_calls

log = logging.getLogger(__name__)
TRIES = 6
MORE_TRIES = 2
"""How often a call that may have been billed is tried again: after a time-out, a lost connection, a broken answer."""
BACKOFF_SECONDS = 1.0
PATIENCE_SECONDS = 10.0
"""A retry due sooner than this is awaited; for a later one the unit goes back with its time."""
GONE = ("worker_gone", "abandoned")
"""Ledger lines of calls whose end nobody saw: they are no tries of the example's own."""
REFUSED = "rate_limited"
REFUSALS = 30
"""How often an example may be refused for the pace alone: a call that was not let in has not failed."""


def refuse_by_policy(candidate: Candidate) -> None:
    """What planning refuses is refused again before every unit, by the rows as they are now: a candidate may have
    been put into the table by other means, and a mark or a budget may have come later (SECURITY S12).
    Raises ProviderError ("stop")."""
    if not _leaves(candidate):
        return
    experiment = Experiment.objects.select_related("dataset").get(pk=candidate.experiment_id)
    if not experiment.dataset.may_leave:
        _refuse(candidate, "privacy", "it would send documents away, but this dataset is marked as never leaving")
    refuse_by_policy_of(candidate, experiment.team_id)
    if experiment.budget_micro is not None and not _is_priced(candidate):
        sentence = "it has no price, so the budget cannot be kept: enter its price, and add it again"
        _refuse(candidate, "unpriced", sentence)


def refuse_by_policy_of(candidate: Candidate, team: int) -> None:
    """The part of `refuse_by_policy` that is about the connection alone. Raises ProviderError ("stop")."""
    connection = candidate.connection
    if _leaves(candidate) and connection is not None and not (connection.enabled and connection.team_id == team):
        sentence = f"the connection {connection.name!r} is disabled: an administrator enables it"
        _refuse(candidate, "no_connection", sentence)


def _leaves(candidate: Candidate) -> bool:
    provider = available().get(candidate.provider)
    return provider is not None and provider.place == "network"


def _refuse(candidate: Candidate, code: str, sentence: str) -> NoReturn:
    raise ProviderError(f"{candidate.label}: {sentence}", code=code, failure="stop")


@dataclass
class _Attempt:
    """A call in flight, and the tokens that it was guessed to read and write."""

    request: Request
    call: Call
    tokens: int = 0


@dataclass(frozen=True)
class _Bill:
    """What an ended call means for the ledger; `cost` in micro-dollars, None where it is not priced."""

    state: str
    outcome: str
    cost: int | None
    output: Output | None = None
    error: ProviderError | None = None


def call_all(
    lease: Lease,
    candidate: Candidate,
    model: WarmModel,
    requests: Sequence[Request],
    stopping: Callable[[], bool],
    dropping: Callable[[], bool],
    keys: Mapping[int, str],
) -> float | None:
    """Call the API for every request; outputs are kept under their cache `keys`. None when all have an outcome, else
    in how many seconds to try the rest."""
    limits = Limits(candidate.connection) if candidate.connection is not None else None
    calls = _Calls(lease, candidate, model, keys, [(0.0, request) for request in requests], limits=limits)
    try:
        while calls.waiting or calls.running:
            if calls.end is None and (lease.must_stop or stopping()):
                calls.end = Stopped()
            if calls.end is not None:
                calls.drain(dropping)
                raise calls.end
            due = calls.begin()
            if calls.running:
                calls.collect(min(due, 0.5))
            elif due > PATIENCE_SECONDS:
                return due
            else:
                time.sleep(min(due, 0.5))
        return None
    finally:
        calls.abandon()


@dataclass
class _Calls:
    """The calls of one unit: requests that wait for their time, calls in flight, and why no more are begun."""

    lease: Lease
    candidate: Candidate
    model: WarmModel
    keys: Mapping[int, str]
    waiting: list[tuple[float, Request]]
    running: dict[Future[Output], _Attempt] = field(default_factory=dict)
    limits: Limits | None = None
    end: Stopped | ProviderError | None = None

    def begin(self) -> float:
        """Begin all calls that are due, as far as pace and budget allow, until one has ended: an answer is kept, and a
        reason to stop is heard, before the next call. In how many seconds to look again."""
        self.waiting.sort(key=lambda each: each[0])
        while self.waiting and not any(future.done() for future in self.running):
            due = self.waiting[0][0] - time.monotonic()
            if due > 0:
                return due
            pause = self.model.pace.begin()
            if pause is not None:
                return pause or 0.2
            if (pause := self._begin_one()) is not None:
                return pause
        return 0.5

    def _begin_one(self) -> float | None:
        """Begin the first call that waits: None. Or in how many seconds to look again."""
        request = self.waiting[0][1]
        tokens = guess(request.prompt or request.source, _most_written(self.candidate))
        call, pause = None, 0.5
        try:
            allowed = self.limits.take(tokens) if self.limits else None
            if allowed is None:
                call = reserve(self.lease, self.candidate, request)
            else:
                pause = allowed
        except (Stopped, ProviderError) as exc:
            self.end = exc
        finally:
            if call is None:
                self.model.pace.end(answered=False)
        if call is None:
            return pause
        self.waiting.pop(0)
        self.running[self.model.call(request)] = _Attempt(request, call, tokens)
        return None

    def collect(self, seconds: float) -> None:
        """Settle the calls that end within `seconds`, and commit their outcomes."""
        ended, _ = wait(self.running, timeout=seconds, return_when=FIRST_COMPLETED)
        for future in ended:
            self._settle(self.running.pop(future), future)

    def drain(self, dropping: Callable[[], bool]) -> None:
        """Wait for the calls in flight, for their answers are paid for; not when nothing can be written any more."""
        while self.running and self.lease.is_held and not dropping():
            self.collect(0.5)

    def abandon(self) -> None:
        """Calls whose answer nobody waits for any more may be billed: they count at their most."""
        for future, attempt in self.running.items():
            bill = _bill(attempt, future) if future.done() else _at_most(attempt.call, "abandoned")
            try:
                _book(attempt.call, bill)
            except (DatabaseError, InterfaceError):
                log.warning("call %s could not be booked; the sweeper will", attempt.call.pk)
        self.running.clear()

    def _settle(self, attempt: _Attempt, future: Future[Output]) -> None:
        """Book one ended call, with its outcome if it has one, in one transaction."""
        bill = _bill(attempt, future)
        self._tell_limits(attempt, bill)
        if bill.error is None:
            assert bill.output is not None
            _commit(self.lease, attempt, bill, bill.output, self.keys)
            return
        if bill.error.failure == "stop":
            _book(attempt.call, bill)
            self.end = self.end or bill.error
            self.waiting.append((0.0, attempt.request))
            return
        again = _again(self.lease, attempt, bill)
        if again is None:
            failed = Output(attempt.request.key, "error", error_code=bill.error.code, error=str(bill.error))
            _commit(self.lease, attempt, bill, failed, self.keys)
            return
        _book(attempt.call, bill)
        self.waiting.append((time.monotonic() + again, attempt.request))

    def _tell_limits(self, attempt: _Attempt, bill: _Bill) -> None:
        """All workers learn of a pause, and of what the call really took."""
        if self.limits is None:
            return
        if bill.error is not None and bill.outcome == REFUSED:
            self.limits.correct(attempt.tokens, 0)
            if bill.error.retry_after:
                self.limits.pause(bill.error.retry_after)
        elif bill.output is not None and bill.output.input_tokens_read is not None:
            self.limits.correct(attempt.tokens, bill.output.input_tokens_read + (bill.output.output_tokens or 0))


def _bill(attempt: _Attempt, future: Future[Output]) -> _Bill:
    error = future.exception()
    if error is None:
        return _bill_of_output(attempt.call, future.result())
    if not isinstance(error, ProviderError):
        # The name only: what an SDK raises may quote the document or the key.
        log.error("candidate %s: the provider raised %s", attempt.call.candidate_id, type(error).__name__)
        error = ProviderError(f"internal error: {type(error).__name__}", code="provider_bug", failure="final")
    if error.failure == "unknown" or error.code in ("malformed_response", "provider_bug"):
        return _at_most(attempt.call, error.code, error)
    return _Bill(Call.State.SETTLED, error.code, 0, error=error)


def _bill_of_output(call: Call, output: Output) -> _Bill:
    """An answer costs what its tokens cost. One that tells no tokens may cost the most; a rejection costs nothing."""
    price = call.candidate.spec.get("price") or {}
    tokens = (output.input_tokens_read, output.cached_tokens, output.output_tokens)
    cost = cost_micro(*tokens, price.get("in"), price.get("out"), price.get("cached"))
    outcome = output.error_code or "ok"
    was_rejected = output.status in ("error", "refused") and not output.finish_reason
    if cost is None and was_rejected:
        return _Bill(Call.State.SETTLED, outcome, 0, output)
    if cost is None and _is_priced(call.candidate):
        return _Bill(Call.State.UNKNOWN, outcome, call.reserved_micro, output)
    return _Bill(Call.State.SETTLED, outcome, cost, output)


def _at_most(call: Call, outcome: str, error: ProviderError | None = None) -> _Bill:
    cost = call.reserved_micro if _is_priced(call.candidate) else None
    return _Bill(Call.State.UNKNOWN, outcome, cost, error=error)


def _commit(lease: Lease, attempt: _Attempt, bill: _Bill, output: Output, keys: Mapping[int, str]) -> None:
    """The bill and the outcome together. Raises Fenced; the bill is booked even then, for the call was made."""
    cost = bill.cost if bill.state == Call.State.SETTLED and bill.output is not None else None
    try:
        with leasing.fenced(lease):
            _book(attempt.call, bill)
            outcome = _outcome(attempt, output, cost, keys)
            outcome.unit_id, outcome.epoch = lease.unit.pk, lease.epoch
            Generation.objects.bulk_create([outcome], ignore_conflicts=True)
    except Fenced:
        _book(attempt.call, bill)
        raise


def _outcome(attempt: _Attempt, output: Output, cost: int | None, keys: Mapping[int, str]) -> Generation:
    return Generation.of(attempt.call.candidate, output, cost, cache_key=keys.get(output.key, ""))


def _again(lease: Lease, attempt: _Attempt, bill: _Bill) -> float | None:
    """In how many seconds to try once more after this failure; None when it was the last try of this round."""
    assert bill.error is not None
    call = attempt.call
    this_round = WorkUnit.objects.filter(candidate=call.candidate_id, kind="generate", round=lease.unit.round)
    mine = Call.objects.filter(
        candidate=call.candidate_id, example=call.example_id, unit_id__in=this_round.values("pk")
    )
    earlier = mine.exclude(pk=call.pk).exclude(outcome__in=GONE)
    ended = [*earlier.values_list("state", "outcome"), (bill.state, bill.outcome)]
    refusals = sum(outcome == REFUSED for _, outcome in ended)
    tries = len(ended) - refusals
    unknown = sum(state == Call.State.UNKNOWN for state, _ in ended) if bill.state == Call.State.UNKNOWN else 0
    if bill.error.failure == "final" or tries >= TRIES or refusals >= REFUSALS or unknown > MORE_TRIES:
        return None
    if bill.outcome == REFUSED:  # spread, or those that were refused together would be refused together again
        return (bill.error.retry_after or 0.0) + random.uniform(0, BACKOFF_SECONDS)
    if bill.error.retry_after is not None:
        return bill.error.retry_after
    return random.uniform(0, min(60.0, BACKOFF_SECONDS * 2.0**tries))


def reserve(lease: Lease, candidate: Candidate, request: Request) -> Call | None:
    """Write the ledger line before the call, and reserve its worst case from the budget. None when the calls in flight
    must end first, to show how much of the budget they leave. Raises Stopped, with the experiment paused, when the
    budget does not cover it, and ProviderError when there is a budget but no price."""
    most = worst_case_micro(candidate, request)
    with leasing.fenced(lease):
        mine = Experiment.objects.filter(pk=candidate.experiment_id)
        fits = Q(budget_micro__isnull=True)
        if most is not None:
            fits |= Q(budget_micro__gte=F("spent_micro") + F("reserved_micro") + most)
        if mine.filter(fits).update(reserved_micro=F("reserved_micro") + (most or 0)):
            return Call.objects.create(
                experiment_id=candidate.experiment_id,
                candidate=candidate,
                example_id=request.key,
                unit_id=lease.unit.pk,
                epoch=lease.epoch,
                reserved_micro=most or 0,
            )
        experiment = mine.get()
    refuse_by_policy(candidate)
    assert most is not None and experiment.budget_micro is not None
    if experiment.spent_micro + most <= experiment.budget_micro:
        return None
    from evaluations.steering import pause

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
    text += "".join(each["content"] for each in request.messages)
    calls, sent, written = 1, len(text.encode()), _most_written(candidate)
    if candidate.spec.get("long_documents"):
        calls, sent, written = most_of_all_calls(request, candidate.spec)
    return cost_micro(sent + 64 * calls, 0, written, price.get("in"), price.get("out"))


def _most_written(candidate: Candidate) -> int:
    return int((candidate.spec.get("generation") or {}).get("max_new_tokens") or DEFAULT_NEW_TOKENS)


def _is_priced(candidate: Candidate) -> bool:
    price = candidate.spec.get("price") or {}
    return price.get("in") is not None and price.get("out") is not None


def _book(call: Call, bill: _Bill) -> None:
    """Close the ledger line and turn its reservation into what it cost; once, however often it is asked."""
    output = bill.output
    with transaction.atomic(savepoint=False):
        booked = Call.objects.filter(pk=call.pk, state=Call.State.RESERVED).update(
            state=bill.state,
            outcome=bill.outcome[:40],
            cost_micro=bill.cost,
            input_tokens=output.input_tokens_read if output else None,
            cached_tokens=output.cached_tokens if output else None,
            output_tokens=output.output_tokens if output else None,
            latency_ms=output.latency_ms if output else None,
            ended_at=Now(),
        )
        if booked:
            Experiment.objects.filter(pk=call.experiment_id).update(
                reserved_micro=F("reserved_micro") - call.reserved_micro,
                spent_micro=F("spent_micro") + (bill.cost or 0),
            )


def abandon_calls(unit: WorkUnit) -> None:
    """The unit's worker is gone: calls it had reserved may have been made and billed, so they count at their most."""
    _abandon(Call.objects.filter(unit_id=unit.pk, state=Call.State.RESERVED, epoch__lte=unit.epoch))


def abandon_orphans(seconds: float) -> int:
    """Calls begun longer ago whose unit has moved on since (its worker died after it was cancelled, say): how many."""
    before = Now() - timedelta(seconds=seconds)
    old = Call.objects.filter(state=Call.State.RESERVED, started_at__lt=before)
    held = WorkUnit.objects.filter(pk=OuterRef("unit_id"), epoch=OuterRef("epoch"), state="leased")
    return _abandon(old.exclude(Exists(held)))


def _abandon(calls: QuerySet[Call]) -> int:
    found = list(calls.select_related("candidate"))
    for call in found:
        _book(call, _at_most(call, "worker_gone"))
    return len(found)
