"""Downloading streams every outcome of an experiment with its scores, as CSV or as JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header
from django.utils.text import slugify

from datasets_app.formats.csv import guarded
from evaluations.exporting import rows_of
from evaluations.metrics import available
from evaluations.models import Experiment

BATCH = 500
FACTS = (
    "candidate", "index", "id", "status", "output", "error_code", "finish_reason", "input_tokens", "input_tokens_read",
    "output_tokens", "latency_ms", "cost_micro",
)  # fmt: skip


class _Echo:
    """What csv.writer writes to, so that its writerow() returns the line."""

    def write(self, line: str) -> str:
        return line


def as_jsonl(experiment: Experiment) -> Iterator[str]:
    for row in _rows(experiment):
        yield json.dumps(row, ensure_ascii=False) + "\n"


def as_csv(experiment: Experiment) -> Iterator[str]:
    """RFC 4180 with a byte order mark (Excel needs it). One column per metric part; a score that was not computed is
    an empty cell, and the last column says why. Cells that a spreadsheet would run begin with an apostrophe (S22)."""
    parts = part_names(experiment)
    write = csv.writer(_Echo()).writerow
    yield "\ufeff" + write([*FACTS, *parts, "absent_scores"])
    for row in _rows(experiment):
        facts = [row[name] for name in FACTS]
        scores = row["scores"]
        values = {part: value for part, value in scores.items() if not isinstance(value, dict)}
        absent: dict[str, list[str]] = {}
        for part, value in scores.items():
            if isinstance(value, dict):
                absent.setdefault(value["absent"], []).append(part)
        reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in absent.items())
        yield write([*map(_cell, facts), *(_cell(values.get(part)) for part in parts), guarded(reasons)])


def _cell(value: Any) -> Any:
    return guarded(value) if isinstance(value, str) else value


def part_names(experiment: Experiment) -> list[str]:
    """Every metric part of the experiment, in the order of its metrics."""
    known = available()
    return [
        part.name for frozen in experiment.metrics if frozen["name"] in known for part in known[frozen["name"]].parts
    ]


def _rows(experiment: Experiment) -> Iterator[dict[str, Any]]:
    for candidate in experiment.candidates.all():
        yield from rows_of(candidate)


class Download(NamedTuple):
    write: Callable[[Experiment], Iterator[str]]
    content_type: str


DOWNLOADS = {
    "csv": Download(as_csv, "text/csv; charset=utf-8"),
    "jsonl": Download(as_jsonl, "application/x-ndjson; charset=utf-8"),
}


def download(experiment: Experiment, name: str) -> StreamingHttpResponse:
    """The export called `name` (a key of DOWNLOADS) as an attachment, streamed: memory does not grow with it."""
    chosen = DOWNLOADS[name]
    response = StreamingHttpResponse(_in_batches(chosen.write(experiment)), content_type=chosen.content_type)
    file_name = f"{slugify(experiment.name) or 'experiment'}-{experiment.pk}.{name}"
    response["Content-Disposition"] = content_disposition_header(True, file_name)
    response["X-Content-Type-Options"] = "nosniff"
    return response


def _in_batches(lines: Iterator[str]) -> Iterator[str]:
    while batch := list(islice(lines, BATCH)):
        yield "".join(batch)
