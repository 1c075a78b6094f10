"""Whatever is sent, the answer is in words: every form and endpoint × odd values in every field (SECURITY S21)."""

from __future__ import annotations

import json
import logging
import os
from base64 import b64encode
from urllib.parse import quote, urlencode

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction

from evaluations.tests.engine import make_dataset, make_experiment, run
from models_registry.models import Connection, ModelEntry

pytestmark = pytest.mark.django_db(transaction=True)
API = "/api/v1/"
SHARE = int(os.environ.get("LUMIGATOR_TEST_SHARE", "8"))
"""Each field gets every eighth value, the next field those beside them: all of it takes minutes (set 1)."""

TEXTS = [
    "", " ", "\n", "0", "-1", "1.5", "1e400", "-1e308", "NaN", "inf", "-Infinity", "9" * 19, "9" * 5000, "²", "٣",
    "0x10", "true", "null", "[]", "{}", "a" * 300, "x" * 100_000, "\u202e\u200b\ufeff", "\U0001f600" * 50,
    "e\u0301" * 200, "<script>alert(1)</script>", "'; DROP TABLE x; --",
    "../../../etc/passwd", "%2e%2e/%00", "=1+1", "{document}",
    "{0.__class__}", "http://[::1", "https://u:p@host/v1", "file:///etc/passwd", "hf://a/../b@\n", "http://host℀/v1",
    "endpoint://", "\r\nSet-Cookie: a=b", "created_by__password",
]  # fmt: skip
UNSTORABLE = ["\0", "a\0b"]
"""PostgreSQL holds no NUL; forms can send it, and JSON can spell it."""
FORM = "application/x-www-form-urlencoded"
BAD_MULTIPART = {"data": b"--x\r\n", "content_type": "multipart/form-data; boundary=x"}
DEEP = "[" * 5000 + "]" * 5000
JSONS = [
    None, True, False, 0, -1, 10**30, -(10**400), 1.5, 1e308, 2**31, 2**63, [], {}, [[]], [None], [{}], {"": None},
    {"a": {"b": []}}, [1] * 300, {"model": []}, {"max_new_tokens": 10**300, "temperature": -1},
    {"max_new_tokens": [], "num_beams": {}}, {"max_new_tokens": True}, {"n": [], "seed": {}}, ["\ud800"],
    {"\ud800": "\0"}, "\ud800",
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


@pytest.fixture(autouse=True)
def _no_warnings_by_the_thousand():
    """Each refusal is a line in the log, which would bury what a failing test has to say."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


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
            faults.append(f"{status} {method} {path[:80]} {str(what)[:90]!r}")
    return "\n".join(faults)


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
        "experiment-change": ("patch", f"{here}{world['draft'].pk}/", {"name": "n", "budget_usd": "1"}),
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


ENDPOINTS = ["model-add", "model-change", "connection-add", "connection-change", "experiment-add", "experiment-change",
             "start", "candidate", "outputs"]  # fmt: skip


@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_odd_value_in_any_field_of_the_api_is_answered(name, world, alice, as_user):
    method, path, body = bodies(world)[name]
    tries = [(method, path, raw, {"data": raw, "content_type": "application/json"}) for raw in SPELT]
    tries += [(method, path, "text", {"data": "a,b", "content_type": "text/plain"}),
              (method, path, "form", {"data": urlencode({"name": "\0"}), "content_type": FORM}),
              (method, path, "bad multipart", BAD_MULTIPART),
              (method, path, "unknown", as_json({**body, "team": 1, "state": "completed", "__class__": 1})),
              (method, path, "ten million", as_json({**body, "name": "x" * 10_000_000}))]  # fmt: skip
    for turn, where in enumerate(places(body)):
        for value in (*TEXTS, *UNSTORABLE, *JSONS)[turn % SHARE :: SHARE]:
            tries.append((method, path, (where, value), as_json(placed(body, where, value))))
    assert tell(as_user(alice, api=True), tries) == ""


def test_an_odd_file_or_field_beside_it_is_answered(world, bob, as_user):
    good = b"examples,ground_truth\nOne. Two.,One.\n"
    files = [b"", b"\0", b"\xff\xfe", good, b"PK\x03\x04", b"index,output\n\xff",
             b'{"index": 1e400, "output": "x"}', b'{"id": {"a": []}, "output": "x"}', DEEP.encode(),
             b"index,output\n99999999999999999999,x",
             b'a,b\n"x', b'{"examples": "\\ud800"}', b'{"examples": "x", "id": [[]]}',
             b"examples\n" + b"x" * 1_100_000]  # fmt: skip
    fields = {
        f"{API}datasets/": ["name", "source_column", "reference_columns", "id_column", "group_column", "tag_columns",
                            "privacy", "file", "unknown"],
        f"{API}experiments/{world['ended'].pk}/candidates/": ["label", "file", "unknown"],
    }  # fmt: skip
    tries = []
    for path, names in fields.items():
        base = {"label": "l"} if "candidates" in path else {}
        for content in files:
            for called in ("a.csv", "../../a\0\r\nb", "\u202e" * 200, ""):
                data = {**base, "file": SimpleUploadedFile(called or "x", content)}
                tries.append(("post", path, (called, content), {"data": data, "format": "multipart"}))
        for turn, name in enumerate(names):
            for value in (*TEXTS, *UNSTORABLE)[turn % SHARE :: SHARE]:
                data = {**base, "file": SimpleUploadedFile("a.csv", good), name: value}
                tries.append(("post", path, (name, value), {"data": data, "format": "multipart"}))
    assert tell(as_user(bob, api=True), tries) == ""


# --- the pages ------------------------------------------------------------------------------------------------------


def forms(world):
    """(path, fields that are taken) of every form."""
    ended = f"/experiments/{world['ended'].pk}/"
    return [
        ("/datasets/upload/", {"name": "n", "privacy": "any", "file": "f"}),
        ("/datasets/upload/check/", {"action": "store", "use-0": "source"}),
        (f"/datasets/{world['dataset'].pk}/delete/", {"a": "b"}),
        ("/models/add/", {"uri": "openai://new", "architecture": "causal", "slug": "new", "name": "n", "about": "a",
                          "generation": "{}"}),
        ("/models/a/b/", {"action": "change", "name": "n", "about": "a", "generation": "{}", "window": "1",
                          "licence": "l", "price_in": "1", "price_out": "1", "price_cached": "1", "price_source": "s"}),
        ("/models/connections/", {"provider": "openai", "name": "new", "base_url": "", "key": "k"}),
        (f"/models/connections/{world['connection'].pk}/", {
            "name": "n", "base_url": "", "key": "k", "forget_key": "", "concurrency": "1", "requests_per_minute": "1",
            "tokens_per_minute": "1", "connect_timeout": "1", "read_timeout": "1", "enabled": "on"}),
        ("/experiments/new/", {
            "name": "n", "dataset": str(world["dataset"].pk), "models": "a/b", "addresses": "baseline://lead-2",
            "baselines": "on", "metrics": "rouge", "primary_metric": "rougeLsum", "margin": "0", "sample_n": "1",
            "seed": "0", "budget_usd": "1", "prompt": "{document}", "then": "keep"}),
        (f"{ended}resume/", {"a": "b"}),
        ("/team/", {"team": "atlas"}),
        ("/sign-in/", {"username": "u", "password": "p", "next": "/"}),
        ("/sign-in/odd/", {"a": "b"}),
    ]  # fmt: skip


SPELT_JSON = [DEEP, '{"a":' * 5000, "9" * 5000, '{"max_new_tokens": %s}' % ("9" * 5000), "NaN", "1e999", '"\\ud800"',
              '{"stop": "\\ud800"}', '{"stop": "\\u0000"}', '{"\\ud800": 1}', '{"max_new_tokens": 1e308}']  # fmt: skip


def test_an_odd_value_in_any_field_of_a_form_is_answered(world, alice, as_user):
    tries = []
    for path, fields in forms(world):
        tries.append(("post", path, "ten million", {"data": {**fields, "name": "x" * 10_000_000}}))
        tries.append(("post", path, "broken UTF-8", {"data": "&".join(f"{name}=%ff%ed%a0%80%00" for name in fields),
                                                     "content_type": FORM}))  # fmt: skip
        tries.append(("post", path, "bad multipart", BAD_MULTIPART))
        tries.append(("post", path, "nothing", {"data": {}}))
        for turn, name in enumerate(fields):
            for value in (*TEXTS, *UNSTORABLE)[turn % SHARE :: SHARE]:
                tries.append(("post", path, (name, value), {"data": {**fields, name: value}}))
            if name == "generation":
                tries += [("post", path, (name, value), {"data": {**fields, name: value}}) for value in SPELT_JSON]
    client = as_user(alice)
    client.post("/datasets/upload/", {"file": SimpleUploadedFile("a.csv", b"examples\nx\n"), "privacy": "any"})
    assert tell(client, tries) == ""


# --- what is read ---------------------------------------------------------------------------------------------------


def questions(world):
    """{path: the parameters that it reads}"""
    ended, dataset = world["ended"].pk, world["dataset"].pk
    api, page = f"{API}experiments/{ended}/", f"/experiments/{ended}/"
    paging = ["cursor", "page_size"]
    return {
        f"{API}datasets/": [*paging, "format"], f"{API}datasets/{dataset}/examples/": paging,
        f"{API}datasets/{dataset}/download/": ["format"],
        f"{API}models/": [*paging, "task", "scheme", "privacy", "enabled", "is_baseline", "team__name"],
        f"{API}connections/": paging, f"{API}experiments/": [*paging, "state"],
        f"{api}examples/": ["sort", "order", "after", "metric", "page_size", "sort=index&after"],
        f"{api}comparison/": ["metric"], f"{api}export/": ["format"], f"{api}plan/": ["x"], f"{API}metrics/": ["x"],
        f"{API}schema/": ["format", "lang", "version"],
        "/": ["x"], "/datasets/": ["before"], f"/datasets/{dataset}/examples/": ["from"],
        "/models/": ["q", "task", "where", "can_run"], "/models/add/": ["uri"], "/experiments/": ["show", "after"],
        "/experiments/new/": ["dataset", "model"], f"{page}progress/": ["said", "state"],
        f"{page}comparison/": ["metric", "sort"], f"{page}examples/": ["sort", "after", "sort=-index&after"],
        f"{page}examples/0/": ["against"], "/sign-in/": ["next"],
    }  # fmt: skip


PLACES = ["nan:1", "inf:0", "-inf:0", "1e308:1", "1:" + "9" * 30, ":", "0.1:\0", "-9" * 20,
          *(b64encode(inner).decode() for inner in (b"p=x", b"p=%00", b"p=-1&r=1", b"p=" + b"9" * 40, b"o=1&p=1.5",
                                                    b"o=99999999999", b"r=x", b"\xff"))]  # fmt: skip


def test_an_odd_question_is_answered(world, alice, as_user):
    values = [quote(value[:3000].encode()) for value in (*TEXTS, *UNSTORABLE, *PLACES)] + ["%ff%ed%a0%80"]
    tries = []
    for turn, (path, names) in enumerate(questions(world).items()):
        for name in names:
            places_too = name in ("after", "cursor") or name.endswith("&after")
            mine = values if places_too else values[turn % SHARE :: SHARE]
            tries += [("get", f"{path}?{name}={value}", value, {}) for value in mine]
        tries.append(("get", f"{path}?x=1", "as a page", {"HTTP_ACCEPT": "text/html"}))
    client = as_user(alice)
    assert tell(client, tries) == ""


def test_an_odd_address_is_answered(world, alice, as_user):
    ended, dataset = world["ended"].pk, world["dataset"].pk
    odd = ["0", "-1", "9" * 18, "9" * 30, "9" * 5000, "%D9%A3", "%C2%B2", "%00", "%2e%2e", "a%00b", "a//b", "%ff",
           "x" * 3000, "a%0d%0ab", "check", "add"]  # fmt: skip
    shapes = [f"{API}datasets/{{}}/", f"{API}datasets/{{}}/examples/", f"{API}models/{{}}/", f"{API}models/{{}}/check/",
              f"{API}connections/{{}}/", f"{API}experiments/{{}}/", f"{API}experiments/{ended}/examples/{{}}/",
              "/datasets/{}/", f"/datasets/{dataset}/examples/{{}}/", "/models/{}/", "/models/connections/{}/",
              "/experiments/{}/", f"/experiments/{ended}/examples/{{}}/", "/sign-in/{}/", "/{}"]  # fmt: skip
    tries = [(method, shape.format(each), each, {}) for shape in shapes for each in odd for method in ("get", "post")]
    assert tell(as_user(alice), tries) == ""


@pytest.mark.parametrize("name", ["Idempotency-Key", "Authorization", "If-None-Match", "X-Request-Id", "Accept", "Host",
                                  "Cookie", "X-CSRFToken", "Range", "Accept-Language"])  # fmt: skip
def test_an_odd_header_is_answered(name, world, alice, as_user):
    # A server refuses NUL and line breaks in a header before we see them.
    values = ["", "Bearer", "Bearer \x7f", "Bearer \xff", "Basic x", "*/*;q=x", "a" * 9000, "\xff\xfe", "-1",
              "text/html;;", "bytes=0-99999999999", "lumigator_session=x"]  # fmt: skip
    body = {"name": "n", "provider": "openai", "base_url": "https://models.example"}
    for client in (as_user(alice), as_user(alice, api=True)):
        tries = []
        for value in values:
            sent = {"headers": {name: value}}
            tries += [("get", f"{API}experiments/{world['ended'].pk}/progress/", value, sent),
                      ("get", "/", value, sent),
                      ("post", f"{API}connections/", value, {**as_json(body), **sent})]  # fmt: skip
        assert tell(client, tries) == ""
