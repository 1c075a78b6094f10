"""Mistral: what goes out, what comes back through its SDK."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from models_registry.providers import mistral, serving
from models_registry.testing_api import Canned, TestingApi, completion, serve
from models_registry.tests.asking import KEY, PROMPT, access_to, ask


@pytest.fixture
def server() -> Iterator[TestingApi]:
    with serve(key=KEY) as running:
        yield running


def test_the_scheme_is_served() -> None:
    assert serving("mistral") is mistral.provider
    assert (mistral.provider.place, mistral.provider.queue, mistral.provider.uses_prompt) == ("network", "api", True)


def test_a_document_becomes_a_summary_with_its_token_counts(server: TestingApi) -> None:
    output = ask(mistral.provider, access_to(server)).output
    assert output is not None and output.status == "ok"
    assert output.text == "The ferry sank at dawn."
    assert (output.input_tokens, output.output_tokens) == (len(PROMPT.split()), 5)
    assert output.cached_tokens is None


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_the_address_may_end_in_v1(server: TestingApi, end: str) -> None:
    assert ask(mistral.provider, access_to(server, base_url=server.origin + end)).row == ("ok", "")
    assert server.calls[0].path == "/v1/chat/completions"


def test_what_goes_out(server: TestingApi) -> None:
    generation = {"max_new_tokens": 3, "temperature": 0.5, "top_p": 0.9, "seed": 11, "stop": ["END"]}
    penalties = {"frequency_penalty": 0.1, "presence_penalty": 0.2}
    outcome = ask(
        mistral.provider, access_to(server), spec={"generation": {**generation, **penalties}, "system": "Be brief."}
    )
    assert outcome.output is not None and outcome.output.finish_reason == "length"
    call = server.calls[0]
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.body == {
        "model": "first-sentence",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}],
        "max_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "random_seed": 11,
        "stop": ["END"],
        "stream": False,
        **penalties,
    }


def test_thinking_is_kept_apart_from_the_answer(server: TestingApi) -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Because."}]},
        {"type": "text", "text": "Answer."},
    ]
    server.answer(completion(None, content=parts))
    output = ask(mistral.provider, access_to(server)).output
    assert output is not None
    assert (output.text, output.reasoning) == ("Answer.", "Because.")


def test_cached_tokens_are_reported(server: TestingApi) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130, "num_cached_tokens": 64}
    server.answer(completion("Short.", usage=usage))
    output = ask(mistral.provider, access_to(server)).output
    assert output is not None
    assert (output.input_tokens, output.cached_tokens, output.output_tokens) == (100, 64, 30)


@pytest.mark.parametrize("usage", [{}, {"total_tokens": 3}, {"prompt_tokens": None}])
def test_token_counts_that_the_sdk_would_fill_with_zero_are_none(server: TestingApi, usage: object) -> None:
    server.answer(completion("Short.", usage=usage))
    output = ask(mistral.provider, access_to(server)).output
    assert output is not None and output.status == "ok"
    assert (output.input_tokens, output.output_tokens) == (None, None)


def test_an_answer_that_only_the_sdk_finds_incomplete_is_read(server: TestingApi) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Short."}}
    server.answer(Canned(body={"choices": [choice]}))
    output = ask(mistral.provider, access_to(server)).output
    assert output is not None
    assert (output.status, output.text, output.input_tokens) == ("ok", "Short.", None)


def test_the_models_own_limit_is_the_length(server: TestingApi) -> None:
    server.answer(completion("Cut off in the", finish="model_length"))
    output = ask(mistral.provider, access_to(server)).output
    assert output is not None
    assert (output.status, output.finish_reason) == ("ok", "length")


def test_the_sdks_debug_log_stays_silent(
    server: TestingApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MISTRAL_DEBUG", "1")
    with caplog.at_level(logging.DEBUG):
        assert ask(mistral.provider, access_to(server)).row == ("ok", "")
    assert KEY not in caplog.text
    assert "ferry" not in caplog.text


def test_nothing_of_the_environment_reaches_the_server(server: TestingApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "of-the-environment")
    assert ask(mistral.provider, access_to(server)).row == ("ok", "")
    assert "of-the-environment" not in repr(server.calls[0].headers)
