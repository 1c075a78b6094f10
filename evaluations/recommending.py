"""Recommending says in words what a comparison means. PURE: from the comparison document to sentences.

The rules are those of `deciding` (STATISTICS §4); the sentence stays short, and `justifying` gives what stands behind
it. Never a forced winner. A model that a baseline clearly beats is never recommended: a baseline copies sentences, at
once and for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluations.deciding import (
    Choice,
    answers,
    beaten_by,
    best,
    choose,
    cost_of,
    gate_failures,
    latency_of,
    margin_of,
    mean_of,
    plain_baselines,
    verdict_about,
)
from evaluations.justifying import caveats, cut_short, documents, label_of, names, reasons

Document = Mapping[str, Any]
FEW = 30
EXAMPLES_ONLY = 10


def recommendation(document: Document) -> dict[str, Any]:
    """{sentence, candidate, reasons[], caveats[]}: `candidate` is None when nothing can honestly be recommended."""
    rows = [row for row in document["candidates"] if not row["is_baseline"]]
    primary = document["primary_metric"]
    label = label_of(document, primary)
    if document["experiment"]["state"] in ("draft", "planning", "running", "paused", "cancelling"):
        return _say("The answer appears here when the experiment has finished.", document)
    if (how := cut_short(document)) and not document["ranked"]:
        return _say(f"The experiment {how} before its end: resume it to get an answer.", document)
    scored = [row for row in rows if mean_of(row, primary) is not None]
    if not rows:
        return _say("There are only baselines here: add at least one model to get an answer.", document)
    if not scored:
        return _say(_nothing_scored(document, rows, label), document)
    n = max(row["metrics"][primary]["n"] for row in scored)
    if n < EXAMPLES_ONLY:
        return _say(
            f"{documents(n)} can show examples, not a ranking: read them side by side, and bring at least {FEW}.",
            document,
        )
    if not document["ranked"]:
        signature = document.get("signature") or {}
        if signature.get("unit") == "groups":  # documents of one group are one piece of evidence
            few = f"{documents(n)} in {signature['groups']} groups are too few to rank models; {FEW} groups"
        else:
            few = f"{documents(n)} are too few to rank models; {FEW}"
        return _say(f"{few} allow a first ranking.", document)
    choice = choose(document)
    if choice.leading and not choice.tied:
        return _say(_gated(document, choice, label), document)
    if not choice.passing:
        return _say(_nobody_passes(choice, label), document)
    if choice.chosen is None:
        leader = best(document, choice.passing)
        return _say(_beaten(document, scored, leader, label, n), document, evidence=reasons(document, leader, choice))
    chosen = choice.chosen
    sentence = _sentence(document, choice, chosen, label, n)
    return _say(sentence, document, chosen, choice, reasons(document, chosen, choice))


def _say(
    sentence: str,
    document: Document,
    chosen: Document | None = None,
    choice: Choice | None = None,
    evidence: list[str] | None = None,
) -> dict[str, Any]:
    return {
        "sentence": sentence,
        "candidate": chosen["candidate"] if chosen else None,
        "label": chosen["label"] if chosen else None,
        "reasons": evidence or [],
        "caveats": caveats(document, chosen, choice),
    }


def _sentence(document: Document, choice: Choice, chosen: Document, label: str, n: int) -> str:
    scored, tied = choice.scored, choice.tied
    name = chosen["label"]
    finished = [row for row in scored if not row["problem"]]
    if len(finished) == 1:
        alone = sum(not row["is_baseline"] for row in document["candidates"]) == 1
        only = "the only model with a result" if len(scored) == 1 else "the only model that ran to its end"
        only = "the only model here" if alone else only
        return f"{name} is {only}, and {_against_baselines(document, chosen, label, n)}."
    others = [row for row in tied if row is not chosen]
    if not others and (shut_out := [row for row in choice.leading if row is not chosen]):
        rest = f"with {documents(n)} it cannot be told from {names(shut_out)} on {label}"
        return f"Choose {name}: {rest}, but {names(shut_out)} fail{'s' * (len(shut_out) == 1)} the gates that were set."
    if not others:
        those = "" if len(finished) == len(scored) else " of those that ran to their end"
        return f"Choose {name}: on {documents(n)} it is clearly the best on {label}{those}."
    if silent := [row for row in others if not answers(row)]:
        rest = f"with {documents(n)} it cannot be told from {names(others)} on {label}"
        return f"Choose {name}: {rest}, but {names(silent)} answer{'s' * (len(silent) == 1)} too rarely."
    why = _why_chosen(document, chosen, choice)
    if len(tied) == len(scored):
        return f"There is no evidence of a difference on {label} with {documents(n)}: choose {name}, {why}."
    return f"Choose {name}: with {documents(n)} it cannot be told from {names(others)} on {label}, and it is {why}."


def _gated(document: Document, choice: Choice, label: str) -> str:
    """What to say when the gates shut out everybody in the best group."""
    scored, leading = choice.scored, choice.leading
    why = "; ".join(f"{row['label']}: {', '.join(gate_failures(document, row))}" for row in leading)
    finished = [row for row in scored if not row["problem"]]
    others = [row for row in finished if row not in leading and not gate_failures(document, row)]
    if not others:
        return f"No model passes the gates that were set ({why})."
    next_best = best(document, others)
    return (
        f"The best on {label} fail the gates that were set ({why}); {next_best['label']} passes them but is clearly "
        "worse."
    )


def _nobody_passes(choice: Choice, label: str) -> str:
    """What to say when none of the best group answers often enough, or all that have a value stopped early."""
    scored, leading, tied = choice.scored, choice.leading, choice.tied
    if not tied:
        return "No model that has a value ran to its end, so none can be recommended; the table says why."
    others = [row for row in scored if answers(row) and row not in leading and not row["problem"]]
    if not others and len(leading) > len(tied):
        return "No model both passes the gates that were set and answers often enough; the table says which does what."
    if not others:
        return "No model answers often enough to be recommended; see what they did instead below."
    leads = "leads" if len(tied) == 1 else "lead"
    return (
        f"{names(tied)} {leads} on {label} but answer{'s' * (len(tied) == 1)} too rarely to be recommended, "
        f"and {names(others)} {'is' if len(others) == 1 else 'are'} clearly worse."
    )


def _against_baselines(document: Document, chosen: Document, label: str, n: int) -> str:
    """How the only model does against the best baseline that does not see the references. It is not beaten by one."""
    primary = document["primary_metric"]
    rivals = plain_baselines(document)
    if not rivals:
        return "no baseline is there to hold it against: add one, such as baseline/lead-3"
    rival = best(document, rivals)
    means = f"{mean_of(chosen, primary):.3f} against {mean_of(rival, primary):.3f} on {label}, {documents(n)}"
    if verdict_about(document, chosen, rival) == "better":
        return f"it clearly beats the best baseline, {rival['label']} ({means})"
    return f"it is not clearly better than {rival['label']}{_copies(rival)} ({means})"


def _beaten(document: Document, scored: list[Document], leader: Document, label: str, n: int) -> str:
    """What to say when a baseline clearly beats every model that could be recommended."""
    primary = document["primary_metric"]
    baseline = best(document, beaten_by(document, leader))
    who = "No model here" if len(scored) > 1 else leader["label"]
    if any(verdict_about(document, row, baseline) == "better" for row in scored):
        who = "No model that answers often enough"
    verb = "does not beat" if len(scored) == 1 else "beats"
    them = "any of them" if len(scored) > 1 else "it"
    advice = f"rely on {them}" if all(row["is_local"] for row in scored) else f"pay for {them}"
    means = f"{mean_of(leader, primary):.3f} against {mean_of(baseline, primary):.3f} on {label}, {documents(n)}"
    first = f"{who} {verb} {baseline['label']}{_copies(baseline)}: do not {advice} yet"
    return f"{first} ({means})." if len(scored) == 1 else f"{first}. The best of them is {leader['label']} ({means})."


def _copies(baseline: Document) -> str:
    return ", which copies sentences" if baseline["model"].startswith("baseline://") else ""


def _why_chosen(document: Document, chosen: Document, choice: Choice) -> str:
    """What sets the chosen one apart, and what the margin had to do with it where one was set."""
    margin, anchor = margin_of(document), best(document, choice.worthy)
    why = _why(document, chosen, choice.fit)
    if margin is None:
        return why
    if len(choice.fit) == len(choice.worthy):
        return why if chosen is anchor else f"{why}, and shown to be at most {margin:g} worse than {anchor['label']}"
    if len(choice.fit) == 1:
        return f"the best on average; no other is shown to be at most {margin:g} worse"
    return f"{why.replace(' of them', '')}, of those shown to be at most {margin:g} worse than {anchor['label']}"


def _why(document: Document, chosen: Document, worthy: list[Document]) -> str:
    """What sets the chosen one apart among those that could have been chosen; nothing that is not known of all."""
    others = [row for row in worthy if row is not chosen]
    if not others:
        return "the only one of them that no baseline beats"
    cost, costs = cost_of(chosen), [cost_of(row) for row in others]
    priced = [each for each in costs if each is not None]
    if cost is not None and all(each > cost for each in priced):
        return "the cheapest of them" if len(priced) == len(costs) else "the cheapest of those whose price is known"
    known = [latency_of(row) for row in others if latency_of(row) < float("inf")]
    if known and latency_of(chosen) < min(known):
        return "the fastest of them" if len(known) == len(others) else "the fastest of those whose time is known"
    as_cheap = [latency_of(row) for row in others if cost_of(row) == cost]
    is_faster = bool(as_cheap) and latency_of(chosen) < min(as_cheap) and max(as_cheap) < float("inf")
    if cost is not None and len(priced) == len(costs) and is_faster:
        return "the fastest of the cheapest"
    if best(document, worthy) is chosen:
        return "the best on average"
    return "as good a choice as any of them"


def _nothing_scored(document: Document, rows: list[Document], label: str) -> str:
    if all(row["problem"] for row in rows):
        return "No model could run; the table says why for each."
    if not document["dataset"]["n_with_reference"]:
        return (
            "This dataset has no reference summaries, so metrics that compare with one do not apply: "
            "read the outputs side by side, or add references."
        )
    return f"No model has a value for {label}; the table says why."
