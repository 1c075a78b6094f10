"""Encoders are found, read and fed the same way by every metric: windows, batches, limits, folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations.metrics import _encoding, _finding
from evaluations.metrics._encoding import Encoder
from evaluations.tests.oracles import TEXTS

WHY_NOT = _finding.missing("minilm")
packaged_only = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    place = _finding.folder("minilm")
    assert place is not None
    return _encoding.load(place, 1)


# Tokens, windows, batches


@packaged_only
@settings(deadline=None, max_examples=30)
@given(text=TEXTS | TEXTS.map(lambda text: text * 40))
def test_the_first_window_is_what_truncation_leaves(encoder: Encoder, text: str) -> None:
    ids = _encoding.tokenize(encoder, [text])[text]
    cut = encoder.tokenizer(_encoding.readable(text), truncation=True, max_length=encoder.limit)["input_ids"]
    assert encoder.windows(ids)[:1] == ([tuple(cut)] if ids else [])


@packaged_only
def test_windows_hold_every_token_once_and_keep_the_limit(encoder: Encoder) -> None:
    ids = tuple(range(2_000, 2_025))
    windows = encoder.windows(ids, 12)
    assert [len(window) for window in windows] == [12, 12, 7]
    assert {(window[0], window[-1]) for window in windows} == {(101, 102)}
    assert tuple(id_ for window in windows for id_ in window[1:-1]) == ids


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 50), max_size=20), st.integers(1, 200))
def test_batches_hold_every_key_once_within_the_budget(lengths: dict[str, int], budget: int) -> None:
    batches = list(_encoding.batches(lengths, budget))
    assert sorted(key for batch in batches for key in batch) == sorted(lengths)
    assert all(len(batch) == 1 or len(batch) * max(lengths[key] for key in batch) <= budget for batch in batches)
    assert batches == list(_encoding.batches(dict(reversed(lengths.items())), budget))


@packaged_only
def test_a_text_has_the_same_vectors_alone_and_padded(encoder: Encoder) -> None:
    import torch

    texts = {"short": (101, 2000, 102), "long": (101, *range(2000, 2030), 102)}
    with torch.inference_mode():
        together = {key: hidden.clone() for key, hidden in _encoding.embed(encoder, texts, 1_000)}
        alone = {key: hidden.clone() for key, hidden in _encoding.embed(encoder, texts, 1)}
    for key, ids in texts.items():
        assert together[key].shape == (len(ids), encoder.width)
        assert torch.allclose(together[key], alone[key], atol=1e-5)


@packaged_only
def test_another_layer_or_another_reading_is_another_entry(encoder: Encoder) -> None:
    place = _finding.folder("minilm")
    assert place is not None
    other = _encoding.load(place, 2)
    keys = [
        _encoding.content_key(encoder, "cats"),
        _encoding.content_key(encoder, "dogs"),
        _encoding.content_key(other, "cats"),
        _encoding.content_key(encoder, "cats", "windows"),
        _encoding.content_key(encoder, "\ud800"),
    ]
    assert len(set(keys)) == len(keys)


# Where models lie


def cached(root: Path, commit: str, branch: bool) -> Path:
    """A snapshot of other/name in a hub cache, as a branch or fetched by its commit alone."""
    folder = root / "models--other--name"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "config.json").write_text("{}")
    if branch:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(f"{commit}\n")
    return folder / "snapshots" / commit


@pytest.mark.parametrize("branch", [True, False])
def test_a_hub_id_is_found_in_the_hugging_face_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, branch: bool
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert _finding.folder("other/name") is None
    place = cached(tmp_path, "abc123", branch)
    assert _finding.folder("other/name") == place


def test_of_several_commits_only_the_branch_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached(tmp_path, "abc123", branch=False)
    (tmp_path / "models--other--name" / "snapshots" / "def456").mkdir()
    assert _finding.folder("other/name") is None
    main = cached(tmp_path, "789abc", branch=True)
    assert _finding.folder("other/name") == main


def test_a_model_root_comes_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("LUMIGATOR_MODEL_ROOTS", str(tmp_path / "root"))
    cached(tmp_path / "hub", "abc123", branch=True)
    (tmp_path / "root" / "other" / "name").mkdir(parents=True)
    (tmp_path / "root" / "other" / "name" / "config.json").write_text("{}")
    assert _finding.folder("other/name") == tmp_path / "root" / "other" / "name"


def test_a_path_shows_only_its_last_folder() -> None:
    assert _finding.public_name("/srv/models/team/encoder") == "encoder"
    assert _finding.public_name("team/encoder") == "team/encoder"


# What their files tell


def test_the_limit_counts_the_positions_that_roberta_keeps_to_itself(tmp_path: Path) -> None:
    config = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert _finding.limit(tmp_path) == 512
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')
    assert _finding.limit(tmp_path) == 512
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 128}')
    assert _finding.limit(tmp_path) == 128


@pytest.mark.parametrize("content", ["", "[1, 2]", "{", "null"])
def test_a_file_that_is_no_json_object_tells_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert _finding.read_json(tmp_path / "config.json") == {}
    assert _finding.read_json_list(tmp_path / "config.json") == []


def test_other_weights_have_another_fingerprint(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(100_000))
    before = _finding.fingerprint(tmp_path)
    file.write_bytes(bytes(99_999) + b"\x01")
    assert _finding.fingerprint(tmp_path) != before
