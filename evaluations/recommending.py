"""Recommending says in words what a comparison means. PURE: from the comparison document to sentences.

The rules are STATISTICS §4: gates first, then the group that cannot be told from the best, in it the cheapest, then
the faster, then the local one; never a forced winner, and always the n, the interval and the test behind the words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Document = Mapping[str, Any]
FEW = 30
EXAMPLES_ONLY = 10
ANSWER_RATE = 0.9
SUSPICIOUS_COPY = 0.98


def recommendation(document: Document) -> dict[str, Any]:
    """{sentence, candidate, reasons[], caveats[]}: `candidate` is None when nothing can honestly be recommended."""
    rows = [row for row in document["candidates"] if not row["is_baseline"]]
    primary = document["primary_metric"]
    label = _label(document, primary)
    if document["experiment"]["state"] in ("draft", "planning", "running", "paused", "cancelling"):
        return _say("The answer appears here when the experiment has finished.", document)
    scored = [row for row in rows if _mean(row, primary) is not None]
    if not rows:
        return _say("There are only baselines here: add at least one model to get an answer.", document)
    if not scored:
        return _say(_nothing_scored(document, rows, label), document)
    n = max(row["metrics"][primary]["n"] for row in scored)
    if n < EXAMPLES_ONLY:
        return _say(
            f"{_documents(n)} show examples, not a ranking: read them side by side, and bring at least {FEW}.", document
        )
    if not document["ranked"]:
        return _say(
            f"{_documents(n)} are too few to rank models: the intervals are below; {FEW} allow a first ranking.",
            document,
        )
    passing = [row for row in scored if row["best_group"] and _answers(row)]
    if not passing:
        return _say("No model answers often enough to be recommended; see what they did instead below.", document)
    chosen = min(passing, key=_preference(primary))
    return _say(
        _sentence(document, passing, chosen, label, n), document, chosen, _reasons(document, chosen, passing, label)
    )


def _say(
    sentence: str, document: Document, chosen: Document | None = None, reasons: list[str] | None = None
) -> dict[str, Any]:
    return {
        "sentence": sentence,
        "candidate": chosen["candidate"] if chosen else None,
        "label": chosen["label"] if chosen else None,
        "reasons": reasons or [],
        "caveats": _caveats(document, chosen),
    }


def _sentence(document: Document, passing: list[Document], chosen: Document, label: str, n: int) -> str:
    name = chosen["label"]
    rivals = [
        row
        for row in document["candidates"]
        if not row["is_baseline"] and row is not chosen and _mean(row, document["primary_metric"]) is not None
    ]
    if not rivals:
        return f"{name} is the only model here, so nothing competes with it; the baselines below say how good it is."
    if len(passing) == 1:
        return f"Choose {name}: on {_documents(n)} it is clearly the best on {label}."
    others = _listed([row["label"] for row in passing if row is not chosen])
    if len(passing) == len(rivals) + 1:
        return f"There is no evidence of a difference on {label} with {_documents(n)}: choose {name}, {_why(chosen, passing)}."
    return f"Choose {name}: with {_documents(n)} it cannot be told from {others} on {label}, and it is {_why(chosen, passing)}."


def _why(chosen: Document, passing: list[Document]) -> str:
    costs = [_cost(row) for row in passing]
    if _cost(chosen) is not None and all(
        cost is None or cost > _cost(chosen) for row, cost in zip(passing, costs, strict=True) if row is not chosen
    ):
        return "the cheapest of them"
    return "the fastest of them" if _latency(chosen) == min(_latency(row) for row in passing) else "the best on average"


def _reasons(document: Document, chosen: Document, passing: list[Document], label: str) -> list[str]:
    primary = document["primary_metric"]
    mine = chosen["metrics"][primary]
    reasons = [f"{label} {mine['mean']:.3f} (95 % interval {_span(mine)}, n = {mine['n']})."]
    for row in document["candidates"]:
        told = row["versus_leader"].get(primary)
        if (
            told
            and row["candidate"] != chosen["candidate"]
            and not row["is_baseline"]
            and told["difference"] is not None
        ):
            reasons.append(
                f"{row['label']} against the leader: {told['difference']:+.3f} ({_span(told)}), "
                f"p after Holm {_p(told['p_holm'])}: {told['verdict']}."
            )
    cost = chosen["cost_per_1000_usd"]
    if chosen["is_local"]:
        reasons.append("It runs here: no document leaves this installation, and no call costs money.")
    elif cost is not None:
        reasons.append(f"It costs {cost:.2f} USD per 1,000 documents.")
    return reasons


def _caveats(document: Document, chosen: Document | None) -> list[str]:
    caveats = list(document["warnings"])
    primary = document["primary_metric"]
    lead = next((row for row in document["candidates"] if row["is_baseline"] and "lead" in row["label"]), None)
    if chosen and lead and _mean(lead, primary) is not None and _mean(chosen, primary) is not None:
        told = _pair(document, chosen["candidate"], lead["candidate"], primary)
        if told is None or told[0] not in ("better",):
            caveats.append(
                f"It does not clearly beat {lead['label']} (the first sentences of the document): "
                f"{_mean(chosen, primary):.3f} against {_mean(lead, primary):.3f}."
            )
    if document.get("detectable"):
        caveats.append(
            f"With this many documents, differences of {document['detectable']:.3f} can be seen four times out of five; "
            "smaller ones can be missed."
        )
    if chosen and (chosen["truncated"] or 0) > 0:
        caveats.append(f"It could not read {_documents(chosen['truncated'])} to the end: they exceed its window.")
    stopped = [row["label"] for row in document["candidates"] if row["problem"]]
    if stopped:
        caveats.append(f"Not everything ran: {_listed(stopped)} stopped early; the table says why.")
    if chosen and any(row["cost_usd"] is None and not row["is_local"] for row in document["candidates"]):
        caveats.append("At least one model is unpriced, so cost did not decide between it and the others.")
    if chosen:
        caveats.append(
            "An overlap metric is not a reader: read the examples with the largest disagreement before deciding."
        )
    return caveats


def _pair(document: Document, candidate: int, other: int, metric: str) -> tuple[str, float | None] | None:
    """(verdict about `candidate` against `other`, their difference), or None when they were not compared."""
    turned = {"better": "worse", "worse": "better"}
    for pair in document["pairs"]:
        if pair["metric"] == metric and {pair["a"], pair["b"]} == {candidate, other}:
            told = pair["verdict"]
            return (told if pair["b"] == candidate else turned.get(told, told)), pair["difference"]
    return None


def alarms(document: Document) -> list[str]:
    """What must be looked at before any ranking is believed."""
    found = []
    primary = document["primary_metric"]
    rows = [row for row in document["candidates"] if _mean(row, primary) is not None]
    for row in rows:
        mine = row["metrics"][primary]
        if mine["n"] > 1 and mine["sd"] == 0:
            found.append(
                f"{row['label']}: every document has the same {_label(document, primary)}; look at its outputs."
            )
        elif not row["uses_references"] and primary.startswith("rouge") and mine["mean"] >= SUSPICIOUS_COPY:
            found.append(f"{row['label']}: its outputs nearly equal the references; were they copied?")
    for row in document["candidates"]:
        answered = row["answer_rate"]
        if answered is not None and answered < ANSWER_RATE and row["n"]:
            states = ", ".join(f"{count} {state}" for state, count in row["states"].items() if count and state != "ok")
            found.append(f"{row['label']} answered only {answered:.0%} of the documents ({states}).")
        if row["cost_usd"] == 0 and not row["is_local"] and row["n"]:
            found.append(f"{row['label']}: its calls cost nothing although it has a price; check the price.")
    return found


def _answers(row: Document) -> bool:
    return (row["answer_rate"] or 0.0) >= ANSWER_RATE


def _preference(primary: str) -> Any:
    def key(row: Document) -> tuple[float, float, bool, float]:
        cost = _cost(row)
        return (
            cost if cost is not None else float("inf"),
            _latency(row),
            not row["is_local"],
            -(_mean(row, primary) or 0),
        )

    return key


def _cost(row: Document) -> float | None:
    return row["cost_per_1000_usd"]


def _latency(row: Document) -> float:
    return row["latency_ms"]["p50"] if row["latency_ms"]["p50"] is not None else float("inf")


def _mean(row: Document, part: str) -> float | None:
    return (row["metrics"].get(part) or {}).get("mean")


def _label(document: Document, part: str) -> str:
    return next((each["label"] for each in document["parts"] if each["name"] == part), part)


def _nothing_scored(document: Document, rows: list[Document], label: str) -> str:
    if all(row["problem"] for row in rows):
        return "No model could run; the table says why for each."
    if not document["dataset"]["n_with_reference"]:
        return (
            "This dataset has no reference summaries, so metrics that compare with one do not apply: "
            "read the outputs side by side, or add references."
        )
    return f"No model has a value for {label}; the table says why."


def _documents(n: int) -> str:
    return f"{n:,} document" + ("" if n == 1 else "s")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _span(told: Document) -> str:
    if told["low"] is None or told["high"] is None:
        return "no interval"
    return f"{told['low']:.3f} to {told['high']:.3f}"


def _p(value: float | None) -> str:
    if value is None:
        return "not computed"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
