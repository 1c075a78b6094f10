"""Rescoring tells what a changed signature did to the numbers: which setting changed, and every mean, old and new.

Scores are never overwritten: those of an earlier signature stay beside the new ones, and are never averaged with them.
An experiment is scored anew whenever it is started again and a metric's signature on the scoring machine differs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from evaluations.metrics import available
from evaluations.models import Aggregate, Experiment, Signature

Document = dict[str, Any]
IGNORED = ("metric",)


def changes(experiment: Experiment) -> list[Document]:
    """[{metric, was, now, changed[{what, was, now}], means[{part, candidate, label, was, now, difference}]}], an entry
    per metric and earlier signature, for the parts that both have numbers of; the latest change first."""
    return [told for frozen in experiment.metrics for told in _changes(experiment, frozen)]


def _changes(experiment: Experiment, frozen: dict[str, Any]) -> Iterator[Document]:
    now = frozen.get("signature", "")
    earlier = frozen.get("earlier", [])
    details = {each.pk: each.detail for each in Signature.objects.filter(pk__in=[now, *earlier])}
    means = _means(experiment, [now, *earlier])
    for was in reversed(earlier):
        both = [key for key in means[was] if key in means[now]]
        if both:
            yield {
                "metric": frozen["name"],
                "was": was,
                "now": now,
                "changed": list(_changed(details.get(was, {}), details.get(now, {}))),
                "means": [_moved(key, means[was][key], means[now][key]) for key in sorted(both)],
            }


def _means(experiment: Experiment, digests: list[str]) -> dict[str, dict[tuple[str, int, str], float]]:
    """{digest: {(part, candidate, label): mean}}."""
    found: dict[str, dict[tuple[str, int, str], float]] = defaultdict(dict)
    rows = Aggregate.objects.filter(candidate__experiment=experiment, signature__in=digests, mean__isnull=False)
    for row in rows.select_related("candidate"):
        assert row.mean is not None
        found[row.signature_id][row.part, row.candidate_id, row.candidate.label] = row.mean
    return found


def _changed(was: Document, now: Document) -> Iterator[Document]:
    for name in dict.fromkeys([*was, *now]):
        if name not in IGNORED and was.get(name) != now.get(name):
            yield {"what": name, "was": _said(was.get(name)), "now": _said(now.get(name))}


def _said(value: Any) -> str:
    return "not stated" if value is None else str(value)


def _moved(key: tuple[str, int, str], was: float, now: float) -> Document:
    part, candidate, label = key
    return {"part": part, "candidate": candidate, "label": label, "was": was, "now": now, "difference": now - was}


def outdated(experiment: Experiment) -> list[Document]:
    """[{metric, changed[{what, was, now}]}] for the metrics that this installation would now sign differently, so that
    scoring anew would give other numbers or at least another provenance. Metrics that are not available in this
    process (a web server without the worker's packages) cannot be judged here, and are left out."""
    return [told for frozen in experiment.metrics if (told := _outdated(frozen)) is not None]


def _outdated(frozen: dict[str, Any]) -> Document | None:
    metric = available().get(frozen["name"])
    was = frozen.get("signature")
    if metric is None:
        gone = {"what": "the metric", "was": "registered", "now": "not registered here: its scores stay as they are"}
        return {"metric": frozen["name"], "changed": [gone]}
    if not was or metric.available({**metric.defaults, **frozen["options"]}):
        return None
    digest, detail = metric.sign(frozen["options"])
    if digest == was:
        return None
    before = Signature.objects.filter(pk=was).values_list("detail", flat=True).first() or {}
    return {"metric": frozen["name"], "changed": list(_changed(before, detail))}


def mixed(experiment: Experiment) -> list[str]:
    """Sentences about metrics whose outputs were scored by workers of different versions in one run: those that have
    no number under the signature that counts, but have one under another that is no earlier one."""
    told = []
    for frozen in experiment.metrics:
        known = {frozen.get("signature"), *frozen.get("earlier", [])}
        metric = available().get(frozen["name"])
        if metric is None or not frozen.get("signature"):
            continue
        rows = Aggregate.objects.filter(candidate__experiment=experiment, part=metric.parts[0].name, n__gt=0)
        if rows.exclude(signature__in=known).exists():
            told.append(
                f"{metric.label} was computed by workers with different versions of it, so some outputs have no "
                "comparable number: bring the workers to one version, then score anew."
            )
    return told
