"""Recommending says in words what a comparison means. PURE: from the comparison document to sentences.

The rules are STATISTICS §4: gates first, then the group that cannot be told from the best, in it the cheapest, then
the faster, then the local one; never a forced winner, and always the n, the interval and the test behind the words.
A model that a baseline clearly beats is never recommended: a baseline copies sentences, at once and for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    if (how := _cut_short(document)) and not document["ranked"]:
        return _say(f"The experiment {how} before its end: resume it to get an answer.", document)
    scored = [row for row in rows if _mean(row, primary) is not None]
    if not rows:
        return _say("There are only baselines here: add at least one model to get an answer.", document)
    if not scored:
        return _say(_nothing_scored(document, rows, label), document)
    n = max(row["metrics"][primary]["n"] for row in scored)
    if n < EXAMPLES_ONLY:
        return _say(
            f"{_documents(n)} can show examples, not a ranking: read them side by side, and bring at least {FEW}.",
            document,
        )
    if not document["ranked"]:
        signature = document.get("signature") or {}
        if signature.get("unit") == "groups":  # documents of one group are one piece of evidence
            few = f"{_documents(n)} in {signature['groups']} groups are too few to rank models; {FEW} groups"
        else:
            few = f"{_documents(n)} are too few to rank models; {FEW}"
        return _say(f"{few} allow a first ranking.", document)
    leading = [row for row in scored if row["best_group"]]
    tied = [row for row in leading if not gate_failures(document, row)]
    if leading and not tied:
        return _say(_gated(document, scored, leading, label), document)
    passing = [row for row in tied if _answers(row)]
    if not passing:
        return _say(_nobody_passes(scored, leading, tied, label), document)
    worthy = [row for row in passing if not _beaten_by(document, row)]
    if not worthy:
        best = _best(document, passing)
        return _say(_beaten(document, scored, best, label, n), document, None, _reasons(document, best, label))
    chosen = min(worthy, key=_preference(document))
    sentence = _sentence(document, scored, leading, tied, worthy, chosen, label, n)
    return _say(sentence, document, chosen, _reasons(document, chosen, label))


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


def _sentence(
    document: Document,
    scored: list[Document],
    leading: list[Document],
    tied: list[Document],
    worthy: list[Document],
    chosen: Document,
    label: str,
    n: int,
) -> str:
    name = chosen["label"]
    finished = [row for row in scored if not row["problem"]]
    if len(finished) == 1:
        alone = sum(not row["is_baseline"] for row in document["candidates"]) == 1
        only = "the only model with a result" if len(scored) == 1 else "the only model that ran to its end"
        only = "the only model here" if alone else only
        return f"{name} is {only}, and {_against_baselines(document, chosen, label, n)}."
    others = [row for row in tied if row is not chosen]
    if not others and (shut_out := [row for row in leading if row is not chosen]):
        rest = f"with {_documents(n)} it cannot be told from {_names(shut_out)} on {label}"
        return (
            f"Choose {name}: {rest}, but {_names(shut_out)} fail{'s' * (len(shut_out) == 1)} the gates that were set."
        )
    if not others:
        those = "" if len(finished) == len(scored) else " of those that ran to their end"
        return f"Choose {name}: on {_documents(n)} it is clearly the best on {label}{those}."
    if silent := [row for row in others if not _answers(row)]:
        rest = f"with {_documents(n)} it cannot be told from {_names(others)} on {label}"
        return f"Choose {name}: {rest}, but {_names(silent)} answer{'s' * (len(silent) == 1)} too rarely."
    why = _why(document, chosen, worthy)
    if len(tied) == len(scored):
        return f"There is no evidence of a difference on {label} with {_documents(n)}: choose {name}, {why}."
    return f"Choose {name}: with {_documents(n)} it cannot be told from {_names(others)} on {label}, and it is {why}."


def gate_failures(document: Document, row: Document) -> list[str]:
    """Why this candidate may not be chosen under the gates that were set before the start, in words. A gate about a
    figure that is not known (an unpriced model under a price cap) is failed: what was asked for is not shown."""
    gates = document["experiment"].get("gates") or {}
    checks: dict[str, Callable[[Any], bool]] = {
        "local_only": lambda wanted: not wanted or row["is_local"],
        "min_answer_rate": lambda least: row["answer_rate"] is not None and row["answer_rate"] >= least,
        "max_truncated_rate": lambda most: row["truncated_rate"] is not None and row["truncated_rate"] <= most,
        "max_latency_ms": lambda most: row["latency_ms"]["p95"] is not None and row["latency_ms"]["p95"] <= most,
        "max_cost_per_1000_usd": lambda most: _cost(row) is not None and (_cost(row) or 0.0) <= most,
    }
    words = {
        "local_only": "documents would leave this installation",
        "min_answer_rate": "it answers too rarely",
        "max_truncated_rate": "it cuts too many documents, or how many is not known",
        "max_latency_ms": "its slowest answers take too long, or their time is not known",
        "max_cost_per_1000_usd": "it costs too much, or its price is not known",
    }
    return [words[name] for name, value in gates.items() if name in checks and not checks[name](value)]


def _gated(document: Document, scored: list[Document], leading: list[Document], label: str) -> str:
    """What to say when the gates shut out everybody in the best group."""
    why = "; ".join(f"{row['label']}: {', '.join(gate_failures(document, row))}" for row in leading)
    finished = [row for row in scored if not row["problem"]]
    others = [row for row in finished if row not in leading and not gate_failures(document, row)]
    if not others:
        return f"No model passes the gates that were set ({why})."
    best = _best(document, others)
    return (
        f"The best on {label} fail the gates that were set ({why}); {best['label']} passes them but is clearly worse."
    )


def _nobody_passes(scored: list[Document], leading: list[Document], tied: list[Document], label: str) -> str:
    """What to say when none of the best group answers often enough, or all that have a value stopped early."""
    if not tied:
        return "No model that has a value ran to its end, so none can be recommended; the table says why."
    others = [row for row in scored if _answers(row) and row not in leading and not row["problem"]]
    if not others and len(leading) > len(tied):
        return "No model both passes the gates that were set and answers often enough; the table says which does what."
    if not others:
        return "No model answers often enough to be recommended; see what they did instead below."
    leads = "leads" if len(tied) == 1 else "lead"
    return (
        f"{_names(tied)} {leads} on {label} but answer{'s' * (len(tied) == 1)} too rarely to be recommended, "
        f"and {_names(others)} {'is' if len(others) == 1 else 'are'} clearly worse."
    )


def _against_baselines(document: Document, chosen: Document, label: str, n: int) -> str:
    """How the only model does against the best baseline that does not see the references. It is not beaten by one."""
    primary = document["primary_metric"]
    rivals = _plain_baselines(document)
    if not rivals:
        return "no baseline is there to hold it against: add one, such as baseline/lead-3"
    best = _best(document, rivals)
    means = f"{_mean(chosen, primary):.3f} against {_mean(best, primary):.3f} on {label}, {_documents(n)}"
    if _verdict(document, chosen, best) == "better":
        return f"it clearly beats the best baseline, {best['label']} ({means})"
    return f"it is not clearly better than {best['label']}{_copies(best)} ({means})"


def _beaten(document: Document, scored: list[Document], best: Document, label: str, n: int) -> str:
    """What to say when a baseline clearly beats every model that could be recommended."""
    primary = document["primary_metric"]
    baseline = _best(document, _beaten_by(document, best))
    who = "No model here" if len(scored) > 1 else best["label"]
    if any(_verdict(document, row, baseline) == "better" for row in scored):
        who = "No model that answers often enough"
    verb = "does not beat" if len(scored) == 1 else "beats"
    them = "any of them" if len(scored) > 1 else "it"
    advice = f"rely on {them}" if all(row["is_local"] for row in scored) else f"pay for {them}"
    means = f"{_mean(best, primary):.3f} against {_mean(baseline, primary):.3f} on {label}, {_documents(n)}"
    first = f"{who} {verb} {baseline['label']}{_copies(baseline)}: do not {advice} yet"
    return f"{first} ({means})." if len(scored) == 1 else f"{first}. The best of them is {best['label']} ({means})."


def _copies(baseline: Document) -> str:
    return ", which copies sentences" if baseline["model"].startswith("baseline://") else ""


def _plain_baselines(document: Document) -> list[Document]:
    """The baselines with a value that are no upper bound: the oracle sees the references, a fair rival does not."""
    rows = [row for row in document["candidates"] if row["is_baseline"] and not row["uses_references"]]
    return [row for row in rows if _mean(row, document["primary_metric"]) is not None]


def _beaten_by(document: Document, row: Document) -> list[Document]:
    """The baselines that are clearly better than this model."""
    return [each for each in _plain_baselines(document) if _verdict(document, row, each) == "worse"]


def _best(document: Document, rows: list[Document]) -> Document:
    """The one with the best mean; the comparison lists its candidates best first."""
    order = [row["candidate"] for row in document["candidates"]]
    return min(rows, key=lambda row: order.index(row["candidate"]))


def _why(document: Document, chosen: Document, worthy: list[Document]) -> str:
    """What sets the chosen one apart among those that could have been chosen; nothing that is not known of all."""
    others = [row for row in worthy if row is not chosen]
    if not others:
        return "the only one of them that no baseline beats"
    cost, costs = _cost(chosen), [_cost(row) for row in others]
    priced = [each for each in costs if each is not None]
    if cost is not None and all(each > cost for each in priced):
        return "the cheapest of them" if len(priced) == len(costs) else "the cheapest of those whose price is known"
    known = [_latency(row) for row in others if _latency(row) < float("inf")]
    if known and _latency(chosen) < min(known):
        return "the fastest of them" if len(known) == len(others) else "the fastest of those whose time is known"
    as_cheap = [_latency(row) for row in others if _cost(row) == cost]
    is_faster = bool(as_cheap) and _latency(chosen) < min(as_cheap) and max(as_cheap) < float("inf")
    if cost is not None and len(priced) == len(costs) and is_faster:
        return "the fastest of the cheapest"
    if _best(document, worthy) is chosen:
        return "the best on average"
    return "as good a choice as any of them"


def _reasons(document: Document, chosen: Document, label: str) -> list[str]:
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


def _cut_short(document: Document) -> str:
    """How the last run ended before its end, as a verb; "" when it did not. Then nothing was put together of it."""
    return {"cancelled": "was cancelled", "failed": "failed"}.get(document["experiment"]["state"], "")


def _caveats(document: Document, chosen: Document | None) -> list[str]:
    caveats = list(document["warnings"])
    if (how := _cut_short(document)) and document["ranked"]:
        caveats.append(f"The last run {how} before its end: these are the numbers of the run before it.")
    for row in document["candidates"]:
        if not row["is_baseline"] and (why := gate_failures(document, row)):
            caveats.append(f"{row['label']} fails the gates that were set: {', '.join(why)}.")
    primary = document["primary_metric"]
    if chosen:
        unbeaten = [row for row in _plain_baselines(document) if _verdict(document, chosen, row) != "better"]
        if unbeaten:
            means = [f"{row['label']} ({_mean(row, primary):.3f})" for row in unbeaten]
            caveats.append(
                f"With {_mean(chosen, primary):.3f} it does not clearly beat {_listed(means)}; "
                "a baseline copies sentences, at once and for nothing."
            )
    if document.get("detectable"):
        caveats.append(
            f"With this many documents, differences of {document['detectable']:.3f} can be seen four times out of "
            "five; smaller ones can be missed."
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


def _verdict(document: Document, row: Document, other: Document) -> str:
    """The verdict about `row` against `other` on the primary metric; "" when they were not compared."""
    turned = {"better": "worse", "worse": "better"}
    mine, theirs = row["candidate"], other["candidate"]
    for pair in document["pairs"]:
        if pair["metric"] == document["primary_metric"] and {pair["a"], pair["b"]} == {mine, theirs}:
            told: str = pair["verdict"]
            return told if pair["b"] == mine else turned.get(told, told)
    return ""


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


def _preference(document: Document) -> Callable[[Document], tuple[float, float, bool, int]]:
    """The cheaper first (an unknown price last), then the faster, then the local one, then the better on average."""
    order = [row["candidate"] for row in document["candidates"]]

    def key(row: Document) -> tuple[float, float, bool, int]:
        cost = _cost(row)
        return (
            cost if cost is not None else float("inf"),
            _latency(row),
            not row["is_local"],
            order.index(row["candidate"]),
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


def _names(rows: list[Document]) -> str:
    return _listed([row["label"] for row in rows])


def _span(told: Document) -> str:
    if told["low"] is None or told["high"] is None:
        return "no interval"
    return f"{told['low']:.3f} to {told['high']:.3f}"


def _p(value: float | None) -> str:
    if value is None:
        return "not computed"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
