"""Many lines of the ledger at once: reserved as far as the money reaches, booked together, each of them once."""

from __future__ import annotations

import threading
import time
from decimal import Decimal
from types import SimpleNamespace

import pytest
from django.db import DataError, connection
from django.db.models import F
from django.db.models.functions import Now

from evaluations import billing, leasing, running, sweeping
from evaluations.models import Call, Candidate, Experiment, Generation, WorkUnit
from evaluations.pacing import Pace
from evaluations.tests.engine import make_dataset, make_experiment, run
from evaluations.tests.test_paid_calls import (  # noqa: F401  (fixtures)
    DOCUMENTS,
    FIVE_TOKENS,
    _quick_retries,
    api,
    ask,
    begun,
    booked,
    check_books,
    connect,
    guarded_budget,
    in_threads,
    ledger,
    make_model,
)
from evaluations.warming import _Crew
from models_registry.providers import Output, ProviderError, Request

pytestmark = pytest.mark.django_db(transaction=True)
NOWHERE = SimpleNamespace(origin="https://models.example")


def planned(team, *, calls: float | None = None) -> tuple[Experiment, Candidate, leasing.Lease, list[Request]]:
    """A claimed unit of 25 documents, with a budget for so many calls."""
    connect(team, NOWHERE)
    model = make_model(team, max_new_tokens=5, price_in=Decimal(0))
    budget = {} if calls is None else {"budget_usd": calls * FIVE_TOKENS / 1_000_000}
    experiment = make_experiment(make_dataset(team, DOCUMENTS), model, **budget)
    _, candidate, lease = begun(experiment)
    return experiment, candidate, lease, list(running._requests(lease, candidate))


def answered(calls: list[Call]) -> tuple[list[billing.Bill], list[Generation]]:
    """All of them with a summary of two tokens."""
    outputs = [
        Output(call.example_id, "ok", text="A boat.", finish_reason="stop", input_tokens_read=9, output_tokens=2)
        for call in calls
    ]
    bills = [billing.bill_of_output(*each) for each in zip(calls, outputs, strict=True)]
    return bills, [Generation.of(bill.call.candidate, bill.output, bill.cost) for bill in bills]


def sums(experiment: Experiment) -> tuple[int, int]:
    experiment.refresh_from_db()
    return experiment.reserved_micro, experiment.spent_micro


def test_calls_that_begin_and_end_together_cost_one_statement_each_way(atlas, django_assert_num_queries) -> None:
    experiment, candidate, lease, requests = planned(atlas, calls=30)
    with django_assert_num_queries(1):
        calls = billing.reserve(lease, candidate, requests)
    assert [call.example_id for call in calls] == [request.key for request in requests]
    assert sums(experiment) == (25 * FIVE_TOKENS, 0)
    bills, outcomes = answered(calls)
    with django_assert_num_queries(1):
        billing.commit(lease, bills, outcomes)
    assert sums(experiment) == (0, 25 * 2 * 8)
    kept = Generation.objects.order_by("pk").values_list("example_id", "text", "cost_micro", "unit_id", "epoch")
    assert list(kept) == [(each.key, "A boat.", 16, lease.unit.pk, lease.epoch) for each in requests]
    line = Call.objects.filter(pk=calls[0].pk).values_list("state", "outcome", "input_tokens", "output_tokens")
    assert list(line) == [("settled", "ok", 9, 2)]
    assert not Call.objects.filter(ended_at=None).exists()


@pytest.mark.parametrize(("budget", "expected"), [(0.5, 0), (1, 1), (3.9, 3), (25, 25), (None, 25)])
def test_a_budget_that_covers_a_part_of_them_lets_the_first_begin(atlas, budget, expected) -> None:
    experiment, candidate, lease, requests = planned(atlas, calls=budget)
    with guarded_budget():
        calls = billing.reserve(lease, candidate, requests)
        assert [call.example_id for call in calls] == [request.key for request in requests[:expected]]
        assert Call.objects.count() == expected
        assert sums(experiment) == (expected * FIVE_TOKENS, 0)
        if budget is not None:
            assert billing.reserve(lease, candidate, requests[:1]) == [], "the budget is used up"


def test_without_a_price_no_budget_covers_a_call(atlas) -> None:
    experiment, candidate, lease, requests = planned(atlas, calls=10)
    candidate.spec = {**candidate.spec, "price": None}
    assert billing.reserve(lease, candidate, requests) == []
    assert sums(experiment) == (0, 0)
    assert not Call.objects.exists()


def test_batches_that_race_for_the_rest_of_a_budget_never_pass_it(atlas) -> None:
    experiment, candidate, lease, requests = planned(atlas, calls=37.5)
    with guarded_budget():
        in_threads(4, lambda number: billing.reserve(lease, candidate, requests[number : number + 15]) and None)
        in_threads(4, lambda number: [billing.reserve(lease, candidate, [each]) for each in requests] and None)
    assert Call.objects.count() == 37
    assert sums(experiment) == (37 * FIVE_TOKENS, 0)


def test_without_the_lease_nothing_is_reserved(atlas) -> None:
    experiment, candidate, lease, requests = planned(atlas)
    WorkUnit.objects.filter(pk=lease.unit.pk).update(epoch=F("epoch") + 1)
    with pytest.raises(leasing.Fenced):
        billing.reserve(lease, candidate, requests)
    assert sums(experiment) == (0, 0)
    assert not Call.objects.exists()


def test_a_lease_that_is_lost_during_the_calls_leaves_bills_and_no_outcome(atlas) -> None:
    experiment, candidate, lease, requests = planned(atlas)
    bills, outcomes = answered(billing.reserve(lease, candidate, requests))
    WorkUnit.objects.filter(pk=lease.unit.pk).update(state="cancelled", epoch=F("epoch") + 1)
    with pytest.raises(leasing.Fenced):
        billing.commit(lease, bills, outcomes)
    assert not Generation.objects.exists()
    assert ledger(experiment) == {("settled", "ok"): 25}
    assert sums(experiment) == (0, 25 * 2 * 8)


def test_a_worker_that_dies_between_reserving_and_calling_is_billed_at_most(atlas) -> None:
    experiment, candidate, lease, requests = planned(atlas)
    billing.reserve(lease, candidate, requests)
    WorkUnit.objects.filter(pk=lease.unit.pk).update(lease_until=Now())
    sweeping.sweep()
    assert ledger(experiment) == {("unknown", "worker_gone"): 25}
    assert sums(experiment) == (0, 25 * FIVE_TOKENS)


def test_a_line_is_booked_once_whoever_books_it(atlas) -> None:
    experiment, candidate, lease, requests = planned(atlas)
    calls = billing.reserve(lease, candidate, requests)
    bills, outcomes = answered(calls)
    in_threads(4, lambda number: billing.book(bills[number:] + bills[:number]))
    billing.commit(lease, bills, outcomes)
    billing.book([billing.at_most(call, "worker_gone") for call in calls])
    assert ledger(experiment) == {("settled", "ok"): 25}
    assert sums(experiment) == (0, 25 * 2 * 8)
    assert booked(experiment) == 25 * 2 * 8


def test_what_the_database_cannot_hold_does_not_hold_up_the_others(atlas) -> None:
    experiment, candidate, lease, requests = planned(atlas)
    bills, outcomes = answered(billing.reserve(lease, candidate, requests))
    outcomes[3].latency_ms = 2**40
    with pytest.raises(DataError):
        billing.commit(lease, bills, outcomes)
    assert Generation.objects.count() == 24
    assert ledger(experiment) == {("settled", "ok"): 24, ("reserved", ""): 1}


def test_failures_and_answers_are_booked_together(atlas) -> None:
    experiment, candidate, lease, requests = planned(atlas)
    calls = billing.reserve(lease, candidate, requests[:3])
    bills, outcomes = answered(calls[:1])
    busy = ProviderError("busy", code="unavailable", failure="retry")
    lost = ProviderError("lost", code="timeout", failure="unknown")
    billing.commit(lease, [*bills, *map(billing.bill_of_error, calls[1:], (busy, lost))], outcomes)
    assert ledger(experiment) == {("settled", "ok"): 1, ("settled", "unavailable"): 1, ("unknown", "timeout"): 1}
    assert sums(experiment) == (0, 16 + 0 + FIVE_TOKENS)


# Through the engine


def test_each_call_has_its_committed_line_before_it_is_made(atlas, api) -> None:  # noqa: F811
    found: list[int] = []

    def before_answer(call) -> None:
        lines = Call.objects.filter(state="reserved").values_list("example__source", flat=True)
        found.append(sum(source in call.prompt for source in lines))
        connection.close()

    api.before_answer = before_answer
    experiment = run(ask(atlas, api))
    assert found == [1] * len(DOCUMENTS)
    check_books(experiment, api)


def test_an_answer_is_committed_while_the_other_calls_of_its_batch_are_in_flight(atlas, api) -> None:  # noqa: F811
    first, was_kept = threading.Lock(), []

    def before_answer(call) -> None:
        if first.acquire(blocking=False):
            api.wait_for(8)
            return
        until = time.monotonic() + 20
        while not (kept := Generation.objects.exists()) and time.monotonic() < until:
            time.sleep(0.01)
        was_kept.append(kept)
        connection.close()

    api.before_answer = before_answer
    run(ask(atlas, api))
    assert was_kept == [True] * (len(DOCUMENTS) - 1)


def test_a_usage_beyond_all_reason_is_not_known_rather_than_fatal(atlas, api) -> None:  # noqa: F811
    from models_registry.testing_api import completion

    api.answer(completion("Something.", usage={"prompt_tokens": 10**12, "completion_tokens": 2}))
    experiment = run(ask(atlas, api, DOCUMENTS[:1]))
    assert Generation.objects.get().input_tokens is None
    assert ledger(experiment) == {("unknown", "ok"): 1}
    check_books(experiment, api)


# What calls share


def test_who_found_no_room_is_told_once_when_there_is_some() -> None:
    pace, told = Pace(2), []

    def look() -> None:
        told.append(pace.begin())

    assert [pace.begin(look) for _ in range(4)] == [None, None, 0.0, 0.0]
    pace.limit = 1
    pace.end(answered=True)
    assert told == [], "one is still in flight, and no more are allowed now"
    pace.end(answered=True)
    assert told == [None]
    pace.end(answered=True)
    assert told == [None]


def test_calls_at_once_have_threads_of_their_own_and_leave_them_to_later_ones() -> None:
    crew, used, together = _Crew(), set(), threading.Barrier(5, timeout=10)

    def job() -> None:
        used.add(threading.get_ident())
        together.wait()

    for _ in range(4):
        crew.do(job)
    together.wait()
    assert len(used) == 4
    later: list[int] = []
    until = time.monotonic() + 10
    while not used & set(later) and time.monotonic() < until:
        done = threading.Event()

        def note(done: threading.Event = done) -> None:
            later.append(threading.get_ident())
            done.set()

        crew.do(note)
        done.wait(10)
    assert used & set(later)
