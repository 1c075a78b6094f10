"""Exporting writes a dataset as CSV or JSONL that our own reader reads back to the same examples.

The column `lumigator_index` marks the file as ours: the reader then takes the columns that it does not know for tags,
and removes the apostrophes that keep spreadsheets from running a cell as a formula (SECURITY S22).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from django.db.models import Max
from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header
from django.utils.text import slugify

from datasets_app.formats import EXPORT_INDEX
from datasets_app.formats.csv import guarded
from datasets_app.models import Dataset, Example

BATCH = 500
RESERVED = re.compile(rf"(?i){EXPORT_INDEX}|id|group|examples|ground_truth(_?\d+)?")


class _Echo:
    """What csv.writer writes to, so that its writerow() returns the line."""

    def write(self, line: str) -> str:
        return line


def as_csv(dataset: Dataset) -> Iterator[str]:
    """The lines of a CSV (RFC 4180) with a byte order mark, without which Excel does not read UTF-8."""
    tags = tag_columns(dataset)
    n_references = _most_references(dataset)
    references = ["ground_truth", *(f"ground_truth_{n}" for n in range(2, n_references + 1))]
    write = csv.writer(_Echo()).writerow
    yield "\ufeff" + write([EXPORT_INDEX, "id", "group", "examples", *references, *map(guarded, tags.values())])
    for example in _examples(dataset):
        blanks = [""] * (len(references) - len(example.references))
        words = [_word(example.tags.get(name, "")) for name in tags]
        cells = [example.key, example.group, example.source, *example.references, *blanks, *words]
        yield write([example.index, *map(guarded, cells)])


def as_jsonl(dataset: Dataset) -> Iterator[str]:
    tags = tag_columns(dataset)
    for example in _examples(dataset):
        line: dict[str, Any] = {EXPORT_INDEX: example.index}
        line |= {"id": example.key} if example.key else {}
        line |= {"group": example.group} if example.group else {}
        line |= {"examples": example.source, "ground_truth": example.references}
        line |= {column: example.tags[name] for name, column in tags.items() if name in example.tags}
        yield json.dumps(line, ensure_ascii=False) + "\n"


class Export(NamedTuple):
    write: Callable[[Dataset], Iterator[str]]
    content_type: str


EXPORTS = {
    "csv": Export(as_csv, "text/csv; charset=utf-8"),
    "jsonl": Export(as_jsonl, "application/x-ndjson; charset=utf-8"),
}


def download(dataset: Dataset, name: str) -> StreamingHttpResponse:
    """The export called `name` (a key of EXPORTS) as an attachment, streamed."""
    export = EXPORTS[name]
    response = StreamingHttpResponse(_in_batches(export.write(dataset)), content_type=export.content_type)
    file_name = f"{slugify(dataset.name) or 'dataset'}-{dataset.pk}.{name}"
    response["Content-Disposition"] = content_disposition_header(True, file_name)
    response["X-Content-Type-Options"] = "nosniff"
    return response


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
        return dataset.profile["max_references"]
    return dataset.examples.aggregate(most=Max("references__len"))["most"] or 0


def _examples(dataset: Dataset) -> Iterator[Example]:
    """By keyset, so that a slow reader holds no cursor open. A file that would end early is broken off instead."""
    following = 0
    n = 0
    while batch := list(Example.objects.filter(dataset=dataset, index__gte=following).order_by("index")[:BATCH]):
        yield from batch
        n += len(batch)
        following = batch[-1].index + 1
    if n != dataset.n_examples:
        raise RuntimeError(f"dataset {dataset.pk} has {n} examples instead of {dataset.n_examples}: was it deleted?")


def _in_batches(lines: Iterator[str]) -> Iterator[str]:
    while batch := list(islice(lines, BATCH)):
        yield "".join(batch)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
