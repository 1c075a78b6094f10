"""Storing keeps each uploaded file once per team, under a key made of its content; users never name a path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, NamedTuple

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.files.base import File
from django.core.files.storage import default_storage
from django.core.files.uploadhandler import FileUploadHandler
from django.db import connection, transaction
from django.utils import timezone

from datasets_app.models import Dataset
from lumigator.models import Team

FOLDER = "uploads"
CHUNK = 1 << 20
FORM_BYTES = 1 << 20
"""What a form may weigh beside its file."""
ORPHANED = timedelta(days=1)
PACKED = (b"\x1f\x8b", b"PK", b"PAR1", b"ARROW1")  # gzip, workbooks, Parquet, Arrow
PACKED_RATIO = 20  # text in a gzip file takes 3 to 5 times as much, repetitive text in a Parquet file far more


class Digest(NamedTuple):
    """What is known of a file once its bytes went by; `is_packed`: it may hold many times as much text."""

    sha256: str
    n_bytes: int
    is_packed: bool = False

    @property
    def is_small(self) -> bool:
        """Whether it is imported at once, while its user waits; larger ones are work for a worker."""
        return self.n_bytes * (PACKED_RATIO if self.is_packed else 1) <= settings.IMPORT_AT_ONCE_BYTES


class TooLarge(Exception):
    """The file has more bytes than UPLOAD_LIMIT_BYTES."""


def digest(stream: File[Any] | IO[bytes]) -> Digest:
    """Read `stream` from its start to its end and go back to the start. Raises TooLarge, without reading further."""
    stream.seek(0)
    hashed, n_bytes, head = sha256(), 0, b""
    while chunk := stream.read(CHUNK):
        n_bytes += len(chunk)
        if n_bytes > settings.UPLOAD_LIMIT_BYTES:
            raise TooLarge
        hashed.update(chunk)
        head = head or chunk[:8]
    stream.seek(0)
    return Digest(hashed.hexdigest(), n_bytes, head.startswith(PACKED))


def key_of(team: Team, digest: str) -> str:
    """Where a team's file with this SHA-256 lies.

    A lock on the key is held to the end of the transaction: what names the key in it is seen by `release` and `sweep`.
    """
    key = f"{FOLDER}/t{team.pk}/{digest}"
    _lock(key)
    return key


def settle(key: str, *, stream: File[Any] | IO[bytes], upload: str = "") -> None:
    """Have the bytes of `stream` under `key`, unless they are. `upload` is where they lie in storage already, and
    may lie no longer afterwards. Safe to repeat, and for two at once."""
    if default_storage.exists(key):
        return
    if upload and _renamed(upload, key):
        return
    stream.seek(0)
    saved = default_storage.save(key, stream if isinstance(stream, File) else File(stream))
    if saved != key:  # somebody else was quicker, with the same bytes
        default_storage.delete(saved)


def _renamed(upload: str, key: str) -> bool:
    """Rename it where storage is a folder; False where it is none."""
    try:
        there = Path(default_storage.path(key))
    except NotImplementedError:
        return False
    there.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(default_storage.path(upload), there)
    except FileNotFoundError:
        return False
    return True


def release(key: str) -> None:
    """Remove the object unless a dataset still uses it. Call it after the transaction that deleted the dataset."""
    with transaction.atomic():
        _lock(key)
        if key and not Dataset.objects.filter(file=key).exists():
            default_storage.delete(key)


def sweep() -> int:
    """Delete files that no dataset has named for a day; how many they were. What crashes left behind is among them."""
    oldest, n = timezone.now() - ORPHANED, 0
    for folder in listed(FOLDER)[0]:
        names = [f"{FOLDER}/{folder}/{name}" for name in listed(f"{FOLDER}/{folder}")[1]]
        for keys in _thousands(names):
            named = set(Dataset.objects.filter(file__in=keys).values_list("file", flat=True))
            n += sum(_swept(key, oldest) for key in keys if key not in named)
    return n


def _swept(key: str, oldest: Any) -> bool:
    with transaction.atomic():
        _lock(key)
        if Dataset.objects.filter(file=key).exists():
            return False
        try:
            if default_storage.get_modified_time(key) >= oldest:
                return False
        except FileNotFoundError:  # swept by somebody else in this moment
            return False
        default_storage.delete(key)
        return True


def _thousands(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), 1_000):
        yield keys[start : start + 1_000]


def listed(folder: str) -> tuple[list[str], list[str]]:
    """The folders and the files in a folder of storage; none where it does not exist."""
    try:
        return default_storage.listdir(folder)
    except FileNotFoundError:
        return [], []


def _lock(key: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])


class NotTooLarge(FileUploadHandler):
    """Refuses a body that says it is larger than the upload limit before a byte of it is kept (SECURITY S19)."""

    def handle_raw_input(
        self, input_data: Any, META: Any, content_length: int, boundary: Any, encoding: Any = None
    ) -> None:
        if content_length > settings.UPLOAD_LIMIT_BYTES + FORM_BYTES:
            limit = settings.UPLOAD_LIMIT_BYTES / (1 << 20)
            raise RequestDataTooBig(f"This upload is larger than {limit:,.0f} MiB. Split it into several datasets.")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None
