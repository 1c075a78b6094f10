"""Comparing is the one read behind the results page, the API, the command line and the notebook.

`comparison` gives the document of the public contract from aggregates only, so it costs the same for ten documents
and for a million. Nothing here computes a statistic: finalize did.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Count
from django.utils import timezone

from evaluations import alarming, deciding, reading_metrics, recommending, rescoring, states
from evaluations.metrics import Part, available, part_owner
from evaluations.models import (
    Aggregate,
    Candidate,
    Contrast,
    Experiment,
    Generation,
    Signature,
    Worker,
    WorkUnit,
)

Document = dict[str, Any]


def comparison(experiment: Experiment, *, metric: str = "", against: int | None = None) -> Document:
    """The whole comparison, for `metric` (a part name; the primary metric when empty): `shapes` describes it.

    Candidates come best first on that metric. `against` is the candidate that the others are held against in
    `versus_reference` and `non_inferiority`; by default the leader. A number that was not computed is None, and
    `states` or `problem` say why. Raises KeyError for a part, ValueError for a candidate that this experiment does
    not have.
    """
    signatures = signatures_of(experiment)
    primary = metric or experiment.primary_metric
    if metric and metric not in signatures:
        raise KeyError(metric)
    statistics = {part: experiment.statistics.get(part, {}).get(digest, {}) for part, digest in signatures.items()}
    told = statistics.get(primary, {})
    candidates = list(experiment.candidates.select_related("model"))
    aggregates = _aggregates(experiment, signatures)
    if against is not None and against not in {candidate.pk for candidate in candidates}:
        raise ValueError(f"experiment {experiment.pk} has no candidate {against}")
    versus, pairs = _contrasts(experiment, signatures)
    rows = [_row(each, aggregates[each.pk], versus[each.pk], told) for each in candidates]
    rows.sort(key=_best_first(primary))
    document: Document = {
        "experiment": _experiment(experiment),
        "dataset": _dataset(experiment),
        "primary_metric": primary,
        "parts": [described(part) for part in signatures],
        "leader": told.get("leader"),
        "reference_candidate": told.get("leader") if against is None else against,
        "ranked": bool(told.get("ranked")),
        "detectable": told.get("detectable"),
        "candidates": rows,
        "pairs": pairs,
        "warnings": told.get("warnings", []),
        "bounds": statistics.get(experiment.primary_metric, {}).get("bounds", []),
        "distribution": told.get("distribution") or None,
        "slices": _slices(statistics.get(experiment.primary_metric, {}).get("slices")),
        "rescored": rescoring.changes(experiment),
        "signature": {**told.get("signature", {}), "metrics": _signature_details(signatures)},
    }
    _hold_against(document)
    if matters := deciding.contrast_that_matters(document):
        document["detectable"] = matters["detectable"] or document["detectable"]
    document["gates"] = deciding.gates(document)
    document["baseline_check"] = deciding.baseline_check(document)
    several = len(experiment.dataset.columns.get("references") or ()) > 1
    document["readings"] = reading_metrics.readings(
        document, statistics, experiment.metrics, several_references=several
    )
    document["alarms"] = alarming.alarms(document)
    document["recommendation"] = recommending.recommendation(document)
    return document


def _hold_against(document: Document) -> None:
    """Give every row its contrast with the reference candidate, and whether it may replace it at the margin."""
    reference = next(
        (row for row in document["candidates"] if row["candidate"] == document["reference_candidate"]), None
    )
    for row in document["candidates"]:
        row["versus_reference"] = row["non_inferiority"] = None
        if reference is None or row is reference:
            continue
        told = row["versus_leader"].get(document["primary_metric"])
        if document["reference_candidate"] != document["leader"] or told is None:
            found = deciding.pair_of(document, row, reference)
            told = None if found is None else {"against": found["a"], **_without(found, "a", "b", "metric")}
        row["versus_reference"] = told
        row["non_inferiority"] = deciding.non_inferiority(document, row, reference)


def _without(told: Mapping[str, Any], *names: str) -> Document:
    return {name: value for name, value in told.items() if name not in names}


CELL = {"difference": None, "low": None, "high": None, "p": None, "q": None, "verdict": None}


def _slices(told: Document | None) -> Document:
    """{left_out[], rows[{key, kind, label, n, groups, cells[{candidate, mean, n, difference, …}]}]}: exploratory."""
    if not told:
        return {"left_out": [], "rows": []}
    rows = [
        _without(row, "where", "cells")
        | {"cells": [{"candidate": int(pk), **CELL, **cell} for pk, cell in row["cells"].items()]}
        for row in told["rows"]
    ]
    return {"left_out": told["left_out"], "rows": rows}


def signatures_of(experiment: Experiment) -> dict[str, str]:
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
        "languages": list(part_owner()[name].languages),
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
        "answer_rate_interval": summary.get("answer_rate_interval"),
        "alike": summary.get("alike", []),
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
        "front": {name: told.get("front", {}).get(name, {}).get(str(candidate.pk)) for name in ("cost", "latency")},
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
        "language": _language(dataset.profile),
    }


def _language(profile: Document) -> str:
    """The language of at least half of the documents that the profile looked at (ISO 639-1); "" where none is."""
    told = profile.get("languages") or {}
    return next((each["code"] for each in told.get("found", []) if 2 * each["n"] >= told["n_examined"]), "")


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
