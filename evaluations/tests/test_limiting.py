"""The rate of a connection is shared by all workers, kept by the database's clock, and survives each of them."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection as database
from django.db.models import F
from django.db.models.functions import Now

from evaluations.limiting import BURST_SECONDS, LOOK_SECONDS, Limits, guess
from evaluations.pacing import Pace
from evaluations.tests.engine import make_dataset, make_experiment, run
from models_registry.models import MOST_AT_ONCE, Allowance, Connection, ModelEntry
from models_registry.testing_api import error, serve

pytestmark = pytest.mark.django_db(transaction=True)


def connect(team, **fields) -> Connection:
    return Connection.objects.create(team=team, name="main", provider="openai", **fields)


def age(seconds: float) -> None:
    """So much time passes, for the buckets."""
    step = timedelta(seconds=seconds)
    Allowance.objects.update(filled_at=F("filled_at") - step, not_before=F("not_before") - step)


def taken(limits: Limits, most: int = 1000, tokens: int = 0) -> int:
    """How many calls are let in before the first must wait."""
    for count in range(most):
        if wait_of(limits, tokens) is not None:
            return count
    return most


def wait_of(limits: Limits, tokens: int) -> float | None:
    """In how many seconds one call may be made; None when it was let in."""
    let_in, seconds = limits.take([tokens])
    return None if let_in else seconds


SLOW = {"requests_per_minute": 6}
"""One in ten seconds: what the clock adds while a test runs does not count."""


def test_a_full_bucket_lets_in_what_half_a_second_allows_and_tells_when_the_next_may(atlas) -> None:
    limits = Limits(connect(atlas, **SLOW))
    assert taken(limits) == 1
    wait = wait_of(limits, 0)
    assert wait is not None
    assert 5 < wait <= 10


def test_time_fills_it_at_the_rate_and_never_beyond_the_burst(atlas) -> None:
    limits = Limits(connect(atlas, requests_per_minute=60))
    taken(limits)
    for seconds, expected in ((1.0, 1), (3600.0, 1)):
        age(seconds)
        assert taken(limits) == expected
    wide = connect_wide(atlas)
    Allowance.objects.create(connection=wide, requests=0, filled_at=Now() - timedelta(hours=1))
    assert taken(Limits(wide), most=40) >= 30, "half a second of 60 a second, and what the clock adds"


def connect_wide(team) -> Connection:
    return Connection.objects.create(team=team, name="wide", provider="openai", requests_per_minute=3600)


def test_workers_share_one_bucket(atlas) -> None:
    row = connect(atlas, **SLOW)
    let_in: list[int] = []

    def work() -> None:
        try:
            let_in.append(taken(Limits(row)))
        finally:
            database.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(let_in) == [0, 0, 0, 0, 0, 1]


def test_tokens_may_be_owed_and_are_corrected_when_they_are_known(atlas) -> None:
    limits = Limits(connect(atlas, tokens_per_minute=60))
    assert wait_of(limits, 100) is None, "a call that is larger than the bucket must be made, too"
    owed = wait_of(limits, 1)
    assert owed is not None
    assert 90 < owed <= 100
    limits.give_back(0, 60)
    paid = wait_of(limits, 1)
    assert paid is not None
    assert 30 < paid <= 40
    assert Allowance.objects.get().tokens == pytest.approx(-39, abs=2)


def test_calls_that_begin_together_are_let_in_as_far_as_requests_and_tokens_reach(atlas) -> None:
    row = connect(atlas, requests_per_minute=960, tokens_per_minute=12_000)  # a bucket of 8 requests and 100 tokens
    assert Limits(row).take([])[0] == 0
    let_in, seconds = Limits(row).take([0] * 5)
    assert (let_in, seconds) == (5, 0.0)
    age(3600)
    let_in, seconds = Limits(row).take([0] * 20)
    assert let_in == 8
    assert seconds > 0
    age(3600)
    let_in, seconds = Limits(row).take([60, 60, 60])
    assert let_in == 2, "the second takes the last 40 and owes 20"
    assert seconds > 0
    assert Allowance.objects.get().requests == pytest.approx(6)


def test_calls_that_were_not_made_give_back_what_they_took(atlas) -> None:
    limits = Limits(connect(atlas, requests_per_minute=6, tokens_per_minute=60))
    assert limits.take([100])[0] == 1
    limits.give_back(1, 100)
    assert limits.take([100])[0] == 1


def test_a_rate_that_is_not_known_is_not_counted(atlas) -> None:
    row = connect(atlas, tokens_per_minute=6_000_000)
    assert taken(Limits(row), most=50, tokens=1) == 50
    assert Allowance.objects.get().requests >= 0


def test_a_pause_that_one_worker_was_asked_for_holds_for_all(atlas) -> None:
    row = connect(atlas, requests_per_minute=60_000)
    one, two = Limits(row), Limits(row)
    assert wait_of(two, 0) is None
    one.pause(60)
    wait = wait_of(two, 0)
    assert wait is not None
    assert 50 < wait <= 60
    one.pause(5)
    assert (wait_of(two, 0) or 0) > 50, "a shorter pause does not end a longer one"
    age(61)
    assert wait_of(two, 0) is None


def test_a_pause_holds_where_no_limit_is_known_and_is_looked_for_now_and_then(atlas, django_assert_num_queries) -> None:
    row = connect(atlas)
    Limits(row).pause(60)
    fresh = Limits(row)
    assert (wait_of(fresh, 0) or 0) > 50
    assert (wait_of(fresh, 0) or 0) > 50, "while it lasts, every look finds it"
    age(61)
    assert wait_of(fresh, 0) is None
    with django_assert_num_queries(0):
        assert wait_of(fresh, 0) is None
    assert LOOK_SECONDS < BURST_SECONDS


def test_a_guess_counts_the_text_and_half_of_what_may_be_written() -> None:
    assert guess("four" * 100, 40) == 120


def test_a_connection_is_used_by_so_many_calls_at_most(atlas) -> None:
    assert connect(atlas, concurrency=5000).access().concurrency == MOST_AT_ONCE


# The pace


def test_the_pace_never_falls_below_what_was_just_served(monkeypatch) -> None:
    """Twenty calls in flight were answered again and again; the twenty-first was refused: nineteen is no cure."""
    clock = [100.0]
    monkeypatch.setattr("evaluations.pacing.time.monotonic", lambda: clock[0])
    pace = Pace(64)
    for _ in range(20):
        assert pace.begin() is None
    for _ in range(15):
        clock[0] += 0.2
        for _ in range(20):
            pace.end(answered=True, seconds=0.2)
            assert pace.begin() is None
    pace.limit = 22
    pace.slow_down(None)
    assert 19 <= pace.limit <= 21
    clock[0] += 5
    pace.slow_down(None)
    assert pace.limit <= 10, "nothing was answered of late, so it halves"


# All together


def test_an_experiment_keeps_its_rate_and_loses_no_call(atlas, settings) -> None:
    """The server lets in three hundred a second and refuses what is more; the connection knows."""
    with serve(rate=300) as server:
        settings.EGRESS_ALLOW = [server.allow]
        row = connect(atlas, base_url=f"{server.origin}/v1", requests_per_minute=300 * 60, concurrency=32)
        row.set_key("sk-0123456789abcdef")
        row.save()
        entry = ModelEntry.objects.create(
            team=atlas, slug="m", name="m", uri="openai://first-sentence", architecture="causal", privacy="external"
        )
        documents = [f"Boat {number} left. It came back." for number in range(60)]
        experiment = run(make_experiment(make_dataset(atlas, documents), entry))
        assert experiment.state == "completed"
        assert len(server.calls) == 60, "none was refused, none was repeated"


def test_a_refusal_pauses_the_whole_connection_in_the_database(atlas, settings) -> None:
    with serve() as server:
        settings.EGRESS_ALLOW = [server.allow]
        row = connect(atlas, base_url=f"{server.origin}/v1")
        row.set_key("sk-0123456789abcdef")
        row.save()
        entry = ModelEntry.objects.create(
            team=atlas, slug="m", name="m", uri="openai://first-sentence", architecture="causal", privacy="external"
        )
        server.answer(error(429, "Slow down.", code="rate_limit_exceeded", Retry_After="100"))
        run(make_experiment(make_dataset(atlas, ["One. Two."]), entry))
        assert (wait_of(Limits(row), 0) or 0) > 60
