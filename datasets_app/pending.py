"""Pending is what a person has uploaded and not yet confirmed: one file at most, kept in storage between two pages."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from django.core.files.base import File
from django.core.files.storage import default_storage
from django.http import HttpRequest
from django.utils import timezone

SESSION_KEY = "pending_upload"
FOLDER = "pending"
KEPT = timedelta(hours=24)


@dataclass(frozen=True)
class Pending:
    """`key` is made here and lives in the session; nothing a browser sends names a file."""

    key: str
    file_name: str
    name: str
    privacy: str

    def open(self) -> File[Any]:
        return default_storage.open(self.key, "rb")


def hold(request: HttpRequest, file: File[Any], *, name: str, privacy: str) -> Pending:
    """Keep `file` for the next page. What this person had pending before is dropped."""
    drop(request)
    key = default_storage.save(f"{FOLDER}/u{request.user.pk}/{secrets.token_hex(16)}", file)
    pending = Pending(key, file.name or "", name, privacy)
    request.session[SESSION_KEY] = asdict(pending)
    return pending


def held(request: HttpRequest) -> Pending | None:
    """What this person has pending, if it is still there."""
    kept = request.session.get(SESSION_KEY)
    pending = Pending(**kept) if kept else None
    return pending if pending and default_storage.exists(pending.key) else None


def drop(request: HttpRequest) -> None:
    kept = request.session.pop(SESSION_KEY, None)
    if kept:
        default_storage.delete(kept["key"])


def sweep() -> int:
    """Delete what nobody confirmed within a day; how many files that were."""
    oldest = timezone.now() - KEPT
    n = 0
    for folder in _listed(FOLDER)[0]:
        for name in _listed(f"{FOLDER}/{folder}")[1]:
            key = f"{FOLDER}/{folder}/{name}"
            try:
                if default_storage.get_modified_time(key) < oldest:
                    default_storage.delete(key)
                    n += 1
            except FileNotFoundError:  # confirmed or swept by somebody else in this moment
                continue
    return n


def _listed(folder: str) -> tuple[list[str], list[str]]:
    try:
        return default_storage.listdir(folder)
    except FileNotFoundError:
        return [], []
