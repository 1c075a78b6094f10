"""Faults on real worker processes (RELIABILITY §3: 1-4 and 7): whatever dies, one outcome per document stays true.

Each story starts real `lumigator worker` processes on this test's database with short leases, hurts something, and
checks the invariants I1 (outcomes complete, none twice), I2 (one score per part and outcome), I3 (aggregates equal
their rows) and I8 (recovery within the lease plus a sweep).
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection, connections

from evaluations import steering
from evaluations.finalizing import recomputed
from evaluations.models import Aggregate, Experiment, Generation, Score, WorkUnit
from evaluations.tests.engine import make_dataset, make_experiment, make_fake
from evaluations.tests.fleet import LEASE, SWEEP, Fleet, ended, fleet_in, wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.chaos]
DOCUMENTS = [
    f"Crew {number} reached hut {number % 7}. The path was closed. They waited {number} hours." for number in range(160)
]


UNITS = 3  # slices of 64 documents: each has one call in flight at most


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_in(tmp_path) as made:
        yield made


def outcomes(experiment: Experiment) -> int:
    return Generation.objects.filter(candidate__experiment=experiment).count()


def check_invariants(experiment: Experiment, documents: int, *, ok: int | None = None) -> None:
    experiment.refresh_from_db()
    assert experiment.state in ("completed", "completed_with_errors"), experiment.state
    for candidate in experiment.candidates.all():
        made = Counter(Generation.objects.filter(candidate=candidate).values_list("example__index", flat=True))
        assert made == Counter(range(documents)), f"I1: {candidate} misses {set(range(documents)) - set(made)}"
        scored = Counter(Score.objects.filter(candidate=candidate).values_list("example__index", "part"))
        assert len(scored) == 12 * documents, f"I2: {len(scored)} scores"
        assert set(scored.values()) == {1}, "I2: a score twice"
        if ok is not None:
            assert Generation.objects.filter(candidate=candidate, status="ok").count() == ok
    for aggregate in Aggregate.objects.filter(candidate__experiment=experiment):
        assert aggregate.mean == pytest.approx(recomputed(aggregate), abs=1e-9), "I3"
    assert not WorkUnit.objects.filter(experiment=experiment, state__in=("ready", "leased")).exists(), "I9"


def late_writes(experiment: Experiment) -> int:
    """Outcomes that an epoch wrote after a newer epoch of the same unit had written: what the fence must prevent."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*) FROM evaluations_generation old
            JOIN evaluations_candidate candidate ON candidate.id = old.candidate_id AND candidate.experiment_id = %s
            WHERE EXISTS (SELECT 1 FROM evaluations_generation new WHERE new.unit_id = old.unit_id
                          AND new.epoch > old.epoch AND new.created_at < old.created_at)
            """,
            [experiment.pk],
        )
        return cursor.fetchone()[0]


def slow_experiment(team, log: Path, latency_ms: int = 15) -> Experiment:
    entry = make_fake(team, latency_ms=latency_ms, log=str(log))
    return make_experiment(make_dataset(team, DOCUMENTS), entry)


def calls(log: Path) -> Counter[int]:
    return Counter(json.loads(line)["key"] for line in log.read_text().splitlines()) if log.exists() else Counter()


def repeated(log: Path) -> int:
    """How many calls were made beyond one for each document."""
    made = calls(log)
    return sum(made.values()) - len(made)


def test_workers_killed_at_random_lose_and_double_nothing(atlas, fleet, tmp_path):
    log = tmp_path / "calls.log"
    experiment = slow_experiment(atlas, log)
    chance = random.Random(11)
    steering.start(experiment)
    fleet.start(count=2)
    wait_until(lambda: outcomes(experiment) > 0)
    kills = 0
    for _ in range(4):
        time.sleep(chance.uniform(0.3, 1.0))
        if experiment.has_ended:
            break
        fleet.send(signal.SIGKILL, chance.choice(fleet.alive))
        kills += 1
        fleet.start()
    wait_until(ended(experiment))
    check_invariants(experiment, len(DOCUMENTS), ok=len(DOCUMENTS))
    assert repeated(log) <= kills * UNITS, "I5: a kill repeats at most the calls in flight"


def test_work_of_a_killed_worker_goes_on_within_a_lease_and_a_sweep(atlas, fleet, tmp_path):
    experiment = slow_experiment(atlas, tmp_path / "calls.log", latency_ms=40)
    steering.start(experiment)
    (first,) = fleet.start()
    wait_until(lambda: outcomes(experiment) > 3)
    fleet.start()
    time.sleep(2.5)  # the second worker must be up, so that only the recovery is measured
    before = outcomes(experiment)
    fleet.send(signal.SIGKILL, first)
    leased = WorkUnit.objects.filter(experiment=experiment, state="leased", owner__contains=f":{first.pid}:")
    held = set(leased.values_list("pk", flat=True))
    took = wait_until(
        lambda: not WorkUnit.objects.filter(pk__in=held, owner__contains=f":{first.pid}:", state="leased").exists()
    )
    assert took <= LEASE + 3 * SWEEP + 1.0, f"I8: {took:.1f} s"
    wait_until(lambda: outcomes(experiment) > before)
    wait_until(ended(experiment))
    check_invariants(experiment, len(DOCUMENTS), ok=len(DOCUMENTS))


def _freeze_and_thaw(experiment: Experiment, fleet: Fleet) -> None:
    """A worker is frozen inside a call for longer than its lease; another takes over; then the first one thaws."""
    (zombie,) = fleet.start()
    wait_until(lambda: outcomes(experiment) > 3)
    fleet.send(signal.SIGSTOP, zombie)
    at = outcomes(experiment)
    fleet.start()
    wait_until(lambda: outcomes(experiment) > at + 3)
    fleet.send(signal.SIGCONT, zombie)


def test_a_frozen_worker_that_thaws_can_write_no_more(atlas, fleet, tmp_path):
    log = tmp_path / "calls.log"
    experiment = slow_experiment(atlas, log, latency_ms=60)
    steering.start(experiment)
    _freeze_and_thaw(experiment, fleet)
    wait_until(ended(experiment))
    check_invariants(experiment, len(DOCUMENTS), ok=len(DOCUMENTS))
    assert late_writes(experiment) == 0
    assert repeated(log) <= UNITS, "I5: only the calls it was frozen in may be repeated"


def test_without_the_fence_the_frozen_worker_would_be_noticed(atlas, tmp_path):
    """The negative control: the same story with the fence taken out must break what the test above checks."""
    log = tmp_path / "calls.log"
    experiment = slow_experiment(atlas, log, latency_ms=60)
    steering.start(experiment)

    def is_broken() -> bool:
        return late_writes(experiment) > 0 or repeated(log) > UNITS

    with fleet_in(tmp_path, LUMIGATOR_TEST_NO_FENCE="1") as fleet:
        _freeze_and_thaw(experiment, fleet)
        wait_until(lambda: is_broken() or ended(experiment)())
    assert is_broken()


def test_two_workers_with_the_same_unit_commit_it_once(atlas):
    from evaluations import leasing, running
    from evaluations.working import WorkerProcess

    experiment = make_experiment(make_dataset(atlas, DOCUMENTS[:20]), make_fake(atlas))
    steering.start(experiment)
    worker = WorkerProcess(("gpu", "api", "cpu"))
    worker.plan(experiment.pk)
    candidate = experiment.candidates.get()
    first = leasing.claim("generate", "first", candidate=candidate.pk)
    assert first is not None
    running._run_batches(
        first, candidate, worker.models.get(candidate), list(running._requests(first, candidate)), lambda: False
    )
    WorkUnit.objects.filter(pk=first.unit.pk).update(state="ready")  # as the sweeper does when the lease has lapsed
    second = leasing.claim("generate", "second", candidate=candidate.pk)
    assert second is not None
    assert second.unit.pk == first.unit.pk
    running.finish(second)
    with pytest.raises(leasing.Fenced):
        running.finish(first)
    assert WorkUnit.objects.filter(kind="score", experiment=experiment).count() == 1


def test_a_database_that_crashes_under_load_loses_nothing(atlas, fleet, tmp_path):
    """`kill -9` of PostgreSQL's first process is harder than an immediate stop; the keeper starts it again."""
    if "LUMIGATOR_EMBEDDED_DATABASE_URL" not in os.environ:
        pytest.skip("the database of this run is not ours to crash")
    experiment = slow_experiment(atlas, tmp_path / "calls.log")
    steering.start(experiment)
    fleet.start(count=2)
    wait_until(lambda: outcomes(experiment) > 10)
    for _ in range(2):
        os.kill(_postmaster(), signal.SIGQUIT)  # immediate shutdown: no checkpoint, every connection cut
        _reconnect()
        time.sleep(1.0)
    wait_until(ended(experiment), 90)
    check_invariants(experiment, len(DOCUMENTS), ok=len(DOCUMENTS))


def _postmaster() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SHOW data_directory")
        folder = Path(cursor.fetchone()[0])
    return int((folder / "postmaster.pid").read_text().splitlines()[0])


def _reconnect(seconds: float = 30.0) -> None:
    from django.db import OperationalError

    began = time.monotonic()
    time.sleep(0.3)
    while True:
        connections.close_all()
        try:
            connection.ensure_connection()
            return
        except OperationalError:
            if time.monotonic() - began > seconds:
                raise
            time.sleep(0.2)
