"""Mistral's models through the `mistralai` SDK. Source: docs.mistral.ai/api (chat completion)"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from models_registry.providers import Access, Provider, ProviderError, Session, Spec
from models_registry.providers._chat import (
    COMMON,
    EFFORT,
    Answer,
    ChatSession,
    Parameter,
    listed,
    model_name,
    number,
    on_the_wire,
    refuse,
    usable_key,
    whole,
    wrong_with,
)

if TYPE_CHECKING:
    from mistralai.client import Mistral

BASE_URL = "https://api.mistral.ai"
PARAMETERS: dict[str, Parameter] = {
    **COMMON,
    "temperature": Parameter("temperature", number(0, 1.5), "a number from 0 to 1.5"),
    "seed": Parameter("random_seed", whole(0), "a whole number of at least 0"),
    "reasoning_effort": EFFORT,
}
ANSWER_LIMIT = 4 * 1024 * 1024  # bytes
TOTAL_TIME = 120.0  # seconds


class _NoLogger:
    """MISTRAL_DEBUG would make the SDK log headers, key and documents."""

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None: ...


class _NoAsync:
    """Stands where the SDK would otherwise build an asynchronous client that follows redirects."""

    async def send(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("calls are synchronous")

    def build_request(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("calls are synchronous")

    async def aclose(self) -> None: ...


def problems(spec: Spec) -> list[str]:
    """What is wrong with this spec, in words."""
    return wrong_with(spec, PARAMETERS)


def open_session(spec: Spec, access: Access) -> Session:
    """Raises ProviderError: "bad_parameters", "no_key", "auth", "egress_refused", "bad_address"."""
    from mistralai.client import _version, models

    refuse(problems(spec))
    model, sent = model_name(spec), on_the_wire(spec, PARAMETERS)
    client, http, where = connect(access)
    chat = client.chat  # imported by the SDK at first use, which would count as the first call's latency

    def complete(messages: list[dict[str, str]]) -> Answer:
        # The SDK builds 8 pydantic classes for each call, most of its 12 ms of CPU. Ready-made messages spare it the
        # largest: 8 ms, 120 calls/s in a process where OpenAI's SDK makes 290. The others cannot be spared from here.
        kinds = {"system": models.SystemMessage, "user": models.UserMessage}
        ready = [kinds[message["role"]](content=message["content"]) for message in messages]
        return _call(lambda: chat.complete(model=model, messages=ready, stream=False, **sent))

    return ChatSession(
        model=model,
        where=where,
        system=str(spec.get("system") or ""),
        sent=sent,
        complete=complete,
        close=http.close,
        facts={"sdk": f"mistralai {_version.__version__}", "base_url": base_url(access)},
    )


def list_models(access: Access) -> list[str]:
    """Names of the models this key may use. Raises ProviderError."""
    client, http, where = connect(access)
    try:
        return listed(lambda: _call(client.models.list), where)
    finally:
        http.close()


def base_url(access: Access) -> str:
    """The address before /v1, which the SDK adds itself."""
    return (access.base_url.strip() or BASE_URL).rstrip("/").removesuffix("/v1")


def connect(access: Access) -> tuple[Mistral, Any, str]:
    """The SDK's client, its HTTP client, and the host for messages."""
    from mistralai.client import Mistral
    from mistralai.client.utils import BackoffStrategy, RetryConfig

    from lumigator import egress

    key, url = usable_key(access, "Mistral", "MISTRAL_API_KEY"), base_url(access)
    try:
        egress.check(url, allow=access.allow_private)
        http = egress.client(
            allow=access.allow_private,
            connect_timeout=access.connect_timeout,
            read_timeout=access.read_timeout,  # the SDK knows one time for everything; the client keeps the shorter
            total_timeout=max(TOTAL_TIME, access.read_timeout),
            max_response_bytes=ANSWER_LIMIT,
            max_connections=max(128, access.concurrency),
        )
    except egress.EgressRefused as error:
        raise ProviderError(str(error), code="egress_refused", failure="stop") from None
    except ValueError as error:  # a malformed entry of allow_private
        raise ProviderError(str(error), code="bad_address", failure="stop") from None
    client = Mistral(
        api_key=key,
        server_url=url,
        client=http,
        async_client=_NoAsync(),
        retry_config=RetryConfig("none", BackoffStrategy(1, 1, 1.0, 1), False),
        debug_logger=_NoLogger(),
    )
    return client, http, url.partition("://")[2].partition("/")[0]


def _call(ask: Any) -> Answer:
    """Ask through the SDK; an answer it could read comes back as JSON, one that it could not as it was."""
    from mistralai.client.errors import MistralError

    try:
        document = ask()
    except MistralError as error:
        return Answer(error.status_code, dict(error.headers), error.body)
    # Unset fields are left out: the SDK fills missing token counts with 0, and what is not known is not 0.
    return Answer(
        200, {}, json.dumps(document.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False))
    )


provider = Provider(
    name="mistral",
    label="Mistral",
    about=(
        "Mistral's models by API: mistral://ministral-8b-latest. Documents leave your network and each call is billed. "
        "Needs a key, in a connection or as MISTRAL_API_KEY. Reported tokens and reasoning are recorded."
    ),
    schemes=("mistral",),
    place="network",
    queue="api",
    open=open_session,
    problems=problems,
    list_models=list_models,
    uses_prompt=True,
)
