"""Presenting arranges a comparison document for its page: what is shown, in which order, what may be bold.

It computes no statistic; `comparing` did. Nothing here knows the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from evaluations import metrics
from evaluations.deciding import turned
from evaluations.fronts import RESAMPLES
from evaluations.templatetags.words import decimals

Row = dict[str, Any]

CALLED: dict[str, Callable[[Row, str], Any]] = {
    "label": lambda row, part: row["label"].casefold(),
    "value": lambda row, part: _metric(row, part).get("mean"),
    "answered": lambda row, part: row.get("answer_rate"),
    "cut": lambda row, part: row.get("truncated_rate"),
    "cost": lambda row, part: row.get("cost_per_1000_usd"),
    "latency": lambda row, part: (row.get("latency_ms") or {}).get("p50"),
    "speed": lambda row, part: row.get("tokens_per_second"),
}
PRINTED_SLICES, PRINTED_MODELS = 12, 5
SORTS = (*CALLED, *(f"-{key}" for key in CALLED))


def question(experiment: Any) -> str:
    return f"Which model summarizes {experiment.dataset.name} best?"


def said(progress: Mapping[str, Any]) -> str:
    """What a listener hears: the state, and the progress in tenths, so that it is not repeated at every poll."""
    done, total = progress.get("done") or 0, progress.get("total") or 0
    tenth = f", {10 * (10 * done // total)}% done" if total and not progress.get("is_final") else ""
    return f"{progress.get('label', '')}{tenth}"


def _metric(row: Row, part: str) -> Mapping[str, Any]:
    return (row.get("metrics") or {}).get(part) or {}


def _versus(row: Row, part: str) -> Mapping[str, Any]:
    return (row.get("versus_leader") or {}).get(part) or {}


@dataclass(frozen=True)
class Part:
    """A metric part as a column: `digits` are its decimals, `best` the candidate that is clearly best, if any."""

    name: str
    label: str
    higher_is_better: bool | None
    digits: int
    best: Any = None

    @property
    def direction(self) -> str:
        if self.higher_is_better is None:
            return "a description"
        return "higher is better" if self.higher_is_better else "lower is better"


@dataclass
class Line:
    """A candidate's line in the main table: the comparison row, and its parts for the metric that is shown."""

    row: Row
    interval: Mapping[str, Any]
    versus: Mapping[str, Any]
    is_reference: bool
    is_best: bool


@dataclass
class Group:
    heading: str
    lines: list[Line] = field(default_factory=list)


class Shown:
    """The comparison page's arrangement of `document`, sorted by `sort`. The part shown is the one the document is
    about; `primary` is the one that was declared to decide."""

    def __init__(self, document: Mapping[str, Any], *, sort: str = "") -> None:
        self.document = document
        self.rows: list[Row] = list(document["candidates"])
        about = document["primary_metric"]
        self.primary = document["experiment"]["primary_metric"]
        self.parts = [self._part(described) for described in document["parts"]]
        self.part = next((part for part in self.parts if part.name == about), Part(about, about, True, 3))
        self.sort = sort if sort in SORTS else ""
        self.reference = document.get("reference_candidate")
        self.leader = document.get("leader", self.reference)

    @property
    def is_primary(self) -> bool:
        return self.part.name == self.primary

    @property
    def primary_label(self) -> str:
        return next((part.label for part in self.parts if part.name == self.primary), self.primary)

    @property
    def reference_label(self) -> str:
        """Whom the others are held against: "the leader", or the chosen candidate's name."""
        if self.reference == self.leader:
            return "the leader"
        return next((row["label"] for row in self.rows if row["candidate"] == self.reference), "")

    @property
    def models(self) -> list[Row]:
        return [row for row in self.rows if not row["is_baseline"]]

    @property
    def margin(self) -> float | None:
        """The largest loss that is accepted for a cheaper model, where one was set for the part that is shown."""
        margin: float | None = self.document["experiment"].get("margin") if self.is_primary else None
        return margin

    def _part(self, described: Mapping[str, Any]) -> Part:
        name = described["name"]
        values = [mean for row in self.rows if (mean := _metric(row, name).get("mean")) is not None]
        higher = described.get("higher_is_better", True)
        return Part(
            name=name,
            label=described.get("label") or name,
            higher_is_better=higher,
            digits=decimals(max(map(abs, values), default=0.0)),
            best=self._clearly_best(name, higher),
        )

    def _clearly_best(self, part: str, higher: bool | None) -> Any:
        """The leader on `part`, when every other model is clearly worse than it; else None."""
        models = [row for row in self.rows if not row["is_baseline"] and _metric(row, part).get("mean") is not None]
        leaders = {_versus(row, part).get("against") for row in self.rows} - {None}
        if higher is None or len(leaders) != 1:
            return None
        leader = leaders.pop()
        others = [row for row in models if row["candidate"] != leader]
        return leader if others and all(_versus(row, part).get("verdict") == "worse" for row in others) else None

    def _line(self, row: Row) -> Line:
        return Line(
            row=row,
            interval=_metric(row, self.part.name),
            versus=(row["versus_reference"] if "versus_reference" in row else _versus(row, self.part.name)) or {},
            is_reference=row["candidate"] == self.reference,
            is_best=self.part.best is not None and row["candidate"] == self.part.best,
        )

    @cached_property
    def groups(self) -> list[Group]:
        """Unsorted: the best group first, in words; sorted by a column: one group without a heading."""
        if self.sort:
            return [Group("", [self._line(row) for row in self._sorted()])]
        best = [row for row in self.rows if row.get("best_group")]
        if not best:
            return [Group("", [self._line(row) for row in self.rows])]
        rest = [row for row in self.rows if not row.get("best_group")]
        groups = [Group(self._heading(best), [self._line(row) for row in best])]
        if rest:
            heading = "The baselines" if all(row["is_baseline"] for row in rest) else "The others"
            groups.append(Group(heading, [self._line(row) for row in rest]))
        return groups

    def _heading(self, best: list[Row]) -> str:
        """What the best group is called. A model without a rival has beaten nobody: baselines are not ranked."""
        if len(best) > 1:
            return "Best group: nothing here is clearly worse than the leader"
        models = self.models
        if len(models) == 1:
            return "The only model"
        rivals = [
            row for row in models if _metric(row, self.part.name).get("mean") is not None and not row.get("problem")
        ]
        return "Clearly best" if len(rivals) > 1 else "The only model that ran to its end"

    def _sorted(self) -> list[Row]:
        """Rows without a value stay last in both directions."""
        value = CALLED[self.sort.lstrip("-")]
        have = [row for row in self.rows if value(row, self.part.name) is not None]
        lack = [row for row in self.rows if value(row, self.part.name) is None]
        return sorted(have, key=lambda row: value(row, self.part.name), reverse=self.sort.startswith("-")) + lack

    @cached_property
    def baseline(self) -> Row | None:
        """The best baseline that people could use: one that reads the references is a ceiling, not a floor."""
        rows = [row for row in self.rows if row["is_baseline"] and not row.get("uses_references")]
        rows = [row for row in rows if _metric(row, self.part.name).get("mean") is not None]
        if not rows:
            return None
        sign = -1 if self.part.higher_is_better is False else 1
        return max(rows, key=lambda row: sign * _metric(row, self.part.name)["mean"])

    @property
    def rule(self) -> float | None:
        return _metric(self.baseline, self.part.name)["mean"] if self.baseline else None

    @property
    def scale_rows(self) -> list[Row]:
        """What the column of intervals is scaled to: the models and the best baseline, so that one baseline far away
        does not squeeze the differences that matter."""
        models = self.models
        return [*models, self.baseline] if self.baseline and models else models or self.rows

    @property
    def n(self) -> int:
        return max((_metric(row, self.part.name).get("n") or 0 for row in self.rows), default=0)

    @property
    def axis(self) -> str:
        """What quality is drawn against: "cost" where any candidate costs money, else "time"."""
        return "cost" if any(row.get("cost_per_1000_usd") for row in self.rows) else "time"

    @property
    def points(self) -> Iterator[dict[str, Any]]:
        """The candidates as points of quality against cost (dollars per 1,000 documents) or time (seconds)."""
        for row in self.rows:
            interval = _metric(row, self.part.name)
            median = (row.get("latency_ms") or {}).get("p50")
            seconds = None if median is None else median / 1000
            yield {
                "label": row["label"],
                "price": row.get("cost_per_1000_usd") if self.axis == "cost" else seconds,
                "quality": interval.get("mean"),
                "low": interval.get("low"),
                "high": interval.get("high"),
                "href": f"#candidate-{row['candidate']}",
                "is_baseline": row["is_baseline"],
                "is_ceiling": row.get("uses_references"),
            }

    @cached_property
    def front(self) -> list[Row]:
        """Those that are on a front in any share of the resamples, the most constant first."""
        found = [row for row in self.rows if any((row.get("front") or {}).values())]
        return sorted(found, key=lambda row: -(row["front"]["cost"] or row["front"]["latency"] or 0.0))

    @property
    def front_resamples(self) -> int:
        return RESAMPLES

    @property
    def off_the_cost_front(self) -> list[str]:
        """Whose price is not known: they are on no cost front, and not as if they cost nothing."""
        return [row["label"] for row in self.rows if row.get("front") and row["cost_per_1000_usd"] is None]

    @cached_property
    def gates(self) -> list[tuple[Row, list[dict[str, Any]]]]:
        """Every model with its result at each gate, and its result against the best baseline last."""
        told = self.document.get("gates") or []
        if not told:
            return []
        against = {row["candidate"]: row for row in (self.document.get("baseline_check") or {}).get("rows", ())}
        lines = []
        for row in self.models:
            cells = []
            for gate in told:
                result = next(each for each in gate["results"] if each["candidate"] == row["candidate"])
                cells.append({"unit": gate["unit"], **result})
            lines.append((row, [*cells, {"unit": "verdict", **(against.get(row["candidate"]) or {"verdict": ""})}]))
        return lines

    @property
    def checked_baseline(self) -> str:
        chosen = (self.document.get("baseline_check") or {}).get("baseline")
        return next((row["label"] for row in self.rows if row["candidate"] == chosen), "")

    @cached_property
    def readings(self) -> list[dict[str, Any]]:
        """The readings, with names for ids."""
        named = {row["candidate"]: row["label"] for row in self.rows}
        return [
            {
                **each,
                "best_group": [named[candidate] for candidate in each["best_group"]],
                "choice": named.get(each["choice"], ""),
            }
            for each in (self.document.get("readings") or {}).get("rows", ())
        ]

    @cached_property
    def slices(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Every slice with a cell for each model, in the order of the models; for the part that decides only."""
        if not self.is_primary:
            return []
        lines = []
        for each in (self.document.get("slices") or {}).get("rows", ()):
            cells = {cell["candidate"]: cell for cell in each["cells"]}
            lines.append((each, [cells[row["candidate"]] for row in self.models if row["candidate"] in cells]))
        return lines

    @property
    def slices_are_printed(self) -> bool:
        """Whether they leave the printed answer on two pages."""
        return len(self.slices) <= PRINTED_SLICES and len(self.models) <= PRINTED_MODELS

    @property
    def distributions(self) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Every candidate with the distribution of its values, all in the same bins."""
        told = self.document.get("distribution") or {}
        counts = {str(candidate): row for candidate, row in (told.get("counts") or {}).items()}
        for row in self.rows:
            if any(mine := counts.get(str(row["candidate"])) or ()):
                yield row, {"edges": told["edges"], "counts": mine}

    @property
    def table(self) -> Iterator[tuple[Row, list[dict[str, Any]]]]:
        """All metrics: every candidate with one cell per part."""
        for row in self.rows:
            cells = []
            for part in self.parts:
                interval, versus = _metric(row, part.name), _versus(row, part.name)
                cells.append(
                    {
                        "part": part,
                        "interval": interval,
                        "verdict": versus.get("verdict"),
                        "is_best": part.best is not None and row["candidate"] == part.best,
                    }
                )
            yield row, cells

    @cached_property
    def pairs(self) -> list[tuple[Row, list[dict[str, Any] | None]]]:
        """The matrix of pairs for the shown part: line minus column. Empty when nothing was tested.

        A pair of the document is b minus a, and its verdict is about b.
        """
        told: dict[tuple[Any, Any], dict[str, Any]] = {}
        for pair in self.document["pairs"]:
            if pair["metric"] == self.part.name:
                told[pair["b"], pair["a"]] = dict(pair)
                told[pair["a"], pair["b"]] = turned(pair)
        if not told:
            return []
        return [(row, [told.get((row["candidate"], other["candidate"])) for other in self.rows]) for row in self.rows]

    @property
    def signature(self) -> list[tuple[str, str]]:
        """What could change the verdicts, as (name, value)."""
        told = self.document.get("signature") or {}
        return list(flat({key: value for key, value in told.items() if key != "metrics"}))

    @property
    def metric_signature(self) -> tuple[str, list[tuple[str, str]]]:
        """(digest, [(name, value)]): what could change the scores that are shown."""
        digests = (_metric(row, self.part.name).get("signature") for row in self.rows)
        digest = next((digest for digest in digests if digest), "")
        detail = (self.document.get("signature") or {}).get("metrics", {}).get(digest) or {}
        return digest, list(flat(detail))


def flat(mapping: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, text)."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def against(found: Mapping[str, Any], wish: str) -> tuple[str, str | None]:
    """(what outputs are compared with, its text): "reference" (the first), a candidate's id, or "none" and None."""
    references = found["example"].get("references") or []
    if wish == "reference" and references:
        return "reference", references[0]
    for output in found["outputs"]:
        if str(output["candidate"]) == wish and output.get("text"):
            return wish, output["text"]
    return "none", None


def scored_parts(found: Mapping[str, Any], primary: str) -> tuple[list[metrics.Part], list[metrics.Part]]:
    """(the headline parts, the primary one first; the rest) that any output was scored on. A precision or a recall
    that is not the primary part is of the rest: its F-measure is the headline."""
    owners = metrics.part_owner()
    names = dict.fromkeys(name for output in found["outputs"] for name in output["scores"])
    parts = [owners[name].part(name) for name in names if name in owners]
    first = [part for part in parts if part.name == primary]
    others = [part for part in parts if part.name != primary]
    detail = [part for part in others if part.name.endswith(("_precision", "_recall"))]
    return first + [part for part in others if part not in detail], detail
