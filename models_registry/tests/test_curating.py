"""The life of a model: draft, checked, enabled, retired; who may be chosen when, and what is kept of each step."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection, transaction

from evaluations.tests.engine import make_dataset
from models_registry import adding, choosing, curating
from models_registry.models import ModelChange, ModelEntry
from models_registry.providers import ProviderError

MODELS = "/api/v1/models/"


@pytest.fixture
def entry(atlas) -> ModelEntry:
    return adding.add(atlas, uri="baseline://lead-5", by="bob")


def usable(team) -> set[str]:
    return set(team.models.filter(enabled=True).values_list("slug", flat=True))


def test_what_is_added_is_a_draft_that_no_experiment_may_choose(atlas, entry) -> None:
    assert (entry.state, entry.is_usable, usable(atlas)) == ("draft", False, set())
    with pytest.raises(ProviderError, match="check it or enable it"):
        choosing.resolve(atlas, "baseline/lead-5")
    assert choosing.readiness(entry).label == "draft"


@pytest.mark.parametrize("state", ["checked", "enabled"])
def test_what_is_checked_or_enabled_may_be_chosen(atlas, entry, state: str) -> None:
    curating.move(entry, state, actor="bob")
    assert (entry.is_usable, entry.enabled, usable(atlas)) == (True, True, {"baseline/lead-5"})
    assert choosing.resolve(atlas, "baseline/lead-5") == entry


def test_an_address_on_the_fly_needs_no_curating(atlas) -> None:
    found = choosing.resolve(atlas, "baseline://lead-7")
    assert (found.pk, found.is_usable) == (None, True)


def test_each_step_is_kept_with_who_and_why(entry) -> None:
    curating.move(entry, "enabled", actor="bob", note="Good on letters.")
    curating.move(entry, "retired", actor="alice", note="Replaced.")
    kept = [(step.actor, step.before, step.after, step.note) for step in entry.changes.all()]
    assert kept == [
        ("alice", "enabled", "retired", "Replaced."),
        ("bob", "draft", "enabled", "Good on letters."),
        ("bob", "", "draft", "baseline://lead-5"),
    ]


def test_a_step_to_where_it_is_changes_nothing(entry) -> None:
    assert curating.move(entry, "draft", actor="bob") is None
    assert entry.changes.count() == 1


@pytest.mark.parametrize("path", [["retired", "checked"], ["enabled", "checked"], ["gone"]])
def test_a_step_that_does_not_lead_on_is_refused_in_words(entry, path: list[str]) -> None:
    *before, last = path
    for state in before:
        curating.move(entry, state, actor="bob")
    with pytest.raises(curating.NotPossible, match=r"never becomes|there is no state"):
        curating.move(entry, last, actor="bob")
    entry.refresh_from_db()
    assert entry.state == (before or ["draft"])[-1]


def test_who_comes_second_is_told(entry) -> None:
    stale = ModelEntry.objects.get(pk=entry.pk)
    curating.move(entry, "retired", actor="alice")
    with pytest.raises(curating.NotPossible, match="no longer draft"):
        curating.move(stale, "enabled", actor="bob")
    assert entry.changes.count() == 2


def test_the_history_cannot_be_rewritten(entry) -> None:
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        ModelChange.objects.update(actor="nobody")
    entry.delete()
    assert not ModelChange.objects.exists()


def test_the_database_knows_no_other_state(entry) -> None:
    with pytest.raises(DatabaseError, match="a_known_state"), transaction.atomic():
        ModelEntry.objects.filter(pk=entry.pk).update(state="lost")
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE registry_modelentry SET enabled = true")


# Over the API


def test_the_api_enables_and_retires_with_a_reason(atlas, bob, as_user) -> None:
    client = as_user(bob, api=True)
    made = client.post(MODELS, {"uri": "baseline://lead-5"}).json()
    assert (made["state"], made["enabled"]) == ("draft", False)
    address = f"{MODELS}{made['slug']}/"
    body = client.patch(address, {"state": "enabled", "note": "We know it."}).json()
    assert (body["state"], body["enabled"]) == ("enabled", True)
    assert client.patch(address, {"enabled": False}).json()["state"] == "retired"
    history = client.get(address).json()["history"]
    assert [(step["actor"], step["after"], step["note"]) for step in history] == [
        ("bob", "retired", ""),
        ("bob", "enabled", "We know it."),
        ("bob", "draft", "baseline://lead-5"),
    ]
    assert [row["slug"] for row in client.get(f"{MODELS}?state=retired").json()["results"]] == [made["slug"]]


def test_the_api_refuses_a_step_that_only_a_check_may_take(atlas, bob, as_user, entry) -> None:
    answer = as_user(bob, api=True).patch(f"{MODELS}{entry.slug}/", {"state": "checked"})
    assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (400, "state")


def test_one_may_add_and_enable_at_once(atlas, bob, as_user) -> None:
    body = as_user(bob, api=True).post(MODELS, {"uri": "baseline://lead-5", "state": "enabled"}).json()
    assert body["state"] == "enabled"


def test_an_experiment_with_a_retired_model_stays_readable_and_a_new_one_may_not_choose_it(atlas, bob, as_user) -> None:
    client = as_user(bob, api=True)
    client.post(MODELS, {"uri": "baseline://lead-5", "state": "enabled"})
    dataset = make_dataset(atlas, ["One sentence. Two."])
    ask = {"name": "n", "dataset": dataset.pk, "models": ["baseline/lead-5"], "metrics": ["rouge"], "baselines": False}
    made = client.post("/api/v1/experiments/", ask, format="json")
    assert made.status_code == 201, made.json()
    client.patch(f"{MODELS}baseline/lead-5/", {"state": "retired"})
    assert client.get(f"/api/v1/experiments/{made.json()['id']}/").status_code == 200
    again = client.post("/api/v1/experiments/", ask, format="json")
    assert (again.status_code, "retired" in again.json()["detail"]) == (400, True)
    assert "baseline/lead-5" not in client.get("/experiments/new/").content.decode()


# What was there before


@pytest.mark.django_db(transaction=True)
def test_rows_of_before_keep_working(django_db_serialized_rollback) -> None:
    from django.core.management import call_command
    from django.db.migrations.executor import MigrationExecutor

    before = [("registry", "0001_initial")]
    executor = MigrationExecutor(connection)
    tops = [key for key in executor.loader.graph.leaf_nodes()]
    executor.migrate(before)
    old = executor.loader.project_state(before).apps
    team = old.get_model("lumigator", "Team").objects.create(name="Older", slug="older")
    facts = {"team": team, "architecture": "causal", "privacy": "external"}
    entries = old.get_model("registry", "ModelEntry").objects
    entries.create(
        slug="a", name="a", uri="openai://a", price_in=1, price_out=2, price_source="A page, 2024-07-18", **facts
    )
    entries.create(slug="b", name="b", uri="openai://b", enabled=False, price_source="Of 2024-99-99", **facts)
    MigrationExecutor(connection).migrate(tops)
    found = {entry.slug: entry for entry in ModelEntry.objects.filter(team_id=team.pk)}
    assert (found["a"].state, found["a"].enabled, found["a"].price_source) == ("enabled", True, "A page")
    assert str(found["a"].price_date) == "2024-07-18"
    assert (found["b"].state, found["b"].enabled, found["b"].price_date) == ("retired", False, None)
    call_command("migrate", verbosity=0)
