"""OpenAI's chat models through the `openai` SDK. Source: platform.openai.com/docs/api-reference/chat/create"""

from __future__ import annotations

from models_registry.providers import Access, Provider, Session, Spec
from models_registry.providers._chat import (
    COMMON,
    EFFORT,
    Parameter,
    model_name,
    on_the_wire,
    refuse,
    usable_key,
    whole,
    wrong_with,
)

BASE_URL = "https://api.openai.com/v1"
# `max_tokens` is the older name, which reasoning models reject; all of OpenAI's chat models know the newer one.
PARAMETERS: dict[str, Parameter] = {
    **COMMON,
    "max_new_tokens": Parameter("max_completion_tokens", whole(1), "a whole number of at least 1"),
    "reasoning_effort": EFFORT,
}


def problems(spec: Spec) -> list[str]:
    """What is wrong with this spec, in words."""
    return wrong_with(spec, PARAMETERS)


def open_session(spec: Spec, access: Access) -> Session:
    """Raises ProviderError: "bad_parameters", "no_key", "auth", "egress_refused", "bad_address"."""
    from models_registry.providers._openai_client import session

    refuse(problems(spec))
    key = usable_key(access, "OpenAI", "OPENAI_API_KEY")
    sent = on_the_wire(spec, PARAMETERS)
    return session(spec, access, model=model_name(spec), base_url=access.base_url or BASE_URL, key=key, sent=sent)


def list_models(access: Access) -> list[str]:
    """Names of the models this key may use. Raises ProviderError."""
    from models_registry.providers._openai_client import models_at

    return models_at(access.base_url or BASE_URL, usable_key(access, "OpenAI", "OPENAI_API_KEY"), access)


provider = Provider(
    name="openai",
    label="OpenAI",
    about=(
        "OpenAI's models by API: openai://gpt-4o-mini. Documents leave your network and each call is billed. Needs a "
        "key, in a connection or as OPENAI_API_KEY. Reported tokens, cached tokens and reasoning are recorded."
    ),
    schemes=("openai",),
    place="network",
    queue="api",
    open=open_session,
    problems=problems,
    list_models=list_models,
    uses_prompt=True,
)
