"""Ingest accepts a file or rows as a dataset: here and now (`ingest`), or as work for the workers (`accept`).

Both take the same way (`ingesting`): a file becomes a dataset that is ready, or a list of what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.base import File
from django.db import connection, transaction
from django.db.models import Sum

from datasets_app import storing
from datasets_app.batching import copy_rows
from datasets_app.formats import Problem, printable
from datasets_app.ingesting import BadFile, claim, discard, kept, opened, read_in
from datasets_app.models import Dataset, Import
from datasets_app.profiling import Profile
from datasets_app.reading import Columns, Row
from datasets_app.storing import Digest
from lumigator import doorbell
from lumigator.models import Team

__all__ = ["BadFile", "accept", "ingest", "ingest_rows", "ingest_sample", "look", "twin"]

SAMPLE = Path(__file__).parent / "samples" / "workplace.jsonl"
SAMPLE_NAME = "Workplace texts (sample)"
SAMPLE_COLUMNS = Columns("examples", ("ground_truth", "ground_truth_2"), "id", "", ("kind", "length"))


def ingest(
    *,
    team: Team,
    user: User | None,
    name: str,
    file: File[Any] | IO[bytes] | Path | str,
    columns: Mapping[str, Any] | None = None,
    privacy: str = Dataset.Privacy.ANY,
    origin: str = Dataset.Origin.UPLOAD,
    file_name: str = "",
    progress: Callable[[Import], object] = lambda _: None,
) -> Dataset:
    """Read `file` to its end, here and now, and store it as a dataset that is ready.

    `columns` is {source, references[], id, group, tags[]}; whatever it lacks is guessed from the names of the file's
    columns. Without a `name` the dataset is called like its file. `progress` is told after every batch of a large
    file, whose rows are committed batch by batch. Raises BadFile, and then nothing is stored.
    """
    file_name = file_name or getattr(file, "name", None) or str(file)
    with Path(file).open("rb") if isinstance(file, Path | str) else nullcontext(file) as stream:
        found = measured(stream)
        is_whole = found.is_small or connection.in_atomic_block
        with transaction.atomic() if is_whole else nullcontext():
            dataset = _begun(
                team=team, user=user, name=name, digest=found, columns=columns or {}, privacy=privacy, origin=origin,
                file_name=file_name,
            )  # fmt: skip
            lease = claim(dataset.pk, "here")
            if lease is None:
                raise RuntimeError(f"dataset {dataset.pk}: somebody else is importing it")
            lease.progress = progress
            with kept(lease):
                try:
                    read_in(lease, stream)
                except BaseException:
                    if not is_whole:
                        discard(lease)
                    raise
        return lease.dataset


def accept(
    *,
    team: Team,
    user: User | None,
    name: str,
    upload: str,
    digest: Digest,
    columns: Columns,
    privacy: str,
    file_name: str,
) -> Dataset:
    """A dataset that a worker will import: `upload` is the key in storage of its file. Raises BadFile (the quota)."""
    with transaction.atomic():
        dataset = _begun(
            team=team, user=user, name=name, digest=digest, columns=columns.as_dict(), privacy=privacy,
            origin=Dataset.Origin.UPLOAD, file_name=file_name, upload=upload,
        )  # fmt: skip
        doorbell.ring("import_dataset", "cpu", dataset.pk)
    return dataset


def _begun(
    *,
    team: Team,
    user: User | None,
    name: str,
    digest: Digest,
    columns: Mapping[str, Any],
    privacy: str,
    origin: str,
    file_name: str,
    upload: str = "",
) -> Dataset:
    """The rows of a dataset and of its import, with which the work can begin."""
    _check_quota(team, digest)
    file_name = _base_name(file_name)
    with transaction.atomic():
        dataset = Dataset.objects.create(
            team=team,
            created_by=user,
            name=printable(name.strip() or Path(file_name).stem or "Dataset", 200),
            origin=origin,
            privacy=privacy,
            sha256=digest.sha256,
            file=storing.key_of(team, digest.sha256),
            file_bytes=digest.n_bytes,
            file_name=file_name,
            columns=Columns.from_dict(columns).as_dict(),
        )
        Import.objects.create(dataset=dataset, columns=dict(columns), upload=upload, bytes_total=digest.n_bytes)
    return dataset


def measured(stream: File[Any] | IO[bytes]) -> Digest:
    """SHA-256 and size of the file. Raises BadFile when it is too large."""
    try:
        return storing.digest(stream)
    except storing.TooLarge:
        limit = settings.UPLOAD_LIMIT_BYTES / (1 << 20)
        cure = "Split it into several datasets, or ask your administrator to raise LUMIGATOR_UPLOAD_LIMIT_BYTES."
        raise BadFile([Problem(None, "", f"It is larger than {limit:,.0f} MiB.", cure)]) from None


def look(stream: File[Any] | IO[bytes], columns: Mapping[str, Any] | None) -> Columns:
    """Every column of the mapping, given or guessed. Raises BadFile for what is wrong with the first rows."""
    with opened(stream) as table:
        chosen = table.columns(columns)
        problems = [item for item in table.preview(chosen) if isinstance(item, Problem)]
    stream.seek(0)
    if problems:
        raise BadFile(problems)
    return chosen


def twin(*, team: Team, sha256: str, privacy: str, columns: Callable[[], Columns]) -> Dataset | None:
    """The oldest dataset of the team that the same bytes, with the same columns and privacy, made already, or are
    about to make. `columns` is asked only where such bytes are known."""
    usable = (Dataset.State.READY, Dataset.State.IMPORTING)
    same = Dataset.objects.filter(team=team, sha256=sha256, privacy=privacy, state__in=usable).order_by("id")
    known = list(same.filter(origin=Dataset.Origin.UPLOAD).select_related("intake", "created_by"))
    mapping = columns() if known else None
    return next((one for one in known if Columns.from_dict(one.columns) == mapping), None)


def _check_quota(team: Team, digest: Digest) -> None:
    """Raises BadFile where the team's files would take more than TEAM_QUOTA_BYTES. Each dataset counts its file."""
    if not settings.TEAM_QUOTA_BYTES:
        return
    counted = Dataset.objects.filter(team=team).exclude(state=Dataset.State.FAILED)
    taken = counted.aggregate(n=Sum("file_bytes"))["n"] or 0
    if taken + digest.n_bytes > settings.TEAM_QUOTA_BYTES:
        message = (
            f"With its {_mebibytes(digest.n_bytes)} the files of your team would take more than its quota of "
            f"{_mebibytes(settings.TEAM_QUOTA_BYTES)}; they take {_mebibytes(taken)}."
        )
        cure = "Delete datasets that are not needed, or ask your administrator to raise LUMIGATOR_TEAM_QUOTA_BYTES."
        raise BadFile([Problem(None, "", message, cure)])


def _mebibytes(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 20):,.1f} MiB"


def ingest_rows(
    *,
    team: Team,
    user: User | None,
    name: str,
    rows: Iterable[Row],
    columns: Columns,
    privacy: str,
    origin: str,
    parent: Dataset | None = None,
) -> Dataset:
    """A dataset that is ready from rows that were made here (generated references, edits), without a file.

    Its `sha256` is that of its rows, written as JSON lines.
    """
    hashed = sha256()

    def passing() -> Iterator[Row]:
        for row in rows:
            hashed.update(json.dumps(row[1:], ensure_ascii=False).encode() + b"\n")
            yield row

    with transaction.atomic():
        dataset = Dataset.objects.create(
            team=team,
            created_by=user,
            name=printable(name, 200),
            origin=origin,
            privacy=privacy,
            parent=parent,
            columns=columns.as_dict(),
        )
        profile = Profile()
        copy_rows(dataset.pk, 0, _profiled(passing(), profile))
        dataset.sha256 = hashed.hexdigest()
        dataset.n_examples, dataset.n_with_reference = profile.n, profile.n_with_reference
        dataset.profile = profile.as_dict()
        dataset.state = Dataset.State.READY
        dataset.save()
        return dataset


def ingest_sample(team: Team, user: User | None) -> Dataset:
    """The sample that Lumigator ships, in this team; the one it already has where it has it."""
    with transaction.atomic():
        Team.objects.select_for_update(no_key=True).get(pk=team.pk)  # two at once: the second finds the first's
        digest = sha256(SAMPLE.read_bytes()).hexdigest()
        mine = Dataset.objects.filter(team=team, sha256=digest, origin=Dataset.Origin.SAMPLE)
        found = mine.filter(state=Dataset.State.READY).first()
        return found or ingest(
            team=team,
            user=user,
            name=SAMPLE_NAME,
            file=SAMPLE,
            columns=SAMPLE_COLUMNS.as_dict(),
            origin=Dataset.Origin.SAMPLE,
        )


def _profiled(rows: Iterable[Row], profile: Profile) -> Iterator[Row]:
    for row in rows:
        profile.add(row)
        yield row


def _base_name(name: str) -> str:
    """The last part of what the browser called the file; it is shown, and never part of a path."""
    return printable(name.replace("\\", "/").rsplit("/", 1)[-1].strip(), 200)
