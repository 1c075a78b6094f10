"""The API of experiments, used as a script would: ask, plan, start, follow, compare, look into, download."""

from __future__ import annotations

import csv
import io
import json
import re
import threading

import pytest
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext

from datasets_app.ingest import ingest
from evaluations import calling, comparison_shapes, metric_api, planning, shapes
from evaluations.models import Candidate, Experiment, Generation, WorkUnit
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, run, work_off
from lumigator.models import AuditEvent, Membership
from models_registry.models import ModelEntry

pytestmark = pytest.mark.django_db(transaction=True)
HERE = "/api/v1/experiments/"
DOCUMENTS = [
    f"Team {number} met on day {number}. It chose plan {number % 5}. The budget is {number} coins."
    for number in range(32)
]
CONTRACT = {
    "experiment", "dataset", "primary_metric", "reference_candidate", "candidates", "pairs", "recommendation", "alarms",
    "signature",
}  # fmt: skip
PANELS = {
    "parts", "leader", "ranked", "detectable", "warnings", "rescored", "bounds", "gates", "baseline_check", "readings",
    "slices", "distribution",
}  # fmt: skip
ROW = {
    "candidate", "label", "is_baseline", "n", "states", "metrics", "answer_rate", "truncated_rate", "latency_ms",
    "tokens_per_second", "cost_usd", "cost_per_1000_usd", "best_group", "p_best", "versus_leader",
}  # fmt: skip


@pytest.fixture
def dataset(atlas):
    return make_dataset(atlas, DOCUMENTS)


@pytest.fixture
def bobs(bob, as_user):
    return as_user(bob, api=True)


def wish(dataset, *models, **fields):
    return {
        "name": "Which?", "dataset": dataset.pk, "models": list(models), "metrics": ["rouge"], "baselines": False,
        **fields,
    }  # fmt: skip


def places(response):
    """{where: what} of a refusal, which must be problem+json."""
    assert response["Content-Type"] == "application/problem+json", response.content
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail", "errors", "request_id"}
    assert body["status"] == response.status_code
    return {error["loc"]: error["msg"] for error in body["errors"]}


def make(bobs, dataset, *models, **fields):
    response = bobs.post(HERE, wish(dataset, *models, **fields))
    assert response.status_code == 201, response.content
    return response.json()


# --- the main story -------------------------------------------------------------------------------------------------


def test_from_the_question_to_the_comparison(bobs, atlas, dataset):
    make_fake(atlas, "good", text="{source:.30}")
    made = make(bobs, dataset, "good", {"model": "baseline://lead-1", "label": "lead"}, sample={"n": 30, "seed": 2})
    assert made["state"] == "draft"
    assert [each["label"] for each in made["candidates"]] == ["good", "lead"]
    here = f"{HERE}{made['id']}/"

    plan = bobs.get(f"{here}plan/").json()
    assert plan["calls"] == 60
    started = bobs.post(f"{here}start/")
    assert started.status_code == 202
    assert started.json()["state"] == "planning"
    work_off()
    assert bobs.get(f"{here}progress/").json()["percent"] == 100.0

    document = bobs.get(f"{here}comparison/").json()
    assert set(document) == CONTRACT | PANELS
    for row in document["candidates"]:
        assert set(row) >= ROW
        assert set(row["metrics"]["rougeLsum"]) >= {"mean", "low", "high", "signature"}
        assert row["n"] == 30
    assert {"a", "b", "metric", "difference", "low", "high", "p", "p_holm", "verdict"} <= set(document["pairs"][0])
    assert bobs.get(here).json()["state"] == "completed"
    events = AuditEvent.objects.filter(object_type="evaluations.experiment", object_id=str(made["id"]))
    assert set(events.values_list("action", "actor")) == {("experiment.create", "bob"), ("experiment.start", "bob")}


def test_start_true_starts_at_once(bobs, atlas, dataset):
    made = make(bobs, dataset, make_fake(atlas).slug, start=True)
    assert made["state"] == "planning"
    work_off()
    assert bobs.get(f"{HERE}{made['id']}/").json()["is_final"]


def test_what_the_api_gives_is_what_its_document_says(bobs, atlas, dataset):
    experiment = run(make_experiment(dataset, make_fake(atlas), "baseline://lead-1"))
    here = f"{HERE}{experiment.pk}/"
    described = {
        here: shapes.ExperimentDetailSerializer(),
        f"{here}plan/": shapes.PlanSerializer(),
        f"{here}progress/": shapes.ProgressSerializer(),
        f"{here}candidates/": shapes.CandidateListSerializer(),
        f"{here}comparison/": comparison_shapes.ComparisonSerializer(),
        f"{here}examples/": shapes.ExamplePageSerializer(),
        f"{here}examples/0/": shapes.SideBySideSerializer(),
        "/api/v1/metrics/": metric_api.MetricListSerializer(),
    }
    for address, shape in described.items():
        same_shape(bobs.get(address).json(), shape, address)


def same_shape(value, shape, place):
    """Every field that the shape names is there and no other; the same inside."""
    if hasattr(shape, "many"):
        for position, inner in enumerate(value):
            same_shape(inner, shape.child, f"{place}.{position}")
    elif hasattr(shape, "fields"):
        assert set(value) == set(shape.fields), place
        for name, field in shape.fields.items():
            if value[name] is not None:
                same_shape(value[name], field, f"{place}.{name}")
    elif hasattr(shape, "child") and isinstance(value, dict) and hasattr(shape.child, "fields"):
        for name, inner in value.items():
            same_shape(inner, shape.child, f"{place}.{name}")


@pytest.mark.parametrize("rest", ["", "1/", "1/plan/", "1/progress/", "1/candidates/", "1/comparison/", "1/examples/"])
def test_every_address_is_a_page_for_people_too(bobs, dataset, rest):
    experiment = make_experiment(dataset, "baseline://lead-1")
    address = HERE + rest.replace("1", str(experiment.pk))
    response = bobs.get(address, headers={"Accept": "text/html"})
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/html")


def test_the_page_of_the_list_shows_what_to_post(bobs):
    page = bobs.get(HERE, headers={"Accept": "text/html"}).content.decode()
    assert "primary_metric" in page
    assert "budget_usd" in page


# --- asking wrongly -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "where", "words"),
    [
        ({"metrics": ["rouge", "blue"]}, "metrics", "'blue'"),
        ({"models": ["fake", "no-such/model"]}, "models", "no-such/model"),
        ({"primary_metric": "bleurt"}, "primary_metric", "bleurt"),
        ({"task": "poetry"}, "task", "poetry"),
        ({"prompt": "Summarize!"}, "prompt", "{document}"),
        ({"budget": 5}, "budget", "budget_usd"),
        ({"sample": {"n": 5, "sed": 1}}, "sample.sed", "seed"),
        ({"sample": {"n": 0}}, "sample.n", "1"),
        ({"models": [{"model": "fake", "temperature": 0}]}, "models.0.temperature", "generation"),
        ({"models": ["fake", {"label": "x"}]}, "models.1.model", "required"),
        ({"gates": {"min_answers": 1}}, "gates.min_answers", "min_answer_rate"),
        ({"margin": -1}, "margin", "0"),
        ({"budget_usd": "much"}, "budget_usd", "number"),
        ({"state": "completed"}, "state", "no such field"),
        ({"spent_micro": 0}, "spent_micro", "no such field"),
        ({"models": [], "start": True}, "models", "at least one"),
        ({"dataset": 999_999}, "dataset", "there is no dataset 999999"),
        ({"dataset": "first"}, "dataset", "a number"),
        ({"name": "nul \0 here"}, "name", "NUL"),
        ({"models": [{"model": "fake", "generation": {"stop": "\ud800"}}]}, "models.0.generation.stop", "surrogate"),
    ],
)
def test_what_is_wrong_is_named_with_its_field(bobs, atlas, dataset, fields, where, words):
    make_fake(atlas)
    body = json.dumps({**wish(dataset, "fake"), **fields})
    response = bobs.post(HERE, body, content_type="application/json")
    assert response.status_code == 400
    assert words in places(response)[where]
    assert not Experiment.objects.exists()


def test_every_problem_is_told_at_once(bobs, atlas, dataset):
    make_fake(atlas)
    response = bobs.post(HERE, wish(dataset, "nobody", metrics=["blue"], task="poetry"))
    assert set(places(response)) == {"models", "metrics", "task"}


@pytest.mark.parametrize("body", ['{"name": ' * 40, "[1]", "null", '"text"', "{" * 100_000, '{"margin": 1e999}', "NaN"])
def test_a_broken_body_is_refused(bobs, body):
    response = bobs.post(HERE, body, content_type="application/json")
    assert response.status_code == 400
    places(response)


def test_a_body_over_the_limit_is_refused_unread(bobs, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    response = bobs.post(HERE, {"name": "x" * 2000})
    assert response.status_code == 413
    places(response)


def test_documents_of_another_team_are_not_there(bobs, basalt):
    theirs = make_dataset(basalt, DOCUMENTS[:3])
    response = bobs.post(HERE, wish(theirs, "baseline://lead-1"))
    assert places(response) == {"dataset": f"there is no dataset {theirs.pk}"}


def test_a_model_of_another_team_is_not_there(bobs, basalt, dataset):
    make_fake(basalt, "theirs")
    response = bobs.post(HERE, wish(dataset, "theirs"))
    assert "there is no model 'theirs'" in places(response)["models"]


# --- who may --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("get", ""), ("patch", ""), ("delete", ""), ("get", "plan/"), ("post", "start/"), ("post", "pause/"),
        ("post", "resume/"), ("post", "cancel/"), ("get", "progress/"), ("get", "candidates/"),
        ("post", "candidates/"), ("get", "comparison/"), ("get", "examples/"), ("get", "examples/0/"),
        ("get", "export/"),
    ],
)  # fmt: skip
def test_another_teams_experiment_is_not_there(charlie, as_user, dataset, method, rest):
    experiment = make_experiment(dataset, "baseline://lead-1")
    response = getattr(as_user(charlie, api=True), method)(f"{HERE}{experiment.pk}/{rest}")
    assert response.status_code == 404
    places(response)
    experiment.refresh_from_db()
    assert (experiment.name, experiment.state) == ("Trial", "draft")


def test_a_list_shows_only_the_teams_own(charlie, as_user, bobs, basalt, dataset):
    make_experiment(dataset, "baseline://lead-1")
    assert as_user(charlie, api=True).get(HERE).json()["results"] == []
    assert len(bobs.get(HERE).json()["results"]) == 1


@pytest.mark.parametrize(
    ("method", "rest"),
    [("post", ""), ("patch", "1/"), ("delete", "1/"), ("post", "1/start/"), ("post", "1/candidates/")],
)
def test_a_viewer_changes_nothing(vera, as_user, method, rest):
    response = getattr(as_user(vera, api=True), method)(f"{HERE}{rest}", {})
    assert response.status_code == 403
    assert "editor" in response.json()["detail"]


def test_a_viewer_reads(vera, as_user, dataset):
    experiment = make_experiment(dataset, "baseline://lead-1")
    for rest in ("", "plan/", "progress/", "candidates/", "comparison/", "examples/", "examples/0/"):
        assert as_user(vera, api=True).get(f"{HERE}{experiment.pk}/{rest}").status_code == 200


def test_a_role_counts_in_its_own_team_only(bob, basalt, as_user):
    """Bob edits in Atlas and views in Basalt: acting for Atlas he cannot change what is Basalt's."""
    Membership.objects.create(team=basalt, user=bob, role="viewer")
    theirs = make_experiment(make_dataset(basalt, DOCUMENTS[:3]), "baseline://lead-1")
    assert as_user(bob, api=True).delete(f"{HERE}{theirs.pk}/").status_code == 404


# --- once only ------------------------------------------------------------------------------------------------------


def test_a_double_submit_makes_one_experiment(bobs, dataset):
    body = wish(dataset, "baseline://lead-1")
    answers = [bobs.post(HERE, body, headers={"Idempotency-Key": "monday"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert answers[1]["Idempotent-Replay"] == "true"
    assert Experiment.objects.count() == 1
    assert AuditEvent.objects.filter(action="experiment.create").count() == 1


def test_the_same_key_with_another_body_is_refused(bobs, dataset):
    bobs.post(HERE, wish(dataset, "baseline://lead-1"), headers={"Idempotency-Key": "monday"})
    response = bobs.post(HERE, wish(dataset, "baseline://lead-2"), headers={"Idempotency-Key": "monday"})
    assert response.status_code == 422
    assert Experiment.objects.count() == 1


def test_many_submits_at_once_make_one_experiment_that_runs_once(bob, as_user, dataset):
    body = wish(dataset, "baseline://lead-1", start=True)
    gate = threading.Barrier(8)
    answers = []

    def submit():
        client = as_user(bob, api=True)
        gate.wait()
        try:
            answers.append(client.post(HERE, body, headers={"Idempotency-Key": "impatient"}).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=submit) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert answers == [201] * 8
    assert Experiment.objects.count() == 1
    assert WorkUnit.objects.filter(kind="plan").count() == 1


def test_a_refused_request_leaves_its_key_free(bobs, dataset):
    bad = bobs.post(HERE, wish(dataset, "nobody"), headers={"Idempotency-Key": "k"})
    good = bobs.post(HERE, wish(dataset, "baseline://lead-1"), headers={"Idempotency-Key": "k"})
    assert (bad.status_code, good.status_code) == (400, 201)


# --- states ---------------------------------------------------------------------------------------------------------


def test_states_follow_what_is_asked(bobs, dataset):
    here = f"{HERE}{make(bobs, dataset, 'baseline://lead-1', start=True)['id']}/"
    assert bobs.post(f"{here}pause/").status_code == 409
    assert bobs.post(f"{here}start/").status_code == 409
    Experiment.objects.update(state="running")
    assert bobs.post(f"{here}pause/").json()["state"] == "paused"
    assert bobs.post(f"{here}resume/").json()["state"] == "running"
    assert bobs.delete(here).status_code == 409
    assert bobs.post(f"{here}cancel/").json()["state"] == "cancelled"
    assert bobs.post(f"{here}cancel/").status_code == 409
    assert bobs.delete(here).status_code == 204
    assert bobs.get(here).status_code == 404


def test_a_conflict_says_what_the_state_is(bobs, dataset):
    made = make(bobs, dataset, "baseline://lead-1")
    response = bobs.post(f"{HERE}{made['id']}/pause/")
    assert "The experiment is draft: it cannot pause now." in response.json()["detail"]


def test_deleting_takes_everything_of_it_and_nothing_else(bobs, atlas, dataset):
    gone = run(make_experiment(dataset, make_fake(atlas)))
    kept = run(make_experiment(dataset, "baseline://lead-1"))
    assert bobs.delete(f"{HERE}{gone.pk}/").status_code == 204
    assert set(Generation.objects.values_list("candidate__experiment", flat=True)) == {kept.pk}
    assert AuditEvent.objects.filter(action="experiment.delete", object_id=str(gone.pk)).exists()


def test_only_the_name_can_be_changed(bobs, dataset):
    here = f"{HERE}{make(bobs, dataset, 'baseline://lead-1')['id']}/"
    assert bobs.patch(here, {"name": "Better"}).json()["name"] == "Better"
    response = bobs.patch(here, {"name": "Best", "seed": 3})
    assert "seed" in places(response)
    assert bobs.get(here).json()["name"] == "Better"
    assert bobs.put(here, {"name": "x"}).status_code == 405


def test_an_experiment_without_candidates_does_not_start(bobs, dataset):
    made = make(bobs, dataset)
    response = bobs.post(f"{HERE}{made['id']}/start/")
    assert response.status_code == 409
    assert "no candidate" in response.json()["detail"]


# --- plan -----------------------------------------------------------------------------------------------------------


def paid(atlas, slug="paid", **fields):
    return ModelEntry.objects.create(
        team=atlas, slug=slug, name=slug, uri=f"openai://{slug}", architecture="causal", privacy="external",
        **{"generation": {"max_new_tokens": 100}, **fields},
    )  # fmt: skip


@pytest.fixture
def wired(atlas):
    from models_registry.models import Connection

    connection_ = Connection(team=atlas, name="main", provider="openai")
    connection_.set_key("sk-test-0123456789")
    connection_.save()


def test_the_plan_bounds_the_cost_of_priced_models(bobs, atlas, dataset, wired):
    from evaluations import tasks
    from models_registry.providers import Request

    paid(atlas, price_in="2.5", price_out="10", window=120)
    made = make(bobs, dataset, "paid", "baseline://lead-1", budget_usd="0.01")
    plan = bobs.get(f"{HERE}{made['id']}/plan/").json()
    row, free = plan["candidates"]
    candidate = Candidate.objects.get(label="paid")
    prompts = [tasks.render(candidate.spec["prompt"], text) for text in DOCUMENTS]
    exact = [calling.worst_case_micro(candidate, Request(key=1, source="", prompt=prompt)) for prompt in prompts]
    assert sum(exact) <= row["worst_case_cost_usd"] * 1e6 <= sum(exact) + 2 * len(exact)
    assert free["worst_case_cost_usd"] == 0
    assert plan["worst_case_cost_usd"] == row["worst_case_cost_usd"]
    assert plan["fits_budget"] is False
    assert row["input_tokens"] == pytest.approx(sum(len(prompt) / 4 for prompt in prompts), rel=0.05)
    assert row["documents_beyond_window"] == len(DOCUMENTS)  # 120 tokens less 100 for the answer: nothing fits
    assert any("paid will probably not read" in caveat for caveat in plan["caveats"])


def test_the_plan_leaves_an_unpriced_cost_empty(bobs, atlas, dataset, wired):
    paid(atlas)
    plan = bobs.get(f"{HERE}{make(bobs, dataset, 'paid', 'baseline://lead-1')['id']}/plan/").json()
    assert plan["worst_case_cost_usd"] is None
    assert plan["unpriced"] == ["paid"]
    assert "unpriced" in plan["candidates"][0]["cost_reason"]


def test_the_plan_says_what_so_many_documents_can_show(bobs, atlas):
    dataset = make_dataset(atlas, DOCUMENTS * 7)
    made = make(bobs, dataset, "baseline://lead-1", sample={"n": 100})
    told = bobs.get(f"{HERE}{made['id']}/plan/").json()["detectable"]
    assert told["n"] == 100
    assert told["difference"] == pytest.approx(0.028, abs=0.0005)  # 2.8 ROUGE points, STATISTICS §2
    assert "typical SD" in told["assumption"]


def test_the_plan_says_what_cannot_run(bobs, atlas, dataset, wired):
    from models_registry.models import Connection

    paid(atlas)
    made = make(bobs, dataset, "paid", "baseline://lead-1")
    Connection.objects.all().delete()
    plan = bobs.get(f"{HERE}{made['id']}/plan/").json()
    assert [row["can_run"] for row in plan["candidates"]] == [False, True]
    assert "connection" in plan["cannot_run"][0]


def test_gates_are_kept_and_told(bobs, dataset):
    made = make(bobs, dataset, "baseline://lead-1", gates={"min_answer_rate": 0.95})
    assert made["gates"] == {"min_answer_rate": 0.95}
    told = bobs.get(f"{HERE}{made['id']}/comparison/").json()
    assert told["experiment"]["gates"] == {"min_answer_rate": 0.95}


def test_a_budget_can_be_raised(bobs, dataset):
    made = make(bobs, dataset, "baseline://lead-1", budget_usd=1)
    assert bobs.patch(f"{HERE}{made['id']}/", {"budget_usd": "2.5"}).json()["budget_usd"] == 2.5


def test_the_plan_of_an_end_only_counts_what_is_missing(bobs, dataset):
    experiment = run(make_experiment(dataset, "baseline://lead-1"))
    planning.add_candidate(experiment, "baseline://lead-2")
    plan = bobs.get(f"{HERE}{experiment.pk}/plan/").json()
    assert [row["calls"] for row in plan["candidates"]] == [0, len(DOCUMENTS)]


def test_grouped_documents_count_as_their_groups(bobs, atlas):
    rows = [{"examples": text, "customer": "one" if number < 20 else ""} for number, text in enumerate(DOCUMENTS)]
    file = ContentFile("\n".join(map(json.dumps, rows)).encode(), name="grouped.jsonl")
    dataset = ingest(team=atlas, user=None, name="", file=file, columns={"source": "examples", "group": "customer"})
    plan = bobs.get(f"{HERE}{make(bobs, dataset, 'baseline://lead-1')['id']}/plan/").json()
    assert plan["units"] == 13
    assert any("too few to rank" in caveat for caveat in plan["caveats"])


# --- progress -------------------------------------------------------------------------------------------------------


def test_progress_that_did_not_move_is_not_sent_again(bobs, dataset):
    made = make(bobs, dataset, "baseline://lead-1", start=True)
    here = f"{HERE}{made['id']}/progress/"
    first = bobs.get(here)
    again = bobs.get(here, headers={"If-None-Match": first["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    work_off()
    moved = bobs.get(here, headers={"If-None-Match": first["ETag"]})
    assert moved.status_code == 200
    assert moved["ETag"] != first["ETag"]


# --- candidates -----------------------------------------------------------------------------------------------------


def lines(outputs):
    return "\n".join(json.dumps({"index": index, "output": text}) for index, text in outputs.items()).encode()


def test_imported_outputs_compete_with_models(bobs, dataset):
    made = make(bobs, dataset, "baseline://lead-1")
    here = f"{HERE}{made['id']}/"
    outputs = {index: text.split(".")[0] + "." for index, text in enumerate(DOCUMENTS)}
    file = SimpleUploadedFile("ours.jsonl", lines(outputs))
    added = bobs.post(f"{here}candidates/", {"label": "ours", "file": file}, format="multipart")
    assert added.status_code == 201, added.content
    assert added.json()["import_report"]["matched"] == len(DOCUMENTS)
    bobs.post(f"{here}start/")
    work_off()
    rows = {row["label"]: row for row in bobs.get(f"{here}comparison/").json()["candidates"]}
    assert rows["ours"]["metrics"]["rougeLsum"]["mean"] == pytest.approx(1.0)


def test_imported_rows_without_a_partner_are_named_and_counted(bobs, dataset):
    made = make(bobs, dataset)
    rows = [{"index": 0, "output": "One."}, {"index": 99, "output": "Nobody's."}]
    added = bobs.post(f"{HERE}{made['id']}/candidates/", {"label": "ours", "predictions": rows}).json()
    report = added["import_report"]
    assert (report["matched"], report["n_unmatched"], report["n_missing"]) == (1, 1, len(DOCUMENTS) - 1)
    assert report["unmatched"] == ["99"]
    assert added["imported"] == {"unmatched": 1, "missing": len(DOCUMENTS) - 1}


def test_a_bare_list_of_outputs_is_in_the_datasets_order(bobs, dataset):
    made = make(bobs, dataset)
    bobs.post(f"{HERE}{made['id']}/candidates/", {"label": "ours", "predictions": [text[:9] for text in DOCUMENTS]})
    assert Generation.objects.get(example__index=7).text == DOCUMENTS[7][:9]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"predictions": ["a"]}, "label"),
        ({"label": "ours", "predictions": []}, "predictions"),
        ({"label": "ours", "predictions": [{"idx": 1, "output": "a"}]}, "predictions.0.idx"),
        ({"label": "ours", "predictions": [{"index": 1}]}, "predictions.0.output"),
        ({"label": "ours", "predictions": ["a"], "scores": [1]}, "scores"),
        ({"label": "ours", "predictions": [{"index": 1, "output": "a"}, {"index": 1, "output": "b"}]}, "predictions"),
        ({"label": "lead", "predictions": ["a"]}, "model"),
        ({"model": "nobody"}, "model"),
        ({"modle": "nobody"}, "modle"),
    ],
)
def test_a_bad_candidate_is_refused_and_leaves_nothing(bobs, dataset, body, where):
    made = make(bobs, dataset, {"model": "baseline://lead-1", "label": "lead"})
    response = bobs.post(f"{HERE}{made['id']}/candidates/", body)
    assert response.status_code == 400
    assert where in places(response)
    assert Candidate.objects.count() == 1
    assert not Generation.objects.exists()


def test_a_bad_file_is_refused_with_its_line(bobs, dataset):
    made = make(bobs, dataset)
    file = SimpleUploadedFile("ours.jsonl", b'{"index": 0, "output": "a"}\n{"index": oops}\n')
    response = bobs.post(f"{HERE}{made['id']}/candidates/", {"label": "ours", "file": file}, format="multipart")
    assert "line 2" in places(response)["file"]
    assert not Candidate.objects.exists()


def test_a_model_added_after_the_end_fills_only_the_gap(bobs, atlas, dataset):
    experiment = run(make_experiment(dataset, "baseline://lead-1"))
    here = f"{HERE}{experiment.pk}/"
    added = bobs.post(f"{here}candidates/", {"model": "baseline://lead-2", "label": "two"})
    assert added.status_code == 201
    assert bobs.post(f"{here}start/").status_code == 202
    work_off()
    found = bobs.get(f"{here}candidates/").json()
    assert [each["label"] for each in found["results"]] == ["lead-1", "two"]
    assert Generation.objects.count() == 2 * len(DOCUMENTS)


def test_nothing_is_added_while_it_runs(bobs, dataset):
    made = make(bobs, dataset, "baseline://lead-1", start=True)
    response = bobs.post(f"{HERE}{made['id']}/candidates/", {"model": "baseline://lead-2"})
    assert response.status_code == 409


# --- looking --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ended(atlas, dataset):
    poor = make_fake(atlas, "poor", text="nothing of it")
    return run(make_experiment(dataset, poor, {"model": "baseline://lead-1", "label": "=lead"}))


def test_another_metric_can_be_asked(bobs, ended):
    assert bobs.get(f"{HERE}{ended.pk}/comparison/?metric=rouge2").json()["primary_metric"] == "rouge2"
    for unknown in ("bleurt", "meteor", "%00"):
        response = bobs.get(f"{HERE}{ended.pk}/comparison/?metric={unknown}")
        assert "rougeLsum" in places(response)["metric"]


def test_a_draft_has_a_comparison_without_numbers(bobs, dataset):
    made = make(bobs, dataset, "baseline://lead-1")
    document = bobs.get(f"{HERE}{made['id']}/comparison/").json()
    assert document["candidates"][0]["metrics"] == {}
    assert document["recommendation"]["candidate"] is None
    assert "nothing was scored" in places(bobs.get(f"{HERE}{made['id']}/comparison/?metric=rouge2"))["metric"]


def test_examples_page_through_everything_once(bobs, ended):
    for sort in ("spread", "index", str(ended.candidates.first().pk)):
        for order in ("asc", "desc"):
            address = f"{HERE}{ended.pk}/examples/?sort={sort}&order={order}&page_size=7"
            seen, values = [], []
            while address:
                page = bobs.get(address).json()
                seen += [row["index"] for row in page["results"]]
                values += [row["index"] if sort == "index" else row["spread"] for row in page["results"]]
                address = page["next"]
            assert sorted(seen) == list(range(len(DOCUMENTS)))
            if sort != str(ended.candidates.first().pk):
                assert values == sorted(values, reverse=order == "desc")


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("sort=team__name", "sort"), ("sort=created_by__password", "sort"), ("order=down", "order"),
        ("after=nowhere", "after"), ("metric=bleurt", "metric"), ("page_size=201", "page_size"),
        ("page_size=x", "page_size"), ("slice=tags", "slice"), ("team__name=x", "team__name"),
    ],
)  # fmt: skip
def test_a_wrong_question_about_examples_is_named(bobs, ended, query, where):
    response = bobs.get(f"{HERE}{ended.pk}/examples/?{query}")
    assert response.status_code == 400
    assert where in places(response)


@pytest.mark.parametrize("after", ["0.5:99999999999999999999", "inf:1", "nan:1", "-1:-1", "1e999:3"])
def test_a_made_up_place_in_the_list_is_no_crash(bobs, ended, after):
    assert bobs.get(f"{HERE}{ended.pk}/examples/?after={after}").status_code in (200, 400)


def test_one_document_with_every_output(bobs, ended):
    found = bobs.get(f"{HERE}{ended.pk}/examples/3/").json()
    assert found["example"]["source"] == DOCUMENTS[3]
    assert [output["status"] for output in found["outputs"]] == ["ok", "ok"]
    assert bobs.get(f"{HERE}{ended.pk}/examples/99/").status_code == 404
    assert bobs.get(f"{HERE}{ended.pk}/examples/999999999/").status_code == 404


def test_the_list_can_be_narrowed_by_state(bobs, ended, dataset):
    make_experiment(dataset, "baseline://lead-1")
    assert [each["id"] for each in bobs.get(f"{HERE}?state=completed").json()["results"]] == [ended.pk]
    assert "state" in places(bobs.get(f"{HERE}?state=done"))
    assert "team__name" in places(bobs.get(f"{HERE}?team__name=Basalt"))


def test_metrics_tell_their_parts_options_and_readiness(bobs):
    found = {metric["name"]: metric for metric in bobs.get("/api/v1/metrics/").json()["results"]}
    rouge = found["rouge"]
    assert "rougeLsum" in [part["name"] for part in rouge["parts"]]
    assert rouge["available"] is (rouge["why_not"] == "")
    assert rouge["options"]["stemmer"] is True


# --- downloads ------------------------------------------------------------------------------------------------------


def body_of(response):
    return b"".join(response.streaming_content).decode()


def test_the_csv_holds_every_outcome_and_no_formula(bobs, ended):
    response = bobs.get(f"{HERE}{ended.pk}/export/?format=csv", headers={"Accept": "text/csv"})
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(r'attachment; filename="trial-\d+\.csv"', response["Content-Disposition"])
    text = body_of(response)
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert len(rows) == 2 * len(DOCUMENTS)
    assert {row["candidate"] for row in rows} == {"poor", "'=lead"}
    assert float(rows[0]["rougeLsum"]) >= 0
    assert not any(cell and re.match(r"[=+@\t\r]", cell) for row in rows for cell in row.values())
    assert AuditEvent.objects.filter(action="experiment.export", detail={"format": "csv"}).count() == 1


def test_a_score_that_was_not_computed_is_an_empty_cell_with_its_reason(bobs, atlas):
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS[:3], references=[]), "baseline://lead-1"))
    text = body_of(bobs.get(f"{HERE}{experiment.pk}/export/"))
    row = next(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert row["rouge1"] == ""
    assert "reference" in row["absent_scores"]


def test_the_jsonl_holds_every_outcome(bobs, ended):
    text = body_of(bobs.get(f"{HERE}{ended.pk}/export/?format=jsonl"))
    rows = [json.loads(line) for line in text.splitlines()]
    assert {(row["candidate"], row["index"]) for row in rows} == {
        (label, index) for label in ("poor", "=lead") for index in range(len(DOCUMENTS))
    }


def test_another_format_is_refused(bobs, ended):
    assert "csv" in places(bobs.get(f"{HERE}{ended.pk}/export/?format=xlsx"))["format"]


# --- cost -----------------------------------------------------------------------------------------------------------


def queries(client, address):
    with CaptureQueriesContext(connection) as caught:
        assert client.get(address).status_code == 200
    return len(caught)


def test_reading_costs_the_same_for_more_documents_and_more_experiments(bobs, atlas):
    few = run(make_experiment(make_dataset(atlas, DOCUMENTS[:4]), "baseline://lead-1", "baseline://lead-2"))
    rest = ("", "plan/", "progress/", "comparison/", "candidates/", "examples/", "examples/0/")
    before = {each: queries(bobs, f"{HERE}{few.pk}/{each}") for each in rest}
    listed = queries(bobs, HERE)
    many = run(make_experiment(make_dataset(atlas, DOCUMENTS * 2), "baseline://lead-1", "baseline://lead-2"))
    after = {each: queries(bobs, f"{HERE}{many.pk}/{each}") for each in rest}
    assert after == before
    assert queries(bobs, HERE) == listed
    assert listed <= 6
    assert max(before.values()) <= 16


# --- options of metrics ---------------------------------------------------------------------------------------------


def test_options_of_a_metric_are_frozen_and_stand_in_its_signature(atlas, bobs):
    make_fake(atlas)
    dataset = make_dataset(atlas, DOCUMENTS)
    asked = {"dataset": dataset.pk, "models": ["fake"], "baselines": False, "metrics": ["rouge"], "start": True}
    answer = bobs.post(
        "/api/v1/experiments/",
        {**asked, "metric_options": {"rouge": {"stemmer": False}}},
        content_type="application/json",
    )
    assert answer.status_code == 201, answer.content
    work_off()
    told = bobs.get(f"/api/v1/experiments/{answer.json()['id']}/comparison/").json()
    assert next(iter(told["signature"]["metrics"].values()))["stemmer"] == "none"


@pytest.mark.parametrize(
    "options, words",
    [
        ({"bleu": {"lowercase": True}}, "not among the chosen metrics"),
        ({"rouge": {"stemming": True}}, "no option 'stemming'"),
        ({"rouge": {"references": "median"}}, "choose one of"),
        ({"bertscore": {"encoder": "/etc"}}, "outside the model roots"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_words(atlas, bobs, options, words):
    make_fake(atlas)
    dataset = make_dataset(atlas, DOCUMENTS)
    asked = {"dataset": dataset.pk, "models": ["fake"], "baselines": False, "metrics": ["rouge", "bertscore"]}
    answer = bobs.post("/api/v1/experiments/", {**asked, "metric_options": options}, content_type="application/json")
    assert answer.status_code == 400
    assert words in " ".join(each["msg"] for each in answer.json()["errors"])
