"""Deciding applies the rules of STATISTICS §4 to a comparison document. PURE: numbers in, a choice out, no sentences.

Hard gates first, then the group that cannot be told from the best; of it those that answer, that no baseline beats and
that are proven to be at most the margin worse where one was set; among them the cheapest, then the fastest, then the
local one. Nobody is chosen where nobody is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evaluations.significance import judged

Document = Mapping[str, Any]
ANSWER_RATE = 0.9
FEW_UNITS = 10


@dataclass(frozen=True)
class Choice:
    """Who was left after each rule. `scored` are the models with a value, `leading` the best group, `tied` those of it
    that pass the gates, `passing` those that answer, `worthy` those that no baseline beats, `fit` those of them that
    are non-inferior to the best of them (all, without a margin). `chosen` is None where nobody is left."""

    scored: list[Document]
    leading: list[Document]
    tied: list[Document]
    passing: list[Document]
    worthy: list[Document]
    fit: list[Document]
    chosen: Document | None


def choose(document: Document) -> Choice:
    """Apply the rules on the part that `document` is about. The documents must allow a ranking."""
    primary = document["primary_metric"]
    scored = [row for row in document["candidates"] if not row["is_baseline"] and mean_of(row, primary) is not None]
    leading = [row for row in scored if row["best_group"]]
    tied = [row for row in leading if not gate_failures(document, row)]
    passing = [row for row in tied if answers(row)]
    worthy = [row for row in passing if not beaten_by(document, row)]
    fit = _non_inferior(document, worthy)
    chosen = min(fit, key=preference(document)) if fit else None
    return Choice(scored, leading, tied, passing, worthy, fit, chosen)


def _non_inferior(document: Document, worthy: list[Document]) -> list[Document]:
    margin = margin_of(document)
    if margin is None or not worthy:
        return worthy
    anchor = best(document, worthy)
    return [row for row in worthy if row is anchor or is_non_inferior(document, row, anchor)]


# --- non-inferiority ------------------------------------------------------------------------------------------------


def margin_of(document: Document) -> float | None:
    """The margin, where one was set for the part that `document` is about."""
    experiment = document["experiment"]
    margin: float | None = experiment.get("margin")
    return margin if document["primary_metric"] == experiment.get("primary_metric") else None


def non_inferiority(document: Document, row: Document, other: Document) -> dict[str, Any] | None:
    """May `row` replace `other`? {margin, bound, verdict, n_needed, against, reason}; None without a margin.

    `bound` is the one-sided 95 % limit of how much worse it may be, negative is worse; `verdict` is "non-inferior",
    "worse" (by more than the margin) or "inconclusive", and `n_needed` the units that would probably prove it.
    """
    margin = margin_of(document)
    if margin is None or row["candidate"] == other["candidate"]:
        return None
    told: dict[str, Any] = {"margin": margin, "against": other["candidate"], "bound": None, "n_needed": None}
    found = _bounds(document, row["candidate"], other["candidate"])
    if not document.get("bounds"):
        return told | {"verdict": "inconclusive", "reason": "no bounds were kept: start the experiment to compute them"}
    if found is None or found["groups"] < FEW_UNITS:
        return told | {"verdict": "inconclusive", "reason": f"fewer than {FEW_UNITS} documents that both have"}
    difference, lower, upper = found["difference"], found["lower"], found["upper"]
    if not higher_is_better(document):
        difference, lower, upper = -difference, -upper, -lower
    verdict = judged(margin, difference, lower, upper, sd=found["sd"], units=found["groups"])
    return told | {
        "bound": verdict.bound,
        "n_needed": verdict.n_needed,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
    }


def is_non_inferior(document: Document, row: Document, other: Document) -> bool:
    told = non_inferiority(document, row, other)
    return told is not None and told["verdict"] == "non-inferior"


def _bounds(document: Document, b: Any, a: Any) -> dict[str, Any] | None:
    """{difference, lower, upper, sd, groups} of b - a."""
    for told in document.get("bounds") or ():
        if (told["a"], told["b"]) == (a, b):
            return dict(told)
        if (told["a"], told["b"]) == (b, a):
            turned = {"difference": -told["difference"], "lower": -told["upper"], "upper": -told["lower"]}
            return {**told, **turned}
    return None


def higher_is_better(document: Document) -> bool:
    name = document["primary_metric"]
    return not any(part["name"] == name and part.get("higher_is_better") is False for part in document["parts"])


# --- gates ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gate:
    """A condition on a row: `label` with its limit, `why` it fails, `value` that is looked at, whether it `passes`."""

    label: str
    why: str
    value: Callable[[Document], Any]
    passes: Callable[[Any, Any], bool]
    unit: str


GATES: dict[str, Gate] = {
    "local_only": Gate(
        "stays on this installation", "documents would leave this installation",
        lambda row: row["is_local"], lambda value, wanted: not wanted or value, "",
    ),
    "min_answer_rate": Gate(
        "answers at least", "it answers too rarely",
        lambda row: row["answer_rate"], lambda value, least: value is not None and value >= least, "share",
    ),
    "max_truncated_rate": Gate(
        "cuts at most", "it cuts too many documents, or how many is not known",
        lambda row: row["truncated_rate"], lambda value, most: value is not None and value <= most, "share",
    ),
    "max_latency_ms": Gate(
        "95 % of answers within", "its slowest answers take too long, or their time is not known",
        lambda row: row["latency_ms"]["p95"], lambda value, most: value is not None and value <= most, "ms",
    ),
    "max_cost_per_1000_usd": Gate(
        "per 1,000 documents at most", "it costs too much, or its price is not known",
        lambda row: row["cost_per_1000_usd"], lambda value, most: value is not None and value <= most, "usd",
    ),
}  # fmt: skip


def gate_failures(document: Document, row: Document) -> list[str]:
    """Why this candidate may not be chosen under the gates that were set before the start, in words. A gate about a
    figure that is not known (an unpriced model under a price cap) is failed: what was asked for is not shown."""
    gates = document["experiment"].get("gates") or {}
    return [
        GATES[name].why
        for name, wanted in gates.items()
        if name in GATES and not GATES[name].passes(GATES[name].value(row), wanted)
    ]


def gates(document: Document) -> list[dict[str, Any]]:
    """Every gate with what each model shows: [{name, label, unit, wanted, is_default, results[{candidate, value,
    passes}]}]. That a model answers nine times in ten is always asked for."""
    wished = dict(document["experiment"].get("gates") or {})
    least = wished.get("min_answer_rate", 0.0)
    if least < ANSWER_RATE:
        wished.pop("min_answer_rate", None)
    asked = {**wished, "min_answer_rate": max(least, ANSWER_RATE)}
    models = [row for row in document["candidates"] if not row["is_baseline"]]
    return [
        {
            "name": name,
            "label": gate.label,
            "unit": gate.unit,
            "wanted": asked[name],
            "is_default": name not in wished,
            "results": [
                {
                    "candidate": row["candidate"],
                    "value": gate.value(row),
                    "passes": bool(gate.passes(gate.value(row), asked[name])),
                }
                for row in models
            ],
        }
        for name, gate in GATES.items()
        if name in asked
    ]


def answers(row: Document) -> bool:
    return (row["answer_rate"] or 0.0) >= ANSWER_RATE


# --- baselines ------------------------------------------------------------------------------------------------------


def plain_baselines(document: Document) -> list[Document]:
    """The baselines with a value that are no upper bound: the oracle sees the references, a fair rival does not."""
    rows = [row for row in document["candidates"] if row["is_baseline"] and not row["uses_references"]]
    return [row for row in rows if mean_of(row, document["primary_metric"]) is not None]


def beaten_by(document: Document, row: Document) -> list[Document]:
    """The baselines that are clearly better than this model."""
    return [each for each in plain_baselines(document) if verdict_about(document, row, each) == "worse"]


def baseline_check(document: Document) -> dict[str, Any]:
    """{baseline, rows[{candidate, verdict, difference, low, high, n}]}: every model against the best plain baseline;
    {baseline: None, rows: []} where there is none."""
    rivals = plain_baselines(document)
    if not rivals:
        return {"baseline": None, "rows": []}
    baseline = best(document, rivals)
    rows = []
    for row in document["candidates"]:
        told = None if row["is_baseline"] else pair_of(document, row, baseline)
        if told:
            figures = {name: told.get(name) for name in ("verdict", "difference", "low", "high", "n")}
            rows.append({"candidate": row["candidate"], **figures})
    return {"baseline": baseline["candidate"], "rows": rows}


# --- small questions ------------------------------------------------------------------------------------------------


def best(document: Document, rows: list[Document]) -> Document:
    """The one with the best mean; the comparison lists its candidates best first."""
    order = [row["candidate"] for row in document["candidates"]]
    return min(rows, key=lambda row: order.index(row["candidate"]))


def preference(document: Document) -> Callable[[Document], tuple[float, float, bool, int]]:
    """The cheaper first (an unknown price last), then the faster, then the local one, then the better on average."""
    order = [row["candidate"] for row in document["candidates"]]

    def key(row: Document) -> tuple[float, float, bool, int]:
        cost = cost_of(row)
        return (
            cost if cost is not None else math.inf,
            latency_of(row),
            not row["is_local"],
            order.index(row["candidate"]),
        )

    return key


def pair_of(document: Document, row: Document, other: Document) -> Document | None:
    """The pair of both on the part that the document is about, told about `row`; None where they were not compared."""
    mine, theirs = row["candidate"], other["candidate"]
    for pair in document["pairs"]:
        if pair["metric"] == document["primary_metric"] and {pair["a"], pair["b"]} == {mine, theirs}:
            return pair if pair["b"] == mine else turned(pair)
    return None


def verdict_about(document: Document, row: Document, other: Document) -> str:
    """The verdict about `row` against `other`; "" when they were not compared."""
    told = pair_of(document, row, other)
    return str(told["verdict"]) if told else ""


TURNED = {"better": "worse", "worse": "better"}


def turned(pair: Mapping[str, Any]) -> dict[str, Any]:
    """The same pair, told about the other one."""

    def negated(value: float | None) -> float | None:
        return None if value is None else 0.0 - value

    return {
        **pair,
        "a": pair["b"],
        "b": pair["a"],
        "difference": negated(pair.get("difference")),
        "low": negated(pair.get("high")),
        "high": negated(pair.get("low")),
        "win": pair.get("loss"),
        "loss": pair.get("win"),
        "verdict": TURNED.get(str(pair.get("verdict")), pair.get("verdict")),
    }


def contrast_that_matters(document: Document) -> Document | None:
    """The leader against the runner-up, told about the runner-up: the best other model that ran to its end, else the
    best plain baseline. None where there is neither."""
    primary = document["primary_metric"]
    models = [row for row in document["candidates"] if not row["is_baseline"] and mean_of(row, primary) is not None]
    running = [row for row in models if not row["problem"]]
    leader = next((row for row in running if row["candidate"] == document.get("leader")), None)
    leader = leader or (best(document, running) if running else None)
    if leader is None:
        return None
    rivals = [row for row in running if row is not leader] or plain_baselines(document)
    return pair_of(document, best(document, rivals), leader) if rivals else None


def cost_of(row: Document) -> float | None:
    cost: float | None = row["cost_per_1000_usd"]
    return cost


def latency_of(row: Document) -> float:
    return row["latency_ms"]["p50"] if row["latency_ms"]["p50"] is not None else math.inf


def mean_of(row: Document, part: str) -> float | None:
    mean: float | None = (row["metrics"].get(part) or {}).get("mean")
    return mean
