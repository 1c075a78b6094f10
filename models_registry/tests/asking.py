"""The cast of the API provider tests: each provider, opened against the testing server, asked one question."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from models_registry.providers import (
    Access,
    Output,
    Provider,
    ProviderError,
    Request,
    Session,
    endpoint,
    mistral,
    openai,
)
from models_registry.testing_api import TestingApi

KEY = "sk-canary-4f9a1c7e"
DOCUMENT = "The ferry sank at dawn. Nobody was hurt. The owner blames the tide."
PROMPT = f"Summarize in one sentence.\n\n{DOCUMENT}"
PROVIDERS = {"openai": openai.provider, "mistral": mistral.provider, "endpoint": endpoint.provider}
SPEC = {"model": "first-sentence", "uri": "openai://first-sentence", "generation": {"max_new_tokens": 64}}


def access_to(server: TestingApi, **changes: Any) -> Access:
    known = Access(base_url=f"{server.origin}/v1", key=KEY, allow_private=(server.allow,), read_timeout=5.0)
    return replace(known, **changes)


@contextmanager
def opened(provider: Provider, access: Access, spec: dict[str, Any] | None = None) -> Iterator[Session]:
    session = provider.open({**SPEC, **(spec or {})}, access)
    try:
        yield session
    finally:
        session.close()


@dataclass(frozen=True)
class Outcome:
    """What one question led to: an output, or an error."""

    output: Output | None = None
    error: ProviderError | None = None

    @property
    def row(self) -> tuple[str, str]:
        """(failure, code) of an error, (status, error code) of an output."""
        if self.error is not None:
            return self.error.failure, self.error.code
        assert self.output is not None
        return self.output.status, self.output.error_code

    @property
    def words(self) -> str:
        return str(self.error) if self.error is not None else self.output.error if self.output else ""


def ask(provider: Provider, access: Access, prompt: str = PROMPT, spec: dict[str, Any] | None = None) -> Outcome:
    try:
        with opened(provider, access, spec) as session:
            batches = list(session.generate([Request(key=7, source=DOCUMENT, prompt=prompt)]))
    except ProviderError as error:
        return Outcome(error=error)
    assert [len(batch) for batch in batches] == [1]
    assert batches[0][0].key == 7
    return Outcome(output=batches[0][0])
