"""Gathering reads what finalize needs beside the scores: facts of the documents, and each answer's price and time.

Rows are those of finalize's tables: documents in order of index, candidates in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from django.db import connection
from django.db.models import F, Func, IntegerField, QuerySet

from datasets_app.models import Example
from evaluations.fronts import RESAMPLES, bootstrap_medians
from evaluations.models import Candidate, Experiment, Generation
from evaluations.resampling import Floats, Ints, bootstrap_means, by_group
from evaluations.slicing import Documents

ALIKE = 0.98
"""Two candidates whose answers are the same texts on such a share of the documents are reported."""
ALIKE_FROM, ALIKE_AMONG = 10, 5_000
"""They must share so many documents at least; so many are looked at."""
IMPORTED = "import"


class Octets(Func):
    """The bytes of a text in UTF-8. PostgreSQL knows them without unpacking the text."""

    function = "OCTET_LENGTH"
    output_field = IntegerField()


def documents(experiment: Experiment, rows: dict[int, int], groups: Sequence[str | None] | None) -> Documents:
    """What the documents of `rows` ({example: row}) are cut into slices by."""
    tags: list[dict[str, Any]] = [{}] * len(rows)
    sizes = [0] * len(rows)
    found = Example.objects.filter(dataset=experiment.dataset_id).order_by("index")
    for pk, mine, size in found.values_list("pk", "tags", Octets("source")).iterator(chunk_size=10_000):
        if pk in rows:
            tags[rows[pk]], sizes[rows[pk]] = mine if isinstance(mine, dict) else {}, size
    counted = Generation.objects.filter(candidate__experiment=experiment, input_tokens_read__isnull=False)
    cut = None
    if counted.exists():
        cut = [False] * len(rows)
        for pk in cut_examples(experiment).values_list("example", flat=True).distinct():
            if pk in rows:
                cut[rows[pk]] = True
    return Documents(tags, groups, sizes, cut)


def cut_examples(experiment: Experiment) -> QuerySet[Generation]:
    """The outcomes of models that did not read their document to its end."""
    made = Generation.objects.filter(candidate__experiment=experiment, candidate__is_baseline=False)
    return made.filter(input_tokens_read__lt=F("input_tokens"))


@dataclass(frozen=True)
class Prices:
    """What answers cost (micro-dollars) and take (milliseconds): (documents, candidates), nan for absent.

    `cost` holds each candidate's mean a document, nan without a price; `costs` is only used for candidates whose
    answers all have a price of their own (`varies`), and scaled so that its mean is `cost`: the ledger also knows of
    attempts that failed.
    """

    costs: Floats
    cost: Floats
    varies: list[bool]
    latencies: Floats

    def drawn(self, codes: Ints, units: int, seed: int) -> tuple[Floats, Floats]:
        """((resamples, candidates) mean costs, the same of median times), drawn by units with the draws of quality."""
        summed = by_group(self.costs, codes.tolist())
        means = bootstrap_means(summed.sums, summed.sizes, resamples=RESAMPLES, seed=seed)
        costs = np.where(np.array(self.varies), means, self.cost)
        return costs, bootstrap_medians(self.latencies, codes, units, resamples=RESAMPLES, seed=seed)


def prices(candidates: Sequence[Candidate], rows: dict[int, int], summaries: dict[int, dict[str, Any]]) -> Prices:
    """Of every outcome; `summaries` are what finalize made of each candidate."""
    column = {candidate.pk: position for position, candidate in enumerate(candidates)}
    costs = np.full((len(rows), len(column)), np.nan)
    latencies = np.full((len(rows), len(column)), np.nan)
    with connection.chunked_cursor() as cursor:
        cursor.execute(
            "SELECT candidate_id, example_id, cost_micro, latency_ms, status FROM evaluations_generation"
            " WHERE candidate_id = ANY(%s)",
            [list(column)],
        )
        while found := cursor.fetchmany(10_000):
            for candidate, example, cost, latency, status in found:
                if (row := rows.get(example)) is None:
                    continue
                if cost is not None:
                    costs[row, column[candidate]] = cost
                if latency is not None and status == "ok":
                    latencies[row, column[candidate]] = latency
    mean = np.full(len(column), np.nan)
    varies = [False] * len(column)
    for candidate in candidates:
        place, summary = column[candidate.pk], summaries[candidate.pk]
        total, n = summary["cost_micro"], summary["n"]
        if candidate.spec.get("scheme") == IMPORTED or total is None or not n:
            continue  # unpriced: never 0, and never on the front
        mean[place] = total / n
        each = costs[:, place][~np.isnan(costs[:, place])]
        if len(each) == n and each.sum() > 0:
            varies[place] = True
            costs[:, place] *= total / each.sum()
    return Prices(costs, mean, varies, latencies)


def alike(candidates: Sequence[Candidate], rows: dict[int, int]) -> dict[int, list[int]]:
    """{candidate: those whose answers are the same texts as its own, on nearly every one of the first documents of
    `rows` ({example: row})}; baselines among themselves do not count."""
    models = {candidate.pk for candidate in candidates if not candidate.is_baseline}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT a.candidate_id, b.candidate_id, count(*), count(*) FILTER (WHERE a.text = b.text)"
            " FROM evaluations_generation a JOIN evaluations_generation b"
            " ON a.example_id = b.example_id AND a.candidate_id < b.candidate_id"
            " WHERE a.candidate_id = ANY(%s) AND b.candidate_id = ANY(%s) AND a.status = 'ok' AND b.status = 'ok'"
            " AND a.example_id = ANY(%s) GROUP BY 1, 2",
            [*[[candidate.pk for candidate in candidates]] * 2, list(islice(rows, ALIKE_AMONG))],
        )
        counted = cursor.fetchall()
    found: dict[int, list[int]] = {candidate.pk: [] for candidate in candidates}
    for a, b, n, same in counted:
        if n >= ALIKE_FROM and same >= ALIKE * n and {a, b} & models:
            found[a].append(b)
            found[b].append(a)
    return found
