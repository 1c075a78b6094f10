"""Hypothesis plays worker, sweeper and user in any order; whatever it does, the promises of RELIABILITY §2 hold.

The model beside the database is small: which epoch of each unit was handed out last, which units have finished, and
what every outcome said when it was first seen. The scripted model answers, so that only the engine is on trial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from evaluations import leasing, planning, poison, running, scoring, states, steering, sweeping
from evaluations.finalizing import finalize
from evaluations.leasing import Fenced, Lease
from evaluations.models import Experiment, Generation, Score, WorkUnit
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, work_off
from evaluations.working import WorkerProcess
from lumigator.models import Team

pytestmark = pytest.mark.django_db(transaction=True)
DOCUMENTS = [f"Tent {number} was dry. The others were not." for number in range(7)]
ROUGE_PARTS = 12
WHICH = st.integers(min_value=0, max_value=10)


class Engine(RuleBasedStateMachine):
    """Leases stay in the hands of workers here even after they were lost: a late write is what the fence is for."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Lease] = []
        self.handed_out: dict[int, int] = {}
        self.finished: Counter[int] = Counter()
        self.seen: dict[tuple[int, int], tuple[int, str, str]] = {}
        self.ended: dict[int, str] = {}

    @initialize()
    def start(self) -> None:
        team = Team.objects.create(name="Trial", slug=f"trial-{Team.objects.count()}")
        self.experiment = make_experiment(
            make_dataset(team, DOCUMENTS), make_fake(team), make_fake(team, "second", text="{source:.20}")
        )
        assert steering.start(self.experiment)
        self.worker = WorkerProcess(("gpu", "api", "cpu"))
        self.claim("plan")
        self.finish(0)

    # --- what the tests look up -----------------------------------------------------------------------------------

    def units(self, **which: object):  # type: ignore[no-untyped-def]
        return WorkUnit.objects.filter(experiment=self.experiment, **which)

    def pick(self, which: int) -> Lease:
        return self.held[which % len(self.held)]

    def is_current(self, lease: Lease) -> bool:
        return self.units(pk=lease.unit.pk, state="leased", epoch=lease.epoch).exists()

    def fenced_unless(self, is_current: bool, step: Callable[[], object]) -> None:
        """The step happens for the owner, and for nobody else."""
        try:
            step()
        except Fenced:
            assert not is_current, "the owner was refused"
        else:
            assert is_current, "a worker that had lost its unit could write"

    # --- the worker -----------------------------------------------------------------------------------------------

    @rule(kind=st.sampled_from(["plan", "generate", "generate", "score", "finalize"]))
    def claim(self, kind: str) -> None:
        lease = leasing.claim(kind, "worker", experiment=self.experiment.pk)
        if lease is None:
            return
        assert lease.epoch > self.handed_out.get(lease.unit.pk, 0), "two workers have the same epoch"
        assert lease.unit.pk not in self.finished
        self.handed_out[lease.unit.pk] = lease.epoch
        self.held.append(lease)

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def renew(self, which: int) -> None:
        lease = self.pick(which)
        was_current, was_lost = self.is_current(lease), lease.lost
        leasing.renew([lease])
        assert lease.lost == (was_lost or not was_current)

    @precondition(lambda self: self.held)
    @rule(which=WHICH, position=st.integers(min_value=0, max_value=6))
    def answer_one(self, which: int, position: int) -> None:
        """One outcome of the unit is written; the unit goes on."""
        lease = self.pick(which)
        if lease.unit.kind != "generate":
            return
        index = lease.unit.indexes[position % len(lease.unit.indexes)]
        example = self.experiment.dataset.examples.get(index=index)
        leasing.mark_inflight(lease, [index])
        made = Generation(candidate=lease.unit.candidate, example=example, status="ok", text=f"epoch {lease.epoch}")
        self.fenced_unless(self.is_current(lease), lambda: leasing.record_outcomes(lease, [made]))

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def finish(self, which: int) -> None:
        lease = self.held.pop(which % len(self.held))
        do = {"plan": planning.plan, "generate": self.generate, "score": scoring.score, "finalize": finalize}
        is_current = self.is_current(lease)
        self.fenced_unless(is_current, lambda: do[lease.unit.kind](lease))
        self.finished[lease.unit.pk] += is_current

    def generate(self, lease: Lease) -> None:
        candidate = lease.unit.candidate
        assert candidate is not None
        lease.stop = lease.lost = False  # it has not renewed: it believes that the unit is its own
        running.generate(lease, candidate, self.worker.models.get(candidate), lambda: False)

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def give_back(self, which: int) -> None:
        lease = self.held.pop(which % len(self.held))
        is_current = self.is_current(lease)
        assert leasing.release(lease) == is_current

    @precondition(lambda self: self.held)
    @rule(which=WHICH, code=st.sampled_from(["worker_crash", "hang", "bug"]))
    def crash(self, which: int, code: str) -> None:
        lease = self.pick(which)
        if lease.unit.kind in ("plan", "finalize"):
            return  # these fail the experiment for good after some crashes; test_poison tells that story
        is_current = self.is_current(lease)
        assert poison.crashed(lease.unit.pk, lease.epoch, code=code, message="gone") == is_current
        assert not self.is_current(lease)

    # --- time, the sweeper, the user ------------------------------------------------------------------------------

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def expire(self, which: int) -> None:
        lease = self.pick(which)
        self.units(pk=lease.unit.pk, state="leased").update(lease_until=Now())
        sweeping.sweep()
        assert not self.is_current(lease)

    @rule()
    def sweep(self) -> None:
        sweeping.sweep()

    @rule()
    def time_passes(self) -> None:
        self.units(state="ready").update(next_at=Now())
        if self.experiment.state == "cancelling":
            Experiment.objects.filter(pk=self.experiment.pk).update(finished_at=Now() - timedelta(seconds=61))

    @rule(change=st.sampled_from([steering.cancel, steering.pause, steering.resume, steering.resume]))
    def decide(self, change: Callable[[Experiment], bool]) -> None:
        self.experiment.refresh_from_db()
        retried = Generation.objects.filter(
            candidate__experiment=self.experiment, status="error", error_code__in=steering.RETRYABLE
        )
        forgotten = set(retried.values_list("candidate", "example"))
        had_ended = self.experiment.has_ended
        change(self.experiment)
        if change is steering.resume and had_ended:
            self.seen = {key: value for key, value in self.seen.items() if key not in forgotten}

    # --- the promises ---------------------------------------------------------------------------------------------

    @invariant()
    def an_outcome_is_written_once_and_stays(self) -> None:
        if not hasattr(self, "experiment"):
            return
        rows = Generation.objects.filter(candidate__experiment=self.experiment)
        now = {
            (candidate, example): (pk, status, text)
            for pk, candidate, example, status, text in rows.values_list("pk", "candidate", "example", "status", "text")
        }
        assert len(now) == rows.count(), "I1: two outcomes of one example"
        for key, first in self.seen.items():
            assert now.get(key) == first, "I1: an outcome was lost or replaced"
        self.seen = now

    @invariant()
    def what_has_ended_stays_so_and_no_unit_finishes_twice(self) -> None:
        if not hasattr(self, "experiment"):
            return
        now = dict(self.units().values_list("pk", "state"))
        for pk, state in self.ended.items():
            assert now[pk] == state, f"I6: a unit that was {state} became {now[pk]}"
        self.ended = {pk: state for pk, state in now.items() if states.UNIT[state].is_final}
        assert set(self.finished.values()) <= {0, 1}
        assert not self.units(state="leased", lease_until=None).exists()
        assert not self.units(state="ready").exclude(lease_until=None).exists()

    def teardown(self) -> None:
        if hasattr(self, "experiment"):
            self._end()
            self.worker.models.close()

    def _end(self) -> None:
        """All workers vanish; others take over, and the user wants the result."""
        for _ in range(40):
            self.units(state="leased").update(lease_until=Now())
            sweeping.sweep()
            self.units(state="ready").update(next_at=Now())
            work_off(self.worker)
            self.experiment.refresh_from_db()
            if self.experiment.state.startswith("completed"):
                break
            steering.resume(self.experiment, retry_errors=False)
        assert self.experiment.state in ("completed", "completed_with_errors")
        assert not self.units(state__in=("ready", "leased")).exists(), "I9"
        failed = self.units(kind="score", state="failed").exists()
        for candidate in self.experiment.candidates.all():
            made = Counter(Generation.objects.filter(candidate=candidate).values_list("example__index", flat=True))
            assert made == Counter(range(len(DOCUMENTS))), "I1"
            scored = Counter(Score.objects.filter(candidate=candidate).values_list("example__index", "part"))
            assert failed or len(scored) == ROUGE_PARTS * len(DOCUMENTS), "I2"
            assert set(scored.values()) <= {1}


def test_whatever_happens_every_document_has_one_outcome(db, monkeypatch):
    monkeypatch.setattr(planning, "SLICE", {"gpu": 3, "api": 3, "cpu": 3})
    monkeypatch.setattr(planning, "SCORE_SLICE", 3)
    run_state_machine_as_test(
        Engine,
        settings=settings(
            max_examples=20,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_machine_notices_when_the_fence_is_down(db, monkeypatch):
    """The negative control: without the fence the same play must break a promise."""
    monkeypatch.setattr(planning, "SLICE", {"gpu": 3, "api": 3, "cpu": 3})
    monkeypatch.setattr(leasing, "FENCED", False)
    engine = Engine()
    engine.start()
    engine.claim("generate")
    engine.expire(0)
    with pytest.raises(AssertionError, match="a worker that had lost its unit could write"):
        engine.answer_one(0, 0)
    engine.worker.models.close()
