"""Reading metrics asks whether another metric would have chosen otherwise: the decision, made again by each of them.

A reading is a headline part that was scored and has a direction. Nothing is computed anew: finalize found the best
group of every part, and `deciding` applies its rules to each. PURE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evaluations import metrics
from evaluations.deciding import choose
from evaluations.justifying import listed

Document = Mapping[str, Any]
DETAILS = ("_precision", "_recall")
VARIANTS: dict[str, dict[Any, str]] = {
    "stemmer": {True: "without stemming", False: "with stemming"},
    "references": {"max": "by the mean over several references", "mean": "by the best of several references"},
}
"""{option: {its value: the reading that another value would be}}: what moves ROUGE by points on the same outputs."""


def readings(
    document: Document, told: Mapping[str, Document], scored_by: Iterable[Document], *, several_references: bool = False
) -> dict[str, Any]:
    """{sentence, same, of, rows[{part, label, leader, best_group, choice, same}], not_ranked[], not_made[]}.

    `told` is {part: what finalize told of it} and `scored_by` the experiment's metrics with their options. `same`
    says whether the best group is that of the part that decides; the first row is that part. How references are
    aggregated is a reading only where documents have `several_references`.
    """
    primary = document["experiment"]["primary_metric"]
    parts = [part for part in document["parts"] if _is_headline(part) and told.get(part["name"])]
    parts.sort(key=lambda part: part["name"] != primary)
    ranked = [part for part in parts if told[part["name"]].get("ranked")]
    declared = _as_set(told.get(primary, {}))
    rows = [_reading(document, part, told[part["name"]], declared) for part in ranked]
    same = sum(row["same"] for row in rows)
    return {
        "sentence": _sentence(rows, same, primary),
        "same": same,
        "of": len(rows),
        "rows": rows,
        "not_ranked": [part["label"] for part in parts if part not in ranked],
        "not_made": not_made(scored_by, several_references=several_references),
    }


def _is_headline(part: Document) -> bool:
    return part.get("higher_is_better") is not None and not part["name"].endswith(DETAILS)


def _as_set(told: Document) -> frozenset[Any]:
    return frozenset(told.get("best_group") or ()) if told.get("ranked") else frozenset()


def _reading(document: Document, part: Document, told: Document, declared: frozenset[Any]) -> dict[str, Any]:
    order = {row["candidate"]: place for place, row in enumerate(_best_first(document, part))}
    rows = [{**row, "best_group": row["candidate"] in told["best_group"]} for row in document["candidates"]]
    rows.sort(key=lambda row: order[row["candidate"]])
    pairs = [pair for pair in document["pairs"] if pair["metric"] == part["name"]]
    chosen = choose({**document, "primary_metric": part["name"], "candidates": rows, "pairs": pairs}).chosen
    return {
        "part": part["name"],
        "label": part["label"],
        "leader": told["leader"],
        "best_group": sorted(told["best_group"], key=order.__getitem__),
        "choice": chosen["candidate"] if chosen else None,
        "same": frozenset(told["best_group"]) == declared,
    }


def _best_first(document: Document, part: Document) -> list[Document]:
    sign = 1 if part["higher_is_better"] is False else -1

    def key(row: Document) -> tuple[bool, float, str]:
        mean = (row["metrics"].get(part["name"]) or {}).get("mean")
        return (mean is None, sign * (mean or 0.0), row["label"])

    return sorted(document["candidates"], key=key)


def _sentence(rows: list[dict[str, Any]], same: int, primary: str) -> str:
    if not rows or rows[0]["part"] != primary:
        return "The part that decides allows no ranking, so there is nothing to compare other metrics with."
    if len(rows) == 1:
        return f"{rows[0]['label']} is the only reading that was made."
    differ = [row["label"] for row in rows if not row["same"]]
    first = f"The same best group in {same} of {len(rows)} readings"
    return f"{first}; {listed(differ)} would have chosen otherwise." if differ else f"{first}."


def not_made(scored_by: Iterable[Document], *, several_references: bool = False) -> list[str]:
    """Readings that were not scored: other options of the metrics that were, and metrics that could run here."""
    asked = {each["name"]: each.get("options") or {} for each in scored_by}
    known = metrics.available()
    said = []
    for name, options in asked.items():
        if name not in known:
            continue
        settled = {**known[name].defaults, **options}
        for option, others in VARIANTS.items():
            matters = several_references or option != "references"
            if matters and option in settled and settled[option] in others:
                said.append(f"{known[name].label} {others[settled[option]]}")
    for name, metric in known.items():
        if name not in asked and any(_directed(part) for part in metric.all_parts):
            said.append(metric.label)
    return said


def _directed(part: metrics.Part) -> bool:
    return part.higher_is_better is not None
