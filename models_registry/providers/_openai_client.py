"""The `openai` SDK behind the egress client, for OpenAI itself and for every server that speaks its protocol."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models_registry.providers import Access, ProviderError, Spec
from models_registry.providers._chat import Answer, ChatSession, listed

if TYPE_CHECKING:
    import openai

ANSWER_LIMIT = 4 * 1024 * 1024  # bytes
TOTAL_TIME = 120.0  # seconds


def connect(base_url: str, key: str, access: Access) -> tuple[openai.OpenAI, str]:
    """The SDK's client and the host for messages. Raises ProviderError(code="egress_refused" or "bad_address")."""
    import openai

    from lumigator import egress

    try:
        egress.check(base_url, allow=access.allow_private)
        http = egress.client(
            allow=access.allow_private,
            connect_timeout=access.connect_timeout,
            read_timeout=access.read_timeout,
            total_timeout=max(TOTAL_TIME, access.read_timeout),
            max_response_bytes=ANSWER_LIMIT,
            max_connections=max(128, access.concurrency),
        )
    except egress.EgressRefused as error:
        raise ProviderError(str(error), code="egress_refused", failure="stop") from None
    except ValueError as error:  # a malformed entry of allow_private
        raise ProviderError(str(error), code="bad_address", failure="stop") from None
    client = openai.OpenAI(
        api_key=key,
        admin_api_key="",
        base_url=base_url,
        http_client=http,
        timeout=http.timeout,
        max_retries=0,
        default_headers=_headers(key),
    )
    # The SDK would send the OpenAI account's names from the environment to whatever server this is.
    client.organization = client.project = None
    return client, client.base_url.netloc.decode("ascii")


def _headers(key: str) -> dict[str, Any]:
    """Headers of every request: our key, and none of those that OPENAI_CUSTOM_HEADERS would add."""
    from openai import Omit

    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    names = {line.partition(":")[0].strip() for line in lines if ":" in line}
    headers: dict[str, Any] = {name: Omit() for name in names if name.lower() != "authorization"}
    return {**headers, "Authorization": f"Bearer {key}"} if key else headers


def _without_key(key: str) -> dict[str, Any]:
    """Where there is no key, each request must say so itself, or the SDK insists on one."""
    from openai import Omit

    return {} if key else {"Authorization": Omit()}


def session(
    spec: Spec,
    access: Access,
    *,
    model: str,
    base_url: str,
    key: str,
    sent: Mapping[str, Any],
    body: Mapping[str, Any] | None = None,
) -> ChatSession:
    """An opened session: `sent` are the SDK's own parameters, `body` those that only some servers know."""
    import openai

    from lumigator import egress

    client, where = connect(base_url, key, access)
    options: Any = {"headers": _without_key(key), "security": {"bearer_auth": True}}  # as the SDK's own method asks

    def complete(messages: list[dict[str, str]]) -> Answer:
        # Not `chat.completions.create`: it looks each field of the messages up in its types, 1.2 of the 2.4 ms of CPU
        # that a call takes. The raw answer, for the SDK builds its models without validation, so that a web page would
        # become an empty object.
        asked = {"messages": messages, "model": model, **sent, **(body or {})}
        try:
            return _answer(client.post("/chat/completions", cast_to=egress.Response, body=asked, options=options))
        except openai.APIStatusError as error:
            return _answer(error.response)

    return ChatSession(
        model=model,
        where=where,
        system=str(spec.get("system") or ""),
        sent={**sent, **(body or {})},
        complete=complete,
        close=client.close,
        facts={"sdk": f"openai {openai.__version__}", "base_url": base_url},
    )


def models_at(base_url: str, key: str, access: Access) -> list[str]:
    """Names of the models that the server offers, in order of name. Raises ProviderError."""
    import openai

    client, where = connect(base_url, key, access)

    def ask() -> Answer:
        try:
            raw: Any = client.models.with_raw_response.list(extra_headers=_without_key(key))
        except openai.APIStatusError as error:
            return _answer(error.response)
        return _answer(raw.http_response)

    try:
        return listed(ask, where)
    finally:
        client.close()


def _answer(response: Any) -> Answer:
    return Answer(response.status_code, dict(response.headers), response.text)
