"""The pages and the admin of models: what is shown, to whom, and what can be done there."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from models_registry.catalogue import CATALOGUE, seed
from models_registry.models import Connection, ModelEntry, ModelRoot


@pytest.fixture
def seeded(atlas):
    seed(atlas)
    return atlas


@pytest.fixture
def editor(as_user, bob, seeded):
    return as_user(bob)


@pytest.fixture
def viewer(as_user, vera, seeded):
    return as_user(vera)


@pytest.fixture
def superuser(alice):
    alice.is_staff = alice.is_superuser = True
    alice.save()
    return alice


def text(answer) -> str:
    return unescape(answer.content.decode())


# The list


def test_every_shipped_model_is_on_the_page_in_its_group(viewer) -> None:
    html = text(viewer.get("/models/"))
    for shipped in CATALOGUE:
        assert f'href="/models/{shipped.slug}/"' in html
    places = [html.index(label) for label in ("Run here:", "Your own endpoints:", "External:", "Baselines:")]
    assert places == sorted(places)
    assert html.index("Baselines:") < html.index("baseline/lead-3") < html.index("Why some cannot run")


def test_prices_are_money_unpriced_or_free(viewer) -> None:
    html = text(viewer.get("/models/?q=gpt-4o-mini"))
    assert "$0.15" in html
    assert "unpriced" in text(viewer.get("/models/?q=ministral"))
    assert "free" in text(viewer.get("/models/?q=bart-large-cnn"))


def test_why_a_model_cannot_run_is_said_once_for_all_that_share_it(viewer) -> None:
    html = text(viewer.get("/models/?where=external"))
    assert html.count("there is no connection for openai: an administrator adds one, with its key, under Models.") == 1


@pytest.mark.parametrize(
    ("query", "there", "not_there"),
    [
        ("where=baseline", "baseline/lead-3", "facebook/bart-large-cnn"),
        ("where=external", "openai/gpt-4o-mini", "baseline/lead-3"),
        ("where=private", "llamafile/mistral-7b-instruct-v0.2", "openai/gpt-4o-mini"),
        ("can_run=yes", "baseline/lead-3", "openai/gpt-4o-mini"),
        ("can_run=no", "openai/gpt-4o-mini", "baseline/lead-3"),
        ("q=pegasus", "google/pegasus-cnn_dailymail", "openai/gpt-4o-mini"),
        ("task=summarization&where=local", "google/flan-t5-base", "baseline/lead-3"),
    ],
)
def test_filters_live_in_the_address(viewer, query: str, there: str, not_there: str) -> None:
    html = text(viewer.get(f"/models/?{query}"))
    assert f'href="/models/{there}/"' in html
    assert f'href="/models/{not_there}/"' not in html
    assert "All models" in html


@pytest.mark.parametrize("query", ["where=team__name", "task=poetry", "can_run=perhaps"])
def test_a_filter_that_does_not_exist_says_so(viewer, query: str) -> None:
    answer = viewer.get(f"/models/?{query}")
    assert answer.status_code == 400
    assert "errorlist" in text(answer)


def test_a_longer_list_takes_no_more_queries(viewer, seeded) -> None:
    counts = []
    for query in ("?where=private", ""):
        with CaptureQueriesContext(connection) as queries:
            viewer.get(f"/models/{query}")
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 8


def test_an_empty_registry_offers_the_next_step(as_user, charlie) -> None:
    html = text(as_user(charlie).get("/models/"))
    assert "The registry is empty" in html
    assert 'href="/models/add/"' in html


def test_people_see_their_own_teams_models_only(as_user, charlie, seeded) -> None:
    client = as_user(charlie)
    assert "bart" not in text(client.get("/models/")).split("The registry is empty")[0]
    assert client.get("/models/facebook/bart-large-cnn/").status_code == 404


def test_who_is_not_signed_in_is_sent_to_sign_in(client, seeded) -> None:
    for address in ("/models/", "/models/add/", "/models/connections/", "/models/facebook/bart-large-cnn/"):
        assert client.get(address).headers["Location"].startswith("/sign-in/")


# One model


@pytest.mark.parametrize("slug", [each.slug for each in CATALOGUE])
def test_every_shipped_model_has_a_page(viewer, slug: str) -> None:
    answer = viewer.get(f"/models/{slug}/")
    assert answer.status_code == 200
    assert slug in text(answer)


def test_the_page_says_how_it_generates_and_what_it_costs(viewer) -> None:
    html = text(viewer.get("/models/facebook/bart-large-cnn/"))
    for words in (
        "no_repeat_ngram_size",
        "406 M",
        "the bare document",
        "1,024 tokens",
        "1.63 GB",
        "MIT",
        "free: it runs here",
    ):
        assert words in html
    html = text(viewer.get("/models/openai/gpt-4o-mini/"))
    assert "2024-07-18" in html
    assert "the prompt with the document in it" in html


def test_the_page_lists_the_experiments_that_used_it(viewer, seeded) -> None:
    from datasets_app.models import Dataset
    from evaluations.models import Candidate, Experiment

    dataset = Dataset.objects.create(team=seeded, name="Letters", sha256="0" * 64)
    experiment = Experiment.objects.create(
        team=seeded, name="Which for letters?", dataset=dataset, task="summarization", primary_metric="rouge1"
    )
    entry = seeded.models.get(slug="facebook/bart-large-cnn")
    Candidate.objects.create(
        experiment=experiment, model=entry, label="BART, 8 beams", provider="huggingface", queue="gpu"
    )
    html = text(viewer.get("/models/facebook/bart-large-cnn/"))
    assert f'href="/experiments/{experiment.pk}/"' in html
    assert "Which for letters?" in html
    assert "as BART, 8 beams" in html


def test_a_viewer_is_offered_no_changes_and_may_make_none(viewer, seeded) -> None:
    address = "/models/facebook/bart-large-cnn/"
    assert 'name="action"' not in text(viewer.get(address))
    for action in ("check", "retire", "delete", "save"):
        assert viewer.post(address, {"action": action, "name": "x"}).status_code == 403
    assert seeded.models.get(slug="facebook/bart-large-cnn").enabled


def test_an_editor_retires_and_enables_and_both_are_kept(editor, seeded) -> None:
    address = "/models/facebook/bart-large-cnn/"
    html = text(editor.post(address, {"action": "retire", "note": "Too slow for us."}, follow=True))
    assert "is retired" in html
    assert "Too slow for us." in html
    assert not seeded.models.get(slug="facebook/bart-large-cnn").enabled
    editor.post(address, {"action": "enable"})
    assert seeded.models.get(slug="facebook/bart-large-cnn").enabled


FIELDS = {"action": "save", "name": "Mini", "about": "Ours.", "generation": '{"temperature": 0.5}', "window": "128000"}


def test_an_editor_enters_a_price(editor, seeded) -> None:
    prices = {"price_in": "0.12", "price_out": "0.5", "price_source": "our contract"}
    assert editor.post("/models/openai/gpt-4o-mini/", {**FIELDS, **prices}).status_code == 302
    entry = seeded.models.get(slug="openai/gpt-4o-mini")
    assert (float(entry.price_in), entry.generation, entry.name) == (0.12, {"temperature": 0.5}, "Mini")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"generation": '{"num_beams": 4}'}, "num_beams"),
        ({"generation": "{"}, "valid JSON"),
        ({"generation": '{"temperature": NaN}'}, "NaN"),
        ({"price_in": "1"}, "both prices"),
        ({"window": "-1"}, "greater than or equal"),
    ],
)
def test_what_cannot_be_is_said_beside_the_field_and_changes_nothing(editor, seeded, changes: dict, words: str) -> None:
    answer = editor.post("/models/openai/gpt-4o-mini/", {**FIELDS, **changes})
    assert answer.status_code == 422
    assert words in text(answer)
    assert seeded.models.get(slug="openai/gpt-4o-mini").name == "gpt-4o-mini"


def test_only_what_the_team_added_can_be_deleted(editor, seeded) -> None:
    editor.post("/models/facebook/bart-large-cnn/", {"action": "delete"})
    assert seeded.models.filter(slug="facebook/bart-large-cnn").exists()
    editor.post("/models/add/", {"uri": "openai://gpt-x"})
    editor.post("/models/openai/gpt-x/", {"action": "delete"})
    assert not seeded.models.filter(slug="openai/gpt-x").exists()


HOSTILE = '"><script>alert(1)</script>'


def test_what_people_wrote_is_text_never_markup(editor, viewer, seeded) -> None:
    seeded.models.filter(slug="openai/gpt-4o-mini").update(
        name=HOSTILE, about=HOSTILE, licence=HOSTILE, price_source=HOSTILE, generation={HOSTILE: HOSTILE}
    )
    for address in ("/models/", "/models/openai/gpt-4o-mini/", f"/models/?q={HOSTILE}"):
        for client in (editor, viewer):
            assert "<script>alert" not in client.get(address).content.decode()


# Adding


def test_the_form_explains_each_kind_of_address_and_names_the_roots(editor) -> None:
    ModelRoot.objects.create(name="shelf", path="/srv/models")
    html = text(editor.get("/models/add/"))
    for scheme in ("hf://", "file://", "endpoint://", "openai://", "mistral://", "baseline://"):
        assert scheme in html
    assert "shelf" in html
    assert "/srv/models" not in html


def test_an_editor_adds_a_model(editor, seeded) -> None:
    answer = editor.post("/models/add/", {"uri": "baseline://lead-5", "name": "Five sentences"})
    assert answer.headers["Location"] == "/models/baseline/lead-5/"
    entry = seeded.models.get(slug="baseline/lead-5")
    assert (entry.name, entry.is_baseline) == ("Five sentences", True)


def test_a_folder_outside_the_roots_is_refused_beside_the_address(editor, settings, tmp_path: Path) -> None:
    settings.MODEL_ROOTS = {"lab": tmp_path}
    answer = editor.post("/models/add/", {"uri": "file://lab/../etc"})
    assert answer.status_code == 422
    assert "leaves its root" in text(answer)
    assert "uri" in answer.context["form"].errors


def test_a_viewer_may_not_add(viewer) -> None:
    assert viewer.get("/models/add/").status_code == 403
    assert viewer.post("/models/add/", {"uri": "baseline://lead-5"}).status_code == 403


# The admin


def test_the_admin_lists_filters_and_finds_the_catalogue(as_user, superuser, seeded) -> None:
    client = as_user(superuser)
    assert "facebook/bart-large-cnn" in text(client.get("/admin/registry/modelentry/"))
    html = text(client.get("/admin/registry/modelentry/?scheme=mistral&q=ministral"))
    assert "ministral-8b-latest" in html
    assert "facebook/bart-large-cnn" not in html


def test_the_admin_shows_why_a_model_cannot_run(as_user, superuser, seeded) -> None:
    entry = seeded.models.get(slug="openai/gpt-4o-mini")
    html = text(as_user(superuser).get(f"/admin/registry/modelentry/{entry.pk}/change/"))
    assert "there is no connection for openai" in html


def test_the_admin_retires_many_at_once_and_records_it(as_user, superuser, seeded) -> None:
    from lumigator.models import AuditEvent

    chosen = [entry.pk for entry in seeded.models.filter(uri__startswith="openai://")]
    as_user(superuser).post("/admin/registry/modelentry/", {"action": "retire", "_selected_action": chosen})
    assert seeded.models.filter(enabled=False).count() == len(chosen)
    assert AuditEvent.objects.filter(action="admin.modelentry.change").count() == len(chosen)


def entry_fields(entry: ModelEntry, **changes) -> dict:
    names = ("slug", "name", "uri", "about", "architecture", "privacy", "licence", "website", "price_source")
    fields = {name: getattr(entry, name) for name in names}
    return {**fields, "team": entry.team_id, "tasks": "summarization", "generation": "", "options": "", **changes}


def test_the_admin_edits_a_model_by_the_same_rules(as_user, superuser, seeded) -> None:
    client, entry = as_user(superuser), seeded.models.get(slug="facebook/bart-large-cnn")
    address = f"/admin/registry/modelentry/{entry.pk}/change/"
    refused = client.post(address, entry_fields(entry, generation='{"beams": 4}'))
    assert refused.status_code == 200
    assert "num_beams" in text(refused)
    answer = client.post(address, entry_fields(entry, licence="MIT License"))
    assert answer.status_code == 302, answer.context["errors"]
    entry.refresh_from_db()
    assert (entry.licence, entry.generation, entry.from_catalogue) == ("MIT License", {}, True)


def test_the_admin_does_not_delete_what_ships(as_user, superuser, seeded) -> None:
    client, entry = as_user(superuser), seeded.models.get(slug="facebook/bart-large-cnn")
    assert client.post(f"/admin/registry/modelentry/{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    many = {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"}
    client.post("/admin/registry/modelentry/", many)
    assert ModelEntry.objects.filter(pk=entry.pk).exists()


def test_staff_see_their_own_teams_models_and_no_roots(as_user, bob, basalt, seeded) -> None:
    from django.contrib.auth.models import Permission

    seed(basalt)
    bob.is_staff = True
    bob.save()
    bob.user_permissions.set(Permission.objects.filter(content_type__app_label="registry"))
    client = as_user(bob)
    shown = client.get("/admin/registry/modelentry/").context["cl"].queryset
    assert {entry.team_id for entry in shown} == {seeded.pk}
    foreign = basalt.models.first()
    assert client.get(f"/admin/registry/modelentry/{foreign.pk}/change/").status_code == 302
    assert client.get("/admin/registry/modelroot/").status_code == 403
    assert client.post("/admin/registry/modelroot/add/", {"name": "all", "path": "/"}).status_code == 403
    assert not ModelRoot.objects.exists()


def test_a_superuser_registers_a_root(as_user, superuser, tmp_path: Path) -> None:
    answer = as_user(superuser).post("/admin/registry/modelroot/add/", {"name": "shelf", "path": str(tmp_path)})
    assert answer.status_code == 302
    assert ModelRoot.objects.get().name == "shelf"


def test_a_disabled_connection_counts_as_none(viewer, seeded) -> None:
    made = Connection(team=seeded, provider="openai", name="main", enabled=False)
    made.set_key("sk-0123456789abcdef")
    made.save()
    assert "no connection" in text(viewer.get("/models/openai/gpt-4o-mini/"))


# Sorting, states and machines


def slugs(html: str, *wanted: str) -> list[str]:
    """The wanted slugs in the order in which the table shows them."""
    table = html.partition("<table>")[2].partition("</table>")[0]
    return sorted(wanted, key=lambda slug: table.index(f'href="/models/{slug}/"'))


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("window", ["google/flan-t5-base", "facebook/bart-large-cnn", "openai/gpt-4.1-mini", "baseline/lead-3"]),
        ("-window", ["openai/gpt-4.1-mini", "facebook/bart-large-cnn", "google/flan-t5-base", "baseline/lead-3"]),
        ("-price", ["openai/gpt-4-turbo", "openai/gpt-4o-mini", "baseline/lead-3", "mistral/ministral-8b-latest"]),
        ("-size", ["google/pegasus-cnn_dailymail", "facebook/bart-large-cnn", "openai/gpt-4o-mini"]),
        ("slug", ["baseline/lead-3", "Falconsai/text_summarization", "openai/gpt-4o-mini"]),
        ("here", ["baseline/lead-3", "openai/gpt-4o-mini"]),
    ],
)
def test_the_table_is_sorted_by_a_link_and_what_is_not_known_comes_last(viewer, sort: str, expected: list[str]) -> None:
    html = text(viewer.get(f"/models/?sort={sort}"))
    assert slugs(html, *expected) == expected
    assert "aria-sort" in html


def test_an_order_that_does_not_exist_says_so(viewer) -> None:
    assert viewer.get("/models/?sort=team__name").status_code == 400


@pytest.mark.parametrize(
    ("query", "there", "not_there"),
    [
        ("provider=mistral", "mistral/ministral-8b-latest", "openai/gpt-4o-mini"),
        ("kind=seq2seq", "facebook/bart-large-cnn", "openai/gpt-4o-mini"),
        ("state=retired", "openai/gpt-4-turbo", "openai/gpt-4o-mini"),
        ("state=retired&sort=-window", "openai/gpt-4-turbo", "openai/gpt-4o-mini"),
    ],
)
def test_provider_kind_and_state_choose_too(viewer, seeded, query: str, there: str, not_there: str) -> None:
    seeded.models.filter(slug="openai/gpt-4-turbo").update(state="retired")
    html = text(viewer.get(f"/models/?{query}"))
    assert f'href="/models/{there}/"' in html
    assert f'href="/models/{not_there}/"' not in html


def test_a_model_that_is_too_big_for_this_machine_says_so_until_a_check_proves_otherwise(
    viewer, seeded, monkeypatch
) -> None:
    from models_registry import sizing

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(sizing, "memory_here", lambda: (4 * 10**9, False))
    html = text(viewer.get("/models/?where=local&can_run=no"))
    assert "it needs about 33 GB of memory and this machine has 4 GB" in html
    assert 'href="/models/facebook/bart-large-cnn/"' not in html
    entry = seeded.models.get(slug="mistralai/Mistral-7B-Instruct-v0.3")
    entry.checks.create(queue="gpu", state="done")
    assert entry.slug not in text(viewer.get("/models/?where=local&can_run=no"))
