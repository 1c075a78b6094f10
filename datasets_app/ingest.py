"""Ingest turns a file into a dataset that is ready, or into a list of what is wrong with it, and then stores nothing.

One transaction; the file is read once, in constant memory, and its rows go to PostgreSQL by COPY (1 M rows of 700
bytes take it some 8 s, against minutes of INSERTs).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.base import File
from django.db import connection, transaction

from datasets_app.formats import Problem, Source, printable
from datasets_app.models import Dataset, Example
from datasets_app.profiling import Profile
from datasets_app.reading import Columns, Gathered, Row, Table
from datasets_app.storing import keep
from lumigator.models import Team

SAMPLE = Path(__file__).parent / "samples" / "workplace.jsonl"
SAMPLE_NAME = "Workplace texts (sample)"
SAMPLE_COLUMNS = Columns("examples", ("ground_truth", "ground_truth_2"), "id", "", ("kind", "length"))
COPY = f'COPY "{Example._meta.db_table}" (dataset_id, index, key, source, "references", "group", tags) FROM STDIN'


class BadFile(Exception):
    """The file was refused. `problems` are at most 100; `rest` says how many more there were (empty: none)."""

    def __init__(self, problems: list[Problem], rest: str = "") -> None:
        super().__init__("\n".join([*map(str, problems), *([rest] if rest else [])]))
        self.problems = problems
        self.rest = rest


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
) -> Dataset:
    """Read `file` to its end and store it as a dataset that is ready.

    `columns` is {source, references[], id, group, tags[]}; whatever it lacks is guessed from the names of the file's
    columns. Without a `name` the dataset is called like its file. Raises BadFile, and then nothing is stored.
    """
    file_name = _base_name(file_name or getattr(file, "name", None) or str(file))
    with Path(file).open("rb") if isinstance(file, Path | str) else nullcontext(file) as stream, transaction.atomic():
        stream.seek(0)
        measured = _Measured(stream)
        gathered = Gathered()
        try:
            table = Table(measured)
            chosen = table.columns(columns)
            dataset = Dataset.objects.create(
                team=team,
                created_by=user,
                name=printable(name.strip() or Path(file_name).stem or "Dataset", 200),
                origin=origin,
                privacy=privacy,
                file_name=file_name,
                columns=chosen.as_dict(),
            )
            profile = _copy(dataset, _good(table.rows(chosen), gathered))
        except _TooLarge as error:
            raise BadFile([error.problem]) from None
        if gathered.n:
            raise BadFile(gathered.problems, gathered.rest)
        dataset.sha256, dataset.file_bytes = measured.sha256.hexdigest(), measured.n_bytes
        dataset.file = keep(stream, team=team, sha256=dataset.sha256)
        return _finish(dataset, profile)


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
        profile = _copy(dataset, passing())
        dataset.sha256 = hashed.hexdigest()
        return _finish(dataset, profile)


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


def _good(items: Iterable[Row | Problem], gathered: Gathered) -> Iterator[Row]:
    """The rows up to the first problem; behind it only problems are looked for."""
    for item in items:
        if isinstance(item, Problem):
            gathered.add(item)
        elif not gathered.n:
            yield item


def _copy(dataset: Dataset, rows: Iterable[Row]) -> Profile:
    profile = Profile()
    with connection.cursor() as cursor:
        # The web's limit on a statement is for pages; a COPY is one statement however large the file is.
        cursor.execute("SET LOCAL statement_timeout = 0")
        with cursor.copy(COPY) as copy:
            for index, row in enumerate(rows):
                tags = json.dumps(row.tags, ensure_ascii=False)
                copy.write_row((dataset.pk, index, row.key, row.source, row.references, row.group, tags))
                profile.add(row)
    return profile


def _finish(dataset: Dataset, profile: Profile) -> Dataset:
    dataset.n_examples, dataset.n_with_reference = profile.n, profile.n_with_reference
    dataset.profile = profile.as_dict()
    dataset.state = Dataset.State.READY
    dataset.save()
    return dataset


def _base_name(name: str) -> str:
    """The last part of what the browser called the file; it is shown, and never part of a path."""
    return printable(name.replace("\\", "/").rsplit("/", 1)[-1].strip(), 200)


class _TooLarge(Exception):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        cure = "Split it into several datasets, or ask your administrator to raise LUMIGATOR_UPLOAD_LIMIT_BYTES."
        self.problem = Problem(None, "", f"It is larger than {limit / (1 << 20):,.0f} MiB.", cure)


class _Measured:
    """A stream that is hashed and counted while it is read, and that ends at the upload limit."""

    def __init__(self, stream: Source) -> None:
        self.stream = stream
        self.sha256 = sha256()
        self.n_bytes = 0

    def read(self, size: int, /) -> bytes:
        chunk = self.stream.read(size)
        self.n_bytes += len(chunk)
        if self.n_bytes > settings.UPLOAD_LIMIT_BYTES:
            raise _TooLarge(settings.UPLOAD_LIMIT_BYTES)
        self.sha256.update(chunk)
        return chunk
