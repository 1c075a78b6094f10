"""Comparing is the one read behind the results page, the API, the command line and the notebook.

`comparison` gives the document of the public contract from aggregates only, so it costs the same for ten documents
and for a million. Nothing here computes a statistic: finalize did.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q, QuerySet
from django.utils import timezone

from datasets_app.models import Example
from evaluations import recommending, rescoring, states
from evaluations.metrics import Part, available, part_owner
from evaluations.models import (
    Aggregate,
    Candidate,
    Contrast,
    Experiment,
    Generation,
    Score,
    Signature,
    Worker,
    WorkUnit,
)

Document = dict[str, Any]


def comparison(experiment: Experiment, *, metric: str = "") -> Document:
    """The whole comparison, for `metric` (a part name; the primary metric when empty): `shapes` describes it.

    Candidates come best first on that metric. A number that was not computed is None, and `states` or `problem`
    say why. Raises KeyError for a part that this experiment does not have.
    """
    signatures = _signatures(experiment)
    primary = metric or experiment.primary_metric
    if metric and metric not in signatures:
        raise KeyError(metric)
    statistics = {part: experiment.statistics.get(part, {}).get(digest, {}) for part, digest in signatures.items()}
    told = statistics.get(primary, {})
    candidates = list(experiment.candidates.select_related("model"))
    aggregates = _aggregates(experiment, signatures)
    versus, pairs = _contrasts(experiment, signatures)
    rows = [_row(each, aggregates[each.pk], versus[each.pk], told) for each in candidates]
    rows.sort(key=_best_first(primary))
    document: Document = {
        "experiment": _experiment(experiment),
        "dataset": _dataset(experiment),
        "primary_metric": primary,
        "parts": [described(part) for part in signatures],
        "reference_candidate": told.get("leader"),
        "ranked": bool(told.get("ranked")),
        "detectable": told.get("detectable"),
        "candidates": rows,
        "pairs": pairs,
        "warnings": told.get("warnings", []),
        "rescored": rescoring.changes(experiment),
        "signature": {**told.get("signature", {}), "metrics": _signature_details(signatures)},
    }
    document["alarms"] = recommending.alarms(document)
    document["recommendation"] = recommending.recommendation(document)
    return document


def _signatures(experiment: Experiment) -> dict[str, str]:
    """{part: digest} in the order of the metrics: the signature that planning settled, where it has numbers (a
    metric that is being scored anew has none yet), else the one that most candidates have."""
    found = Aggregate.objects.filter(candidate__experiment=experiment).values_list("part", "signature")
    best: dict[str, tuple[int, str]] = {}
    for part, digest, n in found.annotate(n=Count("pk")):
        best[part] = max(best.get(part, (0, "")), (n, digest))
    settled = {(frozen["name"], frozen.get("signature")) for frozen in experiment.metrics}
    owners = part_owner()
    for part, digest in found.distinct():
        if part in owners and (owners[part].name, digest) in settled:
            best[part] = (0, digest)
    order = [part.name for frozen in experiment.metrics for part in _parts_of(frozen["name"])]
    return {part: best[part][1] for part in order if part in best}


def _parts_of(metric: str) -> tuple[Part, ...]:
    found = available().get(metric)
    return found.all_parts if found else ()


def described(name: str) -> Document:
    """A part in the words of the API. Raises KeyError."""
    part = part_owner()[name].part(name)
    return {
        "name": part.name,
        "label": part.label,
        "metric": part_owner()[name].name,
        "higher_is_better": part.higher_is_better,
        "low": part.low,
        "high": part.high,
        "about": part.about,
    }


def _aggregates(experiment: Experiment, signatures: dict[str, str]) -> dict[int, dict[str, Document]]:
    rows: dict[int, dict[str, Document]] = defaultdict(dict)
    for found in Aggregate.objects.filter(candidate__experiment=experiment, signature__in=signatures.values()):
        if signatures.get(found.part) == found.signature_id:
            rows[found.candidate_id][found.part] = {
                "mean": found.mean,
                "low": found.low,
                "high": found.high,
                "sd": found.sd,
                "n": found.n,
                "method": found.method,
                "states": found.states,
                "signature": found.signature_id,
            }
    return rows


def _contrasts(
    experiment: Experiment, signatures: dict[str, str]
) -> tuple[dict[int, dict[str, Document]], list[Document]]:
    versus: dict[int, dict[str, Document]] = defaultdict(dict)
    pairs: list[Document] = []
    for found in Contrast.objects.filter(experiment=experiment).order_by("id"):
        if signatures.get(found.part) != found.signature_id:
            continue
        told = {
            "difference": found.difference,
            "low": found.low,
            "high": found.high,
            "p": found.p,
            "p_error": found.p_error,
            "p_holm": found.p_holm,
            "verdict": found.verdict,
            "win": found.win,
            "tie": found.tie,
            "loss": found.loss,
            "n": found.n,
            "detectable": found.detectable,
        }
        if found.family == "leader":
            versus[found.b_id][found.part] = {"against": found.a_id, **told}
        else:
            pairs.append({"a": found.a_id, "b": found.b_id, "metric": found.part, **told})
    return versus, pairs


def _row(candidate: Candidate, metrics: dict[str, Document], versus: dict[str, Document], told: Document) -> Document:
    summary = candidate.summary
    n = summary.get("n", 0)
    was_made_elsewhere = candidate.spec.get("scheme") == "import"  # where, and at what price, nobody told us
    cost = None if was_made_elsewhere else summary.get("cost_micro")
    return {
        "candidate": candidate.pk,
        "label": candidate.label,
        "model": candidate.spec.get("uri", ""),
        "is_baseline": candidate.is_baseline,
        "uses_references": candidate.uses_references,
        "is_local": candidate.spec.get("privacy") == "local" and not was_made_elsewhere,
        "problem": candidate.problem,
        "n": n,
        "states": {state: summary.get("states", {}).get(state, 0) for state in ("ok", "error", "refused", "empty")},
        "metrics": metrics,
        "answer_rate": summary.get("answer_rate"),
        "reused": summary.get("reused", 0),
        "truncated": summary.get("truncated"),
        "truncated_rate": summary.get("truncated_rate"),
        "latency_ms": summary.get("latency_ms", {"p50": None, "p95": None}),
        "tokens_per_second": summary.get("tokens_per_second"),
        "cost_usd": None if cost is None else cost / 1_000_000,
        "cost_per_1000_usd": None if cost is None or not n else cost / 1000 / n,
        "best_group": bool(told.get("ranked")) and candidate.pk in told["best_group"],
        "p_best": told.get("p_best", {}).get(str(candidate.pk)),
        "rank": told.get("ranks", {}).get(str(candidate.pk)),
        "versus_leader": versus,
    }


def _best_first(primary: str) -> Any:
    owner = part_owner().get(primary)
    sign = 1 if owner and owner.part(primary).higher_is_better is False else -1

    def key(row: Document) -> tuple[bool, float, str]:
        mean = (row["metrics"].get(primary) or {}).get("mean")
        return (mean is None, sign * (mean or 0.0), row["label"])

    return key


def _experiment(experiment: Experiment) -> Document:
    return {
        "id": experiment.pk,
        "name": experiment.name,
        "state": experiment.state,
        "task": experiment.task,
        "primary_metric": experiment.primary_metric,
        "margin": experiment.margin,
        "gates": experiment.gates,
        "n": experiment.n_examples,
        "sample_n": experiment.sample_n,
        "seed": experiment.seed,
        "budget_usd": None if experiment.budget_micro is None else experiment.budget_micro / 1_000_000,
        "spent_usd": experiment.spent_micro / 1_000_000,
        "created_at": experiment.created_at.isoformat(),
        "finished_at": experiment.finished_at.isoformat() if experiment.finished_at else None,
    }


def _dataset(experiment: Experiment) -> Document:
    dataset = experiment.dataset
    return {
        "id": dataset.pk,
        "name": dataset.name,
        "sha256": dataset.sha256,
        "n_examples": dataset.n_examples,
        "n_with_reference": dataset.n_with_reference,
    }


def _signature_details(signatures: dict[str, str]) -> dict[str, Document]:
    found = Signature.objects.in_bulk(list(signatures.values()))
    return {digest: found[digest].detail for digest in dict.fromkeys(signatures.values()) if digest in found}


# --- progress -------------------------------------------------------------------------------------------------------


def progress(experiment: Experiment) -> Document:
    """How far the experiment is, from the counts of its units: cheap whatever its size.

    `done` and `total` count outcomes plus score slices as units of work, so that the bar moves to the very end.
    """
    experiment.refresh_from_db()
    units = WorkUnit.objects.filter(experiment=experiment, round=experiment.round).exclude(state="split")
    total = done = unscored = 0
    per: dict[int, Counter[str]] = defaultdict(Counter)
    kinds = set()
    for kind, state, candidate, size, count in units.values_list("kind", "state", "candidate", "indexes__len").annotate(
        n=Count("pk")
    ):
        work = (size or 1) * count
        total += work
        done += work if state not in states.OPEN_UNITS else 0
        kinds.add(kind)
        if candidate and kind == "generate":
            per[candidate]["total"] += work
            per[candidate]["done"] += work if state == "done" else 0
            unscored += work if state in states.OPEN_UNITS else 0
    for candidate, count in _inside(experiment):
        per[candidate]["done"] += count
        done += count
    is_final = experiment.has_ended
    total += unscored * len(experiment.metrics)
    total += bool(kinds) and not is_final and "finalize" not in kinds
    elapsed = _seconds_since(experiment.started_at, experiment.finished_at)
    # The rate is that of this round: the first start may have been days ago.
    planned_at = units.filter(kind="plan").values_list("created_at", flat=True).first()
    working = _seconds_since(planned_at) if experiment.state == "running" else 0.0
    return {
        "state": experiment.state,
        "label": experiment.look.label,
        "tone": experiment.look.tone,
        "is_final": is_final,
        "done": done,
        "total": total,
        "percent": 100.0 if is_final else (100.0 * done / total if total else 0.0),
        "eta_seconds": working * (total - done) / done if working and done else None,
        "elapsed_seconds": elapsed,
        "spent_usd": experiment.spent_micro / 1_000_000,
        "reserved_usd": experiment.reserved_micro / 1_000_000,
        "pause_reason": experiment.pause_reason,
        "problem": experiment.problem,
        "candidates": _candidate_progress(experiment, per),
        "workers_alive": workers_alive(),
    }


def _inside(experiment: Experiment) -> list[tuple[int, int]]:
    """[(candidate, outcomes inside the slices that are being worked on)]. From the slice to its documents to their
    outcomes, each by its index: the outcomes themselves are not indexed by slice."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT unit.candidate_id, count(*) FROM evaluations_workunit unit
            JOIN datasets_example example ON example.dataset_id = %s AND example.index = ANY(unit.indexes)
            JOIN evaluations_generation made ON made.candidate_id = unit.candidate_id AND made.example_id = example.id
            WHERE unit.experiment_id = %s AND unit.round = %s AND unit.kind = 'generate' AND unit.state = 'leased'
            GROUP BY unit.candidate_id
            """,
            [experiment.dataset_id, experiment.pk, experiment.round],
        )
        return cursor.fetchall()


def _seconds_since(began: datetime | None, ended: datetime | None = None) -> float:
    return ((ended or timezone.now()) - began).total_seconds() if began else 0.0


def _candidate_progress(experiment: Experiment, per: dict[int, Counter[str]]) -> list[Document]:
    errors = dict(
        Generation.objects.filter(candidate__experiment=experiment, status="error")
        .values_list("candidate")
        .annotate(n=Count("pk"))
    )
    return [
        {
            "id": candidate.pk,
            "label": candidate.label,
            "done": per[candidate.pk]["done"],
            "total": per[candidate.pk]["total"],
            "errors": errors.get(candidate.pk, 0),
            "problem": candidate.problem,
        }
        for candidate in experiment.candidates.all()
    ]


def workers_alive() -> int:
    """How many worker processes gave a sign of life in the last half minute."""
    return Worker.objects.alive().count()


def is_served(experiment: Experiment) -> bool:
    """Whether workers are alive for every queue that the experiment needs."""
    needed = {"cpu", *experiment.candidates.values_list("queue", flat=True)}
    alive = Worker.objects.alive().values_list("queues", flat=True)
    return needed <= {queue for queues in alive for queue in queues}


# --- examples -------------------------------------------------------------------------------------------------------


def examples(
    experiment: Experiment,
    *,
    sort: str = "spread",
    order: str = "desc",
    after: str = "",
    metric: str = "",
    size: int = 50,
) -> Document:
    """A page of documents with every candidate's score on one metric. `sort`: "index", "spread" (the largest
    disagreement between candidates) or the id of a candidate (its score). `after` continues where a page ended.
    Raises ValueError for another sort or a broken `after`."""
    part = metric or experiment.primary_metric
    digest = _signatures(experiment).get(part)
    candidates = list(experiment.candidates.all())
    scores = Score.objects.filter(candidate__in=candidates, part=part, signature=digest)
    descending = order != "asc"
    keyed: Any
    if sort == "index" or digest is None:
        keyed = _taking_part(experiment).values("index", example_id=F("pk")).annotate(value=F("index"))
        descending = order == "desc" and sort == "index"
    elif sort == "spread":
        keyed = scores.values("example_id", index=F("example__index")).annotate(value=Max("value") - Min("value"))
    elif sort.isdigit() and int(sort) in {candidate.pk for candidate in candidates}:
        keyed = scores.filter(candidate=int(sort)).values("example_id", "value", index=F("example__index"))
    else:
        raise ValueError(f"cannot sort by {sort!r}: use index, spread or the id of a candidate")
    keyed = keyed.filter(value__isnull=False)
    if after:
        keyed = keyed.filter(_beyond(after, descending))
    direction = "-" if descending else ""
    page = list(keyed.order_by(f"{direction}value", "index")[: size + 1])
    more, page = len(page) > size, page[:size]
    return {
        "metric": part,
        "sort": sort,
        "order": "desc" if descending else "asc",
        "rows": _example_rows(candidates, scores, page),
        "next": f"{page[-1]['value']!r}:{page[-1]['index']}" if more and page else "",
    }


def _taking_part(experiment: Experiment) -> QuerySet[Example]:
    """The documents that any candidate has an outcome for: a question to each, so that a page stops at its end."""
    outcomes = Generation.objects.filter(example=OuterRef("pk"), candidate__experiment=experiment)
    return Example.objects.filter(Exists(outcomes), dataset=experiment.dataset_id)


def _beyond(after: str, descending: bool) -> Q:
    value, _, index = after.rpartition(":")
    try:
        edge, position = float(value), int(index)
        if not math.isfinite(edge):  # no score is, and an index cannot be compared with it
            raise ValueError
    except ValueError:
        raise ValueError(f"{after[:60]!r} is not a place in this list: start from its beginning") from None
    further = Q(value__lt=edge) if descending else Q(value__gt=edge)
    return further | Q(value=edge, index__gt=position)


def _example_rows(candidates: list[Candidate], scores: Any, page: list[Document]) -> list[Document]:
    wanted = [row["example_id"] for row in page]
    found = Example.objects.in_bulk(wanted)
    values: dict[int, dict[int, float | None]] = defaultdict(dict)
    for candidate, example, value in scores.filter(example__in=wanted).values_list("candidate", "example", "value"):
        values[example][candidate] = value
    rows = []
    for row in page:
        example = found[row["example_id"]]
        mine = [value for value in values[example.pk].values() if value is not None]
        rows.append(
            {
                "index": example.index,
                "label": example.label,
                "snippet": " ".join(example.source[:400].split())[:160],
                "spread": max(mine) - min(mine) if mine else None,
                "scores": {candidate.pk: values[example.pk].get(candidate.pk) for candidate in candidates},
            }
        )
    return rows


def example(experiment: Experiment, index: int) -> Document:
    """One document with everything every candidate made of it. Raises Example.DoesNotExist."""
    found = Example.objects.get(dataset=experiment.dataset_id, index=index)
    signatures = _signatures(experiment)
    scores: dict[int, dict[str, Document]] = defaultdict(dict)
    for row in Score.objects.filter(candidate__experiment=experiment, example=found):
        if signatures.get(row.part) == row.signature_id:
            scores[row.candidate_id][row.part] = {"value": row.value, "state": row.state, "reason": row.reason}
    made = {
        each.candidate_id: each for each in Generation.objects.filter(candidate__experiment=experiment, example=found)
    }
    outputs = [
        _output(candidate, made.get(candidate.pk), scores[candidate.pk]) for candidate in experiment.candidates.all()
    ]
    taking_part = _taking_part(experiment).values_list("index", flat=True)
    return {
        "example": {**found.as_dict(), "label": found.label},
        "outputs": outputs,
        "previous": taking_part.filter(index__lt=index).order_by("-index").first(),
        "next": taking_part.filter(index__gt=index).order_by("index").first(),
    }


def _output(candidate: Candidate, made: Generation | None, scores: dict[str, Document]) -> Document:
    known = {
        "candidate": candidate.pk,
        "label": candidate.label,
        "is_baseline": candidate.is_baseline,
        "scores": scores,
    }
    if made is None:
        return {**known, "status": "missing", "text": "", "error": candidate.problem or "no outcome yet"}
    return {
        **known,
        "status": made.status,
        "text": made.text,
        "reasoning": made.reasoning,
        "error": made.error,
        "error_code": made.error_code,
        "finish_reason": made.finish_reason,
        "input_tokens": made.input_tokens,
        "input_tokens_read": made.input_tokens_read,
        "output_tokens": made.output_tokens,
        "latency_ms": made.latency_ms,
        "cost_usd": None if made.cost_micro is None else made.cost_micro / 1_000_000,
    }
