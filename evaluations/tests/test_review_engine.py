"""What a second reader of the engine found: each story is a state in which it once lost, doubled or overstated."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from evaluations import (
    browsing,
    comparing,
    exporting,
    importing,
    leasing,
    metrics,
    planning,
    scoring,
    steering,
    terminal,
)
from evaluations.finalizing import cost_of, finalize
from evaluations.metrics import Absent, Item
from evaluations.models import ALIVE_SECONDS, Aggregate, Experiment, Generation, Score, Worker, WorkUnit
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, run, work_off
from evaluations.working import WorkerProcess
from lumigator.doorbell import QUEUES

pytestmark = pytest.mark.django_db(transaction=True)
DOCUMENTS = [f"Ship {number} left on day {number}. It carried {number} crates." for number in range(12)]


def planned(atlas, *models, **data) -> Experiment:
    """A running experiment with its units made and none of them begun."""
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS), *(models or (make_fake(atlas),)), **data)
    assert steering.start(experiment)
    WorkerProcess(QUEUES).plan(experiment.pk)
    experiment.refresh_from_db()
    return experiment


# --- starting, resuming, cancelling -----------------------------------------------------------------------------------


def test_a_paused_experiment_is_resumed_and_not_started_beside_itself(atlas):
    experiment = planned(atlas)
    assert steering.pause(experiment)
    assert not steering.start(experiment)
    assert experiment.units.filter(kind="generate", state="ready").count() == 1


def test_a_start_from_an_old_page_is_a_new_round(atlas):
    old_page = make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas))
    run(Experiment.objects.get(pk=old_page.pk))
    assert steering.start(old_page)
    assert old_page.round == 2


def test_units_that_a_failed_plan_left_are_not_done_beside_the_new_ones(atlas):
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas))
    assert steering.start(experiment)
    candidate = experiment.candidates.get()
    indexes = list(range(len(DOCUMENTS)))
    left = WorkUnit.objects.create(
        experiment=experiment, candidate=candidate, kind="generate", queue="gpu", indexes=indexes
    )
    assert experiment.move("failed", since=("planning",))
    assert steering.resume(experiment)
    left.refresh_from_db()
    assert left.state == "cancelled"
    work_off()
    assert experiment.units.filter(kind="generate", state="done").count() == 1


def test_a_unit_that_was_given_back_while_cancelling_ends_with_the_experiment(atlas, monkeypatch):
    monkeypatch.setattr(planning, "SLICE", {"gpu": 6, "api": 6, "cpu": 6})
    experiment = planned(atlas)
    first, second = (leasing.claim("generate", "worker", experiment=experiment.pk) for _ in range(2))
    assert steering.cancel(experiment)
    leasing.release(first)
    with leasing.fenced(second):
        leasing.close(second)
        assert steering.settle_cancelled(experiment)
    assert experiment.state == "cancelled"
    assert not experiment.units.filter(state__in=("ready", "leased")).exists()


def test_a_cancelled_plan_ends_the_experiment_at_once(atlas):
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas))
    assert steering.start(experiment)
    lease = leasing.claim("plan", "worker", experiment=experiment.pk)
    assert steering.cancel(experiment)
    assert experiment.state == "cancelling"
    planning.plan(lease)
    experiment.refresh_from_db()
    assert experiment.state == "cancelled"


def test_who_resumes_what_somebody_else_already_resumed_forgets_nothing(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas)))
    seen_as_ended = Experiment.objects.get(pk=experiment.pk)
    Generation.objects.filter(example__index=3).update(status="error", error_code="oom")
    Experiment.objects.filter(pk=experiment.pk).update(state="planning")  # the other one was quicker
    assert not steering.resume(seen_as_ended)
    assert Generation.objects.filter(status="error").count() == 1


def test_forgetting_errors_takes_as_many_queries_for_many_as_for_few(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas)))
    Generation.objects.filter(example__index__lt=9).update(status="error", error_code="oom")
    with CaptureQueriesContext(connection) as asked:
        assert steering.forget_errors(experiment) == 9
    assert len(asked) < 12
    assert set(Score.objects.values_list("example__index", flat=True)) == {9, 10, 11}


def test_a_finalize_that_a_cancel_overtakes_leaves_the_old_numbers_whole(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas)))
    before = set(Aggregate.objects.values_list("pk", flat=True)), experiment.statistics
    steering.start(experiment)
    WorkerProcess(QUEUES).plan(experiment.pk)
    lease = leasing.claim("finalize", "worker", experiment=experiment.pk)
    experiment.refresh_from_db()
    assert steering.cancel(experiment)
    finalize(lease)
    experiment.refresh_from_db()
    assert experiment.state == "cancelled"
    assert (set(Aggregate.objects.values_list("pk", flat=True)), experiment.statistics) == before


# --- scores -----------------------------------------------------------------------------------------------------------


def test_a_failed_output_of_a_document_without_a_reference_pulls_nobody_down(atlas):
    documents = ["EMPTY here. No reference.", *DOCUMENTS]
    references = ["", *(document.split(".")[0] + "." for document in DOCUMENTS)]
    fakes = make_fake(atlas, "silent", faults={"EMPTY": "empty"}), make_fake(atlas, "whole")
    experiment = run(make_experiment(make_dataset(atlas, documents, references), *fakes))
    silent, whole = (Aggregate.objects.get(candidate__label=name, part="rouge1") for name in ("silent", "whole"))
    assert silent.states == whole.states == {"not_applicable": 1, "value": 12}
    assert (silent.mean, silent.n) == (whole.mean, 12)
    assert experiment.candidates.get(label="silent").summary["states"] == {"ok": 12, "empty": 1}


def made_up(score) -> metrics.Metric:
    part = metrics.Part("made_up", "Made up")
    return metrics.Metric("made_up", "Made up", (part,), "", score, lambda options: {})


def test_an_output_that_breaks_a_metric_is_that_outputs_absence():
    def score(items, options):
        if any("BOOM" in item.text for item in items):
            raise ValueError("no")
        return [{"made_up": 0.5} for _ in items]

    found = scoring._asked(made_up(score), [Item("a"), Item("BOOM"), Item("c")], {})
    assert [each["made_up"] for each in found] == [
        0.5,
        Absent("not_computed", "made_up fails on this output (ValueError)"),
        0.5,
    ]


@pytest.mark.parametrize("n", [1, 2, 5, 50])
def test_a_metric_that_fails_on_everything_is_nobodys_absence(n):
    asked = []

    def score(items, options):
        asked.append(len(items))
        raise OSError("the weights are gone")

    with pytest.raises(OSError, match="weights"):
        scoring._asked(made_up(score), [Item("a")] * n, {})
    assert len(asked) <= 1 + scoring.FAILS_ON_ANYTHING


def test_a_metric_that_forgets_an_output_is_an_error():
    with pytest.raises(ValueError, match="1 answers for 2 outputs"):
        scoring._checked(made_up(lambda items, options: [{"made_up": 1.0}]), [Item("a"), Item("b")], {})


def test_what_is_no_number_is_absent_with_its_reason(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas)))
    signature = Score.objects.first().signature
    score = scoring._score(Generation.objects.first(), "rouge1", float("nan"), signature)
    assert (score.value, score.state) == (None, "not_computed")
    assert "nan" in score.reason
    assert experiment.state == "completed"


# --- numbers that are read --------------------------------------------------------------------------------------------


def test_the_time_left_is_that_of_this_round(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas)))
    Experiment.objects.update(started_at=timezone.now() - timedelta(days=3))
    planning.add_candidate(experiment, "baseline://lead-1")
    experiment.refresh_from_db()
    assert steering.start(experiment)
    worker = WorkerProcess(QUEUES)
    worker.plan(experiment.pk)
    assert comparing.progress(experiment)["eta_seconds"] < 3600
    assert steering.pause(experiment)
    assert comparing.progress(experiment)["eta_seconds"] is None


def test_the_clock_stops_when_the_experiment_has_ended(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas)))
    Experiment.objects.update(
        started_at=F("started_at") - timedelta(days=3), finished_at=F("finished_at") - timedelta(days=3)
    )
    assert comparing.progress(experiment)["elapsed_seconds"] < 3600


def test_the_bar_is_full_only_at_the_end(atlas):
    experiment = planned(atlas)
    for _ in range(3):
        work = leasing.claim("generate", "worker", experiment=experiment.pk) or leasing.claim(
            "score", "worker", experiment=experiment.pk
        )
        if work is None:
            break
        leasing.release(work)
        worker = WorkerProcess(QUEUES)
        if work.unit.kind == "generate":
            worker.advance(work.unit.candidate_id)
        else:
            worker.score(experiment.pk, work.unit.metric)
        assert comparing.progress(experiment)["percent"] < 100
    work_off()
    assert comparing.progress(experiment)["percent"] == 100


def test_outcomes_inside_a_slice_that_is_being_worked_on_count(atlas):
    experiment = planned(atlas)
    lease = leasing.claim("generate", "worker", experiment=experiment.pk)
    example = experiment.dataset.examples.get(index=4)
    made = Generation(candidate=experiment.candidates.get(), example=example, status="ok", text="x")
    leasing.record_outcomes(lease, [made])
    assert comparing.progress(experiment)["candidates"][0]["done"] == 1


def test_below_thirty_documents_there_is_no_best_group(atlas):
    document = comparing.comparison(run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas))))
    assert not document["ranked"]
    assert not any(row["best_group"] for row in document["candidates"])


def test_a_cancelled_experiment_says_so_and_blames_nobodys_documents(atlas):
    experiment = planned(atlas)
    assert steering.cancel(experiment)
    experiment.refresh_from_db()
    sentence = comparing.comparison(experiment)["recommendation"]["sentence"]
    assert sentence == "The experiment was cancelled before its end: resume it to get an answer."


def test_the_neighbours_of_a_document_are_those_that_take_part(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas), sample={"n": 4, "seed": 1}))
    taking_part = sorted(Generation.objects.values_list("example__index", flat=True))
    found = [browsing.example(experiment, index) for index in taking_part]
    assert [each["previous"] for each in found] == [None, *taking_part[:-1]]
    assert [each["next"] for each in found] == [*taking_part[1:], None]
    page = browsing.examples(experiment, sort="index", order="asc")
    assert [row["index"] for row in page["rows"]] == taking_part


def test_a_model_without_a_price_costs_nothing_known_even_if_all_its_calls_were_turned_down(atlas):
    candidate = make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas)).candidates.get()
    candidate.spec = {**candidate.spec, "privacy": "network", "price": {"in": None, "out": None}}
    assert cost_of(candidate) is None
    candidate.spec["price"] = {"in": "1.0", "out": "2.0"}
    assert cost_of(candidate) == 0


def test_an_export_has_every_outcome_of_this_dataset_in_order(atlas):
    make_dataset(atlas, DOCUMENTS)
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas)))
    rows = list(exporting.rows_of(experiment.candidates.get(), size=5))
    assert [row["index"] for row in rows] == list(range(len(DOCUMENTS)))
    assert all(row["scores"]["rouge1"] is not None for row in rows)


def test_outputs_of_documents_outside_the_sample_are_counted(atlas):
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas), sample={"n": 4, "seed": 1})
    imported = importing.import_rows(experiment, "ours", ({"output": "x"} for _ in DOCUMENTS))
    assert imported.sentences() == [
        "4 outputs matched a document.",
        "8 outputs of documents outside the sample are not used.",
    ]


# --- the command line -------------------------------------------------------------------------------------------------


def test_a_command_does_not_wait_for_workers_that_died(atlas):
    """A worker that was killed looks alive for half a minute."""
    Worker.objects.create(name="gone", queues=list(QUEUES))
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas))
    began = []

    @contextmanager
    def workers_running():
        began.append(True)
        work_off()
        yield

    Worker.objects.update(seen_at=timezone.now() - timedelta(seconds=ALIVE_SECONDS - 1))
    assert terminal.run(experiment, workers_running) == 0
    assert began == [True]


def test_workers_of_other_queues_do_not_count(atlas):
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas))
    Worker.objects.create(name="scores", queues=["api"])
    assert not comparing.is_served(experiment)
    Worker.objects.update(queues=list(QUEUES))
    assert comparing.is_served(experiment)


def test_an_experiment_that_was_paused_is_not_done(atlas):
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas))

    @contextmanager
    def workers_running():
        WorkerProcess(QUEUES).plan(experiment.pk)
        steering.pause(Experiment.objects.get(pk=experiment.pk), "budget", "No money left.")
        yield

    assert terminal.run(experiment, workers_running) == 1


def test_a_model_that_stopped_is_not_what_is_being_done():
    stopped = {"label": "stopped", "done": 1, "total": 9, "problem": "its key was refused"}
    now = {"label": "Running", "candidates": [stopped, {**stopped, "label": "busy", "problem": ""}]}
    assert terminal._doing(now) == "busy"


@pytest.mark.parametrize(("rate", "said"), [(None, "-"), (1.0, "100%"), (0.9996, ">99%"), (0.99, "99%"), (0.0, "0%")])
def test_all_is_said_only_of_all(rate, said):
    assert terminal._share(rate) == said
