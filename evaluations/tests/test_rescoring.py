"""A library's new version gives other numbers: old and new stand side by side, and are never mixed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.urls import reverse

from evaluations import comparing, metrics, planning, rescoring, steering
from evaluations.models import Aggregate, Experiment, Generation, Score, Signature
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, run, work_off

pytestmark = pytest.mark.django_db(transaction=True)
DOCUMENTS = [f"Team {number} met. It chose plan {number % 5} for {number} coins." for number in range(12)]


def scored_by_an_older_version(experiment: Experiment) -> Experiment:
    """Turn the experiment's numbers into those of ROUGE 0.0.1, which gave half of what is right."""
    now = Signature.objects.get(metric="rouge")
    old = Signature.objects.create(digest="0" * 16, metric="rouge", detail={**now.detail, "version": "0.0.1"})
    for row in Score.objects.filter(signature=now, candidate__experiment=experiment):
        row.signature, row.value = old, row.value / 2
        row.save()
    for mean in Aggregate.objects.filter(signature=now, candidate__experiment=experiment):
        mean.signature, mean.mean = old, mean.mean / 2
        mean.save()
    experiment.metrics = [{**frozen, "signature": old.pk} for frozen in experiment.metrics]
    experiment.statistics = {part: {old.pk: told[now.pk]} for part, told in experiment.statistics.items()}
    experiment.save()
    return experiment


@pytest.fixture
def experiment(atlas):
    done = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas), "baseline://lead-1"))
    return scored_by_an_older_version(done)


def mean_of(document, label="fake", part="rouge1"):
    return next(row for row in document["candidates"] if row["label"] == label)["metrics"][part]["mean"]


def test_planning_writes_down_which_signature_counts(atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas)))
    assert experiment.metrics[0]["signature"] == Signature.objects.get(metric="rouge").pk
    assert experiment.metrics[0]["earlier"] == []
    assert comparing.comparison(experiment)["rescored"] == []


def test_a_changed_version_is_said_before_anything_is_done(experiment):
    (told,) = rescoring.outdated(experiment)
    assert told["metric"] == "rouge"
    assert [(each["what"], each["was"]) for each in told["changed"]] == [("version", "0.0.1")]


def test_scoring_anew_generates_nothing_and_keeps_the_old_scores(experiment):
    outputs = set(Generation.objects.values_list("pk", flat=True))
    old_scores = Score.objects.count()
    assert steering.rescore(experiment)
    work_off()
    assert set(Generation.objects.values_list("pk", flat=True)) == outputs
    assert Score.objects.count() == 2 * old_scores
    experiment.refresh_from_db()
    assert experiment.state == "completed"
    assert rescoring.outdated(experiment) == []


def test_the_comparison_shows_the_new_numbers_and_old_against_new(experiment):
    before = mean_of(comparing.comparison(experiment))
    steering.rescore(experiment)
    work_off()
    experiment.refresh_from_db()
    document = comparing.comparison(experiment)
    assert mean_of(document) == pytest.approx(2 * before)
    (told,) = document["rescored"]
    assert told["was"] == "0" * 16 and told["now"] == experiment.metrics[0]["signature"]
    assert told["changed"][0]["what"] == "version"
    moved = next(each for each in told["means"] if each["label"] == "fake" and each["part"] == "rouge1")
    assert (moved["was"], moved["now"]) == pytest.approx((before, 2 * before))
    assert moved["difference"] == pytest.approx(before)


def test_a_candidate_added_after_an_upgrade_makes_the_others_be_scored_anew(experiment):
    planning.add_candidate(experiment, "baseline://random-1")
    steering.start(experiment)
    work_off()
    experiment.refresh_from_db()
    rows = comparing.comparison(experiment)["candidates"]
    assert len(rows) == 3
    assert {row["metrics"]["rouge1"]["signature"] for row in rows} == {experiment.metrics[0]["signature"]}


def test_the_page_offers_it_and_the_api_does_it(experiment, alice, client):
    client.force_login(alice)
    page = client.get(reverse("comparison", args=[experiment.pk])).content.decode()
    assert "Scored by other versions" in page and "version was 0.0.1" in page
    answer = client.post(reverse("api-experiment-rescore", args=[experiment.pk]), {}, "application/json")
    assert answer.status_code == 202, answer.content
    work_off()
    page = client.get(reverse("comparison", args=[experiment.pk])).content.decode()
    assert "Scored by other versions" not in page and "old against new" in page


def test_what_runs_is_not_scored_anew(atlas, alice, client):
    draft = make_experiment(make_dataset(atlas, DOCUMENTS), make_fake(atlas))
    client.force_login(alice)
    answer = client.post(reverse("api-experiment-rescore", args=[draft.pk]), {}, "application/json")
    assert answer.status_code == 409


def test_scoring_anew_generates_nothing_even_where_outputs_are_missing(experiment):
    candidate = experiment.candidates.get(label="fake")
    lost = Generation.objects.filter(candidate=candidate)[:3]
    Score.objects.filter(candidate=candidate, example__in=[each.example_id for each in lost]).delete()
    Generation.objects.filter(pk__in=[each.pk for each in lost]).delete()
    experiment.candidates.filter(pk=candidate.pk).update(problem="it was stopped", problem_code="auth")
    assert steering.rescore(experiment)
    work_off()
    assert Generation.objects.filter(candidate=candidate).count() == len(DOCUMENTS) - 3
    assert experiment.candidates.get(label="fake").problem == "it was stopped"


def test_what_cannot_be_computed_now_is_no_reason_to_give_up_the_numbers(experiment, monkeypatch):
    known = metrics.available()
    broken = replace(known["rouge"], available=lambda options: "its library is gone")
    monkeypatch.setattr(planning.metric_plugins, "available", lambda: {**known, "rouge": broken})
    before = experiment.metrics
    steering.start(experiment)
    work_off()
    experiment.refresh_from_db()
    assert experiment.metrics[0]["signature"] == before[0]["signature"]
    assert experiment.state == "completed"
    assert mean_of(comparing.comparison(experiment)) > 0


def test_a_metric_that_is_registered_no_more_keeps_its_scores(experiment, monkeypatch):
    known = {name: metric for name, metric in metrics.available().items() if name != "rouge"}
    monkeypatch.setattr(planning.metric_plugins, "available", lambda: known)
    n = Score.objects.count()
    steering.rescore(experiment)
    work_off()
    experiment.refresh_from_db()
    assert experiment.state == "completed" and Score.objects.count() == n


def test_workers_of_different_versions_are_noticed(experiment):
    now = Signature.objects.filter(metric="rouge").first()
    assert rescoring.mixed(experiment) == []
    other = Signature.objects.create(digest="f" * 16, metric="rouge", detail={**now.detail, "version": "9.9"})
    candidate = experiment.candidates.first()
    Aggregate.objects.filter(candidate=candidate).update(signature=other)
    assert "different versions" in rescoring.mixed(experiment)[0]
