"""The API of models: who sees and changes what, what is refused in words, and what a check finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from django.db import connection as database
from django.test.utils import CaptureQueriesContext

from lumigator.models import AuditEvent
from models_registry import adding, checking
from models_registry.catalogue import CATALOGUE, seed
from models_registry.models import Connection, ModelEntry

MODELS = "/api/v1/models/"


@pytest.fixture
def seeded(atlas):
    seed(atlas)
    return atlas


@pytest.fixture
def editor(as_user, bob, seeded):
    return as_user(bob, api=True)


@pytest.fixture
def viewer(as_user, vera, seeded):
    return as_user(vera, api=True)


@pytest.fixture
def root(tmp_path: Path, settings) -> Path:
    folder = tmp_path / "models"
    (folder / "bart").mkdir(parents=True)
    (folder / "bart" / "config.json").write_text(
        json.dumps({"is_encoder_decoder": True, "model_type": "bart", "max_position_embeddings": 1024})
    )
    (folder / "bart" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    settings.MODEL_ROOTS = {"lab": folder}
    return folder


def locations(answer) -> list[str]:
    return [error["loc"] for error in answer.json()["errors"]]


# Reading


def test_the_catalogue_is_listed_by_slug_with_what_decides(viewer) -> None:
    body = viewer.get(MODELS).json()
    rows = {row["slug"]: row for row in body["results"]}
    assert len(rows) == len(CATALOGUE)
    assert [*rows] == sorted(rows)
    mini = rows["openai/gpt-4o-mini"]
    assert (mini["price_in"], mini["price_out"], mini["window"]) == (0.15, 0.6, 128_000)
    assert (mini["can_run"], "no connection" in mini["why_not"]) == (False, True)
    assert rows["mistral/ministral-8b-latest"]["price_in"] is None
    assert (rows["baseline/lead-3"]["can_run"], rows["baseline/lead-3"]["is_free"]) == (True, True)


def test_the_list_comes_in_pages(viewer) -> None:
    first = viewer.get(f"{MODELS}?page_size=10").json()
    second = viewer.get(first["next"]).json()
    assert len(first["results"]) == 10
    assert first["results"][-1]["slug"] < second["results"][0]["slug"]


def test_a_longer_list_takes_no_more_queries(viewer, seeded) -> None:
    Connection.objects.create(team=seeded, provider="openai", name="main")
    counts = []
    for size in (2, 20):
        with CaptureQueriesContext(database) as queries:
            assert len(viewer.get(f"{MODELS}?page_size={size}").json()["results"]) == size
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 7


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("task=summarization", len(CATALOGUE)),
        ("scheme=mistral", 3),
        ("scheme=hf&privacy=local", sum(each.uri.startswith("hf://") for each in CATALOGUE)),
        ("is_baseline=true", sum(each.is_baseline for each in CATALOGUE)),
        ("enabled=false", 1),
    ],
)
def test_filters_choose(viewer, seeded, query: str, expected: int) -> None:
    seeded.models.filter(slug="openai/gpt-4-turbo").update(state="retired")
    assert len(viewer.get(f"{MODELS}?{query}").json()["results"]) == expected


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("task=poetry", "summarization"),
        ("scheme=gopher", "openai"),
        ("enabled=maybe", "true"),
        ("team__name=Basalt", "scheme"),
        ("created_by__password=x", "scheme"),
        ("uri__startswith=h", "scheme"),
        ("scheme=%00", "openai"),
    ],
)
def test_an_unknown_filter_or_value_is_refused_naming_the_known(viewer, query: str, word: str) -> None:
    answer = viewer.get(f"{MODELS}?{query}")
    assert answer.status_code == 400
    assert word in answer.json()["detail"]


@pytest.mark.parametrize("slug", [each.slug for each in CATALOGUE])
def test_every_shipped_slug_has_an_address(viewer, slug: str) -> None:
    assert viewer.get(f"{MODELS}{slug}/").json()["slug"] == slug


@pytest.mark.parametrize("slug", ["nobody/nothing", "facebook", "a%00b", "check", "a/check"])
def test_what_is_not_there_is_404(viewer, slug: str) -> None:
    answer = viewer.get(f"{MODELS}{slug}/")
    assert answer.status_code in (404, 405)


def test_another_team_sees_nothing_of_it(as_user, charlie, seeded) -> None:
    theirs = as_user(charlie, api=True)
    assert theirs.get(MODELS).json()["results"] == []
    address = f"{MODELS}facebook/bart-large-cnn/"
    answers = [theirs.get(address), theirs.patch(address, {"name": "x"}), theirs.delete(address)]
    answers.append(theirs.post(f"{address}check/"))
    assert [answer.status_code for answer in answers] == [404] * 4
    assert seeded.models.filter(name="x").count() == 0


# Adding


def test_an_editor_adds_a_model_by_its_address(editor, seeded) -> None:
    answer = editor.post(
        MODELS, {"uri": "openai://gpt-x", "generation": {"temperature": 0}, "price_in": 1, "price_out": "2.5"}
    )
    assert answer.status_code == 201, answer.json()
    body = answer.json()
    assert (body["slug"], body["privacy"], body["architecture"]) == ("openai/gpt-x", "external", "causal")
    assert (body["price_in"], body["price_out"], body["from_catalogue"]) == (1, 2.5, False)
    assert seeded.models.get(slug="openai/gpt-x").generation == {"temperature": 0}
    event = AuditEvent.objects.get(action="model.add")
    assert (event.actor, event.detail) == ("bob", {"uri": "openai://gpt-x"})


def test_a_local_folder_is_added_below_a_root_and_its_architecture_is_read(editor, root: Path) -> None:
    body = editor.post(MODELS, {"uri": "file://lab/bart", "enabled": True}).json()
    assert (body["slug"], body["architecture"], body["can_run"]) == ("local/bart", "seq2seq", True)


@pytest.mark.parametrize("uri", ["file://lab/../secret", "file:///etc", "file://lab/missing", "file://lab//etc"])
def test_no_other_folder_is(editor, root: Path, uri: str) -> None:
    (root.parent / "secret").mkdir()
    answer = editor.post(MODELS, {"uri": uri})
    assert (answer.status_code, locations(answer)) == (400, ["uri"])


def test_a_hub_model_that_is_not_here_needs_its_architecture(editor) -> None:
    answer = editor.post(MODELS, {"uri": "hf://org/name"})
    assert (answer.status_code, locations(answer)) == (400, ["architecture"])
    assert editor.post(MODELS, {"uri": "hf://org/name", "architecture": "causal"}).status_code == 201


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("uri", {"uri": "gopher://x"}),
        ("uri", {"uri": "openai://"}),
        ("uri", {"uri": "import://x"}),
        ("uri", {"uri": "baseline://sing-3"}),
        ("uri", {"uri": "hf://../x", "architecture": "causal"}),
        ("slug", {"uri": "openai://x", "slug": "facebook/bart-large-cnn"}),
        ("slug", {"uri": "openai://x", "slug": "a/check"}),
        ("slug", {"uri": "openai://x", "slug": "connections/1"}),
        ("slug", {"uri": "openai://x", "slug": "../x"}),
        ("slug", {"uri": "openai://x", "slug": "a//b"}),
        ("architecture", {"uri": "openai://x", "architecture": "seq2seq"}),
        ("generation", {"uri": "openai://x", "generation": {"num_beams": 4}}),
        ("generation", {"uri": "openai://x", "generation": {"temperature": 9}}),
        ("generation.stop", {"uri": "openai://x", "generation": {"stop": "a\0b"}}),
        ("generation", {"uri": "baseline://lead-5", "generation": {"temperature": 0}}),
        ("options", {"uri": "openai://x", "options": {"log": "/etc/passwd"}}),
        ("tasks", {"uri": "openai://x", "tasks": ["poetry"]}),
        ("revision", {"uri": "openai://x", "revision": "f" * 40}),
        ("revision", {"uri": "hf://a/b", "architecture": "causal", "revision": "main"}),
        ("price_out", {"uri": "openai://x", "price_in": 1}),
        ("price_in", {"uri": "openai://x", "price_in": -1, "price_out": 1}),
        ("team", {"uri": "openai://x", "team": 1}),
        ("from_catalogue", {"uri": "openai://x", "from_catalogue": True}),
        ("privacy", {"uri": "openai://x", "privacy": "local"}),
        ("genration", {"uri": "openai://x", "genration": {}}),
    ],
)
def test_what_cannot_be_is_refused_by_field(editor, field: str, body: dict) -> None:
    answer = editor.post(MODELS, body)
    assert answer.status_code == 400
    assert locations(answer) == [field], answer.json()
    assert ModelEntry.objects.filter(from_catalogue=False).count() == 0


def test_a_repeated_post_adds_one(editor) -> None:
    sent = [editor.post(MODELS, {"uri": "openai://gpt-x"}, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert [answer.status_code for answer in sent] == [201, 201]
    assert sent[1].headers["Idempotent-Replay"] == "true"
    assert ModelEntry.objects.filter(uri="openai://gpt-x").count() == 1


# Changing


def test_an_editor_changes_what_the_registry_says(editor, seeded) -> None:
    address = f"{MODELS}openai/gpt-4o-mini/"
    body = editor.patch(address, {"price_in": 0.2, "price_source": "our contract, 2026-01", "enabled": False}).json()
    assert (body["price_in"], body["price_out"], body["enabled"], body["can_run"]) == (0.2, 0.6, False, False)
    assert AuditEvent.objects.get(action="model.change").detail == {"fields": ["price_in", "price_source", "state"]}


def test_parameters_that_the_model_does_not_know_are_refused_and_nothing_changes(editor, seeded) -> None:
    answer = editor.patch(f"{MODELS}facebook/bart-large-cnn/", {"generation": {"beams": 4}, "name": "x"})
    assert (answer.status_code, locations(answer)) == (400, ["generation"])
    assert seeded.models.get(slug="facebook/bart-large-cnn").name == "bart-large-cnn"


@pytest.mark.parametrize("body", [{"uri": "hf://a/b"}, {"slug": "x"}, {"team": 2}, {"is_baseline": True}])
def test_what_a_model_is_cannot_be_changed(editor, body: dict) -> None:
    answer = editor.patch(f"{MODELS}facebook/bart-large-cnn/", body)
    assert (answer.status_code, locations(answer)) == (400, [*body])


def test_a_model_whose_folder_is_gone_can_still_be_disabled(editor, root: Path) -> None:
    editor.post(MODELS, {"uri": "file://lab/bart"})
    (root / "bart").rename(root / "moved")
    assert editor.patch(f"{MODELS}local/bart/", {"enabled": False}).status_code == 200


def test_what_was_added_can_be_deleted_and_what_ships_is_disabled_instead(editor) -> None:
    editor.post(MODELS, {"uri": "openai://gpt-x"})
    assert editor.delete(f"{MODELS}openai/gpt-x/").status_code == 204
    answer = editor.delete(f"{MODELS}facebook/bart-large-cnn/")
    assert (answer.status_code, "retire" in answer.json()["detail"]) == (409, True)


@pytest.mark.parametrize("method", ["post", "patch", "delete"])
def test_a_viewer_only_reads(viewer, method: str) -> None:
    address = MODELS if method == "post" else f"{MODELS}facebook/bart-large-cnn/"
    assert getattr(viewer, method)(address, {"uri": "openai://x"}).status_code == 403
    assert viewer.post(f"{MODELS}facebook/bart-large-cnn/check/").status_code == 403


# Looking


def look(team, slug: str) -> checking.Check:
    return checking.look(team.models.get(slug=slug))


def told(found: checking.Check) -> str:
    return json.dumps([found.problems, found.notes])


def test_a_baseline_has_nothing_in_its_way(seeded) -> None:
    found = look(seeded, "baseline/lead-3")
    assert (found.can_run, found.problems) == (True, [])


def test_a_local_folder_is_looked_into(editor, seeded, root: Path) -> None:
    editor.post(MODELS, {"uri": "file://lab/bart"})
    found = look(seeded, "local/bart")
    assert found.can_run, found
    assert any("1,024 tokens" in words for words in found.notes)
    assert str(root) not in told(found)
    (root / "bart" / "model.safetensors").rename(root / "bart" / "pytorch_model.bin")
    assert "pickled" in look(seeded, "local/bart").problems[0]


def test_a_network_model_is_told_where_documents_go_and_what_is_missing(seeded) -> None:
    assert "no connection" in look(seeded, "mistral/ministral-8b-latest").problems[0]
    connection = Connection(team=seeded, provider="mistral", name="main", base_url="https://eu.example.org")
    connection.set_key("mistral-key-0123456789")
    connection.save()
    found = look(seeded, "mistral/ministral-8b-latest")
    assert found.can_run
    assert "eu.example.org" in found.notes[0]
    assert "no price" in found.notes[1]
    assert "mistral-key" not in told(found)


def test_a_key_that_no_current_encryption_key_opens_is_a_problem(seeded, settings) -> None:
    from cryptography.fernet import Fernet

    connection = Connection(team=seeded, provider="openai", name="main")
    connection.set_key("sk-0123456789abcdef")
    connection.save()
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    assert "LUMIGATOR_ENCRYPTION_KEYS" in look(seeded, "openai/gpt-4o-mini").problems[0]


class FakeHub(BaseHTTPRequestHandler):
    answers: dict[str, tuple[int, object]] = {}
    seen: list[tuple[str, str | None]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        status, body = self.answers.get(self.path, (404, {"error": "Repository not found"}))
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def hub(monkeypatch, settings, tmp_path) -> Iterator[type[FakeHub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    Thread(target=server.serve_forever, daemon=True).start()
    FakeHub.answers, FakeHub.seen = {}, []
    settings.EGRESS_ALLOW = [f"127.0.0.1:{server.server_port}"]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield FakeHub
    server.shutdown()
    server.server_close()


BART = "/api/models/facebook/bart-large-cnn"
WHOLE = {"sha": "a" * 40, "siblings": [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}]}


def test_a_hub_model_is_asked_for_at_the_hub(seeded, hub) -> None:
    hub.answers = {BART: (200, WHOLE)}
    found = look(seeded, "facebook/bart-large-cnn")
    assert found.can_run, found
    assert "a" * 40 in found.notes[0]
    assert hub.seen == [(BART, None)]


def test_a_revision_and_a_token_are_sent_along(seeded, hub, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    seeded.models.filter(slug="facebook/bart-large-cnn").update(revision="b" * 40)
    hub.answers = {f"{BART}/revision/{'b' * 40}": (200, {**WHOLE, "gated": "manual"})}
    found = look(seeded, "facebook/bart-large-cnn")
    assert found.can_run
    assert hub.seen == [(f"{BART}/revision/{'b' * 40}", "Bearer hf_secret")]
    assert "hf_secret" not in told(found)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, {}), "no model"),
        ((401, {}), "HF_TOKEN"),
        ((307, {}), "another name"),
        ((503, b"<h1>secret body</h1>"), "answered 503"),
        ((200, b"not json"), "answered 200"),
        ((200, {"sha": "a", "siblings": [{"rfilename": "pytorch_model.bin"}]}), "safetensors"),
        ((200, {**WHOLE, "gated": "auto"}), "gated"),
        ((200, {"sha": None, "siblings": [1, None]}), "safetensors"),
    ],
)
def test_whatever_the_hub_answers_is_put_into_words(seeded, hub, answer: tuple[int, object], words: str) -> None:
    hub.answers = {BART: answer}
    found = look(seeded, "facebook/bart-large-cnn")
    assert not found.can_run
    assert words in found.problems[0]
    assert "secret body" not in told(found)


def test_a_hub_that_may_not_be_asked_is_a_problem_with_its_cure(seeded, hub, settings) -> None:
    settings.EGRESS_ALLOW = []
    assert "LUMIGATOR_EGRESS_ALLOW" in look(seeded, "facebook/bart-large-cnn").problems[0]
    assert hub.seen == []


def test_a_hub_that_does_not_answer_is_a_problem_with_its_cure(seeded, hub, settings, monkeypatch) -> None:
    settings.EGRESS_ALLOW = ["127.0.0.1:1"]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert "could not be reached" in look(seeded, "facebook/bart-large-cnn").problems[0]


def test_without_the_network_nothing_is_asked(seeded, hub, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in look(seeded, "facebook/bart-large-cnn").problems[0]
    assert hub.seen == []


# The schema


def test_the_schema_describes_models_and_connections_without_warnings(viewer, capsys) -> None:
    from drf_spectacular.drainage import GENERATOR_STATS
    from drf_spectacular.generators import SchemaGenerator
    from rest_framework.routers import DefaultRouter

    from models_registry.api import router

    assert isinstance(router, DefaultRouter)
    GENERATOR_STATS.reset()
    schema = SchemaGenerator(patterns=router.urls).get_schema(request=None, public=True)
    assert {"/models/", "/models/{slug}/", "/models/{slug}/check/", "/connections/"} <= set(schema["paths"])
    answered = json.dumps(schema["components"]["schemas"]["Connection"])
    assert "encrypted_key" not in answered
    assert not GENERATOR_STATS


def test_a_model_that_is_reached_over_the_network_is_never_called_local(atlas) -> None:
    entry = ModelEntry(team=atlas, slug="a", name="a", uri="openai://a", architecture="causal", privacy="local")
    assert "leave this installation" in adding.problems_of(entry)["privacy"][0]
    entry.privacy = "external"
    assert adding.problems_of(entry) == {}
