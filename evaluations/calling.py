"""Calling asks a paid API for outputs: several connections at once, every attempt in the ledger before it is made.

Calls run in threads; only the thread that holds the lease talks to the database. All calls that are due are reserved
in one transaction, and all that have ended since the last are committed in one, outcomes with their bills (`billing`),
before any more are made: one call waits for another only as long as such a transaction takes, and the busier it is the
more calls share one.
"""

from __future__ import annotations

import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import NoReturn
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from evaluations.billing import (
    Bill,
    at_most,
    bill_of_error,
    bill_of_output,
    book,
    commit,
    is_priced,
    most_written,
    reserve,
    worst_case_micro,
)
from evaluations.leasing import Lease, Stopped
from evaluations.limiting import Limits, guess
from evaluations.models import Call, Candidate, Experiment, Generation, WorkUnit
from evaluations.steering import pause
from evaluations.warming import WarmModel
from models_registry.providers import Output, ProviderError, Request, available

log = logging.getLogger(__name__)
TRIES = 6
MORE_TRIES = 2
"""How often a call that may have been billed is tried again: after a time-out, a lost connection, a broken answer."""
BACKOFF_SECONDS = 1.0
PATIENCE_SECONDS = 10.0
"""A retry due sooner than this is awaited; for a later one the unit goes back with its time."""
LOOK_SECONDS = 0.5
"""How often to look for a reason to stop, where nothing else happens."""
GONE = ("worker_gone", "abandoned")
"""Ledger lines of calls whose end nobody saw: they are no tries of the example's own."""
REFUSED = "rate_limited"
REFUSALS = 30
"""How often an example may be refused for the pace alone: a call that was not let in has not failed."""


def refuse_by_policy(candidate: Candidate) -> None:
    """What planning refuses is refused again before every unit, by the rows as they are now: a candidate may have
    been put into the table by other means, and a mark or a budget may have come later (SECURITY S12).
    Raises ProviderError ("stop")."""
    if not leaves(candidate):
        return
    experiment = Experiment.objects.select_related("dataset").get(pk=candidate.experiment_id)
    if not experiment.dataset.may_leave:
        _refuse(candidate, "privacy", "it would send documents away, but this dataset is marked as never leaving")
    refuse_by_policy_of(candidate, experiment.team_id)
    if experiment.budget_micro is not None and not is_priced(candidate):
        sentence = "it has no price, so the budget cannot be kept: enter its price, and add it again"
        _refuse(candidate, "unpriced", sentence)


def refuse_by_policy_of(candidate: Candidate, team: int) -> None:
    """The part of `refuse_by_policy` that is about the connection alone. Raises ProviderError ("stop")."""
    connection = candidate.connection
    if leaves(candidate) and connection is not None and not (connection.enabled and connection.team_id == team):
        sentence = f"the connection {connection.name!r} is disabled: an administrator enables it"
        _refuse(candidate, "no_connection", sentence)


def leaves(candidate: Candidate) -> bool:
    """Whether what it is asked goes to a service."""
    provider = available().get(candidate.provider)
    return provider is not None and provider.place == "network"


def _refuse(candidate: Candidate, code: str, sentence: str) -> NoReturn:
    raise ProviderError(f"{candidate.label}: {sentence}", code=code, failure="stop")


@dataclass
class _Attempt:
    """A call that is in the ledger, the tokens that it was guessed to read and write, and its end once it is made."""

    request: Request
    call: Call
    tokens: int = 0
    future: Future[Output] | None = None

    @property
    def has_ended(self) -> bool:
        return self.future is not None and self.future.done()


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
            if not calls.running and due > PATIENCE_SECONDS:
                return due
            calls.collect(min(due, LOOK_SECONDS))
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
    running: list[_Attempt] = field(default_factory=list)
    limits: Limits | None = None
    end: Stopped | ProviderError | None = None
    not_before: float = 0.0
    """The limits allow no call until then, by `time.monotonic`."""
    is_short: bool = False
    """There is no money for the next call, until one of those in flight has ended and shown how much it leaves."""
    news: SimpleQueue[object] = field(default_factory=SimpleQueue)
    """Something to wake up for: a call has ended, or there is room for one."""

    def begin(self) -> float:
        """Begin all calls that are due, as far as pace, limits and budget allow, unless one has ended: an answer is
        kept, and a reason to stop is heard, before the next call. In how many seconds to look again."""
        if not self.waiting or any(each.has_ended for each in self.running):
            return LOOK_SECONDS
        self.waiting.sort(key=lambda each: each[0])
        now = time.monotonic()
        due = [request for at, request in self.waiting if at <= now]
        if self.not_before > now or not due:
            return max(self.not_before, self.waiting[0][0]) - now
        if self.is_short and self.running:
            return LOOK_SECONDS
        room, pause = self._take_off(len(due))
        made = len(self.running)
        try:
            self._begin(due[:room])
        except (Stopped, ProviderError) as exc:
            self.end = exc
        finally:
            made = sum(each.future is not None for each in self.running[made:])
            for _ in range(room - made):
                self.model.pace.end(answered=False)
        if made < room:
            return max(0.0, self.not_before - time.monotonic()) or LOOK_SECONDS
        if made < len(due):
            return pause
        return self.waiting[0][0] - now if self.waiting else LOOK_SECONDS

    def _take_off(self, wanted: int) -> tuple[int, float]:
        """How many calls the pace lets in now, and in how many seconds to ask again for more."""
        for room in range(wanted):
            if (pause := self.model.pace.begin(self._look)) is not None:
                return room, pause or LOOK_SECONDS
        return wanted, LOOK_SECONDS

    def _look(self) -> None:
        self.news.put(None)

    def _begin(self, requests: Sequence[Request]) -> None:
        """Begin the first of these calls that limits and budget allow. Raises what `reserve` raises, and Stopped or
        ProviderError where there is no money for even one."""
        tokens = [guess(each.prompt or each.source, most_written(self.candidate)) for each in requests]
        allowed = len(requests)
        if self.limits is not None and requests:
            allowed, pause = self.limits.take(tokens)
            self.not_before = time.monotonic() + pause
        if not allowed:
            return
        calls = reserve(self.lease, self.candidate, requests[:allowed])
        begun = [_Attempt(*each) for each in zip(requests, calls, tokens, strict=False)]
        self.running += begun  # before any is made, so that each is booked, whatever happens here
        del self.waiting[: len(begun)]
        for attempt in begun:
            attempt.future = self.model.call(attempt.request)
            attempt.future.add_done_callback(self.news.put)
        if len(calls) < allowed:
            self.is_short = True
            if self.limits is not None:
                self.limits.give_back(allowed - len(calls), sum(tokens[len(calls) : allowed]))
        if not calls:
            refuse_without_money(self.candidate, requests[0])

    def collect(self, seconds: float) -> None:
        """Wait for so long at most until a call ends, or room for one is made; settle all that have ended."""
        try:
            self.news.get(timeout=max(0.0, seconds))
            while True:
                self.news.get_nowait()
        except Empty:
            pass
        if ended := [each for each in self.running if each.has_ended]:
            self._settle(ended)

    def drain(self, dropping: Callable[[], bool]) -> None:
        """Wait for the calls in flight, for their answers are paid for; not when nothing can be written any more."""
        while self.running and self.lease.is_held and not dropping():
            self.collect(LOOK_SECONDS)

    def abandon(self) -> None:
        """Calls whose answer nobody waits for any more may be billed: they count at their most."""
        for each in self.running:
            try:
                book([_bill(each) if each.has_ended else at_most(each.call, "abandoned")])
            except (DatabaseError, InterfaceError):
                log.warning("call %s could not be booked; the sweeper will", each.call.pk)
        self.running.clear()

    def _settle(self, ended: Sequence[_Attempt]) -> None:
        """Book these ended calls, with the outcomes that they led to, in one transaction."""
        bills = {each.call.pk: _bill(each) for each in ended}
        self._tell_limits(ended, bills)
        again = _again(self.lease, [bill for bill in bills.values() if bill.error is not None])
        outcomes = []
        for attempt in ended:
            bill = bills[attempt.call.pk]
            if bill.error is None:
                assert bill.output is not None
                cost = bill.cost if bill.state == Call.State.SETTLED else None
                outcomes.append(self._outcome(bill.output, cost))
            elif bill.error.failure == "stop":
                self.end = self.end or bill.error
                self.waiting.append((0.0, attempt.request))
            elif (later := again[attempt.call.pk]) is None:
                failed = Output(attempt.request.key, "error", error_code=bill.error.code, error=str(bill.error))
                outcomes.append(self._outcome(failed, None))
            else:
                self.waiting.append((time.monotonic() + later, attempt.request))
        commit(self.lease, list(bills.values()), outcomes)
        self.running = [each for each in self.running if each.call.pk not in bills]
        self.is_short = False

    def _outcome(self, output: Output, cost: int | None) -> Generation:
        return Generation.of(self.candidate, output, cost, cache_key=self.keys.get(output.key, ""))

    def _tell_limits(self, ended: Sequence[_Attempt], bills: Mapping[UUID, Bill]) -> None:
        """All workers learn of a pause, and of what the calls really took."""
        if self.limits is None:
            return
        unused, longest = 0, 0.0
        for attempt in ended:
            bill = bills[attempt.call.pk]
            if bill.error is not None and bill.outcome == REFUSED:
                unused += attempt.tokens
                longest = max(longest, bill.error.retry_after or 0.0)
            elif bill.output is not None and bill.output.input_tokens_read is not None:
                unused += attempt.tokens - bill.output.input_tokens_read - (bill.output.output_tokens or 0)
        self.limits.give_back(0, unused)
        if longest:
            self.limits.pause(longest)


def _bill(attempt: _Attempt) -> Bill:
    assert attempt.future is not None
    error = attempt.future.exception()
    if error is None:
        return bill_of_output(attempt.call, attempt.future.result())
    if not isinstance(error, ProviderError):
        # The name only: what an SDK raises may quote the document or the key.
        log.error("candidate %s: the provider raised %s", attempt.call.candidate_id, type(error).__name__)
        error = ProviderError(f"internal error: {type(error).__name__}", code="provider_bug", failure="final")
    return bill_of_error(attempt.call, error)


def _again(lease: Lease, failed: Sequence[Bill]) -> dict[UUID, float | None]:
    """In how many seconds to try each of these failed calls once more; None when it was the last try of this round."""
    if not failed:
        return {}
    candidate = failed[0].call.candidate_id
    this_round = WorkUnit.objects.filter(candidate=candidate, kind="generate", round=lease.unit.round)
    mine = Call.objects.filter(
        candidate=candidate,
        example__in=[bill.call.example_id for bill in failed],
        unit_id__in=this_round.values("pk"),
    )
    earlier = mine.exclude(pk__in=[bill.call.pk for bill in failed]).exclude(outcome__in=GONE)
    ended = defaultdict(list)
    for example, state, outcome in earlier.values_list("example_id", "state", "outcome"):
        ended[example].append((state, outcome))
    return {
        bill.call.pk: _again_after(bill, [*ended[bill.call.example_id], (bill.state, bill.outcome)]) for bill in failed
    }


def _again_after(bill: Bill, ended: Sequence[tuple[str, str]]) -> float | None:
    """The same for one call, by the (state, outcome) of all of its example's calls up to this one."""
    assert bill.error is not None
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


def refuse_without_money(candidate: Candidate, request: Request) -> None:
    """The budget did not cover this call. Nothing, when it would once the calls in flight have ended and shown how much
    of it they leave. Raises Stopped, with the experiment paused, when it would not, and ProviderError where there is a
    budget but no price."""
    refuse_by_policy(candidate)
    experiment = Experiment.objects.get(pk=candidate.experiment_id)
    most = worst_case_micro(candidate, request)
    if experiment.budget_micro is None or most is None or experiment.spent_micro + most <= experiment.budget_micro:
        return
    pause(
        experiment,
        "budget",
        "The budget does not cover the worst case of the next call: raise it and resume, or read what is finished.",
    )
    raise Stopped
