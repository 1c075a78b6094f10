"""Downloading streams every outcome of an experiment with its scores, as CSV or as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from django.http import StreamingHttpResponse
from django.utils.text import slugify

from datasets_app.exporting import CSV, JSONL, attachment, csv_lines
from evaluations.exporting import rows_of
from evaluations.metrics import available
from evaluations.models import Experiment

FACTS = (
    "candidate", "index", "id", "status", "output", "error_code", "finish_reason", "input_tokens", "input_tokens_read",
    "output_tokens", "latency_ms", "cost_micro",
)  # fmt: skip


def as_jsonl(experiment: Experiment) -> Iterator[str]:
    for row in _rows(experiment):
        yield json.dumps(row, ensure_ascii=False) + "\n"


def as_csv(experiment: Experiment) -> Iterator[str]:
    """One column per metric part; a score that was not computed is an empty cell, and the last column says why."""
    parts = part_names(experiment)
    return csv_lines([*FACTS, *parts, "absent_scores"], (_line(row, parts) for row in _rows(experiment)))


def _line(row: dict[str, Any], parts: list[str]) -> list[Any]:
    scores = row["scores"]
    values = {part: value for part, value in scores.items() if not isinstance(value, dict)}
    absent: dict[str, list[str]] = {}
    for part, value in scores.items():
        if isinstance(value, dict):
            absent.setdefault(value["absent"], []).append(part)
    reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in absent.items())
    return [*(row[name] for name in FACTS), *(values.get(part) for part in parts), reasons]


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
    "csv": Download(as_csv, CSV),
    "jsonl": Download(as_jsonl, JSONL),
}


def download(experiment: Experiment, name: str) -> StreamingHttpResponse:
    """The export called `name` (a key of DOWNLOADS) as an attachment, streamed: memory does not grow with it."""
    chosen = DOWNLOADS[name]
    stem = f"{slugify(experiment.name) or 'experiment'}-{experiment.pk}"
    return attachment(chosen.write(experiment), chosen.content_type, f"{stem}.{name}")
