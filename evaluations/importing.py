"""Importing makes a candidate of outputs that were made elsewhere: a JSONL, a CSV, or one output a line.

JSONL holds {"index": n | "id": key, "output": text}; CSV an `index` or `id` column and one output column; plain text
one output a line, in the dataset's order. Rows that match no document, and documents without a row, are named and
counted; a missing output is that document's error (`missing_output`), never a gap.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import transaction

from datasets_app.formats import printable
from datasets_app.models import Example
from evaluations import planning
from evaluations.models import Candidate, Experiment, Generation

OUTPUT_COLUMNS = ("output", "prediction", "predictions", "summary", "text")
LIMIT_BYTES = 256 << 20
LIMIT_CELL = 1 << 20
MENTIONED = 10


@dataclass
class Imported:
    """What came of an import: how many outputs matched, which rows and documents did not, and how many outputs are of
    documents that take no part in the experiment (it draws a sample)."""

    candidate: Candidate
    matched: int = 0
    outside: int = 0
    unmatched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        said = [f"{_counted(self.matched, 'output')} matched a document."]
        if n := self.outside:
            said.append(
                f"{_counted(n, 'output')} of documents outside the sample {'is' if n == 1 else 'are'} not used."
            )
        if n := len(self.unmatched):
            said.append(f"{_counted(n, 'row')} match{'es' * (n == 1)} no document: {_some(self.unmatched)}.")
        if n := len(self.missing):
            said.append(f"{_counted(n, 'document')} {'has' if n == 1 else 'have'} no output: {_some(self.missing)}.")
        return said


def _counted(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _some(names: list[str]) -> str:
    more = len(names) - MENTIONED
    return ", ".join(names[:MENTIONED]) + (f" and {more} more" if more > 0 else "")


def import_file(experiment: Experiment, label: str, path: Path) -> Imported:
    """Import a file; see `import_bytes`."""
    if path.stat().st_size > LIMIT_BYTES:  # before it fills the memory
        raise _too_large(path.name)
    return import_bytes(experiment, label, path.read_bytes(), path.name)


def import_bytes(experiment: Experiment, label: str, data: bytes, name: str = "outputs") -> Imported:
    """A candidate called `label` from these bytes. Raises planning.Refused, naming the row, if they cannot be read."""
    if len(data) > LIMIT_BYTES:
        raise _too_large(name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise _refused(f"{name} is not UTF-8 (byte {exc.start}): save it as UTF-8") from None
    return import_rows(experiment, label, _rows(text, name))


def import_rows(experiment: Experiment, label: str, rows: Iterator[dict[str, Any]]) -> Imported:
    """A candidate from rows {"index" | "id", "output"}; rows with neither are taken in the dataset's order."""
    rows_of_dataset = Example.objects.filter(dataset=experiment.dataset_id).only("dataset_id", "index", "key")
    examples = {example.index: example for example in rows_of_dataset}
    by_key = {example.key: example for example in examples.values() if example.key}
    taking_part = [int(index) for index in planning.sample_of(experiment)]
    outputs: dict[int, str] = {}
    unmatched: list[str] = []
    for position, row in enumerate(rows):
        found = _match(row, position, examples, by_key)
        if found is None:
            unmatched.append(_called(row, position))
        elif found.index in outputs:
            raise _refused(f"two outputs for document {found.label}: keep one")
        else:
            outputs[found.index] = row["output"]
    candidate = planning.add_candidate(experiment, {"model": "import://", "label": label})
    imported = Imported(candidate, unmatched=unmatched)
    made = []
    for index in taking_part:
        output = outputs.get(index)
        imported.matched += output is not None
        if output is None:
            imported.missing.append(examples[index].label)
        made.append(_generation(candidate, examples[index], output))
    imported.outside = len(outputs) - imported.matched
    with transaction.atomic():
        Generation.objects.bulk_create(made, batch_size=1000)
        Candidate.objects.filter(pk=candidate.pk).update(
            spec={**candidate.spec, "imported": {"unmatched": len(unmatched), "missing": len(imported.missing)}}
        )
    return imported


def _called(row: dict[str, Any], position: int) -> str:
    """What the file calls a row: its id, else its index, else its place from 0."""
    named = next((row[name] for name in ("id", "index") if row.get(name) is not None), position)
    return printable(str(named), 60)


def _match(
    row: dict[str, Any], position: int, examples: dict[int, Example], by_key: dict[str, Example]
) -> Example | None:
    if row.get("id") is not None:
        return by_key.get(str(row["id"]).strip())
    return examples.get(row["index"] if row.get("index") is not None else position)


def _generation(candidate: Candidate, example: Example, output: str | None) -> Generation:
    if output is None:
        error = "the imported file has no output for this document"
        return Generation(
            candidate=candidate, example=example, status="error", error_code="missing_output", error=error
        )
    if not output.strip():
        return Generation(candidate=candidate, example=example, status="empty", error_code="empty_output")
    return Generation(candidate=candidate, example=example, status="ok", text=output, finish_reason="imported")


def _rows(text: str, name: str) -> Iterator[dict[str, Any]]:
    first = text.lstrip()[:1]
    if not first:
        raise _refused(f"{name} is empty")
    if first == "{":
        yield from _json_rows(text, name)
    elif delimiter := _delimiter(text):
        yield from _csv_rows(text, name, delimiter)
    else:
        for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
            yield {"output": _clean(line.removesuffix("\r"), name, number)}


def _delimiter(text: str) -> str:
    """What is between the columns of a CSV; "" for any other text. Only a column `index` or `id` makes it a CSV."""
    first_line = text[: text.find("\n") + 1 or len(text)]
    for delimiter in ",;\t":
        header = {column.strip(' \r\n"').lower() for column in first_line.split(delimiter)}
        if len(header) > 1 and header & {"index", "id"}:
            return delimiter
    return ""


def _json_rows(text: str, name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise _refused(f"{name}, line {number}: this is not one JSON object a line") from None
        if not isinstance(row, dict) or not isinstance(row.get("output"), str):
            raise _refused(f'{name}, line {number}: give {{"index": n or "id": key, "output": text}}')
        index = row.get("index")
        if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
            raise _refused(f"{name}, line {number}, index: give the document's position from 0")
        yield {"id": row.get("id"), "index": index, "output": _clean(row["output"], name, number)}


def _csv_rows(text: str, name: str, delimiter: str) -> Iterator[dict[str, Any]]:
    if csv.field_size_limit() < LIMIT_CELL:
        csv.field_size_limit(LIMIT_CELL)  # one limit for the whole process; only ever raised
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns = {column.strip().lower(): column for column in _header(reader, name)}
    others = [column for column in columns if column not in ("index", "id")]
    output = next((each for each in OUTPUT_COLUMNS if each in others), others[0] if len(others) == 1 else None)
    if output is None:
        raise _refused(f"{name}: which column holds the outputs? Call it `output`; there is {', '.join(others)}")
    for number, row in _csv_numbered(reader, name):
        index = row.get(columns["index"]) if "index" in columns else None
        if index is not None and not re.fullmatch(r"\s*[0-9]{1,18}\s*", index):
            raise _refused(f"{name}, row {number}, column index: {index[:20]!r} is not a position from 0")
        yield {
            "id": row.get(columns["id"]) if "id" in columns and "index" not in columns else None,
            "index": int(index) if index is not None else None,
            "output": _clean(row.get(columns[output]) or "", name, number),
        }


def _header(reader: csv.DictReader[str], name: str) -> list[str]:
    try:
        return list(reader.fieldnames or [])
    except csv.Error as exc:
        raise _refused(f"{name}, row 1: these are no column names ({exc})") from None


def _csv_numbered(reader: csv.DictReader[str], name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows with their numbers in the sheet, whose header is row 1. Raises planning.Refused."""
    number = 1
    while True:
        number += 1
        try:
            yield number, next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            raise _refused(
                f"{name}, row {number}: this is not CSV ({exc}); put a cell that holds quotes or line breaks in double "
                "quotes and double every quote inside it"
            ) from None


def _clean(text: str, name: str, number: int) -> str:
    if "\0" in text or not _is_whole(text):
        raise _refused(f"{name}, row {number}: the output holds a NUL or half a surrogate pair; remove it")
    return text


def _is_whole(text: str) -> bool:
    """Whether every character can be stored: JSON may spell half a surrogate pair."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _too_large(name: str) -> planning.Refused:
    return _refused(f"{name} is larger than {LIMIT_BYTES >> 20} MiB; split it")


def _refused(sentence: str) -> planning.Refused:
    return planning.Refused({"predictions": [sentence]})
