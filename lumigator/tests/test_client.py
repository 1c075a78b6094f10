"""The Python client against a real server, with a real token, and the work done in between."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from evaluations import steering
from evaluations.models import Experiment
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, work_off
from lumigator import client as client_module
from lumigator.client import Client, LumigatorError
from lumigator.models import ApiToken, Role

DOCUMENTS = [f"Team {number} met. It chose plan {number % 5}. The budget is {number}." for number in range(60)]
served = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(client_module, "POLL_SECONDS", (0.02, 0.05))


@pytest.fixture
def lumigator(live_server, bob, atlas):
    _, secret = ApiToken.issue(user=bob, team=atlas, name="notebook")
    with Client(live_server.url, secret) as made:
        yield made


@served
def test_from_a_file_to_the_answer(lumigator, atlas, tmp_path):
    path = tmp_path / "calls.csv"
    path.write_text("text,short\n" + "".join(f"{text},{text.split('.')[0]}.\n" for text in DOCUMENTS))
    dataset = lumigator.datasets.upload(path, source_column="text", reference_columns=["short"])
    assert (dataset["n_examples"], dataset["n_with_reference"]) == (60, 60)
    make_fake(atlas, "good", text="{source:.12}")
    made = lumigator.experiments.create(
        dataset=dataset["id"], models=["good", "baseline://random-1"], metrics=["rouge"], baselines=False
    )
    assert lumigator.experiments.plan(made["id"])["calls"] == 120
    lumigator.experiments.start(made["id"])
    work_off()
    seen = []
    assert lumigator.experiments.wait(made["id"], progress=seen.append)["state"] == "completed"
    assert [each["percent"] for each in seen] == [100.0]

    document = lumigator.experiments.comparison(made["id"])
    assert document["recommendation"]["label"] == "good"
    assert lumigator.experiments.comparison(made["id"], metric="rouge2")["primary_metric"] == "rouge2"
    rows = list(lumigator.experiments.examples(made["id"]))
    assert sorted(row["index"] for row in rows) == list(range(60))
    assert len(lumigator.experiments.example(made["id"], 3)["outputs"]) == 2
    exported = lumigator.experiments.export(made["id"], tmp_path / "all.jsonl")
    assert len(exported.read_text().splitlines()) == 120


@served
def test_waiting_follows_a_worker(lumigator, atlas):
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas, latency_ms=1))
    lumigator.experiments.start(experiment.pk)
    from django.db import connections

    def work():
        try:
            work_off()
        finally:
            connections.close_all()

    worker = threading.Thread(target=work)
    worker.start()
    seen = []
    try:
        lumigator.experiments.wait(experiment.pk, progress=seen.append, timeout=60)
    finally:
        worker.join()
    percents = [each["percent"] for each in seen]
    assert percents[-1] == 100.0
    assert len(percents) > 1


@served
def test_lists_are_followed_to_their_end(lumigator, atlas, monkeypatch):
    made = [make_fake(atlas, f"fake-{number}").slug for number in range(3)]
    assert {model["slug"] for model in lumigator.models.list()} >= set(made)
    dataset = make_dataset(atlas, DOCUMENTS[:3])
    ids = {make_experiment(dataset, "baseline://lead-1").pk for _ in range(53)}
    assert {each["id"] for each in lumigator.experiments.list()} == ids
    assert [each["id"] for each in lumigator.datasets.list()] == [dataset.pk]


@served
def test_outputs_made_elsewhere_compete(lumigator, atlas, tmp_path):
    dataset = make_dataset(atlas, DOCUMENTS)
    made = lumigator.experiments.create(dataset=dataset.pk, metrics=["rouge"], baselines=False)
    path = tmp_path / "ours.txt"
    path.write_text("\n".join(text.split(".")[0] for text in DOCUMENTS))
    assert lumigator.experiments.add_outputs(made["id"], "file", path)["import_report"]["matched"] == 60
    lumigator.experiments.add_outputs(made["id"], "texts", [text[:10] for text in DOCUMENTS])
    lumigator.experiments.add_model(made["id"], "baseline://lead-1", label="lead")
    found = lumigator.experiments.get(made["id"])
    assert [each["label"] for each in found["candidates"]] == ["file", "texts", "lead"]


@served
def test_what_is_wrong_is_said_in_the_servers_words(lumigator, atlas):
    dataset = make_dataset(atlas, DOCUMENTS[:3])
    with pytest.raises(LumigatorError) as refused:
        lumigator.experiments.create(dataset=dataset.pk, models=["nobody"], metrics=["blue"], baselines=False)
    assert refused.value.status == 400
    assert {error["loc"] for error in refused.value.errors} == {"models", "metrics"}
    assert "there is no metric 'blue'" in str(refused.value)
    assert refused.value.request_id in str(refused.value)


@served
def test_a_bad_file_is_refused_by_row_and_column(lumigator, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(LumigatorError, match="2"):
        lumigator.datasets.upload(path)


@served
def test_a_large_file_is_waited_for(lumigator, tmp_path, settings):
    settings.IMPORT_AT_ONCE_BYTES = 10
    path = tmp_path / "calls.jsonl"
    path.write_text('{"text": "a b"}\n' * 20)
    made = lumigator.datasets.upload(path, wait=False)
    assert (made["state"], made["existing"]) == ("importing", False)
    with pytest.raises(TimeoutError, match="is not ready after"):
        lumigator.datasets.wait(made["id"], timeout=0.01)
    work_off()
    ready = lumigator.datasets.wait(made["id"])
    assert (ready["state"], ready["n_examples"]) == ("ready", 20)
    assert lumigator.datasets.upload(path)["id"] == made["id"]
    again = lumigator.datasets.upload(path, again=True, wait=False)
    assert again["id"] != made["id"]
    lumigator.datasets.delete(again["id"])
    assert [each["id"] for each in lumigator.datasets.list()] == [made["id"]]


@served
def test_what_a_worker_refuses_is_raised_with_every_problem(lumigator, tmp_path, settings):
    settings.IMPORT_AT_ONCE_BYTES = 10
    path = tmp_path / "bad.csv"
    path.write_text("text,id\n" + "".join(f"good,{n}\n" for n in range(200)) + " ,x\n ,y\n")
    made = lumigator.datasets.upload(path, wait=False)
    work_off()
    with pytest.raises(LumigatorError, match="It has 2 problems, the first: row 202, column text") as refused:
        lumigator.datasets.wait(made["id"])
    assert [error["loc"] for error in refused.value.errors] == ["row 202, column text", "row 203, column text"]


@served
def test_a_wrong_token_is_said(live_server):
    with Client(live_server.url, "lumi_wrong") as stranger, pytest.raises(LumigatorError, match="unknown") as refused:
        stranger.experiments.list()
    assert refused.value.status == 401


@served
def test_a_viewers_token_starts_nothing(live_server, alice, atlas):
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS[:3]), "baseline://lead-1")
    _, secret = ApiToken.issue(user=alice, team=atlas, name="reader", role=Role.VIEWER)
    with Client(live_server.url, secret) as reader:
        assert reader.experiments.get(experiment.pk)["state"] == "draft"
        with pytest.raises(LumigatorError, match="editor"):
            reader.experiments.start(experiment.pk)


@served
def test_waiting_for_what_does_not_move_ends(lumigator, atlas):
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS[:3]), "baseline://lead-1")
    with pytest.raises(LumigatorError, match="never started"):
        lumigator.experiments.wait(experiment.pk)
    steering.start(experiment)
    with pytest.raises(TimeoutError, match="has not ended after"):
        lumigator.experiments.wait(experiment.pk, timeout=0.2)
    experiment.move("running")
    steering.pause(experiment, "budget", "The budget is used up: raise it and resume.")
    with pytest.raises(LumigatorError, match="raise it and resume"):
        lumigator.experiments.wait(experiment.pk)


# --- a server that stumbles -----------------------------------------------------------------------------------------


class Stumbling(BaseHTTPRequestHandler):
    """Passes each request on to the real server, but fails in the ways of its script first.

    "drop" does the work and loses the answer, "503" and "429" refuse, "301" sends elsewhere.
    """

    script: list[str] = []
    target = ""
    keys: list[str] = []

    def do_POST(self):
        import httpx2

        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(self.headers["Idempotency-Key"])
        step = self.script.pop(0) if self.script else "pass"
        if step in ("503", "429", "301"):
            self.send_response(int(step))
            self.send_header("Location", "https://elsewhere.example/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        answer = httpx2.post(self.target + self.path, content=body, headers=dict(self.headers), timeout=30)
        if step == "drop":
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def stumbling(live_server, bob, atlas):
    """stumbling("drop", …) → a client whose server fails in these ways, one after another, and then works."""
    handler = type("Handler", (Stumbling,), {"script": [], "target": live_server.url, "keys": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _, secret = ApiToken.issue(user=bob, team=atlas, name="shaky")

    def fail(*steps):
        handler.script = list(steps)
        return Client(f"http://127.0.0.1:{server.server_port}", secret), handler.keys

    yield fail
    server.shutdown()
    server.server_close()


@served
def test_a_lost_answer_does_nothing_twice(stumbling, atlas):
    dataset = make_dataset(atlas, DOCUMENTS[:3])
    shaky, keys = stumbling("drop", "503", "429")
    made = shaky.experiments.create(
        dataset=dataset.pk, models=["baseline://lead-1"], metrics=["rouge"], baselines=False
    )
    assert Experiment.objects.get().pk == made["id"]
    assert len(keys) == 4
    assert len(set(keys)) == 1


@served
def test_a_server_that_stays_away_is_an_error(stumbling, atlas):
    shaky, _ = stumbling(*["503"] * 9)
    with pytest.raises(LumigatorError) as failed:
        shaky.experiments.start(1)
    assert failed.value.status == 503


@served
def test_the_token_is_not_sent_elsewhere(stumbling, atlas):
    shaky, keys = stumbling("301")
    with pytest.raises(LumigatorError, match=r"elsewhere\.example"):
        shaky.experiments.start(1)
    assert len(keys) == 1


def test_a_server_that_is_not_there_is_named():
    with Client("http://127.0.0.1:9", "lumi_x") as nobody, pytest.raises(LumigatorError, match=r"127\.0\.0\.1:9"):
        nobody.models.list()


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(LumigatorError, match="http://"):
        Client("lumigator.example", "lumi_x")


def test_the_token_is_never_printed():
    assert "lumi_secret" not in repr(Client("http://127.0.0.1:9", "lumi_secret"))


def test_the_client_imports_no_django():
    code = "import sys, lumigator.client; sys.exit(any(name.split('.')[0] == 'django' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
