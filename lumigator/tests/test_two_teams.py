"""What is Atlas's is not there for Charlie of Basalt: by no address, and in no field (SECURITY S3)."""

from __future__ import annotations

import re

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.urls import get_resolver

from datasets_app.models import Dataset
from evaluations import annotating, completing
from evaluations.tests.engine import make_dataset, make_experiment, run
from lumigator.models import ApiToken, AuditEvent, Role
from lumigator.tests.test_access import _routes
from models_registry.models import Connection, ModelEntry

pytestmark = pytest.mark.django_db(transaction=True)
API = "/api/v1/"
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture
def atlases(atlas):
    """Of everything that Atlas can have, one."""
    dataset = make_dataset(atlas, ["One. Two. Three.", "Four. Five. Six."])
    connection = Connection.objects.create(
        team=atlas, name="secret-host", provider="endpoint", base_url="https://a.example/v1"
    )
    connection.set_key("sk-of-atlas-0123456789")
    connection.save()
    model = ModelEntry.objects.create(
        team=atlas, slug="atlas/own", name="own", uri="endpoint://secret-host/own", architecture="causal",
        privacy="private", price_in=1, price_out=1,
    )  # fmt: skip
    ended = run(make_experiment(dataset, "baseline://lead-1", "baseline://lead-2"))
    drafted = annotating.create(team=atlas, user=None, data={"dataset": dataset, "model": "baseline://lead-1"})
    run(drafted.experiment)
    answered = completing.ask(atlas, None, "baseline://lead-1", completing.Wish(text="One. Two."))
    return {
        "answered": answered,
        "dataset": dataset, "connection": connection, "model": model, "ended": ended,
        "draft": make_experiment(dataset, "baseline://lead-1"), "candidate": ended.candidates.first(),
        "drafts": drafted,
    }  # fmt: skip


@pytest.fixture
def charlies(charlie, basalt):
    """Charlie's own dataset and an experiment that takes candidates; the catalogue is not seeded."""
    dataset = make_dataset(basalt, ["Seven. Eight. Nine."])
    return {"dataset": dataset, "draft": make_experiment(dataset, "baseline://lead-1")}


def addresses(things):
    """Every address that names a thing of Atlas's, by the route that serves it."""
    data, ended, draft = (things[name].pk for name in ("dataset", "ended", "draft"))
    experiments = [f"{API}experiments/{pk}/" for pk in (ended, draft)]
    pages = [f"/experiments/{pk}/" for pk in (ended, draft)]
    verbs = ["start/", "pause/", "resume/", "cancel/"]
    asked = things["answered"]
    rests = ["", "plan/", *verbs, "progress/", "candidates/", "comparison/", "examples/", "examples/0/", "export/"]
    return [
        *(f"{API}datasets/{data}/{rest}" for rest in
          ("", "examples/", "profile/", "problems/", "download/", "edit/", "split/")),
        *(f"{API}models/{things['model'].slug}/{rest}" for rest in ("", "check/")),
        *(f"{API}connections/{things['connection'].pk}/{rest}" for rest in ("", "models/")),
        *(here + rest for here in experiments for rest in [*rests, "rescore/"]),
        f"{API}completions/{asked.pk}/",
        f"/models/playground/{asked.batch}/",
        f"/models/playground/{asked.batch}/keep/",
        f"/models/playground/{asked.batch}/{asked.pk}/",
        *(f"/datasets/{data}/{rest}" for rest in
          ("", "delete/", "progress/", "problems.csv", "edit/", "split/", "examples/", "examples/0/",
           "examples/0/edit/")),
        *(f"/models/{things['model'].slug}/{rest}" for rest in ("", "check/")),
        *(f"/models/connections/{things['connection'].pk}/{rest}" for rest in ("", "models/")),
        *(here + rest for here in pages for rest in
          ("", *verbs, "rescore/", "progress/", "comparison/", "examples/", "examples/0/")),
        *(f"{API}ground-truth/{things['drafts'].pk}/{rest}" for rest in
          ("", "plan/", *verbs, "items/", "items/0/", "assign/", "accept-all/", "publish/")),
        *(f"/ground-truth/{things['drafts'].pk}/{rest}" for rest in
          ("", *verbs, "progress/", "delete/", "assign/", "accept-all/", "publish/", "review/", "items/", "items/0/")),
    ]  # fmt: skip


def everything():
    """{table: its rows} of our apps, but for the audit log and the facts about Charlie's own visit."""
    models = [model for label in ("lumigator", "evaluations", "datasets", "registry")
              for model in apps.get_app_config(label).get_models() if model not in (AuditEvent, ApiToken)]  # fmt: skip
    return {model: list(model._default_manager.order_by("pk").values()) for model in models}


def test_every_route_that_names_a_thing_is_among_them(atlases):
    """A new address with an id or a slug must be added to `addresses`."""
    named = [
        regex for regex in _routes(get_resolver().url_patterns, "")
        if "(?P<" in regex and "(?P<secret>" not in regex and not regex.startswith("admin/")
    ]  # fmt: skip
    assert len(named) > 30
    there = addresses(atlases)
    assert [regex for regex in named if not any(re.match(regex, address[1:]) for address in there)] == []


@pytest.mark.parametrize("by_token", [False, True], ids=["signed in", "by token"])
def test_no_address_of_another_teams_thing_answers_or_changes_it(by_token, atlases, charlie, basalt, as_user):
    client = as_user(charlie, api=True)
    if by_token:
        client.logout()
        _, secret = ApiToken.issue(user=charlie, team=basalt, name="script", role=Role.ADMIN)
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    before, ajar = everything(), []
    for address in addresses(atlases):  # 400: of a body that is refused before anything is looked for
        for method in METHODS if address.startswith(API) or not by_token else ():
            sent = {"format": "json" if address.startswith(API) else "multipart"} if method != "get" else {}
            response = getattr(client, method)(address, {"action": "delete", "name": "mine"}, **sent)
            if response.status_code not in (400, 404, 405):
                ajar.append((method, address, response.status_code))
    assert ajar == []
    assert everything() == before


def test_lists_hold_nothing_of_another_team(atlases, charlie, as_user):
    client = as_user(charlie, api=True)
    for name in ("datasets", "models", "connections", "experiments", "ground-truth"):
        assert client.get(f"{API}{name}/").json()["results"] == [], name
    for page in (
        "/",
        "/datasets/",
        "/models/",
        "/models/connections/",
        "/experiments/",
        "/experiments/new/",
        "/ground-truth/",
        "/ground-truth/new/",
    ):
        content = client.get(page, headers={"accept": "text/html"}).content
        assert not any(word in content for word in (b"Trial", b"atlas/own", b"secret-host")), page


def fields(things):
    """(path, body, the field) with a thing of Atlas's in a field, as Charlie would send it."""
    mine, theirs = things["mine"], things
    experiments = f"{API}experiments/"
    ask = {"name": "n", "dataset": mine["dataset"].pk, "models": ["baseline://lead-2"], "metrics": ["rouge"]}
    into = f"{experiments}{mine['draft'].pk}/candidates/"
    return [
        (experiments, {**ask, "dataset": theirs["dataset"].pk}),
        *((experiments, {**ask, "models": [name]}) for name in names(theirs)),
        *((experiments, {**ask, "models": [{"model": name, "label": "x"}]}) for name in names(theirs)),
        *((into, {"model": name}) for name in names(theirs)),
        *((experiments, {**ask, name: theirs[thing].pk}) for name, thing in
          (("team", "dataset"), ("parent", "dataset"), ("connection", "connection"), ("candidate", "candidate"))),
        (f"{API}ground-truth/", {"dataset": theirs["dataset"].pk, "model": "baseline://lead-2"}),
        *((f"{API}ground-truth/", {"dataset": mine["dataset"].pk, "model": name}) for name in names(theirs)),
        (into, {"model": "baseline://lead-2", "connection": theirs["connection"].pk}),
        (into, {"model": "baseline://lead-2", "experiment": theirs["draft"].pk}),
        (f"{API}models/", {"uri": "openai://x", "team": theirs["dataset"].team_id}),
        (f"{API}connections/", {"name": "x", "provider": "openai", "team": theirs["dataset"].team_id}),
        (f"{API}connections/", {"name": "x", "provider": "openai", "id": theirs["connection"].pk}),
    ]  # fmt: skip


def names(things):
    model = things["model"]
    return (model.slug, model.uri, str(model.pk), "endpoint://secret-host/other")


def test_no_field_takes_another_teams_thing(atlases, charlies, charlie, as_user):
    client = as_user(charlie, api=True)
    before, taken = everything(), []
    for path, body in fields({**atlases, "mine": charlies}):
        response = client.post(path, body, format="json")
        if response.status_code not in (400, 404):
            taken.append((path, body, response.status_code))
        assert b"secret-host'" not in response.content or "endpoint://secret-host" in str(body)
    assert taken == []
    assert everything() == before


def test_no_form_takes_another_teams_thing(atlases, charlies, charlie, as_user):
    client = as_user(charlie)
    ask = {"dataset": charlies["dataset"].pk, "addresses": "baseline://lead-2", "metrics": "rouge",
           "primary_metric": "rougeLsum", "then": "keep"}  # fmt: skip
    tries = [{"dataset": atlases["dataset"].pk}, {"models": atlases["model"].slug},
             *({"addresses": name} for name in names(atlases))]  # fmt: skip
    before = everything()
    for wrong in tries:
        assert client.post("/experiments/new/", {**ask, **wrong}).status_code == 422, wrong
    assert client.post("/team/", {"team": "atlas"}).status_code == 404
    assert everything() == before


def test_an_address_with_a_connections_name_means_the_own_teams_connection(atlases, charlies, charlie, as_user):
    """Charlie may write endpoint://secret-host into the registry: it names a connection of Basalt's, which has none."""
    client = as_user(charlie, api=True)
    added = client.post(f"{API}models/", {"uri": "endpoint://secret-host/own", "slug": "x"}, format="json")
    assert added.status_code == 201
    assert not added.json()["can_run"]
    assert "a.example" not in added.content.decode()
    checked = client.post(f"{API}models/x/check/").json()
    assert not checked["can_run"]
    assert "a.example" not in str(checked)
    body = {"dataset": charlies["dataset"].pk, "models": ["x"], "metrics": ["rouge"]}
    assert client.post(f"{API}experiments/", body, format="json").status_code == 400


def test_a_file_that_waits_is_its_uploaders_alone(bob, charlie, as_user):
    from django.core.files.uploadedfile import SimpleUploadedFile

    bobs, charlies = as_user(bob), as_user(charlie)
    bobs.post("/datasets/upload/", {"file": SimpleUploadedFile("a.csv", b"examples\nOf Atlas.\n"), "privacy": "any"})
    assert charlies.post("/datasets/upload/check/", {"action": "store", "use-0": "source"}).status_code == 302
    assert not Dataset.objects.exists()


def test_staff_of_another_team_find_no_documents_in_the_admin(atlases, charlie, as_user):
    charlie.is_staff = True
    charlie.save()
    charlie.user_permissions.set(Permission.objects.all())
    client, dataset = as_user(charlie), atlases["dataset"]
    example = dataset.examples.first()
    for name, pk in (("dataset", dataset.pk), ("example", example.pk)):
        assert client.get(f"/admin/datasets/{name}/{pk}/change/").status_code == 302, name
        listed = client.get(f"/admin/datasets/{name}/")
        assert listed.status_code == 200
        assert b"Trial" not in listed.content and b"Atlas" not in listed.content
    for name in ("modelentry", "connection"):
        listed = client.get(f"/admin/registry/{name}/").content
        assert b"Atlas" not in listed and b"atlas" not in listed, "not even that there is such a team"
