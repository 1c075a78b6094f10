"""Examining checks an installation and its data, and says in words what is wrong and how to mend it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from django.db import connection
from redis.exceptions import RedisError

from evaluations import comparing, metrics
from evaluations.finalizing import recomputed
from evaluations.models import Aggregate, Call, Experiment, Generation, Score, WorkUnit
from lumigator import doorbell
from lumigator.views import readiness_problem

Finding = tuple[bool, str]


def findings() -> Iterator[Finding]:
    """(is it good, a sentence), for the installation first, then for the data."""
    yield from _installation()
    yield from _data()


def _installation() -> Iterator[Finding]:
    problem = readiness_problem()
    yield not problem, problem or "The database answers and its migrations are applied."
    try:
        doorbell.broker.client.ping()
        yield True, "Redis answers; workers hear of new work at once."
    except RedisError as exc:
        yield False, f"Redis does not answer ({type(exc).__name__}): work goes on by polling, a few seconds late."
    for package in ("torch", "transformers"):
        there = importlib.util.find_spec(package) is not None
        yield (
            there,
            f"{package} is installed."
            if there
            else f"{package} is missing: local models cannot run here; install lumigator[worker].",
        )
    for metric in metrics.available().values():
        why = metric.available(metric.defaults)
        yield not why, f"The metric {metric.name} can be computed." if not why else f"The metric {metric.name}: {why}"
    alive = comparing.workers_alive()
    yield (
        True,
        f"{alive} worker processes are alive." if alive else "No worker process is alive; `lumigator up` starts them.",
    )


def _data() -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM evaluations_workunit"
            " WHERE state = 'leased' AND lease_until < clock_timestamp() - interval '2 minutes'"
        )
        lapsed = cursor.fetchone()[0]
    yield (
        not lapsed,
        (
            f"{lapsed} work units have a lease that lapsed minutes ago: no worker sweeps; start one."
            if lapsed
            else "No lease is overdue."
        ),
    )
    for experiment in Experiment.objects.filter(state__in=("completed", "completed_with_errors")).order_by("-id")[:50]:
        yield from _experiment(experiment)


def _experiment(experiment: Experiment) -> Iterator[Finding]:
    name = f"Experiment {experiment.pk}"
    for candidate in experiment.candidates.all():
        outcomes = Generation.objects.filter(candidate=candidate).count()
        if outcomes != experiment.n_examples and not candidate.problem:
            yield (
                False,
                f"{name}: {candidate.label} has {outcomes} outcomes for {experiment.n_examples} documents; resume it.",
            )
        parts = sum(
            len(metrics.available()[each["name"]].parts)
            for each in experiment.metrics
            if each["name"] in metrics.available()
        )
        scores = Score.objects.filter(candidate=candidate).count()
        if scores < outcomes * parts:
            yield (
                False,
                f"{name}: {candidate.label} has {scores} scores for {outcomes * parts}; "
                "start it again to fill the gap.",
            )
    for aggregate in Aggregate.objects.filter(candidate__experiment=experiment):
        again = recomputed(aggregate)
        if again is None or aggregate.mean is None:
            agree = again is aggregate.mean
        else:
            agree = abs(again - aggregate.mean) <= 1e-9
        if not agree:
            yield (
                False,
                f"{name}: the mean of {aggregate.part} is {aggregate.mean}, its rows say {again}; start it again.",
            )
    if stale := Call.objects.filter(experiment=experiment, state="reserved").count():
        yield False, f"{name}: {stale} calls are still reserved although it has ended."
    if WorkUnit.objects.filter(experiment=experiment, state="leased").exists():
        yield False, f"{name}: it has ended, but a unit is still leased."
