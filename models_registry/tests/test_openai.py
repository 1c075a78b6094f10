"""OpenAI and OpenAI-compatible endpoints: what goes out, what comes back."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models_registry.providers import Access, ProviderError, Request, endpoint, openai, serving
from models_registry.testing_api import TestingApi, completion, serve
from models_registry.tests.asking import DOCUMENT, KEY, PROMPT, PROVIDERS, access_to, ask, opened

BOTH = pytest.mark.parametrize("name", ["openai", "endpoint"])


@pytest.fixture
def server() -> Iterator[TestingApi]:
    with serve(key=KEY) as running:
        yield running


def test_the_schemes_are_served() -> None:
    assert serving("openai") is openai.provider
    assert serving("endpoint") is endpoint.provider
    for provider in (openai.provider, endpoint.provider):
        assert (provider.place, provider.queue, provider.uses_prompt) == ("network", "api", True)


@BOTH
def test_a_document_becomes_a_summary_with_its_token_counts(server: TestingApi, name: str) -> None:
    outcome = ask(PROVIDERS[name], access_to(server))
    output = outcome.output
    assert output is not None and output.status == "ok"
    assert output.text == "The ferry sank at dawn."
    assert (output.input_tokens, output.output_tokens) == (len(PROMPT.split()), 5)
    assert output.finish_reason == "stop"
    assert output.cached_tokens is None, "not reported is None, not 0"
    assert output.latency_ms is not None and output.latency_ms >= 0


def test_what_goes_out_to_openai(server: TestingApi) -> None:
    generation = {
        "max_new_tokens": 3,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 11,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "stop": ["END"],
        "reasoning_effort": "low",
    }
    outcome = ask(openai.provider, access_to(server), spec={"generation": generation, "system": "Be brief."})
    assert outcome.output is not None and outcome.output.finish_reason == "length"
    call = server.calls[0]
    assert call.path == "/v1/chat/completions"
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert call.body == {
        "model": "first-sentence",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}],
        "max_completion_tokens": 3,
        **{name: value for name, value in generation.items() if name != "max_new_tokens"},
    }


def test_an_endpoint_gets_the_older_name_of_the_limit_unless_told_otherwise(server: TestingApi) -> None:
    generation = {"max_new_tokens": 9, "top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1}
    ask(endpoint.provider, access_to(server), spec={"generation": generation})
    options = {"max_tokens_parameter": "max_completion_tokens"}
    ask(endpoint.provider, access_to(server), spec={"generation": generation, "options": options})
    first, second = (call.body for call in server.calls)
    assert (first["max_tokens"], first["top_k"], first["min_p"], first["repetition_penalty"]) == (9, 40, 0.1, 1.1)
    assert second["max_completion_tokens"] == 9 and "max_tokens" not in second


@BOTH
def test_a_parameter_set_to_nothing_asks_for_the_default(server: TestingApi, name: str) -> None:
    ask(PROVIDERS[name], access_to(server), spec={"generation": {"temperature": None}})
    assert set(server.calls[0].body) == {"model", "messages"}


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    ("generation", "word"),
    [
        ({"num_beams": 4}, "num_beams"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": "high"}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 1.5}, "max_new_tokens"),
        ({"stop": [1]}, "stop"),
        ({"seed": -1}, "seed"),
    ],
)
def test_an_unknown_or_senseless_parameter_is_named_and_nothing_is_called(
    server: TestingApi, name: str, generation: dict[str, object], word: str
) -> None:
    provider, spec = PROVIDERS[name], {"model": "m", "generation": generation}
    assert [word in problem for problem in provider.problems(spec)] == [True]
    outcome = ask(provider, access_to(server), spec=spec)
    assert outcome.row == ("stop", "bad_parameters")
    assert word in outcome.words
    assert server.calls == []


def test_an_option_that_makes_no_sense_is_named() -> None:
    spec = {"model": "m", "options": {"max_tokens_parameter": "n_predict"}}
    assert "max_tokens_parameter" in endpoint.provider.problems(spec)[0]


@pytest.mark.parametrize(
    ("name", "spec", "model"),
    [
        ("openai", {"model": None, "uri": "openai://gpt-4o-mini"}, "gpt-4o-mini"),
        ("endpoint", {"model": None, "uri": "endpoint://lab/meta-llama/Llama-3.1-8B"}, "meta-llama/Llama-3.1-8B"),
        ("endpoint", {"model": "given", "uri": "endpoint://lab/other"}, "given"),
    ],
)
def test_the_model_is_named_by_the_spec_or_its_uri(
    server: TestingApi, name: str, spec: dict[str, object], model: str
) -> None:
    assert PROVIDERS[name].problems(spec) == []
    ask(PROVIDERS[name], access_to(server), spec=spec)
    assert server.calls[0].body["model"] == model


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_spec_without_a_model_is_a_problem(name: str) -> None:
    assert "model" in PROVIDERS[name].problems({"model": "", "uri": f"{name}://"})[0]


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/chat/completions", "/v1/models"])
def test_an_endpoint_address_is_understood_however_it_was_pasted(server: TestingApi, end: str) -> None:
    outcome = ask(endpoint.provider, access_to(server, base_url=server.origin + end))
    assert outcome.row == ("ok", "")
    assert server.calls[0].path == "/v1/chat/completions"


def test_an_endpoint_under_a_path_keeps_it(server: TestingApi) -> None:
    ask(endpoint.provider, access_to(server, base_url=f"{server.origin}/gateway/openai/"))
    assert server.calls[0].path == "/gateway/openai/chat/completions"


def test_an_endpoint_without_an_address_stops(server: TestingApi) -> None:
    assert ask(endpoint.provider, access_to(server, base_url=" ")).row == ("stop", "no_address")


def test_an_endpoint_without_a_key_is_sent_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    with serve() as server:
        assert ask(endpoint.provider, access_to(server, key="")).row == ("ok", "")
        assert endpoint.list_models(access_to(server, key="")) == ["first-sentence", "first-sentence-large"]
        assert ["authorization" in call.headers for call in server.calls] == [False, False]


@BOTH
def test_nothing_of_the_environment_reaches_the_server(
    server: TestingApi, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "of-the-environment"
    for variable in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{variable}", canary)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Account: {canary}\nAuthorization: {canary}")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://169.254.169.254/")
    assert ask(PROVIDERS[name], access_to(server)).row == ("ok", "")
    assert canary not in repr(server.calls[0].headers)
    assert server.calls[0].headers["authorization"] == f"Bearer {KEY}"


@BOTH
def test_cached_tokens_are_reported(server: TestingApi, name: str) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 30,
        "total_tokens": 130,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    server.answer(completion("Short.", usage=usage))
    output = ask(PROVIDERS[name], access_to(server)).output
    assert output is not None
    assert (output.input_tokens, output.cached_tokens, output.output_tokens) == (100, 64, 30)


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": None}, {"prompt_tokens": "many"}, [], "none"])
def test_missing_token_counts_are_none(server: TestingApi, usage: object) -> None:
    server.answer(completion("Short.", usage=usage))
    output = ask(endpoint.provider, access_to(server)).output
    assert output is not None and output.status == "ok"
    assert (output.input_tokens, output.cached_tokens, output.output_tokens) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "fields", "expected", "reasoning"),
    [
        ("Answer.", {"reasoning_content": "Because."}, "Answer.", "Because."),
        ("Answer.", {"reasoning": "Because."}, "Answer.", "Because."),
        ("<think>\nBecause.\n</think>\n\nAnswer.", {}, "Answer.", "Because."),
        ("Because.\n</think>\nAnswer.", {}, "Answer.", "Because."),
        ("Answer.", {"reasoning_content": None}, "Answer.", ""),
        ([{"type": "text", "text": "Ans"}, {"type": "text", "text": "wer."}], {}, "Answer.", ""),
    ],
)
def test_reasoning_is_kept_apart_from_the_answer(
    server: TestingApi, text: str, fields: dict[str, str], expected: str, reasoning: str
) -> None:
    server.answer(completion(text, **fields))
    output = ask(endpoint.provider, access_to(server)).output
    assert output is not None
    assert (output.text, output.reasoning) == (expected, reasoning)


def test_an_allowance_spent_on_reasoning_is_empty_and_says_so(server: TestingApi) -> None:
    server.answer(completion("<think>Let me see", finish="length"))
    outcome = ask(endpoint.provider, access_to(server))
    assert outcome.row == ("empty", "empty_output")
    assert "max_new_tokens" in outcome.words
    assert outcome.output is not None and outcome.output.reasoning == "Let me see"


@BOTH
def test_a_refusal_is_kept_with_its_words(server: TestingApi, name: str) -> None:
    server.answer(completion(None, refusal="I cannot help."))
    outcome = ask(PROVIDERS[name], access_to(server))
    assert outcome.row == ("refused", "content_filter")
    assert outcome.output is not None and outcome.output.text == "I cannot help."


def test_a_request_without_a_prompt_is_not_sent(server: TestingApi) -> None:
    with opened(openai.provider, access_to(server)) as session, pytest.raises(ProviderError) as failure:
        list(session.generate([Request(key=1, source=DOCUMENT)]))
    assert failure.value.code == "no_prompt"
    assert server.calls == []


@pytest.mark.parametrize("name", PROVIDERS)
def test_one_session_serves_many_threads(name: str) -> None:
    def summarize(key: int) -> tuple[int, str]:
        prompt = f"Summarize.\n\nDocument {key} is short. It ends."
        ((output,),) = session.generate([Request(key=key, source="", prompt=prompt)])
        return output.key, output.text

    with (
        serve(latency_ms=20) as server,
        opened(PROVIDERS[name], access_to(server)) as session,
        ThreadPoolExecutor(16) as pool,
    ):
        assert list(pool.map(summarize, range(64))) == [(key, f"Document {key} is short.") for key in range(64)]
        assert len(server.calls) == 64


def test_the_record_tells_what_was_served(server: TestingApi) -> None:
    with opened(openai.provider, access_to(server)) as session:
        list(session.generate([Request(key=1, source="", prompt=PROMPT)]))
        facts = session.describe()
    assert facts["served_model"] == "first-sentence"
    assert facts["sdk"].startswith("openai ")
    assert facts["parameters"] == {"max_completion_tokens": 64}


@pytest.mark.parametrize("name", PROVIDERS)
def test_models_are_discovered(server: TestingApi, name: str) -> None:
    from models_registry.providers import mistral

    modules = {"openai": openai, "endpoint": endpoint, "mistral": mistral}
    assert modules[name].list_models(access_to(server)) == ["first-sentence", "first-sentence-large"]
    assert server.calls[0].headers["authorization"] == f"Bearer {KEY}"


def test_the_key_is_in_no_repr_of_access() -> None:
    access = Access(key=KEY)
    assert KEY not in repr(access) + str(access) + f"{access}"


def test_the_providers_load_neither_django_nor_an_sdk() -> None:
    code = (
        "import sys; from models_registry.providers import openai, endpoint, mistral; import models_registry.pricing; "
        "print([m for m in ('django', 'openai', 'mistralai', 'torch', 'httpx2') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_testing_server_runs_by_itself_and_logs_each_call_before_answering(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    command = [
        sys.executable,
        "-m",
        "models_registry.testing_api",
        "--port",
        "0",
        "--log",
        str(log),
        "--latency-ms",
        "1",
    ]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": PROMPT}]}).encode()
            request = urllib.request.Request(f"{url}/chat/completions", body, {"Authorization": f"Bearer {KEY}"})
            with urllib.request.urlopen(request, timeout=5) as answer:
                assert json.load(answer)["choices"][0]["message"]["content"] == "The ferry sank at dawn."
            lines = log.read_text().splitlines()
            assert len(lines) == 1 and json.loads(lines[0])["prompt_end"] == PROMPT[-80:]
            assert KEY not in lines[0]
        finally:
            process.terminate()
            process.wait(timeout=5)


def test_the_testing_server_can_limit_the_rate() -> None:
    with serve(rate=2) as server:
        rows = [ask(openai.provider, access_to(server)) for _ in range(6)]
    limited = [outcome.error for outcome in rows if outcome.error]
    assert limited and {error.code for error in limited} == {"rate_limited"}
    assert all(error.retry_after is not None and 0 < error.retry_after <= 0.51 for error in limited)
