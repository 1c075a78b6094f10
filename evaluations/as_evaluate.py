"""Our metrics as `evaluate.Metric` objects, for code that is written against Hugging Face's `evaluate`.

    from evaluations.as_evaluate import load
    load("rouge").compute(predictions=["a cat sat"], references=["the cat sat"])

The numbers are those of the product, item by item; nothing is fetched and nothing is written to evaluate's cache but
the empty folder that evaluate makes for every metric. Importing `evaluate` takes seconds, so it waits for `load`.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluations.metrics import Absent, Counted, Item, Metric, Options, Part, Value, available

if TYPE_CHECKING:
    import evaluate

INPUTS = """
Args:
    predictions: list of str, one output each.
    references: list of str, or of lists of str where an output has several references.
    sources: list of str, the documents; needed by metrics that read them, accepted by all.
    per_example: True adds {"per_example": {part: [number or None, …]}}, in the order of the predictions.
Returns:
    {part: mean over the examples, or None where no example has a number}. An empty output counts as the worst value.
    "absent", {part: {reason: count}}, is there only when an example has no number, and says why.
"""


def load(name: str, **options: Any) -> evaluate.Metric:
    """The metric `name` of this installation with these options, as an `evaluate.Metric`.

    Raises ValueError for an unknown metric, option or option value, RuntimeError when this installation cannot
    compute it, ImportError without `evaluate`.
    """
    known = available()
    if name not in known:
        raise ValueError(f"there is no metric {name!r}: choose one of {', '.join(known)}")
    metric = known[name]
    if unknown := sorted(options.keys() - metric.defaults.keys()):
        raise ValueError(f"{name} has no option {unknown[0]!r}: it has {', '.join(metric.defaults) or 'none'}")
    asked = {**metric.defaults, **options}
    if reason := metric.available(asked):
        raise RuntimeError(f"{name} cannot be computed here: {reason}")
    return _adapter(name)(metric, asked)


@cache
def _adapter(name: str) -> type:
    """A class called like the metric: `evaluate` names a metric after its class."""
    import datasets  # type: ignore[import-untyped]
    import evaluate

    class Adapter(evaluate.Metric):  # type: ignore[misc]
        """Keeps what is added as items in memory; `compute` scores them and forgets them."""

        def __init__(self, metric: Metric, options: Options) -> None:
            self._metric, self._options, self._items = metric, options, list[Item]()
            super().__init__(keep_in_memory=True, seed=0)

        def _info(self) -> evaluate.MetricInfo:
            features: dict[str, Any] = {"predictions": datasets.Value("string")}
            if self._metric.needs_reference:
                features["references"] = datasets.Sequence(datasets.Value("string"))
            if self._metric.needs_source:
                features["sources"] = datasets.Value("string")
            return evaluate.MetricInfo(
                description=self._metric.about,
                citation=_source(self._metric),
                inputs_description=INPUTS,
                features=datasets.Features(features),
            )

        @property
        def signature(self) -> tuple[str, dict[str, Any]]:
            """(digest, everything that decides the numbers), as the product stores it with each score."""
            return self._metric.sign(self._options)

        def __len__(self) -> int:
            return len(self._items)

        def add_batch(
            self, *, predictions: Any = None, references: Any = None, sources: Any = None, **unknown: Any
        ) -> None:
            """Add outputs with their references and sources, to be scored by `compute`."""
            if unknown:
                raise ValueError(
                    f"unknown inputs {', '.join(sorted(unknown))}: give predictions, references and sources"
                )
            self._items += _items(self._metric, predictions, references, sources)

        def add(self, *, prediction: Any = None, reference: Any = None, source: Any = None, **unknown: Any) -> None:
            """Add one output with its reference or references, and its source."""
            # The plural names are how evaluate.combine passes on what a metric calls its inputs.
            prediction = unknown.pop("predictions", prediction)
            reference = unknown.pop("references", reference)
            source = unknown.pop("sources", source)
            self.add_batch(
                predictions=[prediction],
                references=None if reference is None else [reference],
                sources=None if source is None else [source],
                **unknown,
            )

        def compute(
            self,
            *,
            predictions: Any = None,
            references: Any = None,
            sources: Any = None,
            per_example: bool = False,
            **unknown: Any,
        ) -> dict[str, Any]:
            """Score what was added, and what is given here."""
            if predictions is not None or references is not None or sources is not None or unknown:
                self.add_batch(predictions=predictions, references=references, sources=sources, **unknown)
            if not self._items:
                raise ValueError("there is nothing to compute: give predictions, or add some first")
            items, self._items = self._items, []
            return _result(self._metric, self._options, items, per_example)

    return type(name, (Adapter,), {"__doc__": Adapter.__doc__, "__module__": __name__})


def _source(metric: Metric) -> str:
    """Where the metric comes from: the paper that its module names, and the signature of its defaults."""
    told = inspect.getdoc(sys.modules.get(getattr(metric.score, "__module__", ""))) or metric.label
    return " ".join(told.split("\n\n")[0].split())


# What is given


def _items(metric: Metric, predictions: Any, references: Any, sources: Any) -> list[Item]:
    """One item for each prediction. Raises ValueError, naming the input, its place and what it should be."""
    texts = _texts("predictions", predictions)
    if metric.needs_reference and references is None:
        raise ValueError(f"{metric.name} compares with references: give one, or a list of them, for each prediction")
    if metric.needs_source and sources is None:
        raise ValueError(f"{metric.name} reads the source: give sources, one document for each prediction")
    answers = _references(references) if references is not None else [()] * len(texts)
    documents = _texts("sources", sources) if sources is not None else [""] * len(texts)
    for name, given in (("references", answers), ("sources", documents)):
        if len(given) != len(texts):
            raise ValueError(f"there are {len(texts)} predictions and {len(given)} {name}: give one for each")
    return [Item(*each) for each in zip(texts, answers, documents, strict=True)]


def _texts(name: str, given: Any) -> list[str]:
    texts = _listed(name, given)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name}[{place}] is of type {type(text).__name__}: give a str")
    return [str(text) for text in texts]


def _references(given: Any) -> list[tuple[str, ...]]:
    return [
        (str(each),) if isinstance(each, str) else tuple(_texts(f"references[{place}]", each))
        for place, each in enumerate(_listed("references", given))
    ]


def _listed(name: str, given: Any) -> list[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"{name} is of type {type(given).__name__}: give a list of str")
    return list(given)


# What comes back


def _result(metric: Metric, options: Options, items: Sequence[Item], per_example: bool) -> dict[str, Any]:
    """See INPUTS. The floor of a failed output and the corpus value are those of the product's own aggregates."""
    scored = metric.score(items, options)
    result: dict[str, Any] = {}
    absent: dict[str, dict[str, int]] = {}
    for part in metric.parts:
        values = [each[part.name] for each in scored]
        result[part.name] = _mean(part, values)
        if reasons := Counter(value.reason for value in values if isinstance(value, Absent)):
            absent[part.name] = dict(reasons)
    if metric.corpus:
        counts = [value.counts for each in scored if isinstance(value := each[metric.corpus.of], Counted)]
        result[metric.corpus.part.name] = (
            float(metric.corpus.value(np.array(counts, dtype=np.int64).sum(axis=0), options)) if counts else None
        )
    if per_example:
        result["per_example"] = {part.name: [_number(each[part.name]) for each in scored] for part in metric.parts}
    return {**result, "absent": absent} if absent else result


def _mean(part: Part, values: Sequence[Value]) -> float | None:
    worst = part.worst
    numbers = [worst if isinstance(value, Absent) and value.state == "failed" else _number(value) for value in values]
    found = [number for number in numbers if number is not None]
    return float(np.mean(found)) if found else None


def _number(value: Value) -> float | None:
    return None if isinstance(value, Absent) else float(value)
