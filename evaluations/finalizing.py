"""Finalizing turns per-example scores into aggregates, contrasts and summaries, once the last unit has ended.

Everything is recomputed from the rows, so doing it twice, or after a crash, gives the same numbers; each aggregate
keeps a digest of the values it came from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import numpy as np
from django.db import connection
from django.db.models import Count, Exists, F, OuterRef, Q, Sum
from django.utils import timezone

from evaluations import concluding, gathering, leasing, resampling, stats
from evaluations.concluding import Table, finite, key_of
from evaluations.leasing import Lease
from evaluations.metrics import Metric, part_owner
from evaluations.models import Aggregate, Call, Candidate, Contrast, Experiment, Generation, Signature, WorkUnit
from evaluations.steering import locked, settle_cancelled

CHUNK = 10_000
BOOTSTRAP_LEAST = 30


def finalize(lease: Lease) -> None:
    """The finalize unit. Raises Fenced when another worker took it over."""
    experiment = lease.unit.experiment
    candidates = list(experiment.candidates.all())
    documents, groups = _documents(experiment)
    tables = list(_tables(candidates, documents))
    comparisons = _compare(experiment, candidates, documents, groups, tables)
    aggregates = [
        row for table in tables for row in _aggregates(candidates, table, comparisons[table.part, table.signature])
    ]
    aggregates += [row for table in tables for row in _of_the_corpus(experiment, table, groups)]
    contrasts = [
        row for table in tables for row in _contrasts(experiment, table, comparisons[table.part, table.signature])
    ]
    summaries = {candidate.pk: _summary(experiment, candidate) for candidate in candidates}
    for pk, others in gathering.alike(candidates, documents).items():
        summaries[pk]["alike"] = others
    told = concluding.statistics(experiment, candidates, summaries, documents, groups, tables, comparisons)
    with leasing.fenced(lease):
        current = locked(experiment.pk)
        if current.state == "cancelling":  # the numbers of the run before stay as they are, all of them
            leasing.close(lease)
            settle_cancelled(current)
            return
        Aggregate.objects.filter(candidate__experiment=experiment).delete()
        Contrast.objects.filter(experiment=experiment).delete()
        Aggregate.objects.bulk_create(aggregates)
        Contrast.objects.bulk_create(contrasts, batch_size=1000)
        for candidate in candidates:
            Candidate.objects.filter(pk=candidate.pk).update(summary=summaries[candidate.pk])
        leasing.close(lease)
        if current.state == "paused":
            current.move("running", since=("paused",), pause_reason="", problem="")
        current.move(
            "completed_with_errors" if _has_errors(candidates, summaries, experiment) else "completed",
            since=("running",),
            finished_at=timezone.now(),
            statistics=told,
        )


def _has_errors(candidates: list[Candidate], summaries: dict[int, dict[str, Any]], experiment: Experiment) -> bool:
    stopped = Candidate.objects.filter(experiment=experiment).exclude(problem="").exists()
    failed = WorkUnit.objects.filter(experiment=experiment, round=experiment.round, state="failed").exists()
    return stopped or failed or any(summaries[each.pk]["states"].get("error") for each in candidates)


def _documents(experiment: Experiment) -> tuple[dict[int, int], list[str | None] | None]:
    """({example pk: row}, the group of each row or None where no document has one), in order of index."""
    from datasets_app.models import Example

    outcomes = Generation.objects.filter(example=OuterRef("pk"), candidate__experiment=experiment)
    rows = Example.objects.filter(Exists(outcomes), dataset=experiment.dataset_id).order_by("index")
    pairs = list(rows.values_list("pk", "group"))
    groups = [group or None for _, group in pairs]
    return {pk: row for row, (pk, _) in enumerate(pairs)}, groups if any(groups) else None


def _tables(candidates: list[Candidate], documents: dict[int, int]) -> list[Table]:
    column = {candidate.pk: position for position, candidate in enumerate(candidates)}
    tables: dict[tuple[str, str], Table] = {}
    owners = part_owner()
    with connection.chunked_cursor() as cursor:  # on the server: there may be a hundred million rows
        cursor.execute(
            "SELECT part, signature_id, candidate_id, example_id, value, state, counts FROM evaluations_score"
            " WHERE candidate_id = ANY(%s)",
            [list(column)],
        )
        for part, signature, candidate, example, value, state, counts in _fetched(cursor):
            if part not in owners or example not in documents:
                continue
            table = tables.get((part, signature))
            if table is None:
                table = tables[part, signature] = Table(part, signature, np.full((len(documents), len(column)), np.nan))
                table.states = {pk: Counter() for pk in column}
            table.states[candidate][state or "value"] += 1
            described = owners[part].part(part)
            if state == "failed":
                # A failed output is scored at the metric's floor and counted; it is never dropped (STATISTICS §3).
                value = described.worst
            if value is not None:
                table.matrix[documents[example], column[candidate]] = value
            if counts is not None:
                rows, kept = table.counts.setdefault(candidate, ([], []))
                rows.append(documents[example])
                kept.append(counts)
    return [tables[key] for key in sorted(tables)]


def _fetched(cursor: Any) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(CHUNK):
        yield from rows


def _compare(
    experiment: Experiment,
    candidates: list[Candidate],
    documents: dict[int, int],
    groups: list[str | None] | None,
    tables: list[Table],
) -> dict[tuple[str, str], stats.Comparison]:
    owners = part_owner()
    parts = {}
    for table in tables:
        better = owners[table.part].part(table.part).higher_is_better
        parts[f"{table.part}|{table.signature}"] = stats.Part(table.matrix, better is not False)
    if not parts:
        return {}
    compared = stats.compare_parts(
        parts,
        keys=[key_of(candidate) for candidate in candidates],
        row_keys=list(range(len(documents))),
        groups=groups,
        eligible=[not candidate.is_baseline and not candidate.problem for candidate in candidates],
        seed=experiment.seed,
    )
    return {(key.partition("|")[0], key.partition("|")[2]): found for key, found in compared.items()}


def _aggregates(candidates: list[Candidate], table: Table, found: stats.Comparison) -> list[Aggregate]:
    column = {candidate.pk: position for position, candidate in enumerate(candidates)}
    rows = []
    for standing in found.standings:
        pk = int(standing.key)
        values = table.matrix[:, column[pk]]
        present = values[~np.isnan(values)]
        rows.append(
            Aggregate(
                candidate_id=pk,
                part=table.part,
                signature_id=table.signature,
                mean=finite(standing.interval.mean),
                low=finite(standing.interval.low),
                high=finite(standing.interval.high),
                sd=finite(float(present.std(ddof=1))) if len(present) > 1 else None,
                method=standing.interval.method[:20],
                n=standing.n,
                n_groups=standing.groups,
                states=dict(table.states[pk]),
                digest=sha256(values.tobytes()).hexdigest(),
            )
        )
    return rows


def _of_the_corpus(experiment: Experiment, table: Table, groups: list[str | None] | None) -> Iterator[Aggregate]:
    """The value of all outputs together, from the sums of their counts; its interval by bootstrap of the groups, and
    none below BOOTSTRAP_LEAST of them, where the bootstrap is too narrow. An output that failed counts as empty."""
    corpus = part_owner()[table.part].corpus
    if corpus is None or corpus.of != table.part:
        return
    options = _options(experiment, part_owner()[table.part])
    for candidate, (rows, kept) in table.counts.items():
        order = np.argsort(rows)
        counts = np.array(kept, dtype=np.int64)[order]
        labels = None if groups is None else [groups[row] for row in np.array(rows)[order]]
        sums = resampling.by_group(counts.astype(float), labels).sums
        low = high = None
        if len(sums) >= BOOTSTRAP_LEAST:
            drawn = resampling.bootstrap_totals(sums, seed=experiment.seed)
            values = corpus.value(np.rint(drawn).astype(np.int64), options)
            low, high = (float(value) for value in np.percentile(values, [2.5, 97.5]))
        yield Aggregate(
            candidate_id=candidate,
            part=corpus.part.name,
            signature_id=table.signature,
            mean=finite(float(corpus.value(counts.sum(axis=0), options))),
            low=finite(low),
            high=finite(high),
            method="" if low is None else "bootstrap",
            n=len(rows),
            n_groups=len(sums),
            states=dict(table.states[candidate]),
            digest=sha256(counts.tobytes()).hexdigest(),
        )


def _options(experiment: Experiment, metric: Metric) -> dict[str, Any]:
    asked: dict[str, Any] = next(
        (frozen["options"] for frozen in experiment.metrics if frozen["name"] == metric.name), {}
    )
    return {**metric.defaults, **asked}


def _contrasts(experiment: Experiment, table: Table, found: stats.Comparison) -> list[Contrast]:
    rows = []
    for family, contrasts in (("leader", found.versus_reference), ("pairs", found.pairs)):
        for contrast in contrasts:
            rows.append(
                Contrast(
                    experiment=experiment,
                    a_id=int(contrast.a),
                    b_id=int(contrast.b),
                    part=table.part,
                    signature_id=table.signature,
                    family=family,
                    difference=finite(contrast.difference),
                    low=finite(contrast.low),
                    high=finite(contrast.high),
                    p=finite(contrast.p),
                    p_error=finite(contrast.mc_error),
                    p_holm=finite(contrast.p_holm),
                    verdict=contrast.verdict,
                    n=contrast.n,
                    win=contrast.win,
                    tie=contrast.tie,
                    loss=contrast.loss,
                    detectable=finite(contrast.detectable),
                )
            )
    return rows


def _summary(experiment: Experiment, candidate: Candidate) -> dict[str, Any]:
    """Answers, tokens, time and money of one candidate, over all its outcomes."""
    mine = Generation.objects.filter(candidate=candidate)
    counts = {status: count for status, count in mine.values_list("status").annotate(n=Count("pk"))}
    n = sum(counts.values())
    truncated = mine.filter(input_tokens__isnull=False, input_tokens_read__isnull=False)
    cut = truncated.filter(input_tokens_read__lt=F("input_tokens")).count()
    latencies = np.array(
        list(mine.filter(latency_ms__isnull=False, status="ok").values_list("latency_ms", flat=True)), dtype=float
    )
    tokens = mine.aggregate(
        out=Sum("output_tokens", filter=Q(latency_ms__isnull=False)),
        given=Sum("input_tokens"),
        ms=Sum("latency_ms", filter=Q(output_tokens__isnull=False)),
    )
    length = mine.filter(finish_reason="length").count()
    answered = stats.wilson(counts.get("ok", 0), n)
    return {
        "n": n,
        "states": counts,
        "answer_rate": counts.get("ok", 0) / n if n else None,
        "answer_rate_interval": [answered.low, answered.high],
        "truncated": cut,
        "truncated_rate": cut / truncated.count() if truncated.exists() else None,
        "cut_short": length,
        "reused": mine.filter(reused=True).count(),
        "latency_ms": {
            "p50": float(np.percentile(latencies, 50)) if len(latencies) else None,
            "p95": float(np.percentile(latencies, 95)) if len(latencies) else None,
        },
        "tokens_in": tokens["given"],
        "tokens_out": tokens["out"],
        "tokens_per_second": tokens["out"] / (tokens["ms"] / 1000) if tokens["out"] and tokens["ms"] else None,
        "cost_micro": cost_of(candidate),
    }


def cost_of(candidate: Candidate) -> int | None:
    """What the candidate's outputs cost in micro-dollars, those reused from an earlier run at what they cost then: 0
    for models that run here, None for one without a price."""
    if candidate.spec.get("privacy") == "local":
        return 0
    price = candidate.spec.get("price") or {}
    calls = Call.objects.filter(candidate=candidate).exclude(state=Call.State.RESERVED)
    reused = Generation.objects.filter(candidate=candidate, reused=True)
    if price.get("in") is None or price.get("out") is None:
        return None
    if calls.filter(cost_micro=None).exists() or reused.filter(cost_micro=None).exists():
        return None
    return sum(int(rows.aggregate(total=Sum("cost_micro"))["total"] or 0) for rows in (calls, reused))


def recomputed(aggregate: Aggregate) -> float | None:
    """The mean of the rows behind an aggregate, computed afresh: for `doctor` and the fault tests (I3)."""
    metric = part_owner().get(aggregate.part)
    if metric is None:  # an administrator's module that is registered no more
        return None
    described = metric.part(aggregate.part)
    rows = Signature.objects.filter(pk=aggregate.signature_id)
    if not rows.exists():
        return None
    from evaluations.models import Score

    if metric.corpus and metric.corpus.part is described:
        mine = Score.objects.filter(candidate=aggregate.candidate_id, part=metric.corpus.of)
        counted = mine.filter(signature=aggregate.signature_id, counts__isnull=False).values_list("counts", flat=True)
        totals = np.array(list(counted), dtype=np.int64).sum(axis=0)
        return float(metric.corpus.value(totals, _options(aggregate.candidate.experiment, metric)))
    values = []
    for value, state in Score.objects.filter(
        candidate=aggregate.candidate_id, part=aggregate.part, signature=aggregate.signature_id
    ).values_list("value", "state"):
        if state == "failed":
            value = described.worst
        if value is not None:
            values.append(value)
    return float(np.mean(values)) if values else None
