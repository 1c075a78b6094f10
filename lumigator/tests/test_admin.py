"""The admin, crawled: every page answers, quickly, without a secret, and only to those who may."""

from __future__ import annotations

import re

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from evaluations import annotating, completing, publishing, steering
from evaluations.admin import ReadOnly
from evaluations.models import Call, Experiment, Generation, Preference, SelfCheck, Worker
from evaluations.tests.engine import make_dataset, make_experiment, make_fake, run
from lumigator.admin import Capped
from lumigator.models import ApiToken, AuditEvent, IdempotencyKey, Membership, SignInLink, Team
from models_registry.models import Connection, ModelEntry, ModelRoot

pytestmark = pytest.mark.django_db
CANARY = "canary-7f3a-never-on-a-page"
DOCUMENTS = [f"Team {number} met. It chose plan {number % 5}. The budget is {number}." for number in range(12)]
OURS = ("lumigator", "evaluations", "datasets", "registry", "auth")
QUERIES = 25


@pytest.fixture
def root(db):
    return User.objects.create_superuser("root", password="root-correct-horse")


@pytest.fixture
def pages(root, as_user):
    return as_user(root)


@pytest.fixture
def world(atlas, alice, bob):
    """At least one row of everything, with a secret wherever one can be; {what: its secret}."""
    secrets = {}
    token, secrets["token"] = ApiToken.issue(user=alice, team=atlas, name="script")
    secrets["digest of the token"] = token.digest
    secrets["link"] = SignInLink.issue(alice)
    secrets["digest of the link"] = SignInLink.objects.get().digest
    IdempotencyKey.objects.create(
        user=alice, route="POST /x", key="k", fingerprint="f" * 64, status=201, body={"secret": CANARY}
    )
    secrets["stored answer"] = CANARY
    secrets["fingerprint"] = "f" * 64
    wired = Connection(team=atlas, name="main", provider="openai")
    wired.set_key("sk-" + CANARY)
    wired.save()
    secrets["ciphertext"] = bytes(wired.encrypted_key).decode()
    secrets["password"] = alice.password.split("$")[-1]
    ModelRoot.objects.create(name="shelf", path="/srv/models")
    ModelEntry.objects.create(
        team=atlas, slug="paid", name="Paid", uri="openai://paid", architecture="causal", privacy="external"
    )
    AuditEvent.objects.create(team=atlas, actor="alice", action="dataset.upload")
    Group.objects.create(name="staff")
    Worker.objects.create(name="host:1:cpu", queues=["cpu"])
    good, poor = make_fake(atlas, "good", text="{source:.20}"), make_fake(atlas, "poor", text="nothing")
    experiment = run(make_experiment(make_dataset(atlas, DOCUMENTS), good, poor))
    left, right = experiment.candidates.all()
    example = experiment.dataset.examples.first()
    Call.objects.create(experiment=experiment, candidate=left, example=example, state="settled", cost_micro=12)
    Preference.objects.create(experiment=experiment, rater=bob, example=example, left=left, right=right, choice="left")
    SelfCheck.objects.create(host="here", done_at=timezone.now(), report={"passed": True, "metrics": []})
    completing.ask(atlas, alice, "good", completing.Wish(text="One. Two."))
    drafts = annotating.create(team=atlas, user=alice, data={"dataset": experiment.dataset, "model": "good"})
    run(drafts.experiment)
    annotating.accept_all(drafts, alice)
    publishing.publish(drafts, user=alice, rows="approved")
    return secrets


def registered():
    return [(model, found) for model, found in admin.site._registry.items() if model._meta.app_label in OURS]


def address(model, page, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def fetch(client, url):
    with CaptureQueriesContext(connection) as caught:
        response = client.get(url)
    return response, len(caught)


def test_every_model_of_evaluations_and_lumigator_is_registered():
    from django.apps import apps

    models = {model for label in ("lumigator", "evaluations") for model in apps.get_app_config(label).get_models()}
    assert not models - set(admin.site._registry)


def test_every_list_answers_quickly_and_without_secrets(pages, world):
    for model, _ in registered():
        assert model._default_manager.exists(), f"the world lacks a {model.__name__}"
        response, n = fetch(pages, address(model, "changelist"))
        assert response.status_code == 200, model
        assert n <= QUERIES, (model, n)
        text = response.content.decode()
        assert not [what for what, secret in world.items() if secret in text], model


def test_every_page_of_one_row_answers_quickly_and_without_secrets(pages, world):
    for model, _ in registered():
        row = model._default_manager.first()
        response, n = fetch(pages, address(model, "change", row.pk))
        assert response.status_code == 200, model
        assert n <= QUERIES, (model, n)
        text = response.content.decode()
        assert not [what for what, secret in world.items() if secret in text], model


def test_every_add_page_answers_or_is_refused(pages, world):
    for model, found in registered():
        response = pages.get(address(model, "add"))
        is_read_only = isinstance(found, ReadOnly)
        assert response.status_code in ((403,) if is_read_only else (200, 403)), model


def test_every_search_and_filter_answers(pages, world):
    for model, found in registered():
        here = address(model, "changelist")
        if found.search_fields:
            for words in ("team", "12", "'\"%_", "\x00"):
                assert pages.get(here, {"q": words}).status_code == 200, (model, words)
        links = re.findall(r'href="(\?[^"]+)"', pages.get(here).content.decode())
        for link in dict.fromkeys(links):
            assert pages.get(here + link.replace("&amp;", "&")).status_code == 200, (model, link)


def test_lists_cost_the_same_for_more_rows(pages, world, atlas):
    before = {model: fetch(pages, address(model, "changelist"))[1] for model, _ in registered()}
    run(make_experiment(make_dataset(atlas, DOCUMENTS), "baseline://lead-1", "baseline://lead-2"))
    for number in range(4):
        user = User.objects.create_user(f"person{number}")
        Membership.objects.create(team=atlas, user=user, role="viewer")
        ApiToken.issue(user=user, team=atlas, name="another")
    after = {model: fetch(pages, address(model, "changelist"))[1] for model, _ in registered()}
    assert {model: n for model, n in after.items() if n > before[model]} == {}


def test_lists_of_outcomes_never_load_texts(pages, world):
    for model in (Generation, Experiment):
        with CaptureQueriesContext(connection) as caught:
            pages.get(address(model, "changelist"))
        for query in caught.captured_queries:
            assert '"evaluations_generation"."text"' not in query["sql"]
            assert '"datasets_example"."source"' not in query["sql"]
            assert '"evaluations_experiment"."statistics"' not in query["sql"]


def test_what_the_engine_wrote_cannot_be_changed(pages, world):
    for model, found in registered():
        if not isinstance(found, ReadOnly):
            continue
        row = model._default_manager.first()
        before = model._default_manager.filter(pk=row.pk).values().get()
        for page in ("change", "delete"):
            assert pages.post(address(model, page, row.pk), {"post": "yes"}).status_code == 403, (model, page)
        assert pages.post(address(model, "add"), {}).status_code == 403, model
        deletion = {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"}
        pages.post(address(model, "changelist"), deletion)
        assert model._default_manager.filter(pk=row.pk).values().get() == before, model


def test_nobody_else_gets_in(client, alice, as_user, world):
    """Alice administers her team, which makes nobody staff: she is sent on, as is who is not signed in."""
    for model, _ in registered():
        row = model._default_manager.first()
        for url in (address(model, "changelist"), address(model, "add"), address(model, "change", row.pk)):
            for visitor in (client, as_user(alice)):
                response = visitor.get(url)
                assert response.status_code == 302, (url, response.status_code)
                assert "login" in response["Location"] or "sign-in" in response["Location"]


def test_there_is_one_door(client):
    response = client.get("/admin/", follow=True)
    assert response.redirect_chain[-1][0].startswith("/sign-in/?next=/admin/")
    posted = client.post("/admin/login/", {"username": "root", "password": "root-correct-horse"})
    assert posted.status_code == 302
    assert "_auth_user_id" not in client.session


def test_the_door_leads_back_to_where_one_wanted_to_go(client, root):
    first = client.get("/admin/lumigator/team/", follow=True)
    door, _, query = first.redirect_chain[-1][0].partition("?")
    response = client.post(f"{door}?{query}", {"username": "root", "password": "root-correct-horse"})
    assert response["Location"] == "/admin/lumigator/team/"


# --- who sees what --------------------------------------------------------------------------------------------------


@pytest.fixture
def clerk(basalt):
    """Staff of another team, with every permission there is, and no superuser."""
    from django.contrib.auth.models import Permission

    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.all())
    Membership.objects.create(team=basalt, user=user, role="admin")
    return user


def test_staff_see_the_outcomes_of_their_own_teams_only(clerk, as_user, world):
    visitor = as_user(clerk)
    for model in (m for m, _ in registered() if m._meta.app_label == "evaluations"):
        if model.__name__ in ("Worker", "Signature", "SelfCheck"):  # of the installation, not of a team
            continue
        response = visitor.get(address(model, "changelist"))
        assert response.status_code == 200
        assert response.context["cl"].result_count == 0, model


def test_staff_cannot_make_themselves_more(clerk, as_user, world):
    visitor = as_user(clerk)
    for model in (User, Team, Membership, ApiToken, SignInLink, IdempotencyKey, AuditEvent):
        assert visitor.get(address(model, "changelist")).status_code == 403, model
    url = reverse("admin:auth_user_change", args=[clerk.pk])
    assert visitor.post(url, {"is_superuser": "on"}).status_code == 403


# --- what can be done -----------------------------------------------------------------------------------------------


def act(pages, model, action, *rows):
    return pages.post(
        address(model, "changelist"), {"action": action, "_selected_action": [row.pk for row in rows]}, follow=True
    )


def test_experiments_are_paused_resumed_and_cancelled(pages, atlas):
    dataset = make_dataset(atlas, DOCUMENTS)
    runs, draft = make_experiment(dataset, "baseline://lead-1"), make_experiment(dataset, "baseline://lead-1")
    steering.start(runs)
    runs.move("running")
    response = act(pages, Experiment, "pause", runs, draft)
    assert "Pause: 1 done." in response.content.decode()
    assert "Could not pause: Trial is draft." in response.content.decode()
    for action, state in (("resume", "running"), ("cancel", "cancelled")):
        act(pages, Experiment, action, runs)
        runs.refresh_from_db()
        assert runs.state == state
    done = AuditEvent.objects.filter(actor="root", object_id=str(runs.pk)).order_by("id")
    assert list(done.values_list("action", flat=True)) == ["experiment.pause", "experiment.resume", "experiment.cancel"]


def test_a_token_is_revoked(pages, world):
    token = ApiToken.objects.get()
    act(pages, ApiToken, "revoke", token)
    token.refresh_from_db()
    assert not token.is_valid(timezone.now())
    assert AuditEvent.objects.filter(action="token.revoke", actor="root").count() == 1


def test_a_new_team_gets_its_members_and_the_catalogue(pages, bob):
    response = pages.post(
        address(Team, "add"),
        {
            "name": "Cedar", "slug": "cedar", "memberships-TOTAL_FORMS": 1, "memberships-INITIAL_FORMS": 0,
            "memberships-0-user": bob.pk, "memberships-0-role": "editor",
        },
    )  # fmt: skip
    assert response.status_code == 302
    cedar = Team.objects.get(slug="cedar")
    assert Membership.objects.get(team=cedar).user == bob
    assert ModelEntry.objects.filter(team=cedar, slug="baseline/lead-3").exists()
    assert AuditEvent.objects.filter(action="admin.team.add", object_id=str(cedar.pk)).exists()


def test_a_team_with_data_cannot_be_deleted(pages, world, atlas, basalt):
    assert pages.post(address(Team, "delete", atlas.pk), {"post": "yes"}).status_code == 403
    assert pages.post(address(Team, "delete", basalt.pk), {"post": "yes"}).status_code == 302
    assert list(Team.objects.all()) == [atlas]


def test_an_experiment_can_be_renamed_and_nothing_else(pages, atlas):
    experiment = make_experiment(make_dataset(atlas, DOCUMENTS), "baseline://lead-1")
    form = {
        "name": "Renamed", "state": "completed", "seed": 9, "candidates-TOTAL_FORMS": 0, "candidates-INITIAL_FORMS": 0
    }  # fmt: skip
    assert pages.post(address(Experiment, "change", experiment.pk), form).status_code == 302
    experiment.refresh_from_db()
    assert (experiment.name, experiment.state, experiment.seed) == ("Renamed", "draft", 0)
    assert AuditEvent.objects.filter(action="admin.experiment.change").exists()


def test_counting_stops_at_its_limit(world, monkeypatch):
    monkeypatch.setattr(Capped, "most", 5)
    assert Capped(Generation.objects.order_by("pk"), 50).count == 5
    assert Generation.objects.count() > 5
