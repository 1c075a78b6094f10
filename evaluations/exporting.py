"""Exporting writes what every candidate made of every document, with its scores, one JSON object a line."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluations import comparing
from evaluations.models import Candidate, Experiment, Generation, Score


def write_rows(experiment: Experiment, folder: Path) -> list[Path]:
    """Write `<candidate>.jsonl` per candidate and `comparison.json` into `folder` (made if need be)."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for candidate in experiment.candidates.all():
        path = folder / f"{candidate.position:02d}-{re.sub(r'[^A-Za-z0-9._-]+', '-', candidate.label)}.jsonl"
        with path.open("w", encoding="utf-8") as handle:
            for row in rows_of(candidate):
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
        written.append(path)
    comparison = folder / "comparison.json"
    comparison.write_text(json.dumps(comparing.comparison(experiment), indent=2, ensure_ascii=False) + "\n")
    return [*written, comparison]


def rows_of(candidate: Candidate, *, size: int = 500) -> Iterator[dict[str, Any]]:
    """One dict per outcome, in the order of the documents; memory does not grow with their number."""
    # The dataset is named because the index on examples is of (dataset, index).
    dataset = candidate.experiment.dataset_id
    outcomes = Generation.objects.filter(candidate=candidate, example__dataset=dataset).select_related("example")
    after = -1
    while page := list(outcomes.filter(example__index__gt=after).order_by("example__index")[:size]):
        after = page[-1].example.index
        scores: dict[int, dict[str, Any]] = defaultdict(dict)
        wanted = [outcome.example_id for outcome in page]
        for score in Score.objects.filter(candidate=candidate, example__in=wanted).order_by("pk"):  # the newest stays
            scores[score.example_id][score.part] = score.value if score.value is not None else {"absent": score.reason}
        for outcome in page:
            yield {
                "candidate": candidate.label,
                "index": outcome.example.index,
                "id": outcome.example.key or None,
                "status": outcome.status,
                "output": outcome.text,
                "error_code": outcome.error_code or None,
                "finish_reason": outcome.finish_reason or None,
                "input_tokens": outcome.input_tokens,
                "input_tokens_read": outcome.input_tokens_read,
                "output_tokens": outcome.output_tokens,
                "latency_ms": outcome.latency_ms,
                "cost_micro": outcome.cost_micro,
                "scores": scores[outcome.example_id],
            }
