"""Models found rather than typed: what a connection's service offers, and what the hub tells of a repository."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from models_registry import adding
from models_registry.models import Connection, ModelEntry
from models_registry.testing_api import FAULTS, MODELS, Canned, TestingApi, error, serve

pytestmark = pytest.mark.django_db
KEY = "sk-canary-90aa31fe02"
API = "/api/v1/connections/"


@pytest.fixture
def server(settings) -> Iterator[TestingApi]:
    with serve(key=KEY) as running:
        settings.EGRESS_ALLOW = [running.allow]
        yield running


def connect(team, server: TestingApi, scheme: str = "endpoint", **fields) -> Connection:
    made = Connection(team=team, name="lab", provider=scheme, base_url=f"{server.origin}/v1", **fields)
    made.set_key(KEY)
    made.save()
    return made


# What a service offers


@pytest.mark.parametrize(
    ("scheme", "begins"), [("endpoint", "endpoint://lab/"), ("openai", "openai://"), ("mistral", "mistral://")]
)
def test_a_connection_lists_what_its_service_offers(atlas, bob, as_user, server, scheme: str, begins: str) -> None:
    connection = connect(atlas, server, scheme)
    rows = as_user(bob, api=True).get(f"{API}{connection.pk}/models/").json()
    assert [row["name"] for row in rows] == sorted(MODELS)
    assert [row["uri"] for row in rows] == [begins + name for name in sorted(MODELS)]
    assert {row["slug"] for row in rows} == {""}
    assert [call.headers["authorization"] for call in server.calls] == [f"Bearer {KEY}"]


def test_what_is_in_the_registry_is_named(atlas, bob, as_user, server) -> None:
    connection = connect(atlas, server)
    adding.add(atlas, uri="endpoint://lab/first-sentence", slug="ours")
    rows = as_user(bob, api=True).get(f"{API}{connection.pk}/models/").json()
    assert {row["name"]: row["slug"] for row in rows}["first-sentence"] == "ours"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (FAULTS["html"], "check the base URL"),
        (FAULTS["auth"], "replace the key"),
        (FAULTS["hang"], "time"),
        (FAULTS["reset"], "connection"),
        (error(404, "no such path"), "base URL"),
        (error(503, "busy"), "could not answer now"),
        (Canned(body={"data": "none"}), "check the base URL"),
        (FAULTS["redirect"], "final base URL"),
    ],
)
def test_a_service_that_does_not_answer_well_says_what_to_do(
    atlas, bob, as_user, server, answer: Canned, words: str
) -> None:
    connection = connect(atlas, server, read_timeout=1)
    server.answer(answer)
    got = as_user(bob, api=True).get(f"{API}{connection.pk}/models/")
    assert got.status_code == 502
    assert words in got.json()["detail"]
    assert KEY not in got.content.decode()
    server.answer(answer)
    page = as_user(bob).get(f"/models/connections/{connection.pk}/models/")
    assert page.status_code == 200
    assert words in page.content.decode()


def test_an_address_that_may_not_be_reached_is_refused_with_the_cure(atlas, bob, as_user, server, settings) -> None:
    connection = connect(atlas, server)
    settings.EGRESS_ALLOW = []
    got = as_user(bob, api=True).get(f"{API}{connection.pk}/models/")
    assert "LUMIGATOR_EGRESS_ALLOW" in got.json()["detail"]
    assert server.calls == []


def test_only_editors_of_the_team_may_ask(atlas, vera, charlie, as_user, server) -> None:
    connection = connect(atlas, server)
    assert as_user(vera, api=True).get(f"{API}{connection.pk}/models/").status_code == 403
    assert as_user(vera).get(f"/models/connections/{connection.pk}/models/").status_code == 403
    assert as_user(charlie, api=True).get(f"{API}{connection.pk}/models/").status_code == 404
    assert as_user(charlie).get(f"/models/connections/{connection.pk}/models/").status_code == 404
    assert server.calls == []


def test_one_click_adds_one_as_a_draft(atlas, bob, as_user, server) -> None:
    connection, client = connect(atlas, server), as_user(bob)
    address = f"/models/connections/{connection.pk}/models/"
    assert 'value="endpoint://lab/first-sentence"' in client.get(address).content.decode()
    html = client.post(address, {"uri": "endpoint://lab/first-sentence"}, follow=True).content.decode()
    assert 'href="/models/lab/first-sentence/"' in html
    entry = ModelEntry.objects.get()
    assert (entry.uri, entry.state, entry.privacy) == ("endpoint://lab/first-sentence", "draft", "private")


@pytest.mark.parametrize("uri", ["", "hf://a/b", "endpoint://other/x", "endpoint://lab/"])
def test_nothing_else_is_added_there(atlas, bob, as_user, server, uri: str) -> None:
    connection = connect(atlas, server)
    answer = as_user(bob).post(f"/models/connections/{connection.pk}/models/", {"uri": uri}, follow=True)
    assert answer.status_code == 200
    assert not ModelEntry.objects.exists()


# What the hub tells


class Hub(BaseHTTPRequestHandler):
    answer: tuple[int, object] = (404, {})

    def do_GET(self) -> None:
        status, body = self.answer
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def hub(monkeypatch, settings, tmp_path) -> Iterator[type[Hub]]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    settings.EGRESS_ALLOW = [f"127.0.0.1:{running.server_port}"]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    yield Hub
    running.shutdown()
    running.server_close()


COMMIT = "ab" * 20
TOLD = {
    "sha": COMMIT,
    "siblings": [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}],
    "config": {"architectures": ["BartForConditionalGeneration"], "model_type": "bart"},
    "tags": ["license:mit", "summarization"],
    "safetensors": {"parameters": {"F32": 1000, "I64": 1}, "total": 1001},
}


def test_a_hub_model_is_pinned_to_its_commit_and_the_hub_fills_in_what_it_is(atlas, hub) -> None:
    hub.answer = (200, TOLD)
    entry = adding.add(atlas, uri="hf://org/bart")
    assert (entry.revision, entry.architecture, entry.licence) == (COMMIT, "seq2seq", "mit")
    assert (entry.parameters, entry.size_bytes) == (1001, 4008)


def test_what_the_editor_says_wins_over_the_hub(atlas, hub) -> None:
    hub.answer = (200, TOLD)
    entry = adding.add(atlas, uri="hf://org/bart", licence="Our contract", revision="c" * 40)
    assert (entry.revision, entry.licence) == ("c" * 40, "Our contract")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, {}), "check the address"),
        ((401, {}), "HF_TOKEN"),
        ((307, {}), "another name"),
        ((200, {**TOLD, "siblings": [{"rfilename": "pytorch_model.bin"}]}), "no safetensors"),
        ((200, {**TOLD, "config": {"architectures": ["BertForMaskedLM"]}}), "writes no text"),
        ((200, {**TOLD, "config": {"auto_map": {"AutoModel": "x.Y"}}}), "never run here"),
        ((200, {**TOLD, "tags": ["custom_code"]}), "never run here"),
    ],
)
def test_what_the_hub_says_against_it_is_said_when_it_is_added(atlas, hub, answer, words: str) -> None:
    hub.answer = answer
    with pytest.raises(adding.Refused) as refused:
        adding.add(atlas, uri="hf://org/bart")
    assert words in " ".join(refused.value.errors["uri"])
    assert not ModelEntry.objects.exists()


def test_a_gated_model_may_wait_as_a_draft(atlas, hub) -> None:
    hub.answer = (200, {**TOLD, "gated": "manual"})
    assert adding.add(atlas, uri="hf://org/bart").state == "draft"


@pytest.mark.parametrize("answer", [(503, {}), (429, {}), (200, [])])
def test_a_hub_that_is_unwell_leaves_the_model_unpinned(atlas, hub, answer) -> None:
    hub.answer = answer
    entry = adding.add(atlas, uri="hf://org/bart", architecture="seq2seq")
    assert entry.revision == ""


def test_odd_answers_of_the_hub_teach_nothing(atlas, hub) -> None:
    odd = {"config": [], "tags": [1], "safetensors": {"parameters": {"F32": "many", "Q4": 3}}, "sha": 5}
    hub.answer = (200, {**TOLD, **odd})
    entry = adding.add(atlas, uri="hf://org/bart", architecture="causal")
    assert (entry.revision, entry.parameters, entry.size_bytes, entry.licence) == ("", 3, None, "")
