"""The API of ground truth, used as a script would: ask, follow, decide, assign, accept, publish."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from datasets_app.models import Dataset
from evaluations import ground_truth_shapes
from evaluations.models import Draft, Generation, GroundTruth
from evaluations.tests.engine import make_dataset, make_fake, work_off
from lumigator import client as client_module
from lumigator.models import ApiToken, AuditEvent, Role
from models_registry.models import ModelEntry

pytestmark = pytest.mark.django_db
HERE = "/api/v1/ground-truth/"
DOCUMENTS = [f"Team {n} met. It chose plan {n % 5}. The budget is {n} coins." for n in range(8)]


@pytest.fixture
def dataset(atlas):
    return make_dataset(atlas, DOCUMENTS, ["Team 0 met."])


@pytest.fixture
def bobs(bob, as_user):
    return as_user(bob, api=True)


@pytest.fixture
def run(bobs, dataset):
    """The address of a ground truth whose drafts are there."""
    make_fake(dataset.team, text="{source:.11}")
    made = bobs.post(HERE, {"dataset": dataset.pk, "model": "fake", "start": True}, format="json")
    assert made.status_code == 201, made.content
    assert made["Location"] == f"{HERE}{made.json()['id']}/"
    work_off()
    return made["Location"]


def patch(client, run, index, decision, version=0, **fields):
    body = {"decision": decision, "version": version, **fields}
    return client.patch(f"{run}items/{index}/", body, format="json")


def post(client, address, body=None):
    return client.post(address, body or {}, format="json")


def places(response):
    """{where: what} of a refusal, which must be problem+json."""
    assert response["Content-Type"] == "application/problem+json", response.content
    return {error["loc"]: error["msg"] for error in response.json()["errors"]}


def test_from_a_dataset_without_references_to_one_with_them(bobs, dataset):
    make_fake(dataset.team, text="{source:.11}")
    made = post(bobs, HERE, {"dataset": dataset.pk, "model": "fake", "sample": {"n": 6, "seed": 1}}).json()
    here = f"{HERE}{made['id']}/"
    assert (made["state"], made["stage"], made["counts"]["documents"]) == ("draft", "draft", 0)
    plan = bobs.get(f"{here}plan/").json()
    assert (plan["documents"], plan["calls"], plan["worst_case_cost_usd"]) == (6, 6, 0)
    assert post(bobs, f"{here}start/").status_code == 202
    work_off()
    told = bobs.get(here).json()
    assert (told["stage"], told["progress"]["percent"], told["counts"]["mine"]) == ("review", 100.0, 6)

    items = bobs.get(f"{here}items/").json()["results"]
    assert len(items) == 6
    first = items[0]
    assert first["draft"] == {
        "status": "ok", "text": DOCUMENTS[first["index"]][:11], "error": "", "finish_reason": "stop",
        "was_truncated": False,
    }  # fmt: skip
    assert patch(bobs, here, first["index"], "accepted").json()["text"] == first["draft"]["text"]
    edited = patch(bobs, here, items[1]["index"], "edited", text="Better.").json()
    assert (edited["text"], edited["reviewer"], edited["version"]) == ("Better.", "bob", 1)
    for item in items[2:]:
        assert patch(bobs, here, item["index"], "rejected").status_code == 200
    assert bobs.get(here).json()["stage"] == "reviewed"

    published = post(bobs, f"{here}publish/", {"name": "Approved"})
    assert published.status_code == 201
    child = bobs.get(published["Location"]).json()
    assert (child["name"], child["origin"], child["n_examples"], child["parent"]) == (
        "Approved", "generated", 2, dataset.pk,
    )  # fmt: skip
    assert bobs.get(here).json()["published"][0]["dataset"] == child["id"]
    events = AuditEvent.objects.filter(object_type="evaluations.groundtruth").values_list("action", flat=True)
    assert sorted(events) == ["ground_truth.create", "ground_truth.publish", "ground_truth.start"]


def test_what_the_api_gives_is_what_its_document_says(bobs, run):
    patch(bobs, run, 0, "accepted")
    post(bobs, f"{run}publish/")
    described = {
        run: ground_truth_shapes.GroundTruthDetailSerializer(),
        f"{run}plan/": ground_truth_shapes.DraftPlanSerializer(),
        f"{run}items/0/": ground_truth_shapes.ItemDetailSerializer(),
    }
    for address, shape in described.items():
        assert_described(bobs.get(address).json(), shape, address)
    assert_described(bobs.get(HERE).json()["results"][0], ground_truth_shapes.GroundTruthSerializer(), HERE)
    assert_described(bobs.get(f"{run}items/").json()["results"][0], ground_truth_shapes.ItemSerializer(), "items")


def assert_described(document, shape, where):
    assert set(document) == set(shape.fields), where
    for name, field in shape.fields.items():
        inner = getattr(field, "child", field)
        if hasattr(inner, "fields"):
            for one in document[name] if isinstance(document[name], list) else [document[name]]:
                assert_described(one, inner, f"{where} {name}")


def test_every_problem_is_named_by_its_field(bobs, dataset):
    wrong = post(bobs, HERE, {"dataset": dataset.pk, "model": "nobody", "prompt": "no place", "metrics": ["rouge"]})
    assert (wrong.status_code, set(places(wrong))) == (400, {"metrics"})
    wrong = post(bobs, HERE, {"dataset": dataset.pk, "model": "nobody", "prompt": "no place"})
    assert set(places(wrong)) == {"model", "prompt"}
    assert places(post(bobs, HERE, {})).keys() == {"dataset", "model"}
    assert not GroundTruth.objects.exists()


def test_the_same_key_asks_once(bobs, dataset):
    make_fake(dataset.team)
    body = {"dataset": dataset.pk, "model": "fake"}
    ids = {bobs.post(HERE, body, format="json", headers={"Idempotency-Key": "one"}).json()["id"] for _ in range(2)}
    assert len(ids) == GroundTruth.objects.count() == 1


def test_a_decision_on_what_somebody_changed_is_a_conflict_in_words(bobs, run, alice, as_user):
    assert patch(as_user(alice, api=True), run, 3, "rejected").status_code == 200
    late = patch(bobs, run, 3, "accepted")
    assert late.status_code == 409
    assert "alice rejected it" in late.json()["detail"]
    assert patch(bobs, run, 3, "accepted", version=1).json()["decision"] == "accepted"


@pytest.mark.parametrize(
    ("body", "place"),
    [({"decision": "perhaps", "version": 0}, "decision"), ({"decision": "accepted"}, "version"),
     ({"decision": "edited", "version": 0}, "text"), ({"decision": "edited", "version": 0, "text": " "}, "text"),
     ({"decision": "accepted", "version": -1}, "version"), ({"decision": "accepted", "version": 0, "by": 1}, "by"),
     ({"decision": "edited", "version": 0, "text": "a\0b"}, "text")],
)  # fmt: skip
def test_what_is_no_decision_is_refused_by_field(bobs, run, body, place):
    response = bobs.patch(f"{run}items/0/", body, format="json")
    assert (response.status_code, list(places(response))) == (400, [place])
    assert Draft.objects.get(index=0).version == 0


def test_items_are_found_by_decision_and_by_whose_they_are(bobs, run, alice):
    assert post(bobs, f"{run}assign/", {"reviewers": ["alice", "bob"], "overlap": 25}).status_code == 200
    mine = bobs.get(f"{run}items/?assignee=me").json()["results"]
    assert {item["assigned_to"] for item in mine} == {"bob"}
    patch(bobs, run, mine[0]["index"], "accepted", reading=mine[0]["reading"])
    found = bobs.get(f"{run}items/?decision=accepted").json()["results"]
    assert [item["index"] for item in found] == [mine[0]["index"]]
    assert len(bobs.get(f"{run}items/?reading=2").json()["results"]) == 2
    assert bobs.get(f"{run}items/?assignee=nobody").json()["results"] == []
    for query in ("decision=none", "reading=3", "sort=index"):
        assert bobs.get(f"{run}items/?{query}").status_code == 400, query


def test_pages_of_items_hold_each_once(bobs, run, alice):
    post(bobs, f"{run}assign/", {"reviewers": ["alice", "bob"], "overlap": 100})
    seen, address = [], f"{run}items/?page_size=3"
    while address:
        page = bobs.get(address).json()
        seen += [(item["index"], item["reading"]) for item in page["results"]]
        address = page["next"]
    assert seen == [(index, reading) for index in range(8) for reading in (1, 2)]


def test_a_list_costs_the_same_for_one_and_for_many(bobs, dataset):
    make_fake(dataset.team)
    asked = []
    for _ in range(3):
        post(bobs, HERE, {"dataset": dataset.pk, "model": "fake"})
        with CaptureQueriesContext(connection) as queries:
            assert bobs.get(HERE).status_code == 200
        asked.append(len(queries))
    assert asked[0] == asked[-1]


def test_one_item_shows_whose_the_references_are_that_it_came_with(bobs, run):
    item = bobs.get(f"{run}items/0/").json()
    assert item["source"] == DOCUMENTS[0]
    assert item["references"] == [{"text": "Team 0 met.", "by": "human"}]
    assert bobs.get(f"{run}items/800/").status_code == 404


def test_somebody_elses_document_is_not_decided_in_passing(bobs, run, alice, as_user):
    post(bobs, f"{run}assign/", {"reviewers": ["alice"]})
    refused = patch(bobs, run, 0, "accepted")
    assert refused.status_code == 403
    assert "assigned to alice" in refused.json()["detail"]


def test_reviewers_are_editors_of_the_team(bobs, run, vera, charlie):
    for name in ("vera", "charlie", "nobody"):
        wrong = places(post(bobs, f"{run}assign/", {"reviewers": [name]}))
        assert "there is bob" in wrong["reviewers"]
    assert places(post(bobs, f"{run}assign/", {"reviewers": ["bob"], "overlap": 10})).keys() == {"overlap"}


def test_only_an_admin_accepts_unread_and_it_is_recorded(bobs, run, alice, as_user):
    assert post(bobs, f"{run}accept-all/").status_code == 403
    told = post(as_user(alice, api=True), f"{run}accept-all/").json()
    assert (told["counts"]["in_bulk"], told["stage"]) == (8, "reviewed")
    event = AuditEvent.objects.get(action="ground_truth.accept_all")
    assert (event.actor, event.detail) == ("alice", {"accepted": 8})


def test_viewers_read_and_change_nothing(run, vera, as_user, dataset):
    veras = as_user(vera, api=True)
    for address in (HERE, run, f"{run}plan/", f"{run}items/", f"{run}items/0/"):
        assert veras.get(address).status_code == 200, address
    verbs = ("start/", "pause/", "resume/", "cancel/", "assign/", "accept-all/", "publish/")
    assert {post(veras, run + verb).status_code for verb in verbs} == {403}
    assert patch(veras, run, 0, "accepted").status_code == 403
    assert veras.delete(run).status_code == 403
    assert post(veras, HERE, {"dataset": dataset.pk, "model": "fake"}).status_code == 403


def test_a_token_of_a_viewer_reviews_nothing(run, bob, atlas):
    _, secret = ApiToken.issue(user=bob, team=atlas, name="read", role=Role.VIEWER)
    client = APIClient(headers={"authorization": f"Bearer {secret}"})
    assert client.get(run).status_code == 200
    assert patch(client, run, 0, "accepted").status_code == 403


def test_another_team_cannot_tell_that_it_exists(run, charlie, as_user):
    charlies = as_user(charlie, api=True)
    assert charlies.get(HERE).json()["results"] == []
    for address in (run, f"{run}items/", f"{run}items/0/", f"{run}plan/"):
        assert charlies.get(address).status_code == 404
    for verb in ("start/", "accept-all/", "publish/", "assign/"):
        assert post(charlies, run + verb).status_code == 404
    assert patch(charlies, run, 0, "accepted").status_code == 404


def test_it_is_deleted_when_it_no_longer_drafts_and_its_datasets_stay(bobs, run):
    patch(bobs, run, 0, "accepted")
    child = post(bobs, f"{run}publish/").json()["dataset"]
    assert bobs.delete(run).status_code == 204
    assert bobs.get(run).status_code == 404
    assert not Draft.objects.exists()
    assert Dataset.objects.filter(pk=child).exists()


def test_what_drafts_is_not_deleted_under_the_workers(bobs, dataset):
    make_fake(dataset.team)
    made = post(bobs, HERE, {"dataset": dataset.pk, "model": "fake", "start": True})
    assert bobs.delete(made["Location"]).status_code == 409
    assert post(bobs, f"{made['Location']}start/").status_code == 409
    assert not AuditEvent.objects.filter(action="ground_truth.delete").exists()


def test_a_dataset_that_is_being_annotated_is_kept(bobs, run, dataset):
    assert bobs.delete(f"/api/v1/datasets/{dataset.pk}/").status_code == 409
    assert Generation.objects.count() == 8


def test_publishing_before_anything_is_approved_says_what_to_do(bobs, run):
    assert "accept or edit some first" in places(post(bobs, f"{run}publish/"))["rows"]
    assert places(post(bobs, f"{run}publish/", {"rows": "half"})).keys() == {"rows"}


def test_a_model_that_would_send_private_documents_away_is_refused(bobs, dataset, atlas):
    Dataset.objects.filter(pk=dataset.pk).update(privacy="local_only")
    ModelEntry.objects.create(
        team=atlas, slug="far", name="far", uri="openai://far", architecture="causal", privacy="external"
    )
    assert "never leaving" in places(post(bobs, HERE, {"dataset": dataset.pk, "model": "far"}))["model"]


@pytest.mark.django_db(transaction=True)
def test_the_python_client_drafts_decides_and_publishes(live_server, bob, dataset, monkeypatch):
    monkeypatch.setattr(client_module, "POLL_SECONDS", (0.02, 0.05))
    make_fake(dataset.team, text="{source:.11}")
    _, secret = ApiToken.issue(user=bob, team=dataset.team, name="notebook")
    with client_module.Client(live_server.url, secret) as lumigator:
        made = lumigator.ground_truth.create(dataset=dataset.pk, model="fake")["id"]
        with pytest.raises(client_module.LumigatorError, match=f"ground truth {made} was never started"):
            lumigator.ground_truth.wait(made)
        lumigator.ground_truth.start(made)
        work_off()
        assert lumigator.ground_truth.wait(made)["stage"] == "review"
        first, second, *_ = lumigator.ground_truth.items(made, decision="unreviewed")
        lumigator.ground_truth.decide(made, first, "accepted")
        lumigator.ground_truth.decide(made, second, "edited", "Better.")
        with pytest.raises(client_module.LumigatorError, match="bob accepted it") as late:
            lumigator.ground_truth.decide(made, first, "rejected")
        assert late.value.status == 409
        with pytest.raises(client_module.LumigatorError, match="role admin"):
            lumigator.ground_truth.accept_all(made)
        child = lumigator.ground_truth.publish(made, name="Approved")
        assert lumigator.datasets.get(child["dataset"])["n_with_reference"] == 2
        assert [each["id"] for each in lumigator.ground_truth.list()] == [made]
