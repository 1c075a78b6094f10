"""semantic_similarity gives sentence-transformers' numbers, reads long texts whole and each source once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluations.metrics import Absent, Check, Item, Value, _encoding, _finding, semantic_similarity
from evaluations.metrics._remembering import Memory

WHY_NOT = semantic_similarity.available({})
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

CATS, DOGS, LAW = "Cats purr when they rest.", "Dogs bark at night.", "The court overturned the ruling on Tuesday."
LONG = " ".join(f"On day {day} the council debated the budget of district {day * 3}." for day in range(60))


def scored(*items: Item, **options: Any) -> list[tuple[Value, Value]]:
    rows = semantic_similarity.score(items, options)
    return [(row["similarity_source"], row["similarity_reference"]) for row in rows]


def source(text: str, document: str, **options: Any) -> float:
    value = scored(Item(text, (), document), **options)[0][0]
    assert isinstance(value, float)
    return value


def embedded(texts: Sequence[str]) -> Any:
    """The vectors by the model card's own usage: tokenize, mean over the mask, normalize; cut at 256 tokens."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    place = _finding.folder("minilm")
    model, tokenizer = AutoModel.from_pretrained(place).eval(), AutoTokenizer.from_pretrained(place)
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden, mask = model(**tokens)[0], tokens["attention_mask"].unsqueeze(-1).float()
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def test_equal_to_the_model_cards_usage() -> None:
    vectors = embedded([CATS, DOGS, LAW, LONG])
    items = [Item(CATS, (DOGS,), LAW), Item(DOGS, (LAW,), LONG)]
    expected = [(vectors[0] @ vectors[2], vectors[0] @ vectors[1]), (vectors[1] @ vectors[3], vectors[1] @ vectors[2])]
    for found, wanted in zip(scored(*items, long="cut"), expected, strict=True):
        assert found == (pytest.approx(wanted[0].item(), abs=1e-5), pytest.approx(wanted[1].item(), abs=1e-5))


@pytest.mark.parametrize("check", semantic_similarity.metric.checks, ids=lambda check: check.title)
def test_the_published_values(check: Check) -> None:
    row = semantic_similarity.score([check.item], check.options)[0]
    assert {part: row[part] for part in check.expected} == pytest.approx(dict(check.expected), abs=check.tolerance)


def test_an_equal_text_is_one_and_never_more() -> None:
    for text in (CATS, DOGS, LAW, LONG):
        assert source(text, text) == pytest.approx(1, abs=1e-6)
        assert source(text, text) <= 1


def test_a_long_source_is_read_whole_unless_it_is_cut() -> None:
    ended = f"{LONG} {LONG} {CATS} {CATS} {CATS}"
    assert source(CATS, ended, long="cut") == source(CATS, f"{LONG} {LONG}", long="cut")
    assert source(CATS, ended) > source(CATS, f"{LONG} {LONG}") + 0.01


def test_windows_are_averaged_by_their_tokens() -> None:
    import torch

    place = _finding.folder("minilm")
    assert place is not None
    encoder = _encoding.load(place)
    windows = encoder.windows(_encoding.tokenize(encoder, [LONG])[LONG], 256)
    assert len(windows) > 2 and len(windows[-1]) < 256
    with torch.inference_mode():
        every = torch.cat([encoder.model(torch.tensor([ids]))[0][0] for ids in windows]).mean(0)
    expected = (every / every.norm()) @ embedded([CATS])[0]
    assert source(CATS, LONG) == pytest.approx(expected.item(), abs=1e-5)


def test_several_references() -> None:
    alone = [scored(Item(CATS, (reference,)))[0][1] for reference in (DOGS, LAW)]
    assert scored(Item(CATS, (LAW, DOGS)))[0][1] == pytest.approx(max(alone), abs=1e-6)  # type: ignore[type-var]
    mean = scored(Item(CATS, (LAW, " ", DOGS)), references="mean")[0][1]
    assert mean == pytest.approx(sum(alone) / 2, abs=1e-6)  # type: ignore[arg-type]


def test_what_is_not_there_is_not_compared() -> None:
    neither, empty, unreadable, odd = scored(
        Item(CATS), Item("  ", (), LAW), Item("\ud800", (DOGS,), LAW), Item(CATS, ("\x00",), "\u200b")
    )
    assert neither == (Absent("not_applicable", "no source document"), Absent("not_applicable", "no reference summary"))
    assert empty == (Absent("failed", "the output is empty"), Absent("not_applicable", "no reference summary"))
    assert {value.state for value in unreadable if isinstance(value, Absent)} == {"failed"}
    assert [value.state for value in odd if isinstance(value, Absent)] == ["not_applicable"] * 2


def test_sources_and_references_are_embedded_once_for_all_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    embed = _encoding.embed

    def recording(encoder: Any, texts: Any, budget: int) -> Any:
        read.extend(text for text, _ in texts)
        return embed(encoder, texts, budget)

    monkeypatch.setattr(semantic_similarity, "_remembered", Memory(semantic_similarity.REMEMBERED_BYTES))
    monkeypatch.setattr(_encoding, "embed", recording)
    first = scored(Item(CATS, (DOGS,), LAW), Item("It purrs.", (DOGS,), LAW))
    assert sorted(read) == sorted([CATS, "It purrs.", DOGS, LAW])
    read.clear()
    again = scored(Item(CATS, (DOGS,), LAW))
    assert read == [CATS]
    assert again[0] == (pytest.approx(first[0][0], abs=1e-6), pytest.approx(first[0][1], abs=1e-6))


def test_what_is_remembered_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    memory: Memory[Any] = Memory(3 * (384 * 4 + semantic_similarity.ENTRY_BYTES))
    monkeypatch.setattr(semantic_similarity, "_remembered", memory)
    scored(*(Item(CATS, (), f"Source number {number}.") for number in range(10)))
    assert len(memory) == 3 and memory.size <= memory.limit


# Encoders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the packaged encoder with its own pooling files."""
    packaged = _finding.folder("minilm")
    assert packaged is not None
    place = tmp_path / "encoder"
    place.mkdir()
    for path in packaged.iterdir():
        if path.suffix == ".json" or path.name == "vocab.txt":
            shutil.copy(path, place)
    shutil.copytree(packaged / "1_Pooling", place / "1_Pooling")
    (place / "model.safetensors").symlink_to(packaged / "model.safetensors")
    return place


def pool(place: Path, *modes: str) -> None:
    (place / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True for mode in modes}))


def test_pooling_is_the_encoders_own_and_signed(folder: Path) -> None:
    mean = source(CATS, DOGS, encoder=str(folder))
    assert mean == pytest.approx(source(CATS, DOGS), abs=1e-6)
    before = semantic_similarity.metric.sign({"encoder": str(folder)})[0]
    pool(folder, "cls_token")
    assert source(CATS, DOGS, encoder=str(folder)) != pytest.approx(mean, abs=1e-3)
    assert semantic_similarity.metric.sign({"encoder": str(folder)})[0] != before


def test_an_encoder_that_pools_in_another_way_is_refused(folder: Path) -> None:
    pool(folder, "max_tokens")
    value = scored(Item(CATS, (), DOGS), encoder=str(folder))[0][0]
    assert isinstance(value, Absent) and value.state == "not_computed" and "pools by pooling_mode_max" in value.reason
    modules = [{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Dense"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    assert "ends in a module 'Dense'" in semantic_similarity.available({"encoder": str(folder)})


def test_the_window_is_what_the_encoder_was_trained_on(folder: Path) -> None:
    assert semantic_similarity.reads(folder) == 256
    (folder / "sentence_bert_config.json").unlink()
    assert semantic_similarity.reads(folder) == 512


@pytest.mark.parametrize(("option", "value"), [("long", "half"), ("references", "min")])
def test_an_unknown_choice_is_refused(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"'{option}' is '{value}'"):
        semantic_similarity.score([Item(CATS)], {option: value})
