"""Explaining puts a metric before somebody who has never heard of it: its words, and one example computed here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

from evaluations import metrics, selfchecking

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Explained:
    """A metric for the guide. `values` are those of `metrics.EXAMPLE`: {part name: {value, state, reason}}; `computed`
    says where: "here", "by a worker", or "" when nobody has computed them yet (then `values` is empty)."""

    metric: metrics.Metric
    why_not: str
    values: dict[str, dict[str, Any]]
    computed: str

    @property
    def rows(self) -> list[tuple[metrics.Part, dict[str, Any] | None]]:
        """(part, its value in the example or None), corpus part last."""
        return [(part, self.values.get(part.name)) for part in self.metric.all_parts]


def explained(metric: metrics.Metric) -> Explained:
    """The example is computed in this process where that takes no encoder, else taken from the newest self-check."""
    why_not = metric.available(metric.defaults)
    if metric.queue == "cpu" and not why_not:
        return Explained(metric, why_not, _computed(metric.name), "here")
    newest = selfchecking.latest()
    told = next((each for each in newest.report["metrics"] if each["name"] == metric.name), None) if newest else None
    if told and told["example"]:
        return Explained(metric, "" if told["available"] else why_not, told["example"], "by a worker")
    return Explained(metric, why_not, {}, "")


@cache
def _computed(name: str) -> dict[str, dict[str, Any]]:
    try:
        return selfchecking.worked_example(metrics.available()[name])
    except Exception:  # an administrator's own module may do anything; the guide must still open
        log.exception("metric %s fails on the guide's example", name)
        return {}
