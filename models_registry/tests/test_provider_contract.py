"""What every provider keeps to, whoever wrote it."""

from __future__ import annotations

import pytest

from models_registry.providers import Access, ProviderError, Request, available, serving

JUNK = [
    {},
    {"uri": 3},
    {"uri": None, "generation": "x", "options": 7, "window": "big", "dtype": [], "engine": {}},
    {"uri": "hf://", "path": "\0"},
    {"uri": "hf://../../etc@main", "path": "relative"},
    {"uri": "file://a/b", "path": "/nowhere/at/all", "generation": {"max_new_tokens": True, "": None}},
    {"uri": "://", "options": {"faults": ["x"]}, "architecture": 5},
    {"uri": "hf://a/b", "generation": {"temperature": "hot", "num_beams": -1}, "options": None},
]
REQUESTS = [Request(key, f"Text {key} is here. " * (key + 1), prompt=f"Sum up: {key}") for key in range(5)]
INLINE = ["baseline://lead-3", "baseline://textrank-2", "baseline://random-1", "baseline://lexrank-2", "fake://any"]


@pytest.mark.parametrize("name", available())
def test_a_provider_says_what_it_is(name):
    provider = available()[name]
    assert provider.label
    assert provider.about.strip().endswith(".")
    assert provider.schemes


def test_a_scheme_belongs_to_one_provider():
    schemes = [scheme for provider in available().values() for scheme in provider.schemes]
    assert len(schemes) == len(set(schemes))
    assert serving("hf") is available()["huggingface"]
    with pytest.raises(ProviderError):
        serving("ftp")


@pytest.mark.parametrize("spec", JUNK)
@pytest.mark.parametrize("name", available())
def test_problems_are_words_and_never_an_exception(name, spec):
    found = available()[name].problems(spec)
    assert all(isinstance(problem, str) and problem for problem in found)


@pytest.mark.parametrize("uri", INLINE)
def test_every_request_is_answered_once(uri, fakes_on):
    session = serving(uri.partition("://")[0]).open({"uri": uri}, Access())
    outputs = [output for batch in session.generate(REQUESTS) for output in batch]
    assert sorted(output.key for output in outputs) == [0, 1, 2, 3, 4]
    assert {output.status for output in outputs} == {"ok"}
    session.close()


def test_fakes_are_off_unless_the_environment_says_so(monkeypatch):
    monkeypatch.delenv("LUMIGATOR_FAKES", raising=False)
    for scheme in ("fake", "fakehost"):
        provider = serving(scheme)
        assert "fakes are off" in provider.problems({"uri": f"{scheme}://x"})[0]
        with pytest.raises(ProviderError):
            provider.prepare({"uri": f"{scheme}://x"}, {})


def test_the_fake_logs_each_call_and_fails_as_scripted(fakes_on, tmp_path):
    log = tmp_path / "calls"
    options = {
        "log": str(log),
        "text": "{key}:{source:.2}",
        "faults": {"NO": "refused", "LATER": "retry"},
        "recover_after": 1,
    }
    session = serving("fake").open({"uri": "fake://x", "options": options}, Access())
    requests = [Request(1, "hello"), Request(2, "NO way")]
    assert [output.status for batch in session.generate(requests) for output in batch] == ["ok", "refused"]
    with pytest.raises(ProviderError) as caught:
        list(session.generate([Request(3, "LATER")]))
    assert caught.value.failure == "retry"
    [[again]] = session.generate([Request(3, "LATER")])
    assert again.text == "3:LA"
    assert len(log.read_text().splitlines()) == 4
