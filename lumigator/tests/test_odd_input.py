"""Whatever is sent, the answer is in words: every form and endpoint × a table of odd values in every field. SECURITY S21."""

from __future__ import annotations

import json
from base64 import b64encode
from urllib.parse import quote, urlencode

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction

from evaluations.tests.engine import make_dataset, make_experiment, run
from models_registry.models import Connection, ModelEntry

pytestmark = pytest.mark.django_db(transaction=True)
API = "/api/v1/"

TEXTS = [
    "", " ", "\n", "0", "-1", "1.5", "1e400", "-1e308", "NaN", "inf", "-Infinity", "9" * 19, "9" * 5000, "²", "٣", "0x10",
    "true", "null", "[]", "{}", "a" * 300, "x" * 100_000, "\u202e\u200b\ufeff", "\U0001f600" * 50, "e\u0301" * 200,
    "<script>alert(1)</script>", "'; DROP TABLE x; --", "../../../etc/passwd", "%2e%2e/%00", "=1+1", "{document}",
    "{0.__class__}", "http://[::1", "https://u:p@host/v1", "file:///etc/passwd", "hf://a/../b@\n", "http://host℀/v1",
    "endpoint://", "\r\nSet-Cookie: a=b", "created_by__password",
]  # fmt: skip
UNSTORABLE = ["\0", "a\0b"]
"""PostgreSQL holds no NUL; forms can send it, and JSON can spell it."""
DEEP = "[" * 5000 + "]" * 5000
JSONS = [
    None, True, False, 0, -1, 10**30, -(10**400), 1.5, 1e308, 2**31, 2**63, [], {}, [[]], [None], [{}], {"": None}, {"a": {"b": []}},
    [1] * 300, {"model": []}, {"max_new_tokens": 10**300, "temperature": -1}, {"max_new_tokens": [], "num_beams": {}},
    {"max_new_tokens": True}, {"n": [], "seed": {}}, ["\ud800"], {"\ud800": "\0"}, "\ud800",
]  # fmt: skip
SPELT = [b"", b"{", b"null", b"5", b'"file"', b"[]", b"[5]", b'["file", "predictions"]', b"true", b"NaN", b"1e999",
         b"\xff\xfe", b"\xef\xbb\xbf{}", DEEP.encode(), b'{"a":' * 5000, b'{"name": %s}' % (b"9" * 5000),
         b'{"name": NaN}', b'{"name": "\\ud800"}']  # fmt: skip


@pytest.fixture
def world(atlas):
    """An experiment that has ended, a draft, a connection and a model, all of Atlas."""
    dataset = make_dataset(atlas, [f"Team {n} met. It chose plan {n}. It went home." for n in range(4)])
    model = ModelEntry.objects.create(
        team=atlas, slug="a/b", name="b", uri="openai://b", architecture="causal", privacy="external"
    )
    return {
        "dataset": dataset,
        "ended": run(make_experiment(dataset, "baseline://lead-1", "baseline://lead-2")),
        "draft": make_experiment(dataset, "baseline://lead-1"),
        "model": model,
        "connection": Connection.objects.create(team=atlas, name="ours", provider="openai"),
    }


def answer(client, method, path, **request):
    """The status, and everything that the request changed undone, whatever became of it."""
    with transaction.atomic():
        response = getattr(client, method)(path, **request)
        if response.streaming:
            for _ in response:
                pass
        transaction.set_rollback(True)
    return response.status_code


def tell(client, tries):
    """The requests that were answered with a fault of ours, shortened: [(status, method, path, what)]."""
    client.raise_request_exception = False
    faults = []
    for method, path, what, request in tries:
        status = answer(client, method, path, **request)
        if status >= 500:
            faults.append((status, method, path[:80], str(what)[:90]))
    return faults


def as_json(value):
    return {"data": json.dumps(value), "content_type": "application/json"}


# --- the API --------------------------------------------------------------------------------------------------------


def bodies(world):
    """(method, path, a body that is taken); a nested name is reached as a.b."""
    here = f"{API}experiments/"
    return {
        "model-add": ("post", f"{API}models/", {
            "uri": "openai://new", "slug": "new", "architecture": "causal", "name": "n", "about": "a", "revision": "",
            "tasks": [], "generation": {}, "options": {}, "window": 1, "parameters": 1, "size_bytes": 1, "licence": "l",
            "website": "", "price_in": "1", "price_out": "1", "price_cached": "1", "price_source": "s", "enabled": True,
        }),
        "model-change": ("patch", f"{API}models/a/b/", {"name": "n", "generation": {}, "options": {}, "price_in": "1",
                                                        "price_out": "1", "tasks": [], "revision": "", "website": ""}),
        "connection-add": ("post", f"{API}connections/", {
            "name": "new", "provider": "openai", "base_url": "", "key": "k", "concurrency": 1, "requests_per_minute": 1,
            "tokens_per_minute": 1, "connect_timeout": 1, "read_timeout": 1, "enabled": True,
        }),
        "connection-change": ("patch", f"{API}connections/{world['connection'].pk}/", {"name": "n", "base_url": "",
                                                                                       "key": "k"}),
        "experiment-add": ("post", here, {
            "name": "n", "dataset": world["dataset"].pk, "task": "summarization", "prompt": "{document}",
            "models": [{"model": "baseline/lead-3", "label": "l", "prompt": "{document}", "generation": {}}],
            "metrics": ["rouge"], "primary_metric": "rougeLsum", "margin": 0, "sample": {"n": 1, "seed": 0},
            "budget_usd": "1", "baselines": True, "start": False,
            "gates": {"local_only": True, "min_answer_rate": 1, "max_latency_ms": 1},
        }),
        "experiment-rename": ("patch", f"{here}{world['ended'].pk}/", {"name": "n"}),
        "start": ("post", f"{here}{world['draft'].pk}/start/", {}),
        "candidate": ("post", f"{here}{world['ended'].pk}/candidates/", {"model": "baseline://lead-4", "label": "l",
                                                                         "prompt": "{document}", "generation": {}}),
        "outputs": ("post", f"{here}{world['ended'].pk}/candidates/", {"label": "l", "predictions": [
            {"index": 0, "output": "o"}, {"id": "a", "output": "o"}]}),
    }  # fmt: skip


def places(body, path=()):
    for name, value in body.items() if isinstance(body, dict) else enumerate(body):
        yield (*path, name)
        if isinstance(value, dict | list):
            yield from places(value, (*path, name))


def placed(body, path, value):
    """A copy of `body` with `value` at `path`."""
    copy = json.loads(json.dumps(body))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return copy


ENDPOINTS = ["model-add", "model-change", "connection-add", "connection-change", "experiment-add", "experiment-rename",
             "start", "candidate", "outputs"]  # fmt: skip


@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_odd_value_in_any_field_of_the_api_is_answered(name, world, alice, as_user):
    method, path, body = bodies(world)[name]
    tries = [(method, path, raw, {"data": raw, "content_type": "application/json"}) for raw in SPELT]
    tries += [(method, path, "text", {"data": "a,b", "content_type": "text/plain"}),
              (method, path, "form", {"data": urlencode({"name": "\0"}), "content_type": "application/x-www-form-urlencoded"}),
              (method, path, "bad multipart", {"data": b"--x\r\n", "content_type": "multipart/form-data; boundary=x"}),
              (method, path, "unknown", as_json({**body, "team": 1, "state": "completed", "__class__": 1})),
              (method, path, "ten million", as_json({**body, "name": "x" * 10_000_000}))]  # fmt: skip
    for where in places(body):
        for value in (*TEXTS, *UNSTORABLE, *JSONS):
            tries.append((method, path, (where, value), as_json(placed(body, where, value))))
    assert tell(as_user(alice, api=True), tries) == []
