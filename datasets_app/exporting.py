"""Exporting writes a dataset as CSV, JSONL or Parquet that our own reader reads back to the same examples.

The column `lumigator_index` marks the file as ours: the reader then takes the columns that it does not know for tags,
and removes the apostrophes that keep spreadsheets from running a cell as a formula (SECURITY S22). JSONL keeps the
types of tags; a CSV has only text, and so has a tag of several types in a Parquet file, which has one type a column.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Max, QuerySet
from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header
from django.utils.text import slugify

from datasets_app.formats import EXPORT_INDEX
from datasets_app.formats.csv import guarded
from datasets_app.models import Dataset, Example

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 500
BATCH_CHARACTERS = 4_000_000
"""Documents are read until they have so much text together, or one more: memory does not grow with their length."""
GROUP_ROWS = 20_000
GROUP_CHARACTERS = 8_000_000
RESERVED = re.compile(rf"(?i){EXPORT_INDEX}|id|group|examples|ground_truth(_?\d+)?")
CSV, JSONL, PARQUET = "text/csv; charset=utf-8", "application/x-ndjson; charset=utf-8", "application/vnd.apache.parquet"


class _Echo:
    """What csv.writer writes to, so that its writerow() returns the line."""

    def write(self, line: str) -> str:
        return line


def csv_lines(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """The lines of a CSV (RFC 4180) with a byte order mark, without which Excel does not read UTF-8; what is text is
    guarded, numbers stay numbers, None is an empty cell."""
    write = csv.writer(_Echo()).writerow
    yield "\ufeff" + write(map(_cell, header))
    for row in rows:
        yield write(map(_cell, row))


def _cell(value: Any) -> Any:
    return guarded(value) if isinstance(value, str) else value


def as_csv(dataset: Dataset) -> Iterator[str]:
    tags = tag_columns(dataset)
    references = ["ground_truth", *(f"ground_truth_{n}" for n in range(2, _most_references(dataset) + 1))]

    def rows() -> Iterator[list[Any]]:
        for one in examples_of(dataset):
            blanks = [""] * (len(references) - len(one.references))
            words = [_word(one.tags.get(name, "")) for name in tags]
            yield [one.index, one.key, one.group, one.source, *one.references, *blanks, *words]

    return csv_lines([EXPORT_INDEX, "id", "group", "examples", *references, *tags.values()], rows())


def as_jsonl(dataset: Dataset) -> Iterator[str]:
    tags = tag_columns(dataset)
    for example in examples_of(dataset):
        line: dict[str, Any] = {EXPORT_INDEX: example.index}
        line |= {"id": example.key} if example.key else {}
        line |= {"group": example.group} if example.group else {}
        line |= {"examples": example.source, "ground_truth": example.references}
        line |= {column: example.tags[name] for name, column in tags.items() if name in example.tags}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def as_parquet(dataset: Dataset) -> Iterator[bytes]:
    """Row groups of at most GROUP_CHARACTERS of documents, each handed on as soon as it is full."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tags = tag_columns(dataset)
    kinds = _kinds(dataset) if tags else {}
    types = {"text": pa.string(), "boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64()}
    fields = [(EXPORT_INDEX, pa.int64()), ("id", pa.string()), ("group", pa.string()), ("examples", pa.string())]
    fields += [("ground_truth", pa.list_(pa.string()))]
    fields += [(column, types[kinds.get(name, "text")]) for name, column in tags.items()]
    texts = [name for name in tags if kinds.get(name, "text") == "text"]
    pipe = _Pipe()
    # Without dictionaries a file never unpacks to so much more than it is that a reader takes it for a bomb.
    with pq.ParquetWriter(pipe, pa.schema(fields), compression="snappy", use_dictionary=False) as writer:
        for group in _groups(examples_of(dataset)):
            writer.write_table(_table(group, tags, texts, writer.schema))
            yield pipe.taken()
    yield pipe.taken()


def _table(group: list[Example], tags: dict[str, str], texts: list[str], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, list[Any]] = {
        EXPORT_INDEX: [one.index for one in group],
        "id": [one.key or None for one in group],
        "group": [one.group or None for one in group],
        "examples": [one.source for one in group],
        "ground_truth": [one.references for one in group],
    }
    for name, column in tags.items():
        values = [one.tags.get(name) for one in group]
        columns[column] = [None if one is None else _word(one) for one in values] if name in texts else values
    return pa.Table.from_pydict(columns, schema=schema)


class _Pipe(io.RawIOBase):
    """A file that holds what was written to it until it is taken."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.n = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.pieces.append(bytes(data))
        self.n += len(self.pieces[-1])
        return len(self.pieces[-1])

    def tell(self) -> int:
        return self.n

    def taken(self) -> bytes:
        pieces, self.pieces = self.pieces, []
        return b"".join(pieces)


def _groups(examples: Iterator[Example]) -> Iterator[list[Example]]:
    group: list[Example] = []
    size = 0
    for one in examples:
        group.append(one)
        size += one.n_characters + sum(map(len, one.references))
        if len(group) >= GROUP_ROWS or size >= GROUP_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


KINDS = """
SELECT name, CASE WHEN bool_and(jsonb_typeof(value) = 'boolean') THEN 'boolean'
                 WHEN bool_and(jsonb_typeof(value) = 'number' AND value::text ~ '^-?[0-9]{1,18}$') THEN 'integer'
                 WHEN bool_and(jsonb_typeof(value) = 'number' AND (value::text !~ '^-?[0-9]{16,}$')) THEN 'number'
                 ELSE 'text' END
FROM datasets_example, jsonb_each(tags) AS one(name, value) WHERE dataset_id = %s GROUP BY name
"""


def _kinds(dataset: Dataset) -> dict[str, str]:
    """{tag: text, boolean, integer or number}: the one type that all of its values have; text where there is none."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")  # it reads all rows, some 3 s for a million
        cursor.execute(KINDS, [dataset.pk])
        return dict(cursor.fetchall())


class Export(NamedTuple):
    write: Callable[[Dataset], Iterator[str] | Iterator[bytes]]
    content_type: str


EXPORTS = {
    "csv": Export(as_csv, CSV),
    "jsonl": Export(as_jsonl, JSONL),
    "parquet": Export(as_parquet, PARQUET),
}


def download(dataset: Dataset, name: str) -> StreamingHttpResponse:
    """The export called `name` (a key of EXPORTS) as an attachment, streamed."""
    export = EXPORTS[name]
    stem = f"{slugify(dataset.name) or 'dataset'}-{dataset.pk}"
    return attachment(export.write(dataset), export.content_type, f"{stem}.{name}")


def attachment(pieces: Iterator[str] | Iterator[bytes], content_type: str, file_name: str) -> StreamingHttpResponse:
    """A file that is sent while it is made (SECURITY S23); lines are put together to pieces worth sending."""
    response = StreamingHttpResponse(_joined(pieces), content_type=content_type)
    response["Content-Disposition"] = content_disposition_header(True, file_name)
    response["X-Content-Type-Options"] = "nosniff"
    return response


def _joined(pieces: Iterator[str] | Iterator[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for piece in pieces:
        held += piece.encode() if isinstance(piece, str) else piece
        if len(held) >= 64 * 1024:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def tag_columns(dataset: Dataset) -> dict[str, str]:
    """{tag: the column it is exported as}. A tag that is called like one of our own columns gets another name."""
    names = dict.fromkeys([*dataset.columns.get("tags", ()), *dataset.profile.get("tags", ())])
    columns: dict[str, str] = {}
    for name in names:
        column = name.strip()
        while RESERVED.fullmatch(column) or column in columns.values():
            column = f"tag_{column}"
        columns[name] = column
    return columns


def _most_references(dataset: Dataset) -> int:
    if "max_references" in dataset.profile:
        return int(dataset.profile["max_references"])
    return dataset.examples.aggregate(most=Max("references__len"))["most"] or 0


def examples_of(dataset: Dataset) -> Iterator[Example]:
    """All, in order, by keyset, so that a slow reader holds no cursor open. Raises RuntimeError where some are missing:
    a file that would end early is broken off instead."""
    following = n = 0
    rows = Example.objects.filter(dataset=dataset).order_by("index")
    while batch := list(_next(rows, following)):
        yield from batch
        n += len(batch)
        following = batch[-1].index + 1
    if n != dataset.n_examples:
        raise RuntimeError(f"dataset {dataset.pk} has {n} examples instead of {dataset.n_examples}: was it deleted?")


def _next(rows: QuerySet[Example], following: int) -> Iterable[Example]:
    """At most BATCH examples from the index `following` on, and about BATCH_CHARACTERS of text."""
    ahead = rows.filter(index__gte=following)
    size, last = 0, -1
    for index, length in ahead.values_list("index", "n_characters")[:BATCH]:
        size, last = size + length, index
        if size >= BATCH_CHARACTERS:
            break
    return ahead.filter(index__lte=last) if last >= 0 else ()


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
