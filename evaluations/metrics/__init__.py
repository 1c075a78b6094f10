"""Metrics: one module each, found by `available()`. Copy a neighbour to add one.

A metric scores *items* (one output with its references and its source) one by one, so that every mean, interval
and test can be derived from per-example values. It never aggregates, never reads the database, never reaches the
network, and imports its heavy library inside the function that needs it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lumigator.discovery import discover

Options = Mapping[str, Any]
State = Literal["failed", "not_applicable", "not_computed"]


@dataclass(frozen=True)
class Item:
    """One output to score: `text` as the candidate wrote it, zero or more `references`, and the `source`."""

    text: str
    references: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Absent:
    """Why there is no number. STATISTICS §3 names the states:

    * `failed`: the output cannot be scored (it is empty, say); counted, and scored at the metric's floor;
    * `not_applicable`: the question makes no sense here (no reference); left out pairwise, and counted;
    * `not_computed`: a dependency or its weights are missing; there is no number at all.

    `counts` are those of an empty output where the metric has a value of the corpus: what failed still counts in it.
    """

    state: State
    reason: str
    counts: tuple[int, ...] = ()


Value = float | Absent


class Counted(float):
    """A value with the `counts` it was made of, from which `Corpus.value` makes the value of many outputs together.

    Counts are whole numbers, as many for every item, and the counts of several items are their sums.
    """

    counts: tuple[int, ...]

    def __new__(cls, value: float, counts: Sequence[int]) -> Counted:
        made = super().__new__(cls, value)
        made.counts = tuple(counts)
        return made


@dataclass(frozen=True)
class Part:
    """One number of a metric: its public name, its label, the range `low`..`high` and which way is better.

    `higher_is_better` is None for a description (a length), which no test may call better or worse. `floor` is what a
    failed output counts as where the end of the range is too harsh (a cosine of -1 is worse than any real output).
    """

    name: str
    label: str
    low: float = 0.0
    high: float | None = 1.0
    higher_is_better: bool | None = True
    about: str = ""
    floor: float | None = None

    @property
    def worst(self) -> float | None:
        """What a failed output counts as: `floor` where one is stated, else the bad end of the range; None for a
        description."""
        if self.higher_is_better is None or self.floor is not None:
            return self.floor
        return self.low if self.higher_is_better else self.high


@dataclass(frozen=True)
class Corpus:
    """A number of the whole corpus that is no mean of numbers of its examples (BLEU as papers print it).

    `part` names it; `of` is the part whose scores are `Counted`; `value(totals, options)` turns sums of counts, an
    array of shape (…, k), into values of shape (…). It is shown with its interval and never tested per document.
    """

    part: Part
    of: str
    value: Callable[[NDArray[np.int64], Options], NDArray[np.float64]]


@dataclass(frozen=True)
class Check:
    """A value that is known: this `item` with these `options` must score `expected` within `tolerance`.

    `source` says where the value comes from ("NLTK's docstring"), for somebody who wants to look it up.
    """

    title: str
    item: Item
    expected: Mapping[str, float]
    source: str
    options: Options = field(default_factory=dict)
    tolerance: float = 1e-9


EXAMPLE = Item(
    text="The council approved the budget for 2024. Fees for parking will rise by ten percent.",
    references=("On Monday the town council passed the 2024 budget; parking fees go up by 10 percent.",),
    source=(
        "The town council met on Monday evening to discuss the budget for 2024. After three hours of debate it "
        "approved the budget with nine votes to four. Taxes on property stay as they are. Fees for parking in the "
        "centre will rise by ten percent from January, which the shopkeepers' association called a mistake. The "
        "council meets again in March."
    ),
)
"""The worked example of the guide: every metric scores this one output, so that the metrics can be compared."""


@dataclass(frozen=True)
class Metric:
    """A plug-in. `score(items, options)` returns, for every item in order, {part name: Value} with every part.

    * `about`: one paragraph for somebody who has never heard of it; shown on the guide page, in forms, in the API.
    * `queue`: where scoring runs ("cpu", or "gpu" for metrics that load a neural encoder when there is one).
    * `defaults`: the options with their default values; anything that can change a number is an option.
    * `signature(options)`: everything that decides the number (library versions, tokenizer, stemming, sentence
      splitting, reference aggregation, encoder, …) as a flat mapping; two different signatures are never compared.
    * `available()`: an empty string, or why this installation cannot compute it ("the encoder … is not installed").
    * `languages`: what it is made for, as ISO 639-1 codes ("en"); empty when it does not matter.
    * `cost`: what computing it costs, in a sentence with figures.
    * `checks`: published or reference values; `lumigator selfcheck` computes them on this installation.
    * `corpus`: a value of all outputs together, where the mean over documents is not what papers print.
    """

    name: str
    label: str
    parts: tuple[Part, ...]
    about: str
    score: Callable[[Sequence[Item], Options], list[dict[str, Value]]]
    signature: Callable[[Options], dict[str, Any]]
    needs_reference: bool = True
    needs_source: bool = False
    queue: Literal["cpu", "gpu"] = "cpu"
    defaults: Options = field(default_factory=dict)
    available: Callable[[Options], str] = lambda options: ""
    languages: tuple[str, ...] = ()
    cost: str = ""
    checks: tuple[Check, ...] = ()
    corpus: Corpus | None = None

    def part(self, name: str) -> Part:
        """The part called `name`, also that of the corpus. Raises KeyError."""
        return {part.name: part for part in self.all_parts}[name]

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """The parts of an example, then that of the corpus."""
        return (*self.parts, self.corpus.part) if self.corpus else self.parts

    def sign(self, options: Options) -> tuple[str, dict[str, Any]]:
        """(digest, signature): the first 16 hex digits of the SHA-256 of the signature's canonical JSON."""
        signature = {"metric": self.name, **self.signature({**self.defaults, **options})}
        text = json.dumps(signature, sort_keys=True, separators=(",", ":"))
        return sha256(text.encode()).hexdigest()[:16], signature


@cache
def available() -> dict[str, Metric]:
    """Every metric of this installation by name: ours, and the `evaluate` modules that its administrator registers."""
    from evaluations.metrics._evaluate_modules import registered

    ours = discover(sys.modules[__name__], "metric", Metric)
    return dict(sorted({**ours, **registered(ours)}.items()))


@cache
def part_owner() -> dict[str, Metric]:
    """{part name: its metric}. Raises ValueError when two metrics share a part name."""
    owners: dict[str, Metric] = {}
    for metric in available().values():
        for part in metric.all_parts:
            if part.name in owners:
                raise ValueError(f"the metric part {part.name!r} belongs to {owners[part.name].name} and {metric.name}")
            owners[part.name] = metric
    return owners
