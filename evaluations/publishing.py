"""Publishing makes a dataset of approved references. Every row says whose each of its references is.

References that were there before stay, first and in their order; the approved one comes behind them. The tag
`references_by` has one word for each reference of the row, in their order:

    human            it came with the dataset
    model-accepted   a model's draft that a reviewer read and accepted
    model-bulk       a model's draft that was accepted with all others, not read one by one
    model-edited     a model's draft, changed by a reviewer
    reviewer         written by a reviewer where the model gave no draft
    unknown          the row's references were changed elsewhere, and no longer fit what was said of them

The other tags (`draft_…`) tell of the newest one: model, revision, prompt version, reviewer, and the ground truth.
Tags are exported and come back with an upload, so the difference between people's and models' words outlives a file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from tempfile import TemporaryFile
from typing import IO, Any

from django.contrib.auth.models import User
from django.db import transaction

from datasets_app.ingest import ingest_rows
from datasets_app.models import Dataset, Example
from datasets_app.reading import Columns, Row
from evaluations import annotating
from evaluations.models import Draft, Generation, GroundTruth, Publication
from evaluations.planning import Refused

BY = "references_by"
HUMAN, UNKNOWN, WRITTEN = "human", "unknown", "reviewer"
TAGS = (BY, "draft_model", "draft_revision", "draft_prompt", "draft_reviewer", "draft_ground_truth")
APPROVED = (Draft.Decision.ACCEPTED, Draft.Decision.EDITED)
CHUNK = 500
Document = dict[str, Any]


def references_by(example: Example) -> list[str]:
    """Whose each reference of the example is, in the words above. A dataset that says nothing is people's."""
    n, said = len(example.references), example.tags.get(BY)
    if said is None:
        return [HUMAN] * n
    words = str(said).split()
    return words if len(words) == n else [UNKNOWN] * n


def generated_by(dataset: Dataset) -> str:
    """The URI of the model that drafted references of this dataset; "" when none did, or its ground truth is gone."""
    made = Publication.objects.filter(dataset=dataset).select_related("ground_truth__experiment").first()
    return str(made.ground_truth.candidate.spec.get("uri", "")) if made else ""


def publishable(ground_truth: GroundTruth) -> Document:
    """What a publication would hold now: {approved, all, accepted, in_bulk, edited, written, rejected, unreviewed,
    with_reference}: `approved` and `all` are the rows of each choice, `with_reference` those of `all` that would have
    any reference."""
    counted = annotating.counts([ground_truth])[ground_truth.pk]
    dataset = ground_truth.experiment.dataset
    approved = Draft.objects.filter(ground_truth=ground_truth, reading=1, decision__in=APPROVED)
    n = approved.count()
    had_some = approved.filter(example__references__len__gt=0).count()
    return {
        "approved": n,
        "all": dataset.n_examples,
        "with_reference": dataset.n_with_reference + n - had_some,
        **{name: counted[name] for name in ("accepted", "in_bulk", "edited", "written", "rejected")},
        "unreviewed": counted["documents"] - counted["decided"],
    }


def publish(ground_truth: GroundTruth, *, user: User | None, rows: str, name: str = "") -> Publication:
    """A new dataset, child of the one that was annotated and as private as it. `rows` is of Publication.Rows.

    Only first readings count. Each call makes another dataset, of what is approved then. Raises planning.Refused.
    """
    if rows not in Publication.Rows.values:
        raise Refused({"rows": [f"it is one of {', '.join(Publication.Rows.values)}"]})
    source = ground_truth.experiment.dataset
    with transaction.atomic(), TemporaryFile("w+", encoding="utf-8") as file:
        annotating.unhurried()
        counts = _stage(file, _rows(ground_truth, rows))
        if set(counts) <= {"rows", HUMAN, UNKNOWN}:
            raise Refused({"rows": ["no draft is approved yet: accept or edit some first"]})
        dataset = ingest_rows(
            team=ground_truth.team,
            user=user,
            name=name or f"{source.name}, references by {ground_truth.candidate.label}",
            rows=_staged(file),
            columns=_columns(source),
            privacy=source.privacy,
            origin=Dataset.Origin.GENERATED,
            parent=source,
        )
        return Publication.objects.create(
            ground_truth=ground_truth, dataset=dataset, rows=rows, counts=counts, created_by=user
        )


def _columns(source: Dataset) -> Columns:
    mine = Columns.from_dict(source.columns)
    tags = [*(tag for tag in mine.tags if tag not in TAGS), *TAGS]
    return replace(mine, references=(*mine.references, "approved draft"), tags=tuple(tags))


def _rows(ground_truth: GroundTruth, rows: str) -> Iterator[Row]:
    """The rows to publish, in the order of the dataset; two queries run along it side by side. What is decided
    between their beginnings is left to the next publication."""
    approved = _approved(ground_truth)
    following = next(approved, None)
    examples = Example.objects.filter(dataset=ground_truth.experiment.dataset).order_by("index")
    if rows == Publication.Rows.APPROVED:
        chosen = Draft.objects.filter(ground_truth=ground_truth, reading=1, decision__in=APPROVED)
        examples = examples.filter(pk__in=chosen.values("example"))
    for example in examples.iterator(chunk_size=CHUNK):
        while following is not None and following[0].index < example.index:
            following = next(approved, None)
        mine = following if following is not None and following[0].index == example.index else None
        if mine is not None or rows == Publication.Rows.ALL:
            yield _row(ground_truth, example, mine)


def _approved(ground_truth: GroundTruth) -> Iterator[tuple[Draft, str]]:
    """(draft, the text that was approved), by index."""
    rows = Draft.objects.filter(ground_truth=ground_truth, reading=1, decision__in=APPROVED)
    text = annotating.outcome_of().filter(status=Generation.Status.OK).values("text")[:1]
    drafts = rows.select_related("reviewer").annotate(drafted=text).order_by("index")
    for draft in drafts.iterator(chunk_size=CHUNK):
        yield draft, draft.text if draft.decision == Draft.Decision.EDITED else draft.drafted


def _row(ground_truth: GroundTruth, example: Example, approved: tuple[Draft, str] | None) -> Row:
    references, by = list(example.references), references_by(example)
    tags = dict(example.tags)
    if approved is not None:
        draft, text = approved
        references.append(text)
        by.append(_word(draft))
        spec = {} if draft.is_written else ground_truth.candidate.spec
        tags |= {
            "draft_model": spec.get("uri") or "",
            "draft_revision": spec.get("revision") or "",
            "draft_prompt": spec.get("prompt_version") or "",
            "draft_reviewer": draft.reviewer.get_username() if draft.reviewer else "somebody who left",
            "draft_ground_truth": str(ground_truth.pk),
        }
    if by:
        tags[BY] = " ".join(by)
    return Row(example.index, example.source, references, example.key, example.group, tags)


def _word(draft: Draft) -> str:
    if draft.is_written:
        return WRITTEN
    if draft.decision == Draft.Decision.EDITED:
        return "model-edited"
    return "model-bulk" if draft.in_bulk else "model-accepted"


def _stage(file: IO[str], rows: Iterable[Row]) -> dict[str, int]:
    """Write the rows to the file: the connection answers no question while it takes in a COPY. {"rows": n, word of
    `references_by`: how many references}."""
    counts: Counter[str] = Counter()
    for row in rows:
        file.write(json.dumps(row) + "\n")
        counts.update(["rows", *row.tags.get(BY, "").split()])
    file.seek(0)
    return dict(counts)


def _staged(file: IO[str]) -> Iterator[Row]:
    for line in file:
        yield Row(*json.loads(line))
