"""One text, one model, one answer: by our API, by OpenAI's protocol, and in the playground."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from evaluations import completing, leasing, running, steering
from evaluations.completing import Wish
from evaluations.models import Completion, Generation, Worker
from evaluations.planning import Refused
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, work_off
from evaluations.tests.test_paid_calls import Api, api, connect, make_model  # noqa: F401
from evaluations.working import WorkerProcess
from lumigator.doorbell import QUEUES
from lumigator.models import AuditEvent
from models_registry.testing_api import error

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = "The ferry was late. Nobody minded. It rained."
JSON = "application/json"


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    """A worker of all queues that answers what is asked, in a thread of this process."""
    made = WorkerProcess(QUEUES)
    over = threading.Event()

    def serve() -> None:
        while not over.wait(0.02):
            completing.complete(made.name, QUEUES, made.models, over.is_set)
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield made
    over.set()
    thread.join()
    made.models.close()


@pytest.fixture
def bobs(bob, as_user):
    return as_user(bob)


def answered(team, model, wish) -> Completion:
    """Ask, and do the work here and now."""
    asked = completing.ask(team, None, model, wish)
    worker = WorkerProcess(QUEUES)
    try:
        completing.complete(worker.name, QUEUES, worker.models, lambda: False)
    finally:
        worker.models.close()
    asked.refresh_from_db()
    return asked


# --- our API --------------------------------------------------------------------------------------------------------


def test_a_text_is_answered_with_its_cost_and_its_tokens(atlas, bobs, worker):
    make_fake(atlas)
    answer = bobs.post("/api/v1/completions/", {"model": "fake", "text": TEXT}, JSON)
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert told["state"] == "done" and told["status"] == "ok" and told["text"]
    assert told["usage"]["input_tokens"] > 0 and told["cost_usd"] == 0
    assert AuditEvent.objects.filter(action="completion").count() == 1


def test_what_takes_longer_than_one_waits_can_be_asked_for_later(atlas, bobs):
    make_fake(atlas)
    answer = bobs.post("/api/v1/completions/", {"model": "fake", "text": TEXT, "wait": 0}, JSON)
    assert answer.status_code == 202 and answer.json()["state"] == "asked"
    made = WorkerProcess(QUEUES)
    completing.complete(made.name, QUEUES, made.models, lambda: False)
    assert bobs.get(answer["Location"]).json()["state"] == "done"


def test_a_model_that_fails_says_why(atlas, bobs, worker):
    make_fake(atlas, faults={"ferry": "exception"})
    answer = bobs.post("/api/v1/completions/", {"model": "fake", "text": TEXT}, JSON)
    assert answer.status_code == 502
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "body, words",
    [
        ({"model": "nobody", "text": TEXT}, "no model 'nobody'"),
        ({"model": "fake"}, "exactly one of"),
        ({"model": "fake", "text": TEXT, "example": {"dataset": 1, "index": 0}}, "no document 0"),
        ({"model": "fake", "text": TEXT, "prompt": "no place"}, "{document}"),
        ({"model": "fake", "messages": [{"role": "assistant", "content": "x"}]}, "last message"),
        ({"model": "fake", "messages": [{"role": "chief", "content": "x"}]}, "not a valid choice"),
        ({"model": "fake", "text": TEXT, "temprature": 1}, "no such field"),
    ],
)
def test_a_wrong_question_is_refused_in_words(atlas, bobs, body, words):
    make_fake(atlas)
    answer = bobs.post("/api/v1/completions/", body, JSON)
    assert answer.status_code == 400
    assert words in " ".join(each["msg"] for each in answer.json()["errors"]), answer.json()
    assert not Completion.objects.exists()


def test_viewers_ask_nothing_and_other_teams_read_nothing(atlas, vera, charlie, as_user, worker):
    make_fake(atlas)
    assert as_user(vera).post("/api/v1/completions/", {"model": "fake", "text": TEXT}, JSON).status_code == 403
    asked = completing.wait(completing.ask(atlas, None, "fake", Wish(text=TEXT)), 10)
    assert asked.state == "done"
    assert as_user(charlie).get(f"/api/v1/completions/{asked.pk}/").status_code == 404


def test_a_document_that_never_leaves_is_not_sent_away(atlas, api):  # noqa: F811
    connect(atlas, api)
    make_model(atlas)
    example = make_dataset(atlas, [TEXT], privacy="local_only").examples.get()
    with pytest.raises(Refused, match="never leaving"):
        completing.ask(atlas, None, "openai-model", Wish(example=example))
    assert not api.calls


# --- paid calls -----------------------------------------------------------------------------------------------------


def test_a_paid_answer_keeps_its_price(atlas, api: Api):  # noqa: F811
    connect(atlas, api)
    make_model(atlas)
    done = answered(atlas, "openai-model", Wish(text=TEXT))
    assert done.state == "done" and done.status == "ok"
    assert 0 < done.cost_micro <= done.reserved_micro
    assert len(api.calls) == 1


def test_a_conversation_is_sent_as_it_is(atlas, api: Api):  # noqa: F811
    connect(atlas, api)
    make_model(atlas)
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]
    assert answered(atlas, "openai-model", Wish(messages=said)).status == "ok"
    (call,) = api.calls
    assert call.body["messages"] == said


def test_a_disabled_connection_sends_nothing(atlas, api: Api):  # noqa: F811
    made = connect(atlas, api)
    make_model(atlas)
    asked = completing.ask(atlas, None, "openai-model", Wish(text=TEXT))
    made.enabled = False
    made.save()
    worker = WorkerProcess(QUEUES)
    completing.complete(worker.name, QUEUES, worker.models, lambda: False)
    asked.refresh_from_db()
    assert asked.state == "failed" and "disabled" in asked.error and not api.calls


# --- workers that vanish --------------------------------------------------------------------------------------------


def test_what_a_vanished_worker_held_is_asked_again_if_it_ran_here(atlas):
    make_fake(atlas)
    asked = completing.ask(atlas, None, "fake", Wish(text=TEXT))
    Completion.objects.update(state="running", owner="gone", attempts=1)
    completing.mend()
    asked.refresh_from_db()
    assert asked.state == "asked"
    Completion.objects.update(state="running", owner="gone", attempts=2)
    completing.mend()
    asked.refresh_from_db()
    assert asked.state == "failed" and "twice" in asked.error


def test_a_call_that_may_be_billed_is_never_made_twice(atlas, api):  # noqa: F811
    connect(atlas, api)
    make_model(atlas)
    asked = completing.ask(atlas, None, "openai-model", Wish(text=TEXT))
    Completion.objects.update(state="running", owner="gone", attempts=1, reserved_micro=123)
    completing.mend()
    asked.refresh_from_db()
    assert asked.state == "failed" and asked.cost_micro == 123 and "billed" in asked.error


def test_a_living_worker_keeps_what_it_holds(atlas):
    make_fake(atlas)
    asked = completing.ask(atlas, None, "fake", Wish(text=TEXT))
    Worker.objects.create(name="here", queues=list(QUEUES))
    Completion.objects.update(state="running", owner="here")
    completing.mend()
    asked.refresh_from_db()
    assert asked.state == "running"


def test_what_no_worker_takes_is_given_up_and_says_so(atlas):
    make_fake(atlas)
    asked = completing.ask(atlas, None, "fake", Wish(text=TEXT))
    Completion.objects.update(asked_at=timezone.now() - timedelta(hours=1))
    completing.mend()
    asked.refresh_from_db()
    assert asked.state == "failed" and asked.error_code == "no_worker"


def test_a_worker_without_the_model_lets_the_others_go_first(atlas):
    make_fake(atlas, "hosted", scheme="fakehost")
    completing.ask(atlas, None, "hosted", Wish(text=TEXT))
    cold = WorkerProcess(QUEUES)
    assert completing._take(cold.name, QUEUES, cold.models) is None
    Completion.objects.update(asked_at=timezone.now() - timedelta(seconds=5))
    assert completing._take(cold.name, QUEUES, cold.models) is not None


def test_an_answer_leaves_the_model_open_for_the_next(atlas):
    make_fake(atlas, "hosted", scheme="fakehost")
    worker = WorkerProcess(QUEUES)
    pids = []
    for _ in range(2):
        asked = completing.ask(atlas, None, "hosted", Wish(text=TEXT))
        Completion.objects.filter(pk=asked.pk).update(asked_at=timezone.now() - timedelta(seconds=5))
        completing.complete(worker.name, QUEUES, worker.models, lambda: False)
        asked.refresh_from_db()
        assert asked.state == "done", asked.error
        (model,) = worker.models._hosts._models.values()
        pids.append(model.host.pid)
        assert worker.models.keys() == [asked.model_key]
    worker.models.close()
    assert pids[0] == pids[1]


def test_an_experiment_gives_way_between_two_batches_and_keeps_its_model(atlas):
    hosted = make_fake(atlas, "hosted", scheme="fakehost", batch=2)
    experiment = make_experiment(make_dataset(atlas, [f"Document {n}. It ends." for n in range(6)]), hosted)
    steering.start(experiment)
    worker = WorkerProcess(QUEUES)
    worker.plan(experiment.pk)
    candidate = experiment.candidates.get()
    completing.ask(atlas, None, "hosted", Wish(text=TEXT))
    lease = leasing.claim("generate", worker.name, candidate=candidate.pk)
    model = worker.models.get(candidate)
    pid = model.host.pid
    with pytest.raises(leasing.Stopped):
        running.generate(lease, candidate, model, lambda: worker._must_yield(model))
    assert Generation.objects.count() == 2, "one batch at least is done"
    assert model.is_alive and model.host.pid == pid
    leasing.release(lease, attempted=False)
    lease.unit.refresh_from_db()
    assert (lease.unit.state, lease.unit.attempts) == ("ready", 0)
    worker.advance(candidate.pk)
    assert Generation.objects.count() == 6 and Completion.objects.get().state == "done"
    worker.models.close()


def test_a_worker_that_stops_gives_the_request_back(atlas):
    make_fake(atlas, "hosted", scheme="fakehost")
    asked = completing.ask(atlas, None, "hosted", Wish(text=TEXT))
    Completion.objects.update(state="running", owner="here", attempts=1)
    asked.refresh_from_db()
    worker = WorkerProcess(QUEUES)
    completing._answer(asked, worker.models, lambda: True)
    worker.models.close()
    asked.refresh_from_db()
    assert (asked.state, asked.attempts) == ("asked", 0)


def test_what_never_ends_is_given_up_although_its_worker_lives(atlas):
    make_fake(atlas)
    asked = completing.ask(atlas, None, "fake", Wish(text=TEXT))
    Worker.objects.create(name="here", queues=list(QUEUES))
    long_ago = timezone.now() - timedelta(days=1)
    Completion.objects.update(state="running", owner="here", begun_at=long_ago)
    completing.mend()
    asked.refresh_from_db()
    assert asked.state == "failed" and "longer than anything" in asked.error


def test_texts_and_answers_are_deleted_after_their_time(atlas, settings):
    make_fake(atlas)
    done = answered(atlas, "fake", Wish(text=TEXT))
    completing.mend()
    assert Completion.objects.filter(pk=done.pk).exists()
    Completion.objects.update(done_at=timezone.now() - timedelta(days=settings.COMPLETION_DAYS + 1))
    completing.mend()
    assert not Completion.objects.exists()


def test_a_dataset_takes_what_was_tried_with_it_along(atlas):
    from datasets_app.deleting import delete

    make_fake(atlas)
    dataset = make_dataset(atlas, [TEXT])
    answered(atlas, "fake", Wish(example=dataset.examples.get()))
    delete(dataset)
    assert not Completion.objects.exists()


def test_a_dataset_marked_while_the_request_waits_is_not_sent_away(atlas, api: Api):  # noqa: F811
    connect(atlas, api)
    make_model(atlas)
    dataset = make_dataset(atlas, [TEXT])
    asked = completing.ask(atlas, None, "openai-model", Wish(example=dataset.examples.get()))
    dataset.privacy = "local_only"
    dataset.save()
    worker = WorkerProcess(QUEUES)
    completing.complete(worker.name, QUEUES, worker.models, lambda: False)
    asked.refresh_from_db()
    assert asked.state == "failed" and "never leaving" in asked.error and asked.cost_micro == 0
    assert not api.calls


def test_a_rejected_call_costs_nothing(atlas, api: Api):  # noqa: F811
    connect(atlas, api)
    make_model(atlas)
    api.answer(error(400, "too long", code="context_length_exceeded"))
    done = answered(atlas, "openai-model", Wish(text=TEXT))
    assert done.state == "failed" and done.cost_micro == 0, done.error


# --- OpenAI's protocol ----------------------------------------------------------------------------------------------


def test_openais_own_client_can_ask_a_registry_model(atlas, bob, live_server, worker):
    import openai

    from lumigator.models import ApiToken

    make_fake(atlas)
    _, secret = ApiToken.issue(user=bob, team=atlas, name="tool", role="editor")
    client = openai.OpenAI(base_url=f"{live_server.url}/api/v1/openai", api_key=secret, max_retries=0)
    assert [model.id for model in client.models.list()] == ["fake"]
    answer = client.chat.completions.create(model="fake", messages=[{"role": "user", "content": TEXT}])
    assert answer.choices[0].message.content and answer.usage.prompt_tokens > 0
    said = [{"role": "user", "content": TEXT}, answer.choices[0].message.model_dump(exclude_unset=True)]
    parts = [{"type": "text", "text": "And in"}, {"type": "text", "text": " short?"}]
    again = client.chat.completions.create(model="fake", messages=[*said, {"role": "user", "content": parts}])
    assert again.choices[0].finish_reason == "stop"
    assert Completion.objects.first().messages[-1]["content"] == "And in short?"
    for unknown in ({"tools": []}, {"response_format": {"type": "json_object"}}, {"logprobs": True}):
        with pytest.raises(openai.BadRequestError, match="no such field"):
            client.chat.completions.create(model="fake", messages=said[:1], extra_body=unknown)
    with pytest.raises(openai.BadRequestError, match="not streamed"):
        client.chat.completions.create(model="fake", messages=[{"role": "user", "content": TEXT}], stream=True)
    with pytest.raises(openai.BadRequestError, match="no model"):
        client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": TEXT}])


# --- the playground -------------------------------------------------------------------------------------------------


def test_models_answer_side_by_side(atlas, bobs, worker):
    make_fake(atlas, "one", text="First answer.")
    make_fake(atlas, "two", text="Second answer.")
    answer = bobs.post(reverse("playground"), {"text": TEXT, "models": ["one", "two"]})
    assert answer.status_code == 302
    for asked in Completion.objects.all():
        completing.wait(asked, 10)
    page = bobs.get(answer["Location"]).content.decode()
    assert "First answer." in page and "Second answer." in page
    assert "Waits for a worker" not in page


def test_an_answer_that_is_not_there_is_asked_for_again(atlas, bobs):
    make_fake(atlas)
    answer = bobs.post(reverse("playground"), {"text": TEXT, "models": ["fake"]})
    page = bobs.get(answer["Location"]).content.decode()
    assert "hx-get" in page and "Waits for a worker" in page and 'http-equiv="refresh"' in page


def test_one_wrong_wish_asks_nobody(atlas, bobs):
    make_fake(atlas)
    answer = bobs.post(reverse("playground"), {"text": TEXT, "models": ["fake", "nobody"]})
    assert answer.status_code == 422 and "nobody" in answer.content.decode()
    assert not Completion.objects.exists()
    assert bobs.post(reverse("playground"), {"text": TEXT}).status_code == 422


def test_a_document_of_a_dataset_can_be_tried(atlas, bobs, worker):
    make_fake(atlas)
    dataset = make_dataset(atlas, [TEXT])
    address = f"{reverse('playground')}?dataset={dataset.pk}&index=0"
    assert TEXT in bobs.get(address).content.decode()
    answer = bobs.post(address, {"models": ["fake"]})
    assert answer.status_code == 302
    assert Completion.objects.get().example == dataset.examples.get()
    assert bobs.get(f"{reverse('playground')}?dataset={dataset.pk}&index=7").status_code == 404


def test_a_text_becomes_an_example_and_its_reference_says_who_wrote_it(atlas, bobs):
    make_fake(atlas, text="A model's words.")
    parent = make_dataset(atlas, ["Another document."])
    done = answered(atlas, "fake", Wish(text=TEXT))
    address = reverse("playground-keep", args=[done.batch])
    answer = bobs.post(address, {"dataset": parent.pk, "reference": done.pk})
    assert answer.status_code == 302
    child = parent.children.get()
    work_off()
    child.refresh_from_db()
    kept = child.examples.order_by("index").last()
    assert (kept.source, kept.references) == (TEXT, ["A model's words."])
    assert kept.tags == {"reference_by": "fake"}
    assert parent.examples.count() == 1, "the parent is untouched"
    assert bobs.post(address, {"dataset": ""}).status_code == 302 and parent.children.count() == 1
