"""Connecting checks what an administrator enters for a connection: the one set of rules for page, admin and API."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from django.db import transaction

from models_registry import choosing
from models_registry.models import Connection, ModelEntry
from models_registry.providers import ProviderError, available, serving

LONGEST_KEY = 1024
USABLE_KEY = re.compile(r"[\x21-\x7e]+")
KEY_CLEARED = (
    "The address changed, so the stored key was cleared: a key is only ever sent to the address it was given for. "
    "Enter the key for the new address."
)


def services() -> dict[str, str]:
    """Scheme → label of the providers that are reached through a connection."""
    return {
        scheme: provider.label
        for provider in available().values()
        for scheme in provider.schemes
        if provider.place == "network"
    }


def address_problem(provider: str, base_url: str) -> str:
    """What is wrong with the address of a connection, in words; "" when nothing is known to be."""
    if not base_url:
        return "an endpoint needs its address, for example http://10.1.0.5:8000/v1" if provider == "endpoint" else ""
    return choosing.refused_address(base_url)


def key_problem(key: str) -> str:
    if len(key) > LONGEST_KEY:
        return f"a key has at most {LONGEST_KEY:,} characters: paste only the key"
    if key and not USABLE_KEY.fullmatch(key):
        return "the key holds a line break, a space or a character outside ASCII: paste it again"
    return ""


def store(connection: Connection, key: str | None = None) -> bool:
    """Save the connection; with a key, store that (an empty one forgets it). True when a stored key was cleared because
    the address or the provider changed (SECURITY S14).

    Key and version are those of the row now, not of when the form was drawn: else a key that somebody entered
    meanwhile would count as the new address's own.
    """
    with transaction.atomic():
        stored = Connection.objects.select_for_update().filter(pk=connection.pk).first() if connection.pk else None
        if stored is not None:
            connection.version = stored.version
            connection.encrypted_key, connection.key_hint = stored.encrypted_key, stored.key_hint
            if stored.provider != connection.provider:
                connection.set_key("")
        if key is not None:
            connection.set_key(key)
        connection.save()
    return stored is not None and stored.has_key and key is None and not connection.has_key


PATIENCE = 10.0
"""Seconds without a byte of a list of models; a page waits for it."""
MOST_OFFERED = 1000


@dataclass(frozen=True)
class Offered:
    """A model that a service offers: its address here, and how the registry calls it ("" when it lacks it)."""

    name: str
    uri: str
    slug: str = ""


def address_of(connection: Connection, name: str) -> str:
    """The address of a model that this connection reaches."""
    inside = f"{connection.name}/" if connection.provider == "endpoint" else ""
    return f"{connection.provider}://{inside}{name}"


def offered(connection: Connection) -> list[Offered]:
    """What the service behind the connection says it offers, by name; at most MOST_OFFERED. One call to its /models.

    Raises ProviderError in words: a wrong key, no answer in time, a web page where an API should be.
    """
    ask = serving(connection.provider).list_models
    if ask is None:
        raise ProviderError(
            f"{connection.provider} tells no list of models: add them by their address", code="no_list", failure="stop"
        )
    try:
        access = connection.access()
    except ValueError as exc:  # no current encryption key opens its key
        raise ProviderError(str(exc), code="no_key", failure="stop") from None
    names = ask(replace(access, read_timeout=min(access.read_timeout, PATIENCE)))[:MOST_OFFERED]
    uris = {name: address_of(connection, name) for name in names}
    known = ModelEntry.objects.filter(team=connection.team_id, uri__in=uris.values()).order_by("-pk")
    slugs = dict(known.values_list("uri", "slug"))
    return [Offered(name, uri, slugs.get(uri, "")) for name, uri in uris.items()]
