"""Providers: one module each, found by `available()`. A provider turns requests into outputs.

PURE: nothing here imports Django. A provider gets a frozen *spec* (what to run) and, where it needs one, an
*access* (address, key, limits), and opens a *session* that generates. Heavy libraries are imported inside `open`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol

from lumigator.discovery import discover

Spec = Mapping[str, Any]
"""What to run, as frozen in a candidate: {provider, uri, model, revision, path, architecture, prompt, generation{},
window, dtype, engine, options{}}; JSON all the way down. A provider ignores keys it does not know."""

Place = Literal["inline", "host", "network"]
Status = Literal["ok", "error", "refused", "empty"]
Failure = Literal["retry", "stop", "final", "unknown"]


@dataclass(frozen=True)
class Request:
    """One example for one candidate. `key` comes back on the output; `prompt` is the rendered prompt, or None for
    models that read the bare source; `references` is filled only for providers with `uses_references`. `messages`
    ({role, content} each) are a whole conversation in place of the prompt, for models that chat: online use only."""

    key: int
    source: str
    prompt: str | None = None
    references: tuple[str, ...] = ()
    seed: int = 0
    messages: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class Output:
    """What came of one request. Token counts are the model's own; None means not known, never 0.

    `input_tokens` is what the document and prompt would need, `input_tokens_read` what the model really read.
    `finish_reason` is "stop", "length" or the provider's own word.
    """

    key: int
    status: Status
    text: str = ""
    error_code: str = ""
    error: str = ""
    reasoning: str = ""
    finish_reason: str = ""
    input_tokens: int | None = None
    input_tokens_read: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    latency_ms: int | None = None


class ProviderError(Exception):
    """A failure, in words for the user, that says whether trying again could help.

    `failure`: "retry" (later it may work), "stop" (nothing of this candidate can work: wrong key, unknown model,
    no weights), "final" (this example can never work), "unknown" (it may have been done, and billed).
    `code` is a short stable word (`no_weights`, `rate_limited`, `input_too_long`, …); `retry_after` in seconds.
    """

    def __init__(self, message: str, *, code: str, failure: Failure, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.failure = failure
        self.retry_after = retry_after


@dataclass(frozen=True)
class Access:
    """How to reach a network provider. The key never appears in a repr."""

    base_url: str = ""
    key: str = field(default="", repr=False)
    concurrency: int = 8
    connect_timeout: float = 5.0
    read_timeout: float = 60.0
    allow_private: tuple[str, ...] = ()
    """Private hosts ("host:port" or CIDR) that an administrator allowed."""


class Session(Protocol):
    """An opened model. Not shared between threads unless the provider's place is "network"."""

    def generate(self, requests: Sequence[Request]) -> Iterator[list[Output]]:
        """Yield outputs in batches as they are finished, every request exactly once, in any order.

        A failure of one example is an Output with status "error"; ProviderError is for what concerns the whole
        candidate or connection. Network sessions are called with one request at a time.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Facts that belong in the record: revision, dtype, device, window, parameter count, versions."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Provider:
    """A plug-in.

    * `schemes`: the URI schemes it serves ("hf", "file", "openai", …).
    * `place`: "inline" runs in the worker (pure Python, cannot hang), "host" in a model host (a child process),
      "network" calls an API. `queue` is where its work units go.
    * `prepare(spec, environment)`: runs in the worker before `open`, may download and resolve; returns the spec
      that `open` gets (a hub id becomes a local path). `environment` holds tokens that the host must never see.
    * `problems(spec)`: what is wrong with this spec, in words, without loading anything.
    * `list_models(access)`: the names that a service offers; None where nobody can be asked. Raises ProviderError.
    """

    name: str
    label: str
    about: str
    schemes: tuple[str, ...]
    place: Place
    queue: Literal["gpu", "api", "cpu"]
    open: Callable[[Spec, Access], Session]
    prepare: Callable[[Spec, Mapping[str, str]], Spec] = lambda spec, environment: spec
    problems: Callable[[Spec], list[str]] = lambda spec: []
    list_models: Callable[[Access], list[str]] | None = None
    uses_references: bool = False
    uses_prompt: bool = False


@cache
def available() -> dict[str, Provider]:
    """Every provider of this installation by name."""
    return discover(sys.modules[__name__], "provider", Provider)


def serving(scheme: str) -> Provider:
    """The provider of a URI scheme. Raises ProviderError(code="unknown_provider")."""
    for provider in available().values():
        if scheme in provider.schemes:
            return provider
    known = ", ".join(sorted(scheme for provider in available().values() for scheme in provider.schemes))
    raise ProviderError(f"no provider serves {scheme}:// (known: {known})", code="unknown_provider", failure="stop")
