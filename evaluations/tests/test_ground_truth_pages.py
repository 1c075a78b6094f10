"""The pages of ground truth: who may see them, what they show, and that they work by plain forms."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from datasets_app.models import Dataset
from evaluations import annotating, steering
from evaluations.models import Draft, Generation, GroundTruth, Publication
from evaluations.tests.engine import make_dataset, make_fake, work_off
from evaluations.tests.test_pages import HOSTILE, assert_harmless
from lumigator.models import AuditEvent

pytestmark = pytest.mark.django_db
DOCUMENTS = [f"Team {n} met. It chose plan {n % 5}. The budget is {n} coins." for n in range(6)]


def drafted(team: Any, *, text: str = "{source:.11}", sources: list[str] = DOCUMENTS, **fields: Any) -> GroundTruth:
    make_fake(team, text=text)
    dataset = make_dataset(team, sources, ["Team 0 met."], **fields)
    ground_truth = annotating.create(team=team, user=None, data={"dataset": dataset, "model": "fake"})
    assert steering.start(ground_truth.experiment)
    work_off()
    return GroundTruth.objects.get(pk=ground_truth.pk)


@pytest.fixture
def run(atlas: Any) -> GroundTruth:
    return drafted(atlas)


@pytest.fixture
def bobs(bob: Any, as_user: Any) -> Any:
    return as_user(bob)


def pages_of(run: GroundTruth) -> list[str]:
    here = f"/ground-truth/{run.pk}/"
    return [here, f"{here}progress/", f"{here}items/", f"{here}items/0/", f"{here}items/0/?reading=1"]


def send(client: Any, run: GroundTruth, index: int, decision: str, text: str = "", version: int = 0) -> Any:
    body = {"decision": decision, "text": text, "version": version}
    return client.post(f"/ground-truth/{run.pk}/items/{index}/", body)


def words(response: Any) -> str:
    return " ".join(response.content.decode().split())


def test_a_viewer_reads_every_page_and_finds_no_button(run: GroundTruth, as_user: Any, vera: Any) -> None:
    client = as_user(vera)
    for path in ["/ground-truth/", *pages_of(run)]:
        response = client.get(path)
        assert response.status_code == 200, path
        assert_harmless(response)
        assert "data-review" not in words(response)
    assert "Team 0 met." in words(client.get(f"/ground-truth/{run.pk}/items/0/"))
    assert send(client, run, 0, "accepted").status_code == 403
    assert client.get("/ground-truth/new/").status_code == 403
    for verb in ("start", "pause", "resume", "cancel", "delete", "assign", "accept-all", "publish"):
        assert client.post(f"/ground-truth/{run.pk}/{verb}/").status_code == 403, verb


def test_another_team_cannot_tell_that_it_exists(run: GroundTruth, as_user: Any, charlie: Any) -> None:
    client = as_user(charlie)
    assert run.experiment.name not in words(client.get("/ground-truth/"))
    for path in [*pages_of(run), f"/ground-truth/{run.pk}/review/"]:
        assert client.get(path).status_code == 404, path
    assert send(client, run, 0, "accepted").status_code == 404
    for verb in ("start", "assign", "accept-all", "publish", "delete"):
        assert client.post(f"/ground-truth/{run.pk}/{verb}/").status_code == 404, verb


def test_the_form_shows_the_plan_and_the_prompt_before_anything_is_kept(atlas: Any, bobs: Any) -> None:
    make_fake(atlas)
    dataset = make_dataset(atlas, DOCUMENTS)
    page = words(bobs.get(f"/ground-truth/new/?dataset={dataset.pk}"))
    assert f'<option value="{dataset.pk}" selected>' in page
    asked = {"dataset": dataset.pk, "model": "fake", "prompt": "In one line: {document}", "then": "look"}
    shown = bobs.post("/ground-truth/new/", asked)
    assert shown.status_code == 200
    assert_harmless(shown)
    assert "What it will take" in words(shown)
    assert not GroundTruth.objects.exists()
    started = bobs.post("/ground-truth/new/", {**asked, "then": "start"})
    made = GroundTruth.objects.get()
    assert started["Location"] == f"/ground-truth/{made.pk}/"
    assert made.experiment.state == "planning"
    assert set(AuditEvent.objects.values_list("action", flat=True)) == {"ground_truth.create", "ground_truth.start"}


def test_what_is_wrong_stands_beside_its_field(atlas: Any, bobs: Any) -> None:
    dataset = make_dataset(atlas, DOCUMENTS)
    make_fake(atlas)
    for body, said in (
        ({"dataset": dataset.pk}, "Choose the model that drafts."),
        ({"dataset": dataset.pk, "model": "fake", "prompt": "none"}, "{document} exactly once"),
        ({"model": "fake"}, "This field is required."),
    ):
        refused = bobs.post("/ground-truth/new/", {**body, "then": "start"})
        assert refused.status_code == 422
        assert said in words(refused)
    assert not GroundTruth.objects.exists()


def test_the_review_goes_from_one_to_the_next_until_none_is_left(run: GroundTruth, bobs: Any) -> None:
    address = bobs.get(f"/ground-truth/{run.pk}/review/")["Location"]
    for index in range(6):
        assert address == f"/ground-truth/{run.pk}/items/{index}/"
        assert DOCUMENTS[index] in words(bobs.get(address))
        address = send(bobs, run, index, ("accepted", "rejected")[index % 2], DOCUMENTS[index][:11])["Location"]
    assert address == f"/ground-truth/{run.pk}/"
    assert "3 references are approved" in words(bobs.get(address))
    assert bobs.get(f"/ground-truth/{run.pk}/review/")["Location"] == address


def test_what_was_typed_is_kept_whichever_button_saves_it(run: GroundTruth, bobs: Any) -> None:
    send(bobs, run, 0, "accepted", "Team 0 met.")
    send(bobs, run, 1, "accepted", "Team 1 chose plan 1.")
    assert list(Draft.objects.filter(index__lt=2).values_list("decision", "text")) == [
        ("accepted", ""), ("edited", "Team 1 chose plan 1."),
    ]  # fmt: skip
    page = words(bobs.get(f"/ground-truth/{run.pk}/items/1/"))
    assert "<ins>chose plan 1</ins>" in page
    assert "<del>met</del>" in page


def test_who_was_slower_keeps_the_text_and_sees_why(run: GroundTruth, bobs: Any, alice: Any, as_user: Any) -> None:
    send(as_user(alice), run, 0, "rejected")
    late = send(bobs, run, 0, "edited", "My careful words.")
    assert late.status_code == 409
    assert "alice rejected it" in words(late)
    assert "My careful words.</textarea>" in words(late)
    assert 'name="version" value="1"' in words(late)
    assert Draft.objects.get(index=0).decision == "rejected"


def test_an_empty_reference_is_refused_with_the_cure(run: GroundTruth, bobs: Any) -> None:
    for decision in ("edited", "accepted"):
        refused = send(bobs, run, 0, decision, "   ")
        assert refused.status_code == 422
        assert "reject the draft" in words(refused)
    assert Draft.objects.get(index=0).version == 0


def test_a_document_without_a_draft_is_written_or_rejected(run: GroundTruth, bobs: Any) -> None:
    Generation.objects.filter(example__index=2).update(status="error", text="", error="it broke")
    page = words(bobs.get(f"/ground-truth/{run.pk}/items/2/"))
    assert "it broke" in page
    assert 'value="accepted"' not in page
    send(bobs, run, 2, "edited", "By hand.")
    assert Draft.objects.get(index=2).is_written


def test_references_of_people_are_marked_beside_the_draft(run: GroundTruth, bobs: Any) -> None:
    assert 'Reference it came with <span class="chip">human</span>' in words(
        bobs.get(f"/ground-truth/{run.pk}/items/0/")
    )


def test_hostile_text_is_only_text(atlas: Any, bobs: Any) -> None:
    run = drafted(atlas, text=f"{HOSTILE}</textarea>", sources=[f"{HOSTILE} {n}" for n in range(2)])
    send(bobs, run, 0, "edited", f"{HOSTILE} changed </textarea>")
    Draft.objects.filter(index=1).update(version=3)
    for path in ["/ground-truth/", *pages_of(run), f"/ground-truth/{run.pk}/items/1/"]:
        response = bobs.get(path)
        assert_harmless(response)
        assert "<script>alert" not in response.content.decode(), path
    assert_harmless(send(bobs, run, 1, "edited", HOSTILE))


def test_only_an_admin_is_offered_to_accept_unread(run: GroundTruth, bobs: Any, alice: Any, as_user: Any) -> None:
    here = f"/ground-truth/{run.pk}/"
    assert "Accept all unread" not in words(bobs.get(here))
    assert bobs.post(f"{here}accept-all/").status_code == 403
    alices = as_user(alice)
    assert "Accept all unread" in words(alices.get(here))
    alices.post(f"{here}accept-all/")
    assert Draft.objects.filter(in_bulk=True).count() == 6
    assert "6 of them unread" in words(alices.get(here))
    assert AuditEvent.objects.get(action="ground_truth.accept_all").actor == "alice"


def test_reviewers_are_assigned_and_their_agreement_is_shown(
    run: GroundTruth, bobs: Any, bob: Any, alice: Any, as_user: Any
) -> None:
    here = f"/ground-truth/{run.pk}/"
    refused = bobs.post(f"{here}assign/", {"reviewers": [bob.pk], "overlap": "50"})
    assert refused.status_code == 422
    assert "it takes two reviewers" in words(refused)
    bobs.post(f"{here}assign/", {"reviewers": [alice.pk, bob.pk], "overlap": "50"})
    second = Draft.objects.filter(reading=2, assigned_to=bob).first()
    assert second is not None
    page = words(bobs.get(f"{here}items/{second.index}/"))
    assert "second reading" in page
    theirs = f"{here}items/{second.index}/?reading=1"
    assert "It is assigned to alice" in words(bobs.get(theirs))
    send(bobs, run, second.index, "accepted", DOCUMENTS[second.index][:11])
    as_user(alice).post(theirs, {"decision": "accepted", "version": 0})
    assert "100&nbsp;% of 1" in words(bobs.get(here))


def test_publishing_tells_the_counts_before_and_leads_to_the_dataset(run: GroundTruth, bobs: Any) -> None:
    here = f"/ground-truth/{run.pk}/"
    assert "Accept or edit some drafts first" in words(bobs.get(here))
    assert bobs.post(f"{here}publish/", {"rows": "all"}).status_code == 422
    send(bobs, run, 3, "edited", "Three.")
    page = words(bobs.get(here))
    assert "Only what is approved: 1 document" in page
    assert "Every document: 6, 2 of them with a reference" in page
    there = bobs.post(f"{here}publish/", {"rows": "all", "name": "Whole"})["Location"]
    made = Dataset.objects.get(name="Whole")
    assert there == f"/datasets/{made.pk}/"
    assert "references_by" in words(bobs.get(there))
    assert "Whole" in words(bobs.get(here))


def test_a_draft_of_a_run_shows_its_plan_and_is_deleted_again(atlas: Any, bobs: Any) -> None:
    make_fake(atlas)
    made = annotating.create(team=atlas, user=None, data={"dataset": make_dataset(atlas, DOCUMENTS), "model": "fake"})
    assert "What it will take" in words(bobs.get(f"/ground-truth/{made.pk}/"))
    assert bobs.post(f"/ground-truth/{made.pk}/delete/")["Location"] == "/ground-truth/"
    assert not GroundTruth.objects.exists()


def test_pages_of_documents_follow_each_other(run: GroundTruth, bobs: Any, monkeypatch: Any) -> None:
    from evaluations import ground_truth_views

    monkeypatch.setattr(ground_truth_views, "ITEMS", 4)
    here = f"/ground-truth/{run.pk}/items/"
    assert "?after=3" in words(bobs.get(here))
    last = words(bobs.get(f"{here}?after=3"))
    assert "/items/4/" in last and "/items/5/" in last and "/items/3/" not in last
    send(bobs, run, 5, "rejected")
    assert "/items/0/" not in words(bobs.get(f"{here}?decision=rejected"))


def test_the_admin_shows_who_decided_what_and_no_text(run: GroundTruth, bobs: Any, as_user: Any) -> None:
    send(bobs, run, 0, "edited", "A canary of a reference.")
    bobs.post(f"/ground-truth/{run.pk}/publish/", {"rows": "approved"})
    client = as_user(User.objects.create_superuser("root"))
    for model in (GroundTruth, Draft, Publication):
        here, row = f"/admin/evaluations/{model.__name__.lower()}/", model._default_manager.order_by("pk")[0]
        for path in (here, f"{here}{row.pk}/change/", f"{here}?q=12"):
            response = client.get(path)
            assert response.status_code == 200, path
            assert "canary of a reference" not in words(response)
        assert client.get(f"{here}add/").status_code == 403
    assert client.get(f"/admin/evaluations/draft/?ground_truth__id__exact={run.pk}").status_code == 200
