"""What ships, and how a team gets it without losing what it changed."""

from __future__ import annotations

from datetime import date

import pytest

from models_registry import catalogue, choosing
from models_registry.catalogue import CATALOGUE, seed, seed_connections
from models_registry.models import Connection, ModelEntry

NAMED_IN_THE_DOCUMENTS = {
    "facebook/bart-large-cnn",
    "mikeadimech/longformer-qmsum-meeting-summarization",
    "mrm8488/t5-base-finetuned-summarize-news",
    "Falconsai/text_summarization",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "llamafile/mistral-7b-instruct-v0.2",
    "openai/gpt-4o-mini",
    "openai/gpt-4-turbo",
    "openai/gpt-3.5-turbo-0125",
    "mistral/open-mistral-7b",
}


def test_every_model_that_the_documents_name_is_shipped() -> None:
    assert {each.slug for each in CATALOGUE} >= NAMED_IN_THE_DOCUMENTS


def test_slugs_and_addresses_are_shipped_once() -> None:
    assert len({each.slug for each in CATALOGUE}) == len({each.uri for each in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize("shipped", CATALOGUE, ids=lambda each: each.slug)
def test_its_provider_accepts_it_and_it_says_what_it_is_for(shipped, atlas) -> None:
    entry = shipped.entry(atlas)
    assert entry.provider.problems(choosing.freeze(entry, prompt="{document}")) == []
    entry.full_clean()
    assert 40 <= len(entry.about) <= 140
    assert entry.about.endswith(".")


@pytest.mark.parametrize("shipped", CATALOGUE, ids=lambda each: each.slug)
def test_a_price_is_whole_and_says_where_it_stands_and_of_when(shipped) -> None:
    if shipped.price is not None:
        assert shipped.privacy == "external"
        assert float(shipped.price.into) > 0
        assert float(shipped.price.out) > 0
        assert shipped.price.source
        assert date(2023, 1, 1) < date.fromisoformat(shipped.price.date) <= date.today()
    assert shipped.price is None or not shipped.slug.endswith("-latest"), "the price of a name that moves is not known"


@pytest.mark.parametrize("shipped", [each for each in CATALOGUE if not each.is_baseline], ids=lambda each: each.slug)
def test_a_model_says_how_much_it_reads_and_weights_how_large_they_are(shipped) -> None:
    assert shipped.window
    if shipped.uri.startswith("hf://"):
        assert shipped.parameters
        assert shipped.size_bytes
        assert 1.9 < shipped.size_bytes / shipped.parameters < 4.1, "16 or 32 bits each"
    assert shipped.generation["max_new_tokens"] < shipped.window


def test_the_baselines_that_experiments_add_are_shipped_as_baselines() -> None:
    from evaluations.planning import BASELINES

    baselines = {each.slug for each in CATALOGUE if each.is_baseline}
    assert baselines == {
        f"baseline/{name}"
        for name in ("lead-3", "textrank", "lead-60w", "lexrank", "lsa", "longest-3", "copy", "random-3", "oracle")
    }
    assert baselines >= set(BASELINES)


def test_bart_generates_as_it_was_published() -> None:
    [bart] = [each for each in CATALOGUE if each.slug == "facebook/bart-large-cnn"]
    assert bart.generation == {
        "max_new_tokens": 142,
        "min_new_tokens": 56,
        "num_beams": 4,
        "length_penalty": 2.0,
        "no_repeat_ngram_size": 3,
        "early_stopping": True,
    }


def test_a_team_gets_everything_once(atlas, basalt) -> None:
    assert seed(atlas) == len(CATALOGUE)
    assert seed(atlas) == 0
    assert atlas.models.filter(from_catalogue=True).count() == len(CATALOGUE)
    assert basalt.models.count() == 0


def test_what_the_team_changed_stays(atlas) -> None:
    seed(atlas)
    atlas.models.filter(slug="facebook/bart-large-cnn").update(state="retired", generation={"num_beams": 1})
    atlas.models.filter(slug="openai/gpt-4o-mini").update(slug="mini", price_in=9)
    assert seed(atlas) == 0
    bart = atlas.models.get(slug="facebook/bart-large-cnn")
    assert (bart.enabled, bart.generation) == (False, {"num_beams": 1})
    assert atlas.models.get(uri="openai://gpt-4o-mini").slug == "mini"


def test_only_what_is_missing_comes_back(atlas) -> None:
    seed(atlas)
    atlas.models.filter(slug="baseline/oracle").delete()
    assert seed(atlas) == 1
    assert atlas.models.filter(slug="baseline/oracle").exists()


def test_a_model_renamed_in_the_catalogue_is_not_given_twice(atlas, monkeypatch) -> None:
    old = catalogue.Shipped("old/name", "hf://old/name", "Old", "It has an old name.")
    new = catalogue.Shipped("new/name", "hf://new/name", "New", "It has a new name.", formerly=("old/name",))
    monkeypatch.setattr(catalogue, "CATALOGUE", (old,))
    assert seed(atlas) == 1
    monkeypatch.setattr(catalogue, "CATALOGUE", (new,))
    assert seed(atlas) == 0
    assert list(atlas.models.values_list("slug", flat=True)) == ["old/name"]


def test_a_model_that_the_team_added_itself_is_not_given_again(atlas) -> None:
    ModelEntry.objects.create(
        team=atlas,
        slug="ours",
        name="ours",
        uri="hf://facebook/bart-large-cnn",
        architecture="seq2seq",
        privacy="local",
    )
    assert seed(atlas) == len(CATALOGUE) - 1


def test_keys_in_the_environment_make_a_connection_each(atlas) -> None:
    environment = {"OPENAI_API_KEY": "sk-openai-0123456789", "MISTRAL_API_KEY": " mistral-0123456789\n"}
    assert seed_connections(atlas, environment) == 2
    assert seed_connections(atlas, environment) == 0
    found = {each.provider: each for each in Connection.objects.filter(team=atlas)}
    assert {each.name for each in found.values()} == {"environment"}
    assert found["openai"].reveal_key() == "sk-openai-0123456789"
    assert found["mistral"].reveal_key() == "mistral-0123456789"


def test_an_empty_variable_or_a_connection_of_the_teams_own_makes_none(atlas) -> None:
    Connection.objects.create(team=atlas, provider="mistral", name="ours")
    assert seed_connections(atlas, {"OPENAI_API_KEY": " ", "MISTRAL_API_KEY": "mistral-0123456789"}) == 0
    assert [each.name for each in atlas.connections.all()] == ["ours"]
