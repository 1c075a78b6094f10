"""Every row of the table of provider results, for every API provider, through its real SDK against a real server."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.providers import Provider, ProviderError
from models_registry.providers._chat import retry_after
from models_registry.testing_api import FAULTS, Canned, TestingApi, completion, error, serve
from models_registry.tests.asking import KEY, PROMPT, PROVIDERS, access_to, ask

SECRET = "the-body-quotes-this"


@pytest.fixture(scope="module")
def running() -> Iterator[TestingApi]:
    with serve() as server:
        yield server


@pytest.fixture
def server(running: TestingApi) -> TestingApi:
    running.calls.clear()
    running.queue.clear()
    return running


@pytest.fixture(params=PROVIDERS.values(), ids=PROVIDERS.keys())
def provider(request: pytest.FixtureRequest) -> Provider:
    found: Provider = request.param
    return found


def says(status: int, message: str = "", **more: str) -> Canned:
    return error(status, f"{message} {SECRET} {KEY}", **more)


NUL_MESSAGE = {"choices": [{"index": 0, "finish_reason": "stop", "message": None}]}
TABLE: dict[str, tuple[Canned, tuple[str, str]]] = {
    "429 rate": (says(429, "Rate limit reached"), ("retry", "rate_limited")),
    "429 rate, billing page named": (says(429, "see platform/account/billing"), ("retry", "rate_limited")),
    "429 quota by code": (says(429, code="insufficient_quota"), ("stop", "quota")),
    "429 quota by words": (says(429, "You exceeded your current quota, please check your plan"), ("stop", "quota")),
    "429 usage": (says(429, "You reached your usage limit for this minute"), ("retry", "rate_limited")),
    "429 monthly usage": (says(429, "Monthly usage limit reached"), ("stop", "quota")),
    "429 spend cap": (says(429, "Monthly spend limit reached"), ("stop", "quota")),
    "402": (says(402), ("stop", "quota")),
    "400 no credit": (says(400, "insufficient balance"), ("stop", "quota")),
    "401": (says(401, "Incorrect API key provided"), ("stop", "auth")),
    "401 web page": (Canned(401, f"<html>{SECRET}</html>", {"Content-Type": "text/html"}), ("stop", "auth")),
    "403": (says(403), ("stop", "auth")),
    "404 model": (says(404, code="model_not_found"), ("stop", "unknown_model")),
    "404 web page": (Canned(404, f"<html>{SECRET}</html>", {"Content-Type": "text/html"}), ("stop", "unknown_model")),
    "410 retired": (says(410), ("stop", "unknown_model")),
    "400 invalid model": (says(400, "Invalid model: x", code="1500", kind="invalid_model"), ("stop", "unknown_model")),
    "408": (says(408), ("retry", "unavailable")),
    "409": (says(409), ("retry", "unavailable")),
    "500": (says(500), ("retry", "unavailable")),
    "502 web page": (Canned(502, f"<html>{SECRET}</html>", {"Content-Type": "text/html"}), ("retry", "unavailable")),
    "503": (says(503), ("retry", "unavailable")),
    "529": (says(529), ("retry", "unavailable")),
    "302": (Canned(302, SECRET, {"Location": "http://169.254.169.254/"}), ("stop", "redirected")),
    "405": (says(405), ("stop", "bad_request")),
    "422": (Canned(422, {"detail": [{"loc": ["body"], "msg": SECRET, "type": "x"}]}), ("stop", "bad_request")),
    "204": (Canned(204, b""), ("retry", "malformed_response")),
    "400 context, OpenAI": (says(400, code="context_length_exceeded", param="messages"), ("error", "input_too_long")),
    "400 context, vLLM": (
        says(400, "'max_tokens' is too large: 5000. This model's maximum context length is 4096 tokens"),
        ("error", "input_too_long"),
    ),
    "400 context, llama.cpp": (says(400, "", kind="exceed_context_size_error"), ("error", "input_too_long")),
    "400 context, Mistral": (
        Canned(400, {"object": "error", "message": "Prompt contains 40000 tokens, too large for model with 32768"}),
        ("error", "input_too_long"),
    ),
    "413": (says(413), ("error", "input_too_long")),
    "400 filter": (says(400, code="content_filter"), ("refused", "content_filter")),
    "400 plain": (says(400, "no"), ("error", "rejected")),
    "400 not JSON": (Canned(400, SECRET, {"Content-Type": "text/plain"}), ("error", "rejected")),
    "400 error is a text": (Canned(400, {"error": SECRET}), ("error", "rejected")),
    "bad JSON": (FAULTS["bad_json"], ("retry", "malformed_response")),
    "deep JSON": (Canned(body="[" * 100_000), ("retry", "malformed_response")),
    "a web page": (FAULTS["html"], ("retry", "malformed_response")),
    "a web page called JSON": (Canned(body="<html></html>"), ("retry", "malformed_response")),
    "no choices": (FAULTS["no_choices"], ("retry", "malformed_response")),
    "no message": (Canned(body=NUL_MESSAGE), ("retry", "malformed_response")),
    "content is a number": (completion(content=5), ("retry", "malformed_response")),
    "null": (Canned(body="null"), ("retry", "malformed_response")),
    "a list": (Canned(body="[]"), ("retry", "malformed_response")),
    "not UTF-8": (Canned(body=b"\xff\xfe\x00"), ("retry", "malformed_response")),
    "oversize": (FAULTS["oversize"], ("retry", "malformed_response")),
    "oversize without length": (
        Canned(body=b" " * 5_000_000, headers={"Content-Length": None}),
        ("retry", "malformed_response"),
    ),
    "compressed": (Canned(body=b"x", headers={"Content-Encoding": "gzip"}), ("retry", "malformed_response")),
    "broke off": (completion("Half a", finish="error"), ("retry", "unavailable")),
    "reset": (FAULTS["reset"], ("unknown", "connection_lost")),
    "cut": (FAULTS["cut"], ("unknown", "connection_lost")),
    "empty": (completion(""), ("empty", "empty_output")),
    "blank": (completion(" \n "), ("empty", "empty_output")),
    "null content": (completion(None), ("empty", "empty_output")),
    "filtered": (completion("Partly", finish="content_filter"), ("refused", "content_filter")),
    "length": (completion("Cut off in the", finish="length"), ("ok", "")),
    "ok": (completion("Fine."), ("ok", "")),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_table(provider: Provider, server: TestingApi, case: str) -> None:
    canned, expected = TABLE[case]
    server.answer(canned)
    outcome = ask(provider, access_to(server))
    assert outcome.row == expected, outcome
    assert len(server.calls) == 1, "the SDK must not try again by itself: each attempt is billed"
    assert SECRET not in outcome.words
    assert KEY not in outcome.words
    assert expected[0] == "ok" or len(outcome.words) > 20, "a failure is told in words"


def test_a_read_timeout_may_have_been_billed(provider: Provider, server: TestingApi) -> None:
    server.answer(Canned(wait=5))
    assert ask(provider, access_to(server, read_timeout=0.2)).row == ("unknown", "timeout")
    assert len(server.calls) == 1


def test_a_connection_refused_is_tried_later(provider: Provider, server: TestingApi) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    access = access_to(server, base_url=f"http://127.0.0.1:{port}/v1", allow_private=("127.0.0.1",))
    assert ask(provider, access).row == ("retry", "unreachable")


def test_a_name_without_address_is_tried_later(provider: Provider, server: TestingApi) -> None:
    access = access_to(server, base_url="https://no-such-host.invalid/v1")
    assert ask(provider, access).row == ("retry", "unreachable")


def test_plain_http_behind_https_stops(provider: Provider, server: TestingApi) -> None:
    access = access_to(server, base_url=f"https://127.0.0.1:{server.port}/v1")
    assert ask(provider, access).row == ("stop", "tls")


def test_a_private_address_that_nobody_allowed_is_not_called(provider: Provider, server: TestingApi) -> None:
    for base_url in (f"{server.origin}/v1", f"http://localhost:{server.port}/v1"):
        outcome = ask(provider, access_to(server, base_url=base_url, allow_private=()))
        assert outcome.row == ("stop", "egress_refused")
        assert "LUMIGATOR_EGRESS_ALLOW=" in outcome.words
    assert server.calls == []


@pytest.mark.parametrize(
    "base_url", ["ftp://host/v1", "http://user:secret@host/v1", "http://169.254.169.254/v1", "host"]
)
def test_an_address_that_is_none_stops_before_any_call(provider: Provider, server: TestingApi, base_url: str) -> None:
    outcome = ask(provider, access_to(server, base_url=base_url))
    assert outcome.row == ("stop", "egress_refused")
    assert "secret" not in outcome.words


@pytest.mark.parametrize("name", ["openai", "mistral"])
def test_no_key_stops_before_any_call(name: str, server: TestingApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("MISTRAL_API_KEY", "sk-of-somebody-else")
    outcome = ask(PROVIDERS[name], access_to(server, key=""))
    assert outcome.row == ("stop", "no_key")
    assert "connection" in outcome.words
    assert f"{name.upper()}_API_KEY" in outcome.words
    assert server.calls == []


@pytest.mark.parametrize("damage", ["{}\nX-Evil: 1", "{} extra", "{}é", "{}\0"])
def test_a_damaged_key_stops_before_any_call(provider: Provider, server: TestingApi, damage: str) -> None:
    outcome = ask(provider, access_to(server, key=damage.format(KEY)))
    assert outcome.row == ("stop", "auth")
    assert KEY not in outcome.words
    assert server.calls == []


@pytest.mark.parametrize("case", ["401", "500", "bad JSON", "reset", "oversize", "400 plain", "302"])
def test_neither_key_nor_document_nor_body_shows_in_any_linked_error(
    provider: Provider, server: TestingApi, case: str
) -> None:
    server.answer(TABLE[case][0])
    access = access_to(server)
    outcome = ask(provider, access)
    link: BaseException | None = outcome.error
    texts = [repr(access), str(access), repr(outcome)]
    while link is not None:
        texts += [str(link), repr(link), repr(vars(link))]
        link = link.__cause__ or link.__context__
    for text in texts:
        assert KEY not in text
        assert SECRET not in text
        assert PROMPT not in text


def test_a_session_describes_itself_without_its_key(provider: Provider, server: TestingApi) -> None:
    session = provider.open({"model": "m", "generation": {}}, access_to(server))
    assert KEY not in repr(session)
    assert KEY not in repr(session.describe())
    session.close()


NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"RETRY-AFTER-MS": "250", "Retry-After": "7"}, 0.25),
        ({"retry-after-ms": "soon", "Retry-After": "7"}, 7.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"Retry-After": "999999"}, 300.0),
        ({"Retry-After": "9" * 400}, 300.0),
        ({"Retry-After": format_datetime(NOW + timedelta(seconds=20), usegmt=True)}, 20.0),
        ({"Retry-After": "Sun, 01 Mar 2026 12:00:20"}, 20.0),
        ({"Retry-After": format_datetime(NOW - timedelta(days=20), usegmt=True)}, 0.0),
        ({"Retry-After": format_datetime(NOW + timedelta(days=20), usegmt=True)}, 300.0),
        ({"Retry-After": "in a while"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@given(st.text(max_size=40))
@settings(max_examples=50, deadline=None)
def test_retry_after_survives_anything(text: str) -> None:
    seconds = retry_after({"Retry-After": text, "retry-after-ms": text})
    assert seconds is None or 0 <= seconds <= 300


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_reaches_the_caller(provider: Provider, server: TestingApi, status: int) -> None:
    server.answer(error(status, "slow down", Retry_After="17"), error(status, "slow down", Retry_After="junk"))
    first, second = ask(provider, access_to(server)), ask(provider, access_to(server))
    assert first.error is not None and first.error.retry_after == 17.0
    assert second.error is not None and second.error.retry_after is None


def test_a_parameter_that_the_server_rejects_is_named_and_stops_the_candidate(
    provider: Provider, server: TestingApi
) -> None:
    message = "Unsupported value: 'temperature' does not support 0.5"
    server.answer(error(400, message, code="unsupported_value", param="temperature"))
    outcome = ask(provider, access_to(server), spec={"generation": {"temperature": 0.5}})
    assert outcome.row == ("stop", "bad_request")
    assert "temperature" in outcome.words


def test_a_body_that_drips_is_unknown_at_the_total_time(
    provider: Provider, server: TestingApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models_registry.providers._openai_client.TOTAL_TIME", 0.4)
    monkeypatch.setattr("models_registry.providers.mistral.TOTAL_TIME", 0.4)
    server.answer(Canned(drip=0.02))
    began = time.monotonic()
    assert ask(provider, access_to(server, read_timeout=0.3)).row == ("unknown", "timeout")
    assert time.monotonic() - began < 3


def test_an_unforeseen_error_is_unknown_and_says_no_more_than_its_kind(server: TestingApi) -> None:
    outcome = ask(PROVIDERS["openai"], access_to(server), prompt=f"{SECRET} \ud800")  # a lone surrogate cannot be sent
    assert outcome.error is not None
    assert outcome.error.code == "unexpected"
    assert SECRET not in outcome.words


def test_what_postgres_cannot_hold_is_marked(provider: Provider, server: TestingApi) -> None:
    server.answer(completion("A\0B\ud800C 😀"))
    output = ask(provider, access_to(server)).output
    assert output is not None
    assert output.text == "A\ufffdB\ufffdC 😀"


def test_listing_models_fails_in_the_same_words(server: TestingApi) -> None:
    from models_registry.providers import endpoint, mistral, openai

    for module in (openai, mistral, endpoint):
        server.answer(says(401), Canned(body="{}"), FAULTS["html"], FAULTS["reset"])
        expected = [("stop", "auth"), *[("retry", "malformed_response")] * 2, ("unknown", "connection_lost")]
        for row in expected:
            with pytest.raises(ProviderError) as failure:
                module.list_models(access_to(server))
            assert (failure.value.failure, failure.value.code) == row
            assert SECRET not in str(failure.value)
