"""Experiments through the real SDKs against a local server: what was called, what it cost, and what is never sent.

The server's own list of calls is the oracle: what a provider would bill. Retries are quick here, since the back-off
is shortened; its real length is a constant of `running`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now

from evaluations import billing, calling, comparing, leasing, planning, running, steering, sweeping
from evaluations.models import Aggregate, Call, Candidate, Experiment, Generation, WorkUnit
from evaluations.pacing import Pace
from evaluations.steering import locked
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, run, work_off
from evaluations.working import WorkerProcess
from lumigator.models import Team
from models_registry import choosing
from models_registry.models import Allowance, Connection, ModelEntry
from models_registry.pricing import cost_micro
from models_registry.providers import ProviderError
from models_registry.testing_api import Call as Seen
from models_registry.testing_api import Canned, TestingApi, completion, error

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "sk-canary-77e0c1b2d3"
PRICE_IN, PRICE_OUT = Decimal("2"), Decimal("8")
DOCUMENTS = [f"Boat {number} left port {number % 7}. It carried salt. Nobody saw it return." for number in range(30)]


class Api(TestingApi):
    """The server, which also counts how many calls are in flight, and may do something before it answers one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.flying = self.most = 0
        self.before_answer: Callable[[Seen], None] = lambda call: None
        self._counting = threading.Condition()

    def record(self, call: Seen) -> int:
        with self._counting:
            self.flying += 1
            self.most = max(self.most, self.flying)
            self._counting.notify_all()
        return super().record(call)

    def next_answer(self, call: Seen) -> Canned:
        self.before_answer(call)
        with self._counting:
            self.flying -= 1
        return super().next_answer(call)

    def wait_for(self, calls: int, seconds: float = 10.0) -> bool:
        """Until that many calls were in flight at once."""
        with self._counting:
            return self._counting.wait_for(lambda: self.most >= calls, timeout=seconds)

    def documents(self) -> Counter[str]:
        return Counter(call.prompt for call in self.calls)


@pytest.fixture
def api(settings) -> Iterator[Api]:
    server = Api(key=KEY)
    settings.EGRESS_ALLOW = [server.allow]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "BACKOFF_SECONDS", 0.01)


def connect(team: Team, api: Api, scheme: str = "openai", *, key: str = KEY, **fields: Any) -> Connection:
    made = Connection(team=team, name=scheme, provider=scheme, base_url=f"{api.origin}/v1", **fields)
    made.set_key(key)
    made.save()
    return made


def make_model(team: Team, scheme: str = "openai", *, max_new_tokens: int = 40, **fields: Any) -> ModelEntry:
    prices = {"price_in": PRICE_IN, "price_out": PRICE_OUT}
    return ModelEntry.objects.create(
        team=team,
        slug=f"{scheme}-model",
        name=scheme,
        uri=f"{scheme}://first-sentence",
        architecture="causal",
        privacy="external",
        generation={"max_new_tokens": max_new_tokens},
        **{**prices, **fields},
    )


def ask(team: Team, api: Api, documents: list[str] = DOCUMENTS, **data: Any) -> Experiment:
    """An experiment with one OpenAI model that this server answers for."""
    connect(team, api)
    return make_experiment(make_dataset(team, documents), make_model(team), **data)


def ledger(experiment: Experiment) -> Counter[tuple[str, str]]:
    return Counter(Call.objects.filter(experiment=experiment).values_list("state", "outcome"))


def booked(experiment: Experiment) -> int:
    return sum(Call.objects.filter(experiment=experiment).values_list("cost_micro", flat=True))


def outcome_of(experiment: Experiment, word: str) -> Generation:
    return Generation.objects.get(candidate__experiment=experiment, example__source__contains=word)


def check_books(experiment: Experiment, api: Api) -> None:
    """Each call that the server saw is one line of the ledger, nothing stays reserved, and the sums agree."""
    experiment.refresh_from_db()
    assert Call.objects.filter(experiment=experiment).count() == len(api.calls)
    assert not Call.objects.filter(experiment=experiment, state="reserved").exists()
    assert experiment.reserved_micro == 0
    assert experiment.spent_micro == booked(experiment)


# --- what is not called twice ---------------------------------------------------------------------------------------


def test_what_was_paid_for_once_is_not_paid_for_again(atlas, api):
    first = run(ask(atlas, api))
    n = len(api.calls)
    again = run(make_experiment(make_dataset(atlas, DOCUMENTS), "openai-model"))
    assert len(api.calls) == n and again.spent_micro == 0
    assert Generation.objects.filter(candidate__experiment=again, reused=True).count() == len(DOCUMENTS)
    costs = [comparing.comparison(each)["candidates"][0]["cost_usd"] for each in (first, again)]
    assert costs[0] == costs[1] > 0, "what such outputs cost does not change because they are reused"


# --- what a call leaves behind --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["openai", "mistral"])
def test_every_outcome_has_one_settled_call_with_its_tokens_and_price(atlas, api, scheme):
    connect(atlas, api, scheme)
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_model(atlas, scheme)))
    assert experiment.state == "completed"
    assert ledger(experiment) == {("settled", "ok"): len(DOCUMENTS)}
    assert set(api.documents().values()) == {1}
    for generation in Generation.objects.filter(candidate__experiment=experiment):
        call = Call.objects.get(candidate=generation.candidate_id, example=generation.example_id)
        tokens = (call.input_tokens, call.cached_tokens, call.output_tokens)
        assert tokens == (generation.input_tokens, generation.cached_tokens, generation.output_tokens)
        assert call.input_tokens
        assert call.output_tokens == 5
        assert call.cost_micro == generation.cost_micro == cost_micro(*tokens, PRICE_IN, PRICE_OUT)
        assert 0 < call.cost_micro <= call.reserved_micro
    check_books(experiment, api)


def test_calls_overlap_up_to_what_the_connection_allows(atlas, api):
    api.before_answer = lambda call: api.wait_for(6) and None  # the first calls are answered once six are in flight
    connect(atlas, api, concurrency=6)
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_model(atlas)))
    assert experiment.state == "completed"
    assert api.most == 6


def test_an_answer_that_tells_no_tokens_is_billed_at_its_most(atlas, api):
    api.answer(completion("Something.", usage={}))
    experiment = run(ask(atlas, api, DOCUMENTS[:1]))
    call = Call.objects.get()
    assert Generation.objects.get().text == "Something."
    assert (call.state, call.cost_micro) == ("unknown", call.reserved_micro)
    check_books(experiment, api)


def test_an_unpriced_model_has_no_cost_rather_than_none_to_pay(atlas, api):
    connect(atlas, api)
    model = make_model(atlas, price_in=None, price_out=None)
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS[:3]), model))
    assert set(Call.objects.values_list("state", "cost_micro")) == {("settled", None)}
    assert experiment.candidates.get().summary["cost_micro"] is None


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_slower_pace_is_kept_and_each_attempt_is_in_the_ledger(atlas, api):
    slower = error(429, "Slow down.", code="rate_limit_exceeded", Retry_After="0")
    api.answer(slower, slower, slower)
    experiment = run(ask(atlas, api))
    assert experiment.state == "completed"
    assert ledger(experiment) == {("settled", "ok"): len(DOCUMENTS), ("settled", "rate_limited"): 3}
    assert set(Call.objects.filter(outcome="rate_limited").values_list("cost_micro", flat=True)) == {0}
    check_books(experiment, api)


def test_an_endless_slower_pace_ends_as_an_error(atlas, api):
    api.answer(*[error(429, "Slow down.", code="rate_limit_exceeded", Retry_After="0")] * calling.REFUSALS)
    experiment = run(ask(atlas, api, DOCUMENTS[:1]))
    assert Generation.objects.get().error_code == "rate_limited"
    assert len(api.calls) == calling.REFUSALS
    assert experiment.state == "completed_with_errors"


def test_refusals_for_the_pace_use_up_no_tries_of_a_failing_call(atlas, api):
    slower = error(429, "Slow down.", code="rate_limit_exceeded", Retry_After="0")
    busy = error(503, "Overloaded.", Retry_After="0")
    api.answer(*[slower] * 10, *[busy] * (calling.TRIES - 1), *[slower] * 5)
    experiment = run(ask(atlas, api, DOCUMENTS[:1]))
    assert experiment.state == "completed"
    check_books(experiment, api)


def test_a_retry_that_is_far_away_gives_the_unit_back_until_then(atlas, api):
    experiment = ask(atlas, api, DOCUMENTS[:3])
    api.answer(*[error(429, "Slow down.", code="rate_limit_exceeded", Retry_After="120")] * 3)
    run(experiment)
    unit = WorkUnit.objects.get(kind="generate")
    assert (unit.state, experiment.state) == ("ready", "running")
    assert not sweeping.waiting(("gpu", "api", "cpu")), "nothing is claimed before its time"
    left = WorkUnit.objects.annotate(left=F("next_at") - Now()).get(pk=unit.pk).left
    assert 60 < left.total_seconds() <= 120
    api.queue.clear()
    Allowance.objects.update(not_before=None)  # the two minutes are over
    WorkUnit.objects.filter(pk=unit.pk).update(next_at=Now())
    work_off()
    experiment.refresh_from_db()
    assert experiment.state == "completed"
    check_books(experiment, api)


def test_a_call_without_an_answer_is_billed_at_its_most_and_tried_twice_more(atlas, api):
    documents = [*DOCUMENTS[:4], "This one [[fault:hang]] hangs. It does."]
    connect(atlas, api, read_timeout=0.4)
    experiment = run(make_experiment(make_dataset(atlas, documents), make_model(atlas)))
    assert outcome_of(experiment, "hangs").error_code == "timeout"
    assert ledger(experiment) == {("settled", "ok"): 4, ("unknown", "timeout"): 3}
    for call in Call.objects.filter(state="unknown"):
        assert call.cost_micro == call.reserved_micro > 0
    check_books(experiment, api)


def test_a_time_out_after_other_failures_still_has_its_own_tries(atlas, api):
    unavailable = error(503, "Overloaded.", Retry_After="0")
    api.answer(unavailable, unavailable, unavailable, Canned(reset=True), Canned(reset=True))
    experiment = run(ask(atlas, api, DOCUMENTS[:1]))
    assert Generation.objects.get().status == "ok"
    assert ledger(experiment) == {
        ("settled", "unavailable"): 3,
        ("unknown", "connection_lost"): 2,
        ("settled", "ok"): 1,
    }


def test_a_wrong_key_stops_its_candidate_in_words_and_the_others_finish(atlas, api):
    connect(atlas, api)
    connect(atlas, api, "mistral", key="sk-of-somebody-else")
    models = make_model(atlas), make_model(atlas, "mistral"), make_fake(atlas)
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), *models))
    stopped = experiment.candidates.get(label="mistral-model")
    assert experiment.state == "completed_with_errors"
    assert stopped.problem_code == "auth"
    assert "replace the key" in stopped.problem
    assert not stopped.generations.exists()
    assert Generation.objects.filter(status="ok").count() == 2 * len(DOCUMENTS)
    assert sum(call.headers.get("authorization", "").endswith("else") for call in api.calls) <= 8
    assert not WorkUnit.objects.filter(candidate=stopped, state__in=("ready", "leased")).exists()
    check_books(experiment, api)


def test_what_was_answered_before_the_key_was_refused_is_kept_and_scored(atlas, api):
    def revoke(call: Seen) -> None:
        if len(api.calls) == 12:
            api.key = "another key"

    api.before_answer = revoke
    experiment = run(ask(atlas, api))
    answered = Generation.objects.filter(candidate__experiment=experiment)
    assert 0 < answered.count() < len(DOCUMENTS)
    assert ledger(experiment)["settled", "ok"] == answered.count()
    assert Aggregate.objects.get(part="rouge1").n == answered.count()
    check_books(experiment, api)
    api.key = KEY
    api.before_answer = lambda call: None
    assert steering.resume(experiment)
    work_off()
    experiment.refresh_from_db()
    assert experiment.state == "completed"
    assert ledger(experiment)["settled", "ok"] == len(DOCUMENTS)


def test_each_bad_answer_is_its_rows_outcome(atlas, api):
    faults = {
        "filtered": ("refused", "content_filter"),
        "refused": ("refused", "content_filter"),
        "empty": ("empty", "empty_output"),
        "too_long": ("error", "input_too_long"),
        "bad_json": ("error", "malformed_response"),
        "no_choices": ("error", "malformed_response"),
    }
    documents = [*DOCUMENTS[:10], *(f"A document that is <{name}> [[fault:{name}]] here. Yes." for name in faults)]
    experiment = run(ask(atlas, api, documents))
    assert experiment.state == "completed_with_errors"
    for name, expected in faults.items():
        generation = outcome_of(experiment, f"<{name}>")
        assert (generation.status, generation.error_code) == expected, name
        assert generation.error
    aggregate = Aggregate.objects.get(part="rouge1")
    assert aggregate.states == {"value": 10, "failed": len(faults)}
    assert aggregate.n == 16
    summary = comparing.comparison(experiment)["candidates"][0]
    assert experiment.candidates.get().summary["states"] == {"ok": 10, "refused": 2, "empty": 1, "error": 3}
    assert summary["label"] == "openai-model"
    assert ledger(experiment)["unknown", "malformed_response"] == 6, "tried, and tried twice more; perhaps billed"
    assert ledger(experiment)["settled", "input_too_long"] == 1
    assert Call.objects.get(outcome="input_too_long").cost_micro == 0
    check_books(experiment, api)


# --- money ----------------------------------------------------------------------------------------------------------

FIVE_TOKENS = 5 * 8
"""What a call costs below: input is free, and each answer is cut at five tokens, so that the worst case is the case."""


@contextmanager
def guarded_budget() -> Iterator[None]:
    """The database itself refuses any moment in which more than the budget is spent and reserved."""
    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE evaluations_experiment ADD CONSTRAINT within_budget"
            " CHECK (spent_micro + reserved_micro <= budget_micro)"
        )
        try:
            yield
        finally:
            cursor.execute("ALTER TABLE evaluations_experiment DROP CONSTRAINT within_budget")


def in_threads(count: int, step: Callable[[int], None]) -> None:
    """Run `step(0)` … at once, each with a database connection of its own; raises what any of them raised."""
    raised: list[BaseException] = []

    def one(number: int) -> None:
        try:
            step(number)
        except BaseException as exc:
            raised.append(exc)
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def test_racing_workers_never_pass_the_budget_and_a_higher_one_finishes(atlas, api):
    connect(atlas, api)
    model = make_model(atlas, max_new_tokens=5, price_in=Decimal(0))
    documents = [f"Boat {number} left port with salt and rope. It came back." for number in range(60)]
    budget = 37.5 * FIVE_TOKENS / 1_000_000
    experiment = make_experiment(make_dataset(atlas, documents), model, budget_usd=budget)
    assert steering.start(experiment)
    worker = WorkerProcess(("gpu", "api", "cpu"))
    worker.plan(experiment.pk)
    candidate = experiment.candidates.get().pk
    with guarded_budget():
        in_threads(3, lambda number: worker.advance(candidate))
    experiment.refresh_from_db()
    assert (experiment.state, experiment.pause_reason) == ("paused", "budget")
    assert len(api.calls) == 37
    assert experiment.spent_micro == 37 * FIVE_TOKENS
    assert not WorkUnit.objects.filter(state="leased").exists()
    check_books(experiment, api)
    Experiment.objects.filter(pk=experiment.pk).update(budget_micro=60 * FIVE_TOKENS)
    assert steering.resume(experiment)
    with guarded_budget():
        work_off(worker)
    experiment.refresh_from_db()
    assert experiment.state == "completed"
    assert set(api.documents().values()) == {1}, "no call is repeated"
    assert len(api.calls) == 60
    check_books(experiment, api)


def test_a_loose_worst_case_does_not_end_the_budget_early(atlas, api):
    """Eight calls in flight reserve far more than they cost: what they leave is used before anybody is asked."""
    connect(atlas, api)
    model = make_model(atlas, max_new_tokens=1000, price_in=Decimal(0))
    worst, cost = 1000 * 8, 5 * 8
    experiment = make_experiment(
        make_dataset(atlas, DOCUMENTS), model, budget_usd=(worst + len(DOCUMENTS) * cost) / 1_000_000
    )
    with guarded_budget():
        run(experiment)
    assert experiment.state == "completed"
    check_books(experiment, api)


def test_a_budget_with_an_unpriced_model_is_refused(atlas, api):
    connect(atlas, api)
    model = make_model(atlas, price_in=None, price_out=None)
    with pytest.raises(planning.Refused) as refused:
        make_experiment(make_dataset(atlas, DOCUMENTS), model, budget_usd=1)
    assert "no price" in refused.value.errors["models"][0]


def test_a_budget_given_later_is_not_passed_by_an_unpriced_model(atlas, api):
    connect(atlas, api)
    model = make_model(atlas, price_in=None, price_out=None)
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS), model)
    Experiment.objects.filter(pk=experiment.pk).update(budget_micro=10)
    run(experiment)
    assert experiment.candidates.get().problem_code == "unpriced"
    assert api.calls == []


# --- what must never leave ------------------------------------------------------------------------------------------


def test_the_key_is_in_no_log_and_no_column(atlas, api, caplog):
    caplog.set_level(logging.DEBUG)
    documents = [f"One [[fault:{name}]] here. Two." for name in ("broken", "bad_json", "reset", "html", "too_long")]
    connect(atlas, api)
    connect(atlas, api, "mistral")
    models = make_model(atlas), make_model(atlas, "mistral")
    run(make_experiment(make_dataset(atlas, documents), *models))
    api.key = "now it is wrong"
    run(make_experiment(make_dataset(atlas, DOCUMENTS[:2]), *models))
    assert any(KEY in str(call.headers) for call in api.calls), "else this proves nothing"
    assert KEY not in caplog.text
    for table in connection.introspection.table_names():
        with connection.cursor() as cursor:
            cursor.execute(f'SELECT count(*) FROM "{table}" row WHERE row::text LIKE %s', [f"%{KEY}%"])
            assert cursor.fetchone() == (0,), table


def smuggle(experiment: Experiment, model: ModelEntry) -> Candidate:
    """A candidate that planning never saw."""
    return Candidate.objects.create(
        experiment=experiment,
        model=model,
        connection=choosing.connection_for(experiment.team, model),
        label="smuggled",
        position=9,
        provider=model.provider.name,
        queue=model.provider.queue,
        spec={**choosing.freeze(model, prompt="Summarize.\n\n{document}"), "privacy": "local"},
    )


def test_documents_that_must_not_leave_are_not_sent_whoever_put_the_candidate_there(atlas, api):
    connect(atlas, api)
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS, privacy="local_only"), make_fake(atlas))
    candidate = smuggle(experiment, make_model(atlas))
    run(experiment)
    candidate.refresh_from_db()
    assert api.calls == []
    assert candidate.problem_code == "privacy"
    assert experiment.state == "completed_with_errors"
    assert Generation.objects.filter(status="ok").count() == len(DOCUMENTS)


def test_a_mark_that_comes_while_it_runs_holds_from_the_next_unit_on(atlas, api):
    experiment = ask(atlas, api)
    type(experiment.dataset).objects.filter(pk=experiment.dataset_id).update(privacy="local_only")
    run(experiment)
    assert api.calls == []
    assert "never leaving" in experiment.candidates.get().problem


@pytest.mark.parametrize("change", [{"enabled": False}, {"team": "basalt"}])
def test_a_connection_that_is_not_ours_to_use_is_not_used(atlas, basalt, api, change):
    experiment = ask(atlas, api, DOCUMENTS[:3])
    Connection.objects.update(**{**change, **({"team": basalt} if "team" in change else {})})
    run(experiment)
    assert api.calls == []
    assert experiment.candidates.get().problem_code == "no_connection"


def test_a_key_that_cannot_be_decrypted_stops_the_candidate_with_the_cure(atlas, api, settings):
    from cryptography.fernet import Fernet

    experiment = ask(atlas, api, DOCUMENTS[:3])
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    run(experiment)
    assert "enter the provider's key again" in experiment.candidates.get().problem


# --- interruptions --------------------------------------------------------------------------------------------------


def begun(experiment: Experiment) -> tuple[WorkerProcess, Candidate, leasing.Lease]:
    """Planned, with its first generate unit claimed here."""
    steering.start(experiment)
    worker = WorkerProcess(("gpu", "api", "cpu"))
    worker.plan(experiment.pk)
    candidate = experiment.candidates.get()
    lease = leasing.claim("generate", "here", candidate=candidate.pk)
    assert lease is not None
    return worker, candidate, lease


def once(step: Callable[[], Any]) -> Callable[[Seen], None]:
    """Something that the server does before its first answer; no other call is answered before it is done."""
    doing = threading.Lock()
    done = threading.Event()

    def before_answer(call: Seen) -> None:
        with doing:
            if not done.is_set():
                step()
                connection.close()
                done.set()

    return before_answer


def test_a_unit_that_was_taken_away_leaves_no_call_reserved(atlas, api):
    experiment = ask(atlas, api)
    worker, candidate, lease = begun(experiment)
    unit = WorkUnit.objects.filter(pk=lease.unit.pk)
    api.before_answer = once(lambda: unit.update(state="cancelled", epoch=F("epoch") + 1))
    with pytest.raises(leasing.Fenced):
        running.generate(lease, candidate, worker.models.get(candidate), lambda: False)
    worker.models.close()
    assert Generation.objects.count() == 0
    experiment.refresh_from_db()
    assert experiment.reserved_micro == 0
    assert experiment.spent_micro == booked(experiment) > 0
    assert {state for state, _ in ledger(experiment)} <= {"settled", "unknown"}


@pytest.mark.parametrize("drops", [False, True])
def test_a_worker_that_stops_begins_no_call_and_repeats_none(atlas, api, drops):
    """A polite stop waits for the calls in flight; a hurried one leaves them, billed at their most."""
    experiment = ask(atlas, api)
    worker, candidate, lease = begun(experiment)
    stopping = threading.Event()

    def before_answer(call: Seen) -> None:
        api.wait_for(8)
        stopping.set()
        if drops:
            api.closing.wait(3.0)

    api.before_answer = before_answer
    with pytest.raises(leasing.Stopped):
        running.generate(lease, candidate, worker.models.get(candidate), stopping.is_set, lambda: drops)
    assert leasing.release(lease)
    assert len(api.calls) == 8
    kept = 0 if drops else 8
    assert Generation.objects.count() == kept
    assert ledger(experiment) == ({("unknown", "abandoned"): 8} if drops else {("settled", "ok"): 8})
    check_books(experiment, api)
    api.before_answer = lambda call: None
    api.closing.set()  # lets go of the calls that were left
    api.closing.clear()
    work_off(worker)
    experiment.refresh_from_db()
    assert experiment.state == "completed"
    assert len(api.calls) == len(DOCUMENTS) + 8 - kept


def test_calls_of_a_dead_worker_are_billed_at_their_most(atlas, api):
    experiment = ask(atlas, api)
    _, candidate, lease = begun(experiment)
    request = next(iter(running._requests(lease, candidate)))
    [call] = billing.reserve(lease, candidate, [request])
    WorkUnit.objects.filter(pk=lease.unit.pk).update(lease_until=Now())
    sweeping.sweep()
    call.refresh_from_db()
    assert (call.state, call.outcome, call.cost_micro) == ("unknown", "worker_gone", call.reserved_micro)
    experiment.refresh_from_db()
    assert (experiment.reserved_micro, experiment.spent_micro) == (0, call.reserved_micro)


@pytest.mark.parametrize("is_held", [True, False])
def test_a_call_whose_unit_moved_on_is_settled_by_the_sweeper(atlas, api, is_held):
    experiment = ask(atlas, api)
    _, candidate, lease = begun(experiment)
    [call] = billing.reserve(lease, candidate, [next(iter(running._requests(lease, candidate)))])
    with connection.cursor() as cursor:
        cursor.execute("UPDATE evaluations_call SET started_at = now() - interval '10 minutes'")
    if not is_held:
        WorkUnit.objects.filter(pk=lease.unit.pk).update(state="cancelled", epoch=F("epoch") + 1)
    sweeping.sweep()
    call.refresh_from_db()
    assert call.state == ("reserved" if is_held else "unknown")


def test_a_candidate_is_stopped_while_another_worker_calls_for_it(atlas, api):
    documents = [f"Boat {number} left. It sank." for number in range(50)]  # two units
    experiment = ask(atlas, api, documents)
    worker, candidate, lease = begun(experiment)

    def refused() -> None:
        other = leasing.claim("generate", "another worker", candidate=candidate.pk)
        assert other is not None
        running.stop_candidate(candidate, ProviderError("no more of this", code="auth", failure="stop"))

    api.before_answer = once(refused)
    with pytest.raises(leasing.Fenced):
        running.generate(lease, candidate, worker.models.get(candidate), lambda: False)
    work_off(worker)
    experiment.refresh_from_db()
    assert experiment.state == "completed_with_errors"
    assert set(WorkUnit.objects.filter(kind="generate").values_list("state", flat=True)) == {"cancelled"}
    assert not Call.objects.filter(state="reserved").exists()


def test_a_commit_waits_for_the_unit_before_it_takes_the_experiment(atlas, api):
    """Whoever ends a unit locks the unit, then the experiment. A commit in the other order would meet it half way."""
    experiment = ask(atlas, api, DOCUMENTS[:2])
    worker, candidate, lease = begun(experiment)
    has_unit = threading.Event()

    def end_the_unit(number: int) -> None:
        with leasing.fenced(lease):
            has_unit.set()
            time.sleep(0.5)  # by now the commit waits for the unit
            locked(experiment.pk)

    api.before_answer = lambda call: has_unit.wait(5) and None

    def work(number: int) -> None:
        running.generate(lease, Candidate.objects.get(pk=candidate.pk), worker.models.get(candidate), lambda: False)

    in_threads(2, lambda number: (end_the_unit, work)[number](number))
    assert Generation.objects.count() == 2


def test_cancels_resumes_and_sweeps_at_any_time_lose_and_double_nothing(atlas, api):
    """The cancel storm, with three threads at work: no deadlock, one outcome per document, books that agree."""
    experiment = ask(atlas, api, [f"Boat {number} left. It sank." for number in range(90)])
    assert steering.start(experiment)
    worker = WorkerProcess(("gpu", "api", "cpu"))
    is_over = threading.Event()
    candidate = experiment.candidates.get().pk

    def storm() -> None:
        mine = Experiment.objects.get(pk=experiment.pk)
        for change in (steering.pause, steering.resume, steering.cancel, steering.resume) * 4:
            time.sleep(0.08)
            mine.refresh_from_db()
            change(mine)
            sweeping.sweep()
        is_over.set()

    def work(number: int) -> None:
        if number == 0:
            return storm()
        while not is_over.is_set():
            worker.plan(experiment.pk)
            worker.advance(candidate)
            time.sleep(0.01)

    in_threads(4, work)
    for _ in range(3):
        work_off(worker)
        sweeping.sweep()
        experiment.refresh_from_db()
        if experiment.state in ("paused", "cancelled"):
            steering.resume(experiment)
    work_off(worker)
    experiment.refresh_from_db()
    assert experiment.state == "completed"
    assert Generation.objects.filter(status="ok").count() == 90
    check_books(experiment, api)


# --- pace -----------------------------------------------------------------------------------------------------------


def test_the_pace_halves_once_a_burst_and_grows_back_by_answers():
    pace = Pace(8)
    assert [pace.begin() for _ in range(9)] == [None] * 8 + [0.0]
    pace.slow_down(None)
    pace.slow_down(None)
    assert pace.limit == 4
    for _ in range(8):
        pace.end(answered=True)
    for _ in range(400):
        with nullcontext(pace.begin()):
            pace.end(answered=True)
    assert pace.limit == 8


def test_a_pause_that_was_asked_for_holds_for_all():
    pace = Pace(2)
    pace.slow_down(30.0)
    assert 29 < (pace.begin() or 0) <= 30
