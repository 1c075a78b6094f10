"""Pending is what was uploaded and no import has finished with: a person's file between two pages (one at most), and
the file of an import that waits for a worker."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.http import HttpRequest
from django.utils import timezone

from datasets_app.models import Import
from datasets_app.storing import Digest, digest, listed

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
    sha256: str = ""
    n_bytes: int = 0
    is_packed: bool = False

    @property
    def digest(self) -> Digest:
        return Digest(self.sha256, self.n_bytes, self.is_packed)

    @property
    def is_small(self) -> bool:
        return self.digest.is_small

    def open(self) -> File[Any]:
        return default_storage.open(self.key, "rb")


@dataclass
class Received:
    """An upload in storage. Set `is_taken` once a row names it; else it goes when its block ends."""

    key: str
    digest: Digest
    is_taken: bool = False


def hold(request: HttpRequest, file: File[Any], *, name: str, privacy: str) -> Pending:
    """Keep `file` for the next page. What this person had pending before is dropped."""
    drop(request)
    found = digest(file)
    pending = Pending(_save(request.user, file), file.name or "", name, privacy, *found)
    request.session[SESSION_KEY] = asdict(pending)
    return pending


def held(request: HttpRequest) -> Pending | None:
    """What this person has pending, if it is still there."""
    kept = request.session.get(SESSION_KEY)
    pending = Pending(**kept) if kept else None
    return pending if pending and pending.sha256 and default_storage.exists(pending.key) else None


def drop(request: HttpRequest) -> None:
    kept = request.session.pop(SESSION_KEY, None)
    if kept:
        default_storage.delete(kept["key"])


def hand_over(request: HttpRequest) -> None:
    """An import has taken the file: this session has nothing to do with it any more."""
    request.session.pop(SESSION_KEY, None)


@contextmanager
def received(user: AbstractBaseUser | AnonymousUser, file: File[Any], found: Digest) -> Iterator[Received]:
    """Put `file` into storage. Do it before a transaction begins: a gigabyte takes longer than one may idle."""
    upload = Received(_save(user, _Open(file)), found)
    file.seek(0)
    try:
        yield upload
    finally:
        if not upload.is_taken:
            default_storage.delete(upload.key)


def sweep() -> int:
    """Delete what nobody confirmed within a day; how many files that were."""
    oldest = timezone.now() - KEPT
    n = 0
    for folder in listed(FOLDER)[0]:
        for name in listed(f"{FOLDER}/{folder}")[1]:
            key = f"{FOLDER}/{folder}/{name}"
            if Import.objects.filter(upload=key).exists():
                continue
            try:
                if default_storage.get_modified_time(key) < oldest:
                    default_storage.delete(key)
                    n += 1
            except FileNotFoundError:  # confirmed or swept by somebody else in this moment
                continue
    return n


def _save(user: AbstractBaseUser | AnonymousUser, file: File[Any]) -> str:
    return default_storage.save(f"{FOLDER}/u{user.pk}/{secrets.token_hex(16)}", file)


class _Open(File):  # type: ignore[type-arg]  # it takes no argument when it runs
    """The file for a storage that would close what it was given; one in a temporary file can still be moved."""

    def __init__(self, file: File[Any]) -> None:
        super().__init__(file, file.name)
        if hasattr(file, "temporary_file_path"):
            self.temporary_file_path = file.temporary_file_path

    def close(self) -> None:
        return None
