"""Connecting checks what an administrator enters for a connection: the one set of rules for page, admin and API."""

from __future__ import annotations

import re

from django.db import transaction

from models_registry import choosing
from models_registry.models import Connection
from models_registry.providers import available

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
