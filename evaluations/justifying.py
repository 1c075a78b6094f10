"""Justifying gives the evidence behind a recommendation and what to keep in mind about it. PURE: document to sentences.

Every number carries its n and its interval, every verdict its test and correction; what was not tested is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evaluations.deciding import (
    Choice,
    best,
    contrast_that_matters,
    gate_failures,
    higher_is_better,
    margin_of,
    mean_of,
    non_inferiority,
    plain_baselines,
    preference,
    verdict_about,
)

Document = Mapping[str, Any]
OVERLAP = {"rouge", "meteor", "bleu", "chrf"}
MANY = 1_000_000
NAMED = 4


def reasons(document: Document, chosen: Document, choice: Choice) -> list[str]:
    """The evidence, the chosen one's own figures first."""
    primary, label = document["primary_metric"], label_of(document, document["primary_metric"])
    mine = chosen["metrics"][primary]
    said = [f"{label} {mine['mean']:.3f} (95 % interval {span(mine)}, n = {mine['n']})."]
    for row in document["candidates"]:
        told = row["versus_leader"].get(primary)
        if (
            told
            and row["candidate"] != chosen["candidate"]
            and not row["is_baseline"]
            and told["difference"] is not None
        ):
            said.append(
                f"{row['label']} against the leader: {told['difference']:+.3f} ({span(told)}), "
                f"p after Holm {p_words(told['p_holm'])}: {told['verdict']}."
            )
    said += _within_the_margin(document, chosen, choice)
    cost = chosen["cost_per_1000_usd"]
    if chosen["is_local"]:
        said.append("It runs here: no document leaves this installation, and no call costs money.")
    elif cost is not None:
        said.append(f"It costs {cost:.2f} USD per 1,000 documents.")
    elif document.get("signature"):
        said.append("It is unpriced: what it costs per 1,000 documents is not known.")
    return said + _tests(document)


def _within_the_margin(document: Document, chosen: Document, choice: Choice) -> list[str]:
    """Whom the chosen one may replace, and which clearly worse but cheaper model is still within the margin."""
    margin = margin_of(document)
    if margin is None or not choice.worthy:
        return []
    said = []
    anchor = best(document, choice.worthy)
    told = non_inferiority(document, chosen, anchor)
    if told and told["verdict"] == "non-inferior":
        said.append(
            f"It may replace {anchor['label']}: {_at_worst(told['bound'])} (one-sided 95 % bound), "
            f"within the margin of {margin:g}."
        )
    key = preference(document)
    for row in choice.scored:
        if row in choice.leading or row["problem"] or gate_failures(document, row) or key(row) >= key(chosen):
            continue
        told = non_inferiority(document, row, anchor)
        if told and told["verdict"] == "non-inferior":
            said.append(
                f"{row['label']} is clearly worse, but {_at_worst(told['bound'])} than {anchor['label']}: within the "
                f"margin of {margin:g}, and the cheaper or faster one."
            )
    return said


def _at_worst(bound: float) -> str:
    return f"at worst {-bound:.3f} worse" if bound < 0 else "at worst no worse"


def _tests(document: Document) -> list[str]:
    told = document.get("signature") or {}
    if not {"alpha", "unit", "resamples"} <= set(told) or not document["ranked"]:
        return []
    pairs = (told.get("tests") or {}).get("pairs") or 0
    over = f" over {pairs} pair{'s' * (pairs != 1)}" if pairs else ""
    return [
        f"Tests: paired sign-flip by {told['unit'].removesuffix('s')}, R = {told['resamples']:,}, alpha "
        f"{told['alpha']:g}, corrected by Holm{over}."
    ]


def caveats(document: Document, chosen: Document | None, choice: Choice | None) -> list[str]:
    """What to keep in mind, the most general first."""
    said = list(document["warnings"])
    if (how := cut_short(document)) and document["ranked"]:
        said.append(f"The last run {how} before its end: these are the numbers of the run before it.")
    for row in document["candidates"]:
        if not row["is_baseline"] and (why := gate_failures(document, row)):
            said.append(f"{row['label']} fails the gates that were set: {', '.join(why)}.")
    if chosen:
        said += _unbeaten(document, chosen)
    if choice and chosen:
        said += _not_proven(document, chosen, choice)
    said += _detectable(document)
    if chosen and (chosen["truncated"] or 0) > 0:
        said.append(f"It could not read {documents(chosen['truncated'])} to the end: they exceed its window.")
    if chosen:
        said += _slices(document, chosen)
    stopped = [row["label"] for row in document["candidates"] if row["problem"]]
    if stopped:
        said.append(f"Not everything ran: {listed(stopped)} stopped early; the table says why.")
    if chosen and any(row["cost_usd"] is None and not row["is_local"] for row in document["candidates"]):
        said.append("At least one model is unpriced, so cost did not decide between it and the others.")
    if chosen:
        said += _not_tested(document, chosen)
    return said


def _unbeaten(document: Document, chosen: Document) -> list[str]:
    primary = document["primary_metric"]
    unbeaten = [row for row in plain_baselines(document) if verdict_about(document, chosen, row) != "better"]
    if not unbeaten:
        return []
    means = [f"{row['label']} ({mean_of(row, primary):.3f})" for row in unbeaten]
    return [
        f"With {mean_of(chosen, primary):.3f} it does not clearly beat {listed(means)}; "
        "a baseline copies sentences, at once and for nothing."
    ]


def _not_proven(document: Document, chosen: Document, choice: Choice) -> list[str]:
    """Who would have been preferred, but is not shown to be within the margin."""
    key, said = preference(document), []
    for row in choice.worthy:
        if row in choice.fit or key(row) >= key(chosen):
            continue
        anchor = best(document, choice.worthy)
        told = non_inferiority(document, row, anchor)
        if told is None:
            continue
        more = "more documents would not show it" if told["n_needed"] is None else _so_many(document, told["n_needed"])
        bound = "" if told["bound"] is None else f" (one-sided 95 % bound {told['bound']:+.3f})"
        said.append(
            f"{row['label']} is cheaper or faster, but not shown to be at most {told['margin']:g} worse than "
            f"{anchor['label']}{bound}: {more}."
        )
    return said


def _so_many(document: Document, n: int) -> str:
    unit = "groups" if (document.get("signature") or {}).get("unit") == "groups" else "documents"
    return f"some {_rounded(n)} {unit} would do"


def _detectable(document: Document) -> list[str]:
    told = contrast_that_matters(document) or {}
    detectable = told.get("detectable") or document.get("detectable")
    if not detectable:
        return []
    between = ""
    if told.get("detectable"):
        labels = {row["candidate"]: row["label"] for row in document["candidates"]}
        between = f" between {labels[told['a']]} and {labels[told['b']]}"
    sentence = (
        f"With this many documents, differences of {detectable:.3f}{between} can be seen four times out of five; "
        "smaller ones can be missed"
    )
    difference = told.get("difference")
    if told.get("verdict") in ("no clear difference", "borderline") and difference and told.get("detectable"):
        needed = told["n"] * (detectable / difference) ** 2
        if needed > told["n"]:
            sentence += f": for the {abs(difference):.3f} seen here, some {_rounded(needed)} would do"
    return [f"{sentence}."]


def _slices(document: Document, chosen: Document) -> list[str]:
    """The weakest slice of the chosen one, and where it is clearly behind the leader."""
    if document["primary_metric"] != document["experiment"].get("primary_metric"):
        return []
    primary, said = document["primary_metric"], []
    mine = []
    for each in (document.get("slices") or {}).get("rows") or ():
        cell = next((cell for cell in each["cells"] if cell["candidate"] == chosen["candidate"]), None)
        if cell and cell["mean"] is not None and each["kind"] != "group":  # a group is one piece of evidence
            mine.append((each, cell))
    if not mine:
        return []
    sign = 1 if higher_is_better(document) else -1
    weakest, cell = min(mine, key=lambda pair: sign * pair[1]["mean"])
    said.append(
        f"Its weakest slice is {weakest['label']}: {cell['mean']:.3f} on {documents(cell['n'])}, against "
        f"{mean_of(chosen, primary):.3f} over all (exploratory)."
    )
    behind = [each["label"] for each, cell in mine if cell.get("verdict") == "worse"]
    if behind:
        said.append(
            f"It is clearly worse than the leader on {listed(behind[:NAMED])} (exploratory, adjusted after Benjamini "
            "and Hochberg)."
        )
    return said


def _not_tested(document: Document, chosen: Document) -> list[str]:
    said = []
    readings = document.get("readings") or {}
    if _only_overlap(document, chosen):
        said.append(
            "Its clear edge is on overlap metrics only: let people compare the finalists blind before deciding."
        )
    else:
        said.append(
            "An overlap metric is not a reader: read the examples with the largest disagreement before deciding."
        )
    if "rows" in readings:
        missing = ["what people think of the outputs", *readings["not_made"][:NAMED]]
        said.append(f"Not tested: {'; '.join(missing)}.")
    return said


def _only_overlap(document: Document, chosen: Document) -> bool:
    """Whether the chosen one is clearly best on some reading, and on overlap metrics alone."""
    metric_of = {part["name"]: part.get("metric") for part in document["parts"]}
    rows = (document.get("readings") or {}).get("rows") or ()
    alone = [row["part"] for row in rows if row["best_group"] == [chosen["candidate"]]]
    return bool(alone) and len(rows) > 1 and {metric_of.get(part) for part in alone} <= OVERLAP


# --- words ----------------------------------------------------------------------------------------------------------


def cut_short(document: Document) -> str:
    """How the last run ended before its end, as a verb; "" when it did not. Then nothing was put together of it."""
    return {"cancelled": "was cancelled", "failed": "failed"}.get(document["experiment"]["state"], "")


def label_of(document: Document, part: str) -> str:
    return next((each["label"] for each in document["parts"] if each["name"] == part), part)


def documents(n: int) -> str:
    return f"{n:,} document" + ("" if n == 1 else "s")


def listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def names(rows: list[Document]) -> str:
    return listed([row["label"] for row in rows])


def span(told: Document) -> str:
    if told["low"] is None or told["high"] is None:
        return "no interval"
    return f"{told['low']:.3f} to {told['high']:.3f}"


def p_words(value: float | None) -> str:
    if value is None:
        return "not computed"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _rounded(n: float) -> str:
    """A planned number of documents in two figures, rounded up: more would pretend to know."""
    if n > MANY:
        return "more than a million"
    step = 10 ** max(0, math.floor(math.log10(n)) - 1)
    return f"{math.ceil(n / step) * step:,}"
