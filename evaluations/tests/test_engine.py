"""An experiment from its start to its comparison, done by one worker in this process."""

from __future__ import annotations

import pytest

from evaluations import comparing, planning, steering
from evaluations.finalizing import recomputed
from evaluations.models import Aggregate, Generation, Score, WorkUnit
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, run, work_off

pytestmark = pytest.mark.django_db(transaction=True)
DOCUMENTS = [
    f"Team {number} met on day {number}. It chose plan {number % 5}. The budget is {number} coins."
    for number in range(40)
]


def test_every_candidate_has_one_outcome_per_document(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas), "baseline://lead-1"))
    assert experiment.state == "completed"
    for candidate in experiment.candidates.all():
        assert Generation.objects.filter(candidate=candidate, status="ok").count() == len(DOCUMENTS)


def test_every_outcome_has_one_score_per_part(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas)))
    parts = Score.objects.filter(candidate__experiment=experiment).values_list("part", flat=True)
    assert len(parts) == 12 * len(DOCUMENTS)
    assert set(parts) >= {"rouge1", "rougeLsum", "rouge2_precision"}


def test_aggregates_equal_their_rows(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas), "baseline://lead-1"))
    aggregates = Aggregate.objects.filter(candidate__experiment=experiment)
    assert aggregates.count() == 24
    for aggregate in aggregates:
        assert aggregate.mean == pytest.approx(recomputed(aggregate), abs=1e-9)


def test_a_copy_of_the_reference_wins_and_is_recommended(atlas):
    good = make_fake(atlas, "good", text="{source:.30}")
    poor = make_fake(atlas, "poor", text="nothing to do with it")
    document = comparing.comparison(run(make_experiment(make_dataset(atlas, DOCUMENTS), good, poor)))
    assert [row["label"] for row in document["candidates"]] == ["good", "poor"]
    assert document["recommendation"]["label"] == "good"
    assert (
        document["recommendation"]["sentence"] == "Choose good: on 40 documents it is clearly the best on ROUGE-Lsum."
    )
    assert document["candidates"][1]["versus_leader"]["rougeLsum"]["verdict"] == "worse"


def test_a_bad_row_is_that_rows_error(atlas):
    documents = [*DOCUMENTS, "BOOM goes this one. It fails."]
    fake = make_fake(atlas, faults={"BOOM": "exception"})
    experiment = run(make_experiment(make_dataset(atlas, documents), fake))
    assert experiment.state == "completed_with_errors"
    failed = Generation.objects.get(candidate__experiment=experiment, status="error")
    assert failed.example.index == 40
    assert failed.error


def test_failed_outputs_score_at_the_floor_and_are_counted(atlas):
    documents = ["EMPTY one. Two.", *DOCUMENTS[:10]]
    experiment = run(make_experiment(make_dataset(atlas, documents), make_fake(atlas, faults={"EMPTY": "empty"})))
    aggregate = Aggregate.objects.get(candidate__experiment=experiment, part="rouge1")
    assert aggregate.states == {"value": 10, "failed": 1}
    assert aggregate.n == 11


def test_without_references_metrics_do_not_apply(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS[:12], references=[]), make_fake(atlas)))
    document = comparing.comparison(experiment)
    mine = document["candidates"][0]["metrics"]["rouge1"]
    assert mine["mean"] is None
    assert mine["states"] == {"not_applicable": 12}
    assert "no reference summaries" in document["recommendation"]["sentence"]


def test_a_sample_is_the_same_for_the_same_seed(atlas):
    dataset = make_dataset(atlas, DOCUMENTS)
    drawn = [run(make_experiment(dataset, make_fake(atlas, name), sample={"n": 10, "seed": 3})) for name in "ab"]
    indexes = [
        sorted(Generation.objects.filter(candidate__experiment=each).values_list("example__index", flat=True))
        for each in drawn
    ]
    assert indexes[0] == indexes[1]
    assert len(indexes[0]) == 10
    assert drawn[0].n_examples == 10


def test_a_candidate_that_cannot_run_does_not_stop_the_others(atlas):
    bad = make_fake(atlas, "bad", faults={"Team": "stop"})
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas), bad))
    assert experiment.state == "completed_with_errors"
    assert experiment.candidates.get(label="bad").problem
    assert Generation.objects.filter(candidate__label="fake").count() == len(DOCUMENTS)


def test_cancel_keeps_what_is_finished_and_resume_does_the_rest(atlas):
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas), "baseline://lead-1")
    steering.start(experiment)
    from evaluations.working import WorkerProcess

    worker = WorkerProcess(("gpu", "api", "cpu"))
    worker.plan(experiment.pk)
    worker.advance(experiment.candidates.get(label="fake").pk)
    experiment.refresh_from_db()
    assert steering.cancel(experiment)
    experiment.refresh_from_db()
    assert experiment.state == "cancelled"
    before = set(Generation.objects.values_list("pk", flat=True))
    assert len(before) == len(DOCUMENTS)
    assert steering.resume(experiment)
    work_off()
    experiment.refresh_from_db()
    assert experiment.state == "completed"
    assert before < set(Generation.objects.values_list("pk", flat=True))
    assert Generation.objects.count() == 2 * len(DOCUMENTS)


def test_a_candidate_added_later_fills_only_the_gap(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas)))
    before = dict(Generation.objects.values_list("pk", "created_at"))
    planning.add_candidate(experiment, "baseline://lead-1")
    run(experiment)
    assert experiment.state == "completed"
    assert Generation.objects.count() == 2 * len(DOCUMENTS)
    assert {pk: at for pk, at in Generation.objects.values_list("pk", "created_at") if pk in before} == before


def test_an_unknown_model_is_refused_by_name(atlas):
    with pytest.raises(planning.Refused) as refused:
        make_experiment(make_dataset(atlas, DOCUMENTS), "no-such/model")
    assert "no-such/model" in refused.value.errors["models"][0]


def test_an_unknown_metric_is_refused_by_name(atlas):
    with pytest.raises(planning.Refused) as refused:
        make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas), metrics=["rouge", "blue"])
    assert "'blue'" in refused.value.errors["metrics"][0]


def test_documents_that_must_not_leave_are_refused_to_external_models(atlas):
    dataset = make_dataset(atlas, DOCUMENTS, privacy="local_only")
    with pytest.raises(planning.Refused) as refused:
        make_experiment(dataset, "openai://gpt-4o-mini")
    assert any("never leaving" in problem for problem in refused.value.errors["models"])


def test_all_units_end_and_nothing_stays_leased(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas)))
    assert set(WorkUnit.objects.filter(experiment=experiment).values_list("state", flat=True)) == {"done"}


def test_warnings_call_candidates_by_their_labels(atlas):
    """Fewer than thirty documents make the statistics speak of themselves; no internal key may show through."""
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS[:12]), make_fake(atlas), "baseline://lead-1"))
    document = comparing.comparison(experiment)
    said = " ".join(document["warnings"] + document["recommendation"]["caveats"])
    assert said
    assert "00000" not in said
