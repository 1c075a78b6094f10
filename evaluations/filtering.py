"""Filtering narrows a list of documents to one slice of the comparison."""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from evaluations.gathering import Octets, cut_examples
from evaluations.models import Experiment


def slices(experiment: Experiment) -> list[dict[str, Any]]:
    """[{key, kind, label, n, where}] as finalize cut them, for the part that decides."""
    rows: list[dict[str, Any]] = []
    for told in experiment.statistics.get(experiment.primary_metric, {}).values():
        rows = (told.get("slices") or {}).get("rows") or rows
    return rows


def inside(rows: Any, experiment: Experiment, key: str, example: str) -> Any:
    """The rows whose document is in the slice `key`; `example` is the path from a row to it ("" or "example__").

    Raises LookupError for a key that the comparison does not have.
    """
    found = next((each for each in slices(experiment) if each["key"] == key), None)
    if found is None:
        raise LookupError(f"there is no slice {key[:60]!r} in this experiment: the comparison lists them")
    where = found["where"]
    if found["kind"] == "group":
        return rows.filter(**{f"{example}group": where["value"]})
    if found["kind"] == "tag":
        return rows.filter(**{f"{example}tags__contains": {where["name"]: where["value"]}})
    if found["kind"] == "length":
        rows = rows.alias(octets=Octets(f"{example}source"))
        above = Q() if where["above"] is None else Q(octets__gt=where["above"])
        return rows.filter(above, Q() if where["to"] is None else Q(octets__lte=where["to"]))
    was_cut = Q(**{f"{example}id__in": cut_examples(experiment).values("example")})
    return rows.filter(was_cut if key == "cut:yes" else ~was_cut)
