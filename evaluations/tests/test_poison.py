"""Poison in real model hosts: a document that kills, ends or hangs its host costs its own outcome and no other."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from django.db import connection
from django.db.models import F, Sum
from django.db.models.functions import Now

from evaluations import leasing, planning, poison, running, scoring, steering, sweeping, working
from evaluations.models import Experiment, Generation, Score, WorkUnit
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, work_off
from evaluations.working import WorkerProcess
from lumigator.models import Team
from models_registry.hosting import ModelHost

pytestmark = pytest.mark.django_db(transaction=True)
PLAIN = [f"Farm {number} sold {number} sheep. The rest stayed." for number in range(20)]


def hurry(worker: WorkerProcess | None = None) -> None:
    """Do all work, without the waits after crashes."""
    worker = worker or WorkerProcess(("gpu", "api", "cpu"))
    for _ in range(60):
        work_off(worker)
        WorkUnit.objects.filter(state="ready").update(next_at=Now())
        if not sweeping.waiting(worker.queues):
            return
    raise AssertionError("the work never ends")


def make(team: Team, documents: list[str], *, scheme: str = "fakehost", **options: Any) -> Experiment:
    return make_experiment(make_dataset(team, documents), make_fake(team, scheme=scheme, **options))


def run_hurriedly(experiment: Experiment) -> Experiment:
    assert steering.start(experiment)
    hurry()
    experiment.refresh_from_db()
    return experiment


def crashes(experiment: Experiment) -> int:
    return experiment.units.aggregate(total=Sum("crash_count"))["total"]


def bad_outcomes(experiment: Experiment) -> dict[int, str]:
    failed = Generation.objects.filter(candidate__experiment=experiment).exclude(status="ok")
    return dict(failed.values_list("example__index", "error_code"))


def claimed(experiment: Experiment, kind: str = "generate") -> leasing.Lease:
    lease = leasing.claim(kind, "somebody", experiment=experiment.pk)
    assert lease is not None
    return lease


def planned(experiment: Experiment) -> Experiment:
    assert steering.start(experiment)
    WorkerProcess(("gpu", "api", "cpu")).plan(experiment.pk)
    return experiment


# --- in real hosts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code"), [("segfault", "worker_crash"), ("exit", "worker_crash"), ("hang_in_c", "hang")]
)
def test_one_document_that_kills_its_host_is_one_error(atlas, settings, fault, code):
    settings.HANG_SECONDS = 1.0
    documents = [*PLAIN[:9], "BOOM 9 sold 9 sheep. The rest stayed.", *PLAIN[9:]]  # as long as its neighbours
    experiment = run_hurriedly(make(atlas, documents, faults={"BOOM": fault}))
    assert experiment.state == "completed_with_errors"
    assert bad_outcomes(experiment) == {9: code}
    assert Generation.objects.filter(status="ok").count() == len(PLAIN)
    assert Score.objects.values("example").distinct().count() == len(documents)
    assert crashes(experiment) == 3, "twice in its batch, once alone"
    assert set(WorkUnit.objects.values_list("state", flat=True)) == {"done", "split"}


def test_several_documents_that_kill_each_get_their_own_error(atlas):
    documents = ["BOOM a. One.", *PLAIN[:6], "BOOM b. Two.", *PLAIN[6:12], "EXIT c. Three."]
    experiment = run_hurriedly(make(atlas, documents, faults={"BOOM": "segfault", "EXIT": "exit"}))
    assert bad_outcomes(experiment) == {0: "worker_crash", 7: "worker_crash", 14: "worker_crash"}
    assert Generation.objects.filter(status="ok").count() == 12
    assert experiment.state == "completed_with_errors"
    assert crashes(experiment) <= 9


def test_an_exception_is_its_documents_error_without_a_crash(atlas):
    documents = [*PLAIN[:6], "BOOM is the cry. It echoes."]
    experiment = run_hurriedly(make(atlas, documents, faults={"BOOM": "exception"}))
    assert bad_outcomes(experiment) == {6: "model_error"}
    assert crashes(experiment) == 0


def test_an_exception_in_this_process_is_its_documents_error(atlas):
    documents = [*PLAIN[:6], "BOOM is the cry. It echoes."]
    experiment = run_hurriedly(make(atlas, documents, scheme="fake", faults={"BOOM": "exception"}))
    assert bad_outcomes(experiment) == {6: "model_error"}
    assert crashes(experiment) == 0


@pytest.mark.parametrize("scheme", ["fake", "fakehost"])
def test_a_local_model_that_always_says_later_is_not_asked_for_ever(atlas, scheme):
    documents = [*PLAIN[:3], "LATER, it says. Always."]
    experiment = run_hurriedly(make(atlas, documents, scheme=scheme, faults={"LATER": "retry"}))
    assert bad_outcomes(experiment) == {3: "fake_retry"}
    assert Generation.objects.filter(status="ok").count() == 3


def test_a_model_that_dies_while_it_loads_stops_its_candidate(atlas, monkeypatch):
    """The documents are not suspected of it: none of them was read."""
    monkeypatch.setattr(ModelHost, "_send", lambda host, message: host.kill())
    monkeypatch.setattr(working, "OPENINGS", 2)
    experiment = run_hurriedly(make(atlas, PLAIN))
    candidate = experiment.candidates.get()
    assert (candidate.problem_code, crashes(experiment)) == ("worker_crash", 0)
    assert "died" in candidate.problem
    assert not Generation.objects.exists()
    assert experiment.state == "completed_with_errors"


# --- the crash budget -----------------------------------------------------------------------------------------------


def test_an_experiment_that_keeps_crashing_pauses_and_may_go_on(atlas, monkeypatch):
    monkeypatch.setattr(poison, "CRASH_BUDGET", 4)
    documents = [f"BOOM {number}. It echoes." for number in range(3)] + PLAIN[:5]
    experiment = make(atlas, documents, faults={"BOOM": "exit"})
    run_hurriedly(experiment)
    assert (experiment.state, experiment.pause_reason) == ("paused", "crash_budget")
    assert "4 times" in experiment.problem
    assert not WorkUnit.objects.filter(state="leased").exists()
    assert steering.resume(experiment)
    hurry()
    experiment.refresh_from_db()
    while experiment.state == "paused":
        assert crashes(experiment) % 4 == 0, "each pause takes as many crashes again"
        assert steering.resume(experiment)
        hurry()
        experiment.refresh_from_db()
    assert bad_outcomes(experiment) == dict.fromkeys(range(3), "worker_crash")
    assert experiment.state == "completed_with_errors"


# --- which unit becomes what ----------------------------------------------------------------------------------------


def test_without_a_breadcrumb_a_unit_is_cut_in_halves(atlas):
    experiment = planned(make(atlas, PLAIN[:8]))
    for _ in range(2):
        WorkUnit.objects.filter(state="ready").update(next_at=Now())
        lease = claimed(experiment)
        assert poison.crashed(lease.unit.pk, lease.epoch, code="worker_crash", message="gone")
    children = WorkUnit.objects.filter(parent=lease.unit.pk)
    assert sorted(children.values_list("indexes", flat=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert WorkUnit.objects.get(pk=lease.unit.pk).state == "split"


def test_suspects_go_alone_and_finished_examples_are_not_done_again(atlas):
    experiment = planned(make(atlas, PLAIN[:8]))
    lease = claimed(experiment)
    candidate = experiment.candidates.get()
    examples = {example.index: example for example in experiment.dataset.examples.all()}
    done = [Generation(candidate=candidate, example=examples[index], status="ok") for index in (0, 1)]
    leasing.record_outcomes(lease, done)
    leasing.mark_inflight(lease, [1, 2, 3])
    WorkUnit.objects.filter(pk=lease.unit.pk).update(crash_count=1)
    assert poison.crashed(lease.unit.pk, lease.epoch, code="hang", message="no sign")
    pieces = WorkUnit.objects.filter(parent=lease.unit.pk).order_by("pk").values_list("indexes", flat=True)
    assert list(pieces) == [[2], [3], [4, 5, 6, 7], [0, 1]]
    hurry()
    assert Counter(Generation.objects.values_list("example__index", flat=True)) == Counter(range(8))


def test_a_worker_that_vanishes_says_nothing_about_the_documents(atlas):
    experiment = planned(make(atlas, PLAIN[:8]))
    for _ in range(poison.INNOCENT_EXPIRIES):
        lease = claimed(experiment)
        leasing.mark_inflight(lease, [2])
        assert poison.expire(lease)
    unit = WorkUnit.objects.get(pk=lease.unit.pk)
    assert (unit.state, unit.crash_count, unit.inflight) == ("ready", 0, [])


def test_a_unit_that_keeps_losing_its_workers_is_suspected(atlas):
    experiment = planned(make(atlas, PLAIN[:8]))
    for _ in range(poison.INNOCENT_EXPIRIES + 2):
        WorkUnit.objects.filter(state="ready").update(next_at=Now())
        lease = claimed(experiment)
        leasing.mark_inflight(lease, [2])
        assert poison.expire(lease)
    assert WorkUnit.objects.get(pk=lease.unit.pk).state == "split"
    assert WorkUnit.objects.filter(parent=lease.unit.pk, indexes=[2]).exists()


def test_a_worker_frozen_in_the_middle_of_a_write_holds_nobody_else_up(atlas, monkeypatch):
    monkeypatch.setattr(planning, "SLICE", {"gpu": 4})
    experiment = planned(make(atlas, PLAIN[:8]))
    frozen, other = claimed(experiment), claimed(experiment)
    is_frozen, may_go = threading.Event(), threading.Event()

    def write() -> None:
        with leasing.fenced(frozen):
            is_frozen.set()
            may_go.wait(20)
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert is_frozen.wait(10)
        WorkUnit.objects.filter(pk=other.unit.pk).update(lease_until=Now())
        expired = frozen.unit.pk, frozen.epoch
        assert not poison.crashed(*expired, code="lease_expired", message="no sign"), "it is not waited for"
        sweeping.sweep()
        assert WorkUnit.objects.get(pk=other.unit.pk).state == "ready"
    finally:
        may_go.set()
        thread.join()
    assert poison.crashed(*expired, code="lease_expired", message="no sign"), "after the write it is as any other"


def test_a_crash_of_an_older_claim_changes_nothing(atlas):
    experiment = planned(make(atlas, PLAIN[:8]))
    lease = claimed(experiment)
    WorkUnit.objects.filter(pk=lease.unit.pk).update(epoch=F("epoch") + 1)
    assert not poison.crashed(lease.unit.pk, lease.epoch, code="worker_crash", message="late")
    assert WorkUnit.objects.get(pk=lease.unit.pk).state == "leased"


# --- what is not about documents ------------------------------------------------------------------------------------


def broken(*_: object) -> None:
    raise RuntimeError("this step is broken")


def test_a_score_unit_that_always_fails_ends_with_its_reason(atlas, monkeypatch):
    monkeypatch.setattr(scoring, "score", broken)
    experiment = run_hurriedly(make(atlas, PLAIN, scheme="fake"))
    assert experiment.state == "completed_with_errors"
    unit = WorkUnit.objects.get(kind="score")
    assert (unit.state, unit.problem) == ("failed", "RuntimeError: this step is broken")
    assert unit.crash_count == poison.CRASHES_BEFORE_FAILING
    assert Generation.objects.filter(status="ok").count() == len(PLAIN)


def test_a_plan_that_always_fails_fails_the_experiment_with_its_reason(atlas, monkeypatch):
    monkeypatch.setattr(planning, "plan", broken)
    experiment = run_hurriedly(make(atlas, PLAIN, scheme="fake"))
    assert experiment.state == "failed"
    assert "this step is broken" in experiment.problem
    assert experiment.finished_at
    monkeypatch.undo()
    assert steering.resume(experiment)
    hurry()
    experiment.refresh_from_db()
    assert experiment.state == "completed"


def test_an_end_that_always_fails_fails_the_experiment_with_its_reason(atlas, monkeypatch):
    monkeypatch.setattr(working, "finalize", broken)
    experiment = run_hurriedly(make(atlas, PLAIN, scheme="fake"))
    assert experiment.state == "failed"
    assert "this step is broken" in experiment.problem


def test_a_failing_step_waits_longer_each_time(atlas):
    experiment = make(atlas, PLAIN, scheme="fake")
    assert steering.start(experiment)
    waits = []
    for _ in range(3):
        WorkUnit.objects.filter(state="ready").update(next_at=Now())
        lease = claimed(experiment, "plan")
        poison.crashed(lease.unit.pk, lease.epoch, code="bug", message="broken")
        waits.append(WorkUnit.objects.annotate(left=F("next_at") - Now()).get(pk=lease.unit.pk).left.total_seconds())
    assert [round(wait) for wait in waits] == [2, 4, 8]


# --- pause, resume, cancel ------------------------------------------------------------------------------------------


def test_a_pause_whose_last_unit_ends_meanwhile_finishes_on_resume(atlas):
    experiment = planned(make(atlas, PLAIN, scheme="fake"))
    worker = WorkerProcess(("gpu", "api", "cpu"))
    lease = claimed(experiment)
    candidate = experiment.candidates.get()
    assert steering.pause(experiment)
    running.generate(lease, candidate, worker.models.get(candidate), lambda: False)
    work_off(worker)
    experiment.refresh_from_db()
    assert experiment.state == "paused", "nothing is handed out during a pause"
    assert steering.resume(experiment)
    work_off(worker)
    experiment.refresh_from_db()
    assert experiment.state == "completed"


def test_a_resume_of_a_pause_in_which_every_unit_ended_finishes(atlas):
    experiment = planned(make(atlas, PLAIN, scheme="fake"))
    worker = WorkerProcess(("gpu", "api", "cpu"))
    worker.advance(experiment.candidates.get().pk)
    lease = claimed(experiment, "score")
    assert steering.pause(experiment)
    scoring.score(lease)
    WorkUnit.objects.filter(kind="finalize").delete()  # as if the worker had died just before it made it
    assert steering.resume(experiment)
    sweeping.sweep()
    work_off(worker)
    experiment.refresh_from_db()
    assert experiment.state == "completed"


def test_an_end_that_is_computed_during_a_pause_counts(atlas):
    experiment = planned(make(atlas, PLAIN, scheme="fake"))
    worker = WorkerProcess(("gpu", "api", "cpu"))
    worker.advance(experiment.candidates.get().pk)
    worker.score(experiment.pk, "rouge")
    lease = claimed(experiment, "finalize")
    assert steering.pause(experiment)
    working.finalize(lease)
    experiment.refresh_from_db()
    assert (experiment.state, experiment.pause_reason) == ("completed", "")


@pytest.mark.parametrize("is_planned_meanwhile", [True, False])
def test_a_cancel_during_planning_leaves_no_work(atlas, is_planned_meanwhile):
    experiment = make(atlas, PLAIN, scheme="fake")
    assert steering.start(experiment)
    lease = claimed(experiment, "plan")
    assert steering.cancel(experiment)
    if is_planned_meanwhile:
        planning.plan(lease)
    else:
        WorkUnit.objects.filter(pk=lease.unit.pk).update(lease_until=Now())  # its worker is gone
    sweeping.sweep()
    experiment.refresh_from_db()
    assert experiment.state == "cancelled"
    assert not WorkUnit.objects.filter(state__in=("ready", "leased")).exists()
    assert steering.resume(experiment)
    work_off()
    experiment.refresh_from_db()
    assert experiment.state == "completed"


def test_a_cancel_takes_held_units_away_after_a_minute(atlas):
    from datetime import timedelta

    experiment = planned(make(atlas, PLAIN, scheme="fake"))
    lease = claimed(experiment)
    assert steering.cancel(experiment)
    sweeping.sweep()
    experiment.refresh_from_db()
    assert experiment.state == "cancelling", "its worker may still finish what it has in hand"
    Experiment.objects.filter(pk=experiment.pk).update(finished_at=Now() - timedelta(seconds=61))
    sweeping.sweep()
    experiment.refresh_from_db()
    assert experiment.state == "cancelled"
    with pytest.raises(leasing.Fenced):
        running.finish(lease)
