"""Any server that speaks OpenAI's chat protocol: vLLM, llamafile, llama.cpp, Ollama, TGI, a company gateway."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from models_registry.providers import Access, Provider, ProviderError, Session, Spec
from models_registry.providers._chat import (
    COMMON,
    EFFORT,
    Parameter,
    on_the_wire,
    refuse,
    usable_key,
    whole,
    wrong_with,
)
from models_registry.providers._chat import model_name as plain_model_name

# Not OpenAI's, but understood by vLLM and llama.cpp; they travel in the body beside the SDK's own parameters.
BODY: dict[str, Parameter] = {
    "top_k": Parameter("top_k", whole(1), "a whole number of at least 1"),
    "min_p": Parameter(
        "min_p", lambda value: isinstance(value, int | float) and 0 <= value <= 1, "a number from 0 to 1"
    ),
    "repetition_penalty": Parameter(
        "repetition_penalty", lambda value: isinstance(value, int | float) and value > 0, "a number above 0"
    ),
}
LIMIT_NAMES = ("max_tokens", "max_completion_tokens")


def model_name(spec: Spec) -> str:
    """The served name: `model`, or what follows the connection in endpoint://connection/name."""
    if spec.get("model"):
        return str(spec["model"]).strip()
    return plain_model_name(spec).partition("/")[2]


def base_url(access: Access) -> str:
    """The address up to /v1, as the SDK wants it: a bare host gets /v1, a pasted call address loses its end."""
    if not access.base_url.strip():
        raise ProviderError(
            "this connection has no address; enter the server's base URL, for example http://10.1.0.5:8000/v1",
            code="no_address",
            failure="stop",
        )
    parts = urlsplit(access.base_url.strip())
    path = re.sub(r"/(?:chat/)?completions/?$|/models/?$", "", parts.path).rstrip("/") or "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def limit_name(spec: Spec) -> str:
    """The name under which the server wants its token limit: option `max_tokens_parameter`, else "max_tokens"."""
    options = spec.get("options")
    return str(options.get("max_tokens_parameter", "max_tokens")) if isinstance(options, Mapping) else "max_tokens"


def parameters(spec: Spec) -> dict[str, Parameter]:
    """Known parameters; option `max_tokens_parameter` says under which name the server wants its token limit."""
    return {
        **COMMON,
        **BODY,
        "reasoning_effort": EFFORT,
        "max_new_tokens": Parameter(limit_name(spec), whole(1), "a whole number"),
    }


def problems(spec: Spec) -> list[str]:
    """What is wrong with this spec, in words."""
    found = wrong_with({**spec, "model": model_name(spec) or None, "uri": ""}, parameters(spec))
    limit = limit_name(spec)
    if limit not in LIMIT_NAMES:
        found.append(f"option max_tokens_parameter must be {' or '.join(LIMIT_NAMES)}, not {limit!r}")
    return found


def open_session(spec: Spec, access: Access) -> Session:
    """Raises ProviderError: "bad_parameters", "no_address", "auth", "egress_refused", "bad_address"."""
    from models_registry.providers._openai_client import session

    refuse(problems(spec))
    wire = on_the_wire(spec, parameters(spec))
    return session(
        spec,
        access,
        model=model_name(spec),
        base_url=base_url(access),
        key=_key(access),
        sent={name: value for name, value in wire.items() if name not in BODY},
        body={name: value for name, value in wire.items() if name in BODY},
    )


def list_models(access: Access) -> list[str]:
    """Names of the models this server offers. Raises ProviderError."""
    from models_registry.providers._openai_client import models_at

    return models_at(base_url(access), _key(access), access)


def _key(access: Access) -> str:
    """Servers of one's own often need no key; then none is sent."""
    return usable_key(access, "this endpoint") if access.key.strip() else ""


provider = Provider(
    name="endpoint",
    label="OpenAI-compatible endpoint",
    about=(
        "A server that speaks OpenAI's chat protocol (vLLM, llamafile, llama.cpp, Ollama, a gateway): "
        "endpoint://connection/model, the connection holding its base URL. Private addresses must be allowed by an "
        "administrator in LUMIGATOR_EGRESS_ALLOW. Beware that Ollama cuts long documents to its num_ctx silently."
    ),
    schemes=("endpoint",),
    place="network",
    queue="api",
    open=open_session,
    problems=problems,
    list_models=list_models,
    uses_prompt=True,
)
