"""Importing makes a candidate of outputs that were made elsewhere; `reading_outputs` knows in which files they come.

Rows that match no document, and documents without a row, are named and
counted; a missing output is that document's error (`missing_output`), never a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import transaction

from datasets_app.formats import printable
from datasets_app.models import Example
from evaluations import planning
from evaluations.models import Candidate, Experiment, Generation
from evaluations.reading_outputs import BadOutputs, outputs

LIMIT_BYTES = 256 << 20
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
        return import_rows(experiment, label, outputs(data, name))
    except BadOutputs as bad:
        raise _refused(str(bad)) from None


def import_rows(experiment: Experiment, label: str, rows: Iterable[Mapping[str, Any]]) -> Imported:
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


def _called(row: Mapping[str, Any], position: int) -> str:
    """What the file calls a row: its id, else its index, else its place from 0."""
    named = next((row[name] for name in ("id", "index") if row.get(name) is not None), position)
    return printable(str(named), 60)


def _match(
    row: Mapping[str, Any], position: int, examples: dict[int, Example], by_key: dict[str, Example]
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


def _too_large(name: str) -> planning.Refused:
    return _refused(f"{name} is larger than {LIMIT_BYTES >> 20} MiB; split it")


def _refused(sentence: str) -> planning.Refused:
    return planning.Refused({"predictions": [sentence]})
