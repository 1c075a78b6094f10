"""Selfchecking computes, on this installation, values that are known, and says where they differ.

A number from a library is only as good as its installed version, its word lists and its weights. Every metric brings
published or reference values (`Metric.checks`); `report` computes them here. Workers do it for the web pages, for it
is they who score: a page asks (`ask`), the next free worker answers (`do_asked`).
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from evaluations.metrics import EXAMPLE, Absent, Check, Metric, Value, available
from evaluations.models import SelfCheck
from lumigator import doorbell

log = logging.getLogger(__name__)
Document = dict[str, Any]
GIVEN_UP = timedelta(minutes=10)
"""A worker that began so long ago has died over it."""


def report(metrics: Iterable[Metric] | None = None) -> Document:
    """{passed, python, metrics[{name, label, available, why_not, signature, seconds, example{part: …}, checks[{title,
    source, options, passed, problem, values[{part, expected, found, tolerance, passed}]}]}]}.

    `passed` is False when any value that could be computed differs, or a check could not be run at all; metrics that
    are not available here are listed with the reason and fail nothing. Loads encoders where metrics need them.
    """
    told = [_told(metric) for metric in (available().values() if metrics is None else metrics)]
    return {
        "passed": all(check["passed"] for metric in told for check in metric["checks"]),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "metrics": told,
    }


def _told(metric: Metric) -> Document:
    began = time.monotonic()
    why_not = metric.available(metric.defaults)
    digest, signature = metric.sign(metric.defaults)
    checks = [] if why_not else [_checked(metric, check) for check in metric.checks]
    return {
        "name": metric.name,
        "label": metric.label,
        "available": not why_not,
        "why_not": why_not,
        "signature": {"digest": digest, **signature},
        "example": {} if why_not else _worked(metric),
        "checks": checks,
        "seconds": round(time.monotonic() - began, 2),
    }


def _checked(metric: Metric, check: Check) -> Document:
    told: Document = {"title": check.title, "source": check.source, "options": dict(check.options), "problem": ""}
    options = {**metric.defaults, **check.options}
    if why_not := metric.available(options):
        return {**told, "passed": True, "problem": f"not computed here: {why_not}", "values": []}
    try:
        found = metric.score([check.item], options)[0]
    except Exception as exc:
        log.exception("the check %r of %s fails", check.title, metric.name)
        return {**told, "passed": False, "problem": f"it fails: {type(exc).__name__}: {exc}"[:300], "values": []}
    values = [_compared(part, expected, found[part], check.tolerance) for part, expected in check.expected.items()]
    return {**told, "passed": all(each["passed"] for each in values), "values": values}


def _compared(part: str, expected: float, found: Value, tolerance: float) -> Document:
    if isinstance(found, Absent):
        told: Document = {"found": None, "problem": found.reason, "passed": False}
    else:
        told = {"found": float(found), "problem": "", "passed": abs(float(found) - expected) <= tolerance}
    return {"part": part, "expected": expected, "tolerance": tolerance, **told}


def _worked(metric: Metric) -> Document:
    """The example, or nothing where the metric fails on it: its checks tell why."""
    try:
        return worked_example(metric)
    except Exception:
        log.exception("metric %s fails on the guide's example", metric.name)
        return {}


def worked_example(metric: Metric) -> Document:
    """{part: {value, state, reason}} of the guide's example, computed here and now."""
    found = metric.score([EXAMPLE], metric.defaults)[0]
    return {part: _shown(value) for part, value in found.items()}


def _shown(value: Value) -> Document:
    if isinstance(value, Absent):
        return {"value": None, "state": value.state, "reason": value.reason}
    return {"value": float(value), "state": "", "reason": ""}


def in_words(told: Document) -> Iterable[str]:
    """The report as lines for a terminal."""
    for metric in told["metrics"]:
        if not metric["available"]:
            yield f"–  {metric['label']}: not computed here: {metric['why_not']}"
            continue
        passed = all(check["passed"] for check in metric["checks"])
        n = len(metric["checks"])
        yield f"{'✓' if passed else '✗'}  {metric['label']}: {n} known value{'' if n == 1 else 's'}"
        for check in metric["checks"]:
            yield f"   {'✓' if check['passed'] else '✗'} {check['title']} ({check['source']})"
            if check["problem"]:
                yield f"       {check['problem']}"
            for value in check["values"]:
                found = value["problem"] if value["found"] is None else f"{value['found']:.6g}"
                wrong = "" if value["passed"] else "   <- differs"
                yield f"       {value['part']}: {found}, expected {value['expected']:.6g}{wrong}"


# --- for the pages --------------------------------------------------------------------------------------------------


def ask(user: User | None) -> SelfCheck:
    """Ask the workers for a report; the one that is already asked for, where there is one."""
    waiting = SelfCheck.objects.filter(done_at=None).first()
    asked = waiting or SelfCheck.objects.create(asked_by=user)
    doorbell.ring("selfcheck", "cpu")
    return asked


def do_asked(host: str) -> None:
    """Do what was asked for and nobody does: one worker each."""
    for pk in _free().values_list("pk", flat=True):
        if _free().filter(pk=pk).update(begun_at=Now(), host=host[:120]):
            SelfCheck.objects.filter(pk=pk).update(report=report(), done_at=Now())


def are_asked() -> bool:
    """Whether a report waits for a worker."""
    return _free().exists()


def _free() -> QuerySet[SelfCheck]:
    """Asked for, and nobody does it, or who began it has died over it."""
    return SelfCheck.objects.filter(Q(begun_at=None) | Q(begun_at__lt=Now() - GIVEN_UP), done_at=None)


def latest() -> SelfCheck | None:
    """The newest report that is done."""
    return SelfCheck.objects.exclude(done_at=None).first()
