"""Storing keeps each uploaded file once per team, under a key made of its content; users never name a path."""

from __future__ import annotations

from typing import IO, Any

from django.core.files.base import File
from django.core.files.storage import default_storage
from django.db import connection, transaction

from datasets_app.models import Dataset
from lumigator.models import Team


def keep(file: File[Any] | IO[bytes], *, team: Team, sha256: str) -> str:
    """Store the bytes of `file`, from its start, and return their key. The same bytes are stored once.

    Call it inside the transaction that makes the dataset: a lock on the key is held to its end, so that `release`
    cannot remove the object in between.
    """
    key = f"uploads/t{team.pk}/{sha256}"
    _lock(key)
    if default_storage.exists(key):
        return key
    file.seek(0)
    return default_storage.save(key, file if isinstance(file, File) else File(file))


def release(key: str) -> None:
    """Remove the object unless a dataset still uses it. Call it after the transaction that deleted the dataset."""
    with transaction.atomic():
        _lock(key)
        if key and not Dataset.objects.filter(file=key).exists():
            default_storage.delete(key)


def _lock(key: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
