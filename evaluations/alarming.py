"""Alarming names what must be looked at before any ranking is believed. PURE: comparison document to sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluations.deciding import ANSWER_RATE, mean_of
from evaluations.justifying import label_of

Document = Mapping[str, Any]
SUSPICIOUS_COPY = 0.98


def alarms(document: Document) -> list[str]:
    """Equal values everywhere, outputs that are the references or another candidate's, missing answers, free calls."""
    found = []
    primary = document["primary_metric"]
    for row in document["candidates"]:
        if mean_of(row, primary) is None:
            continue
        mine = row["metrics"][primary]
        if mine["n"] > 1 and mine["sd"] == 0:
            found.append(
                f"{row['label']}: every document has the same {label_of(document, primary)}; look at its outputs."
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
    return found + _twins(document) + _foreign(document)


def _foreign(document: Document) -> list[str]:
    """Metrics made for another language than that of the documents: their numbers mean less than they seem to."""
    language = document["dataset"].get("language") or ""
    made_for = {
        part["metric"]: part["languages"]
        for part in document["parts"]
        if language and part.get("languages") and language not in part["languages"]
    }
    return [
        f"{metric} is made for {', '.join(languages)}, and most documents are in {language}: do not decide by it."
        for metric, languages in made_for.items()
    ]


def _twins(document: Document) -> list[str]:
    """Candidates that gave the same answers."""
    labels = {row["candidate"]: row["label"] for row in document["candidates"]}
    pairs = {
        tuple(sorted((row["candidate"], other)))
        for row in document["candidates"]
        for other in row.get("alike") or ()
        if other in labels
    }
    return [
        f"{labels[a]} and {labels[b]} gave the same text on nearly every document: are they one model?"
        for a, b in sorted(pairs)
    ]
