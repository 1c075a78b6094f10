"""The hub: pinned commits, safetensors only, and failures in words. A small server on this machine plays the hub."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from models_registry.providers import ProviderError, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
hf = serving("hf")


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: 401 with X-Error-Code for what is hidden, file names for what is there."""

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        if "/api/models/some/gated" in self.path:
            self.answer(403, {}, code="GatedRepo")
        elif "/api/models/some/pickled" in self.path:
            files = [{"rfilename": "config.json"}, {"rfilename": "pytorch_model.bin"}]
            self.answer(200, {"id": "some/pickled", "sha": COMMIT, "siblings": files})
        elif "/revision/nowhere" in self.path:
            self.answer(404, {}, code="RevisionNotFound")
        else:
            self.answer(404, {}, code="RepoNotFound")

    def answer(self, status, content, code=""):
        body = json.dumps(content).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def environment(hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read once, when the library is imported
    return {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path)}


def refused(uri, environment):
    with pytest.raises(ProviderError) as caught:
        hf.prepare({"uri": uri}, environment)
    assert caught.value.failure == "stop"
    return caught.value


@pytest.mark.parametrize(
    ("uri", "code", "says"),
    [
        ("hf://some/gated", "gated", "accept its licence"),
        ("hf://some/pickled", "no_weights", "no safetensors"),
        ("hf://some/other", "unknown_model", "no model some/other"),
        ("hf://some/other@nowhere", "unknown_model", "no revision 'nowhere'"),
    ],
)
def test_what_the_hub_refuses_is_said_with_a_cure(environment, uri, code, says):
    error = refused(uri, environment)
    assert error.code == code
    assert says in str(error)


def test_an_unreachable_hub_is_said_soon(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read once, when the library is imported
    error = refused("hf://some/model", {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)})
    assert error.code == "hub_unreachable"


def test_offline_asks_nobody(environment, hub):
    error = refused("hf://some/model", {**environment, "HF_HUB_OFFLINE": "1"})
    assert error.code == "hub_unreachable"
    assert "HF_HUB_OFFLINE" in str(error)
    assert hub.seen == []


def test_the_token_goes_to_the_hub_and_nowhere_else(environment, hub):
    error = refused("hf://some/gated", {**environment, "HF_TOKEN": "hf_canary"})
    assert hub.seen[0][1] == "Bearer hf_canary"
    assert "canary" not in str(error)


@pytest.mark.parametrize("uri", ["hf://", "hf://a/b/c", "hf://../x", "hf://a/b@../..", "hf://a b/c"])
def test_an_address_that_is_none_is_refused(uri):
    assert hf.problems({"uri": uri})
    assert refused(uri, {}).code == "unknown_model"


def test_a_whole_snapshot_in_the_cache_needs_no_hub(tiny, tmp_path, hub, environment):
    cached = tmp_path / "hub" / "models--some--model"
    snapshot = cached / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    for path in tiny("llama").iterdir():
        (snapshot / path.name).write_bytes(path.read_bytes())
    spec = hf.prepare({"uri": f"hf://some/model@{COMMIT}"}, environment)
    assert (spec["path"], spec["revision"]) == (str(snapshot), COMMIT)
    offline = hf.prepare({"uri": "hf://some/model"}, {**environment, "HF_HUB_OFFLINE": "1"})
    assert offline["revision"] == COMMIT
    assert hub.seen == []
