"""From a name or an address to an entry, and from an entry to what a candidate holds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from models_registry import choosing
from models_registry.catalogue import seed
from models_registry.models import Connection, ModelEntry, ModelRoot
from models_registry.providers import ProviderError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def seeded(atlas):
    seed(atlas)
    return atlas


@pytest.fixture
def root(tmp_path: Path, settings) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    settings.MODEL_ROOTS = {"lab": folder}
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "hub"


def download(cache: Path, repository: str, **config: object) -> Path:
    """What huggingface_hub leaves in its cache, as far as anybody here looks."""
    place = cache / f"models--{repository.replace('/', '--')}"
    folder = place / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def entry_for(team, uri: str, **fields) -> ModelEntry:
    entry = choosing.entry_of_uri(team, uri)
    for name, value in fields.items():
        setattr(entry, name, value)
    entry.save()
    return entry


# Resolving


def test_a_slug_gives_the_teams_entry(seeded) -> None:
    assert choosing.resolve(seeded, "facebook/bart-large-cnn").generation["num_beams"] == 4


def test_an_address_that_the_registry_has_gives_its_entry(seeded) -> None:
    assert choosing.resolve(seeded, "hf://facebook/bart-large-cnn").slug == "facebook/bart-large-cnn"


def test_an_address_that_the_registry_has_not_gives_an_unsaved_entry(atlas) -> None:
    entry = choosing.resolve(atlas, "openai://gpt-x")
    assert entry.pk is None
    assert (entry.slug, entry.architecture, entry.privacy) == ("gpt-x", "causal", "external")
    assert not ModelEntry.objects.exists()


def test_an_address_at_a_revision_keeps_the_entrys_parameters(seeded) -> None:
    entry = choosing.resolve(seeded, f"hf://facebook/bart-large-cnn@{COMMIT}")
    assert entry.pk is None
    spec = choosing.freeze(entry)
    assert (spec["revision"], spec["model"]) == (COMMIT, "facebook/bart-large-cnn")
    assert spec["generation"]["num_beams"] == 4


@pytest.mark.parametrize(
    ("older", "slug"),
    [
        ("oai://gpt-4o-mini", "openai/gpt-4o-mini"),
        ("llamafile://mistralai/Mistral-7B-Instruct-v0.2", "llamafile/mistral-7b-instruct-v0.2"),
    ],
)
def test_addresses_as_older_guides_write_them_are_understood(seeded, older: str, slug: str) -> None:
    assert choosing.resolve(seeded, older).slug == slug


def test_another_teams_entry_is_not_found(seeded, basalt) -> None:
    with pytest.raises(ProviderError, match="there is no model"):
        choosing.resolve(basalt, "facebook/bart-large-cnn")


def test_an_unknown_name_is_answered_with_what_is_like_it(seeded) -> None:
    with pytest.raises(ProviderError, match="facebook/bart-large-cnn") as refusal:
        choosing.resolve(seeded, "bart-large-cn")
    assert refusal.value.code == "unknown_model"


@pytest.mark.parametrize("text", ["", "a\0b", "x" * 500, "hf://", "nobody://x", "file://x\0/y"])
def test_what_is_no_model_is_refused_in_words(atlas, text: str) -> None:
    with pytest.raises(ProviderError):
        choosing.resolve(atlas, text)


def test_a_retired_model_is_refused_unless_another_of_the_address_is_enabled(seeded) -> None:
    seeded.models.filter(slug="openai/gpt-4o-mini").update(state="retired")
    with pytest.raises(ProviderError, match="is retired"):
        choosing.resolve(seeded, "openai/gpt-4o-mini")
    entry_for(seeded, "openai://gpt-4o-mini", slug="ours")
    assert choosing.resolve(seeded, "openai://gpt-4o-mini").slug == "ours"


def test_the_architecture_of_weights_on_this_machine_is_read(atlas, cache: Path) -> None:
    download(cache, "org/seq", is_encoder_decoder=True)
    download(cache, "org/chat", architectures=["LlamaForCausalLM"])
    kinds = [choosing.resolve(atlas, f"hf://org/{name}").architecture for name in ("seq", "chat", "elsewhere")]
    assert kinds == ["seq2seq", "causal", ""]


# Local folders


def test_a_folder_below_its_root_is_found(root: Path, db) -> None:
    (root / "bart").mkdir()
    assert choosing.folder_of("file://lab/bart") == root / "bart"


def test_a_root_of_the_admin_counts_like_one_of_the_environment(tmp_path: Path, db) -> None:
    (tmp_path / "bart").mkdir()
    ModelRoot.objects.create(name="shelf", path=str(tmp_path))
    assert choosing.folder_of("file://shelf/bart") == tmp_path / "bart"


@pytest.mark.parametrize(
    "inside",
    ["../secret", "bart/../../secret", "/etc", "./../secret", "link", "link/inner", "bart/\0", "loop", "a" * 5000],
)
def test_no_path_leaves_its_root(root: Path, db, inside: str) -> None:
    secret = root.parent / "secret"
    (secret / "inner").mkdir(parents=True)
    (root / "bart").mkdir()
    os.symlink(secret, root / "link")
    os.symlink(root / "loop", root / "loop")
    with pytest.raises(ProviderError) as refusal:
        choosing.folder_of(f"file://lab/{inside}")
    assert refusal.value.code == "unknown_model"


@pytest.mark.parametrize("inside", ["%2e%2e/secret", "..%2fsecret", "missing"])
def test_an_encoded_path_is_a_name_like_any_other(root: Path, db, inside: str) -> None:
    (root.parent / "secret").mkdir()
    with pytest.raises(ProviderError, match="no such folder"):
        choosing.folder_of(f"file://lab/{inside}")


def test_a_link_that_stays_below_the_root_is_followed(root: Path, db) -> None:
    (root / "bart-v1").mkdir()
    os.symlink(root / "bart-v1", root / "bart")
    assert choosing.folder_of("file://lab/bart") == root / "bart-v1"


def test_a_root_that_nobody_registered_is_refused_with_the_cure(root: Path, db) -> None:
    with pytest.raises(ProviderError, match="LUMIGATOR_MODEL_ROOTS"):
        choosing.folder_of("file://etc/passwd")


# Freezing


def test_a_candidate_holds_the_entry_as_it_was(seeded) -> None:
    entry = seeded.models.get(slug="facebook/bart-large-cnn")
    spec = choosing.freeze(entry, generation={"num_beams": 8})
    entry.generation = {}
    entry.save()
    assert (spec["generation"]["num_beams"], spec["generation"]["max_new_tokens"]) == (8, 142)
    assert spec["window"] == 1024
    json.dumps(spec)


def test_prices_are_frozen_to_the_last_digit(seeded) -> None:
    spec = choosing.freeze(seeded.models.get(slug="openai/gpt-4.1-mini"))
    assert {name: float(price) for name, price in spec["price"].items()} == {"in": 0.4, "out": 1.6, "cached": 0.1}


def test_an_unpriced_model_is_frozen_without_a_price(seeded) -> None:
    spec = choosing.freeze(seeded.models.get(slug="mistral/ministral-8b-latest"))
    assert spec["price"] == {"in": None, "out": None, "cached": None}


@pytest.mark.parametrize(
    ("slug", "reads"),
    [
        ("facebook/bart-large-cnn", False),
        ("google/flan-t5-base", True),
        ("mistralai/Mistral-7B-Instruct-v0.3", True),
        ("openai/gpt-4o-mini", True),
        ("baseline/lead-3", False),
    ],
)
def test_only_a_model_that_reads_the_prompt_is_given_it(seeded, slug: str, reads: bool) -> None:
    spec = choosing.freeze(seeded.models.get(slug=slug), prompt="Shorten: {document}")
    assert bool(spec["prompt"]) is reads


def test_a_model_of_unknown_architecture_keeps_the_prompt_until_it_is_loaded(atlas, cache: Path) -> None:
    assert choosing.freeze(choosing.resolve(atlas, "hf://org/name"), prompt="{document}")["prompt"] == "{document}"


@pytest.mark.parametrize(
    ("uri", "model", "revision"),
    [
        ("hf://org/name@main", "org/name", "main"),
        ("endpoint://lab/llama3:8b@q4", "llama3:8b@q4", ""),
        ("endpoint://lab/org/name", "org/name", ""),
        ("openai://gpt-4o-mini", "gpt-4o-mini", ""),
    ],
)
def test_the_providers_name_of_a_model_comes_from_its_address(
    atlas, cache, uri: str, model: str, revision: str
) -> None:
    spec = choosing.freeze(choosing.resolve(atlas, uri))
    assert (spec["model"], spec["revision"]) == (model, revision)


# Whether it can run


def test_a_baseline_always_can(seeded) -> None:
    assert choosing.why_not(seeded.models.get(slug="baseline/lead-3")) == ""


def test_a_network_model_needs_a_connection_with_a_key(seeded) -> None:
    entry = seeded.models.get(slug="openai/gpt-4o-mini")
    assert "no connection for openai" in choosing.why_not(entry)
    connection = Connection.objects.create(team=seeded, provider="openai", name="main")
    assert "has no key" in choosing.why_not(entry)
    connection.set_key("sk-0123456789abcdef")
    connection.save()
    assert choosing.why_not(entry) == ""


def test_a_connection_with_a_key_is_taken_before_an_older_one_without(seeded) -> None:
    Connection.objects.create(team=seeded, provider="openai", name="old")
    new = Connection(team=seeded, provider="openai", name="new")
    new.set_key("sk-0123456789abcdef")
    new.save()
    entry = seeded.models.get(slug="openai/gpt-4o-mini")
    assert choosing.connection_for(seeded, entry) == new
    assert choosing.why_not(entry) == ""


def test_another_teams_connection_does_not_count(seeded, basalt) -> None:
    theirs = Connection(team=basalt, provider="openai", name="main")
    theirs.set_key("sk-0123456789abcdef")
    theirs.save()
    assert "no connection" in choosing.why_not(seeded.models.get(slug="openai/gpt-4o-mini"))


def test_an_endpoint_needs_the_connection_it_names_and_an_address_that_is_allowed(seeded, settings) -> None:
    settings.EGRESS_ALLOW = []
    entry = seeded.models.get(slug="llamafile/mistral-7b-instruct-v0.2")
    other = Connection.objects.create(team=seeded, provider="endpoint", name="other", base_url="http://10.0.0.9:8000")
    assert "called 'llamafile'" in choosing.why_not(entry)
    Connection.objects.filter(pk=other.pk).update(name="llamafile", base_url="")
    assert "no address" in choosing.why_not(entry)
    Connection.objects.filter(pk=other.pk).update(base_url="http://127.0.0.1:8080/v1")
    assert "LUMIGATOR_EGRESS_ALLOW" in choosing.why_not(entry)
    settings.EGRESS_ALLOW = ["127.0.0.1:8080"]
    assert choosing.why_not(entry) == ""


def test_a_hub_model_that_is_not_here_can_run_only_when_the_hub_may_be_asked(seeded, cache: Path, monkeypatch) -> None:
    entry = seeded.models.get(slug="facebook/bart-large-cnn")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not downloaded" in choosing.why_not(entry)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert choosing.readiness(entry).label == "downloads first"
    assert choosing.why_not(entry) == ""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    download(cache, "facebook/bart-large-cnn", is_encoder_decoder=True)
    assert choosing.why_not(entry) == ""


def test_a_download_without_weights_or_of_another_commit_does_not_count(seeded, cache: Path) -> None:
    entry = seeded.models.get(slug="facebook/bart-large-cnn")
    folder = download(cache, "facebook/bart-large-cnn", is_encoder_decoder=True)
    entry.revision = "f" * 40
    assert choosing.snapshot_of(entry) is None
    entry.revision = COMMIT
    assert choosing.snapshot_of(entry) == folder
    (folder / "model.safetensors").unlink()
    assert choosing.snapshot_of(entry) is None


def test_a_local_model_whose_folder_is_gone_says_so(atlas, root: Path) -> None:
    (root / "bart").mkdir()
    entry = entry_for(atlas, "file://lab/bart")
    assert choosing.why_not(entry) == ""
    (root / "bart").rmdir()
    assert "no such folder" in choosing.why_not(entry)


def test_a_retired_model_says_so(seeded) -> None:
    seeded.models.filter(slug="baseline/lead-3").update(state="retired")
    assert "retired" in choosing.why_not(seeded.models.get(slug="baseline/lead-3"))


def test_a_whole_registry_is_judged_with_three_queries(seeded, root: Path, django_assert_num_queries) -> None:
    for number in range(5):
        (root / f"m{number}").mkdir()
        entry_for(seeded, f"file://lab/m{number}")
    entries = list(seeded.models.all())
    with django_assert_num_queries(3):
        found = choosing.readiness_of_all(seeded, entries)
    assert [each.can_run for each in found] == [choosing.why_not(entry) == "" for entry in entries]
