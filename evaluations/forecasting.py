"""Forecasting says what an experiment will take before it starts: calls, tokens, money, and what n can show.

Estimates are called estimates and say what they rest on; the money is a bound (`billing.worst_case_micro` summed
over the documents), so a budget above it never pauses the run for want of money, retries aside. STATISTICS §2 for
the detectable difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from django.db.models import Count, Func, IntegerField, Q, QuerySet, Sum
from django.db.models.functions import Length

from datasets_app.models import Example
from evaluations import metrics, stats, tasks
from evaluations.metrics import part_owner
from evaluations.models import Candidate, Experiment, Generation
from evaluations.planning import DEFAULT_NEW_TOKENS, sample_of
from evaluations.prompting import CHARACTERS_PER_TOKEN
from models_registry import choosing
from models_registry.models import ModelEntry
from models_registry.pricing import cost_micro
from models_registry.providers import ProviderError, serving
from models_registry.shortening import most_of_all_documents

Document = dict[str, Any]
TYPICAL_SD = 0.10
"""The usual SD of the paired differences of ROUGE scores (STATISTICS §2); only the run measures the real one."""
MEASURED = 5000
"""At most this many documents are read to estimate lengths: counting characters means unpacking each text."""
CALL_BYTES = 64
"""What a chat format adds to a document, at most: as in `billing.worst_case_micro`."""
FEW = 30


@dataclass(frozen=True)
class _Sizes:
    """The documents that take part: how many, with a reference, independent units, bytes in all, and the lengths in
    characters of those that were measured."""

    n: int
    n_with_reference: int
    units: int
    bytes: int
    characters: np.ndarray[Any, Any]

    @property
    def scale(self) -> float:
        return self.n / len(self.characters) if len(self.characters) else 0.0


def forecast(experiment: Experiment) -> Document:
    """The plan of an experiment, from a handful of queries however many candidates there are. What cannot be known is
    None, and a sentence beside it says why."""
    sizes = _measure(experiment)
    candidates = list(experiment.candidates.select_related("model", "experiment"))
    done = dict(
        Generation.objects.filter(candidate__experiment=experiment).values_list("candidate").annotate(n=Count("pk"))
    )
    ready = _readiness(experiment, candidates)
    rows = [_row(each, sizes, done.get(each.pk, 0), ready[each.pk]) for each in candidates]
    costs = [row["worst_case_cost_usd"] for row in rows]
    total = None if None in costs else sum(costs)
    budget = None if experiment.budget_micro is None else experiment.budget_micro / 1_000_000
    scored_by = [_metric(frozen, sizes) for frozen in experiment.metrics]
    return {
        "documents": sizes.n,
        "documents_with_reference": sizes.n_with_reference,
        "units": sizes.units,
        "calls": sum(row["calls"] for row in rows),
        "input_tokens": sum(row["input_tokens"] for row in rows),
        "estimate": _basis(sizes),
        "worst_case_cost_usd": total,
        "unpriced": [row["label"] for row, cost in zip(rows, costs, strict=True) if cost is None],
        "budget_usd": budget,
        "fits_budget": None if budget is None or total is None else total <= budget,
        "seconds": None,
        "seconds_reason": "Not estimated before the start: it depends on the workers. progress/ tells it later.",
        "detectable": _detectable(experiment, sizes),
        "candidates": rows,
        "metrics": scored_by,
        "cannot_run": [f"{row['label']}: {row['why']}" for row in rows if not row["can_run"]]
        + [f"{each['name']}: {each['why']}" for each in scored_by if not each["can_run"]],
        "caveats": _caveats(experiment, sizes, rows),
    }


# --- the documents --------------------------------------------------------------------------------------------------


class _Octets(Func):
    """The bytes of a text in the database's UTF-8. PostgreSQL knows them without unpacking the text."""

    function = "OCTET_LENGTH"
    output_field = IntegerField()


def _measure(experiment: Experiment) -> _Sizes:
    dataset = experiment.dataset
    taking_part = Example.objects.filter(dataset=dataset)
    n = dataset.n_examples
    if experiment.sample_n and experiment.sample_n < n:
        chosen = sample_of(experiment)
        n = len(chosen)
        taking_part = taking_part.filter(index__in=chosen.tolist())
        measured = taking_part.filter(index__in=_spread(chosen)) if n > MEASURED else taking_part
    else:
        measured = taking_part.filter(index__in=_spread(np.arange(n))) if n > MEASURED else taking_part
    found = taking_part.aggregate(bytes=Sum(_Octets("source")), referenced=Count("pk", filter=Q(references__len__gt=0)))
    characters = np.fromiter(measured.annotate(size=Length("source")).values_list("size", flat=True), dtype=float)
    return _Sizes(n, found["referenced"], _units(experiment, taking_part, n), found["bytes"] or 0, characters)


def _spread(indexes: np.ndarray[Any, Any]) -> list[int]:
    places = np.linspace(0, len(indexes) - 1, MEASURED).astype(int)
    return [int(index) for index in np.unique(indexes[places])]


def _units(experiment: Experiment, taking_part: QuerySet[Example], n: int) -> int:
    """How many independent units there are: groups where the dataset has them, else documents."""
    if not experiment.dataset.columns.get("group"):
        return n
    found = taking_part.aggregate(
        groups=Count("group", distinct=True, filter=~Q(group="")), alone=Count("pk", filter=Q(group=""))
    )
    return found["groups"] + found["alone"]


def _basis(sizes: _Sizes) -> str:
    said = f"Tokens are estimated as characters divided by {CHARACTERS_PER_TOKEN}"
    if len(sizes.characters) < sizes.n:
        said += f", from {len(sizes.characters):,} of {sizes.n:,} documents"
    return f"{said}; each model counts its own when it runs."


# --- the candidates -------------------------------------------------------------------------------------------------


def _readiness(experiment: Experiment, candidates: list[Candidate]) -> dict[int, choosing.Readiness]:
    """{candidate: whether its model can run here and now}."""
    entries: dict[int, ModelEntry] = {}
    broken: dict[int, choosing.Readiness] = {}
    for candidate in candidates:
        try:
            entries[candidate.pk] = candidate.model or choosing.entry_of_uri(experiment.team, candidate.spec["uri"])
        except ProviderError as exc:
            broken[candidate.pk] = choosing.Readiness(False, "no provider", str(exc), "bad")
    told = choosing.readiness_of_all(experiment.team, entries.values())
    return dict(zip(entries, told, strict=True)) | broken


def _row(candidate: Candidate, sizes: _Sizes, done: int, ready: choosing.Readiness) -> Document:
    spec = candidate.spec
    calls = max(0, sizes.n - done)
    template = _without_document(spec.get("prompt") or "")
    most_out = _most_output_tokens(spec)
    tokens = np.ceil((sizes.characters + len(template)) / CHARACTERS_PER_TOKEN)
    window, beyond = _beyond_window(candidate, tokens, most_out, sizes.scale)
    cost = _worst_case_usd(spec, sizes, calls, template, most_out)
    return {
        "id": candidate.pk,
        "label": candidate.label,
        "calls": calls,
        "input_tokens": round(float(tokens.mean()) * calls) if len(tokens) else 0,
        "output_tokens_at_most": most_out * calls,
        "worst_case_cost_usd": cost,
        "cost_reason": "" if cost is not None else "This model is unpriced: enter its price in the registry.",
        "window": window,
        "documents_beyond_window": beyond,
        "can_run": ready.can_run or not calls,
        "why": "" if ready.can_run or not calls else ready.words,
    }


def _without_document(prompt: str) -> str:
    return prompt.replace(tasks.PLACEHOLDER, "", 1)


def _most_output_tokens(spec: Document) -> int:
    return int((spec.get("generation") or {}).get("max_new_tokens") or DEFAULT_NEW_TOKENS)


def _beyond_window(
    candidate: Candidate, tokens: np.ndarray[Any, Any], most_out: int, scale: float
) -> tuple[int | None, int | None]:
    """(window in tokens, estimated number of documents that do not fit into it); None for what is not known.

    A causal model writes into the same window that it reads from. Providers that run inline read every text whole.
    """
    try:
        if serving(candidate.spec["scheme"]).place == "inline":
            return None, 0
    except ProviderError:
        return None, None
    window = candidate.spec.get("window")
    if not window:
        return None, None
    room = window if candidate.spec.get("architecture") == "seq2seq" else window - most_out
    return window, round(int((tokens > room).sum()) * scale)


def _worst_case_usd(spec: Document, sizes: _Sizes, calls: int, template: str, most_out: int) -> float | None:
    """The most that one answer a document can cost; None when unpriced. Each call is rounded up by itself, hence one
    micro-dollar more for each."""
    if not calls or spec.get("privacy") == ModelEntry.Privacy.LOCAL:
        return 0.0
    price = spec.get("price") or {}
    made, read, written = sizes.n, sizes.bytes + sizes.n * (len(template.encode()) + CALL_BYTES), sizes.n * most_out
    if spec.get("long_documents"):
        around_it = len(template.encode()) + CALL_BYTES
        made, read, written = most_of_all_documents(sizes.n, sizes.bytes, around_it, spec)
    bound = cost_micro(read, 0, written, price.get("in"), price.get("out"))
    return None if bound is None else (bound + max(calls, made)) / 1_000_000


# --- what it can show -----------------------------------------------------------------------------------------------


def _metric(frozen: Document, sizes: _Sizes) -> Document:
    metric = metrics.available().get(frozen["name"])
    if metric is None:
        why, documents = "this installation no longer has it", 0
    else:
        why = metric.available({**metric.defaults, **frozen["options"]})
        documents = sizes.n_with_reference if metric.needs_reference else sizes.n
    return {"name": frozen["name"], "can_run": not why, "why": why, "documents": documents}


def _detectable(experiment: Experiment, sizes: _Sizes) -> Document:
    """{difference, n, sd, metric, assumption}; where no typical SD is known `difference` is None."""
    owner = part_owner().get(experiment.primary_metric)
    n = sizes.units
    if owner and owner.needs_reference and sizes.n_with_reference < sizes.n:
        n = min(n, sizes.n_with_reference)
    told: Document = {"difference": None, "n": n, "sd": None, "metric": experiment.primary_metric}
    part = owner.part(experiment.primary_metric) if owner else None
    if part is None or part.higher_is_better is None or (part.low, part.high) != (0.0, 1.0):
        return told | {"assumption": "No typical spread is known for this metric; the run measures it."}
    if not n:
        return told | {"assumption": "No document has what this metric needs."}
    return told | {
        "difference": stats.mde(TYPICAL_SD, n),
        "sd": TYPICAL_SD,
        "assumption": f"Assumes the typical SD of paired differences, {TYPICAL_SD:.2f}, 80 % power and alpha 0.05; "
        "the run measures the real one.",
    }


def _caveats(experiment: Experiment, sizes: _Sizes, rows: list[Document]) -> list[str]:
    said = []
    if not rows:
        said.append("There is no candidate yet: add a model, or outputs made elsewhere.")
    if sizes.units < FEW:
        said.append(f"{sizes.units} independent documents are too few to rank models: {FEW} allow a first ranking.")
    for row in rows:
        if row["documents_beyond_window"]:
            said.append(
                f"{row['label']} will probably not read {row['documents_beyond_window']:,} of {sizes.n:,} documents to "
                f"their end: its window has {row['window']:,} tokens."
            )
    return said
