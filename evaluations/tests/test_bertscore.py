"""BERTScore gives bert-score's numbers, embeds references once, and stays on this machine."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations.metrics import Absent, Item, Value, bertscore
from evaluations.tests.oracles import WORDS

PARTS = [part.name for part in bertscore.PARTS]
WHY_NOT = bertscore.available({})
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

OUTPUTS = [
    "The quick brown dog jumps on the log.",
    "Sales rose. Costs fell.",
    "  Der Zug fährt um 9 Uhr ab.\n",
    "你好，世界",
    "Prices naïvely “rose” by 3.5 % … 😀",
    "a literal [SEP] inside",
    "word " * 30,
    "The same text on both sides.",
    "ok",
]
REFERENCES = [
    "The quick brown fox jumps over the lazy dog",
    "Costs fell. Sales rose.",
    "Der Zug kommt um 9 Uhr an.",
    "你好，朋友",
    "Prices rose by three and a half percent",
    "a literal inside",
    "beyond the limit " * 300,  # cut at 512 tokens
    "The same text on both sides.",
    "The answer is much longer than the output and says many things about the weather.",
]


def numbers(items: Sequence[Item], **options: Any) -> list[list[float]]:
    rows = bertscore.score(items, options)
    found = [[row[part] for part in PARTS] for row in rows]
    assert all(isinstance(value, float) for row in found for value in row), found
    return found  # type: ignore[return-value]


def published(outputs: Sequence[str], references: Sequence[Any], layer: int = 5, **options: Any) -> list[list[float]]:
    """What the package bert-score says, pair by pair: padding changes its values where a best cosine is negative."""
    from bert_score import score

    found = score(
        list(outputs),
        list(references),
        model_type=str(bertscore.folder("minilm")),
        num_layers=layer,
        device="cpu",
        batch_size=1,
        nthreads=0,
        **options,
    )
    return [list(row) for row in zip(*(part.tolist() for part in found), strict=True)]


def pairs() -> list[Item]:
    return [Item(output, (reference,)) for output, reference in zip(OUTPUTS, REFERENCES, strict=True)]


def close(ours: list[list[float]], theirs: list[list[float]]) -> bool:
    return [len(row) for row in ours] == [len(row) for row in theirs] and all(
        math.isclose(a, b, abs_tol=1e-6, rel_tol=0)
        for x, y in zip(ours, theirs, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("layer", [1, 5, 6])
def test_equal_to_bert_score(layer: int) -> None:
    ours, theirs = numbers(pairs(), layer=layer), published(OUTPUTS, REFERENCES, layer)
    assert close(ours, theirs), (ours, theirs)


def test_equal_to_bert_score_with_idf() -> None:
    assert close(numbers(pairs(), idf=True), published(OUTPUTS, REFERENCES, idf=True))


def test_equal_to_bert_score_with_several_references() -> None:
    several = [[reference, REFERENCES[0], REFERENCES[4]] for reference in REFERENCES]
    items = [Item(output, tuple(group)) for output, group in zip(OUTPUTS, several, strict=True)]
    assert close(numbers(items), published(OUTPUTS, several))


@settings(deadline=None, max_examples=5)
@given(texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=20).map(" ".join), min_size=2, max_size=8))
def test_equal_to_bert_score_on_any_prose(texts: list[str]) -> None:
    references = texts[1:] + texts[:1]
    items = [Item(output, (reference,)) for output, reference in zip(texts, references, strict=True)]
    assert close(numbers(items), published(texts, references))


def test_table_of_numbers() -> None:
    """Values of bert-score 0.3.13 with this encoder's layer 5, so that a change of library or weights is noticed."""
    expected = [[0.817975, 0.796199, 0.806940], [0.968029, 0.968029, 0.968029], [0.828271, 0.827055, 0.827663]]
    assert numbers(pairs()[:3]) == [pytest.approx(row, abs=1e-5) for row in expected]


def test_an_equal_text_scores_one_and_never_more() -> None:
    texts = [text for text in (*OUTPUTS, *REFERENCES) if text.strip()]
    for row in numbers([Item(text, (text,)) for text in texts]):
        assert row == [pytest.approx(1, abs=1e-6)] * 3
        assert max(row) <= 1


def test_what_lies_beyond_the_limit_is_not_read_and_the_limit_is_signed() -> None:
    long = "one two three four five " * 120
    assert numbers([Item(long, (REFERENCES[0],))]) == numbers([Item(long + "utterly different end", (REFERENCES[0],))])
    assert bertscore.metric.sign({})[1]["max_tokens"] == 512


def test_mean_over_references() -> None:
    alone = numbers([Item(OUTPUTS[0], (reference,)) for reference in REFERENCES[:2]])
    both = numbers([Item(OUTPUTS[0], tuple(REFERENCES[:2]))], references="mean")[0]
    assert both == [pytest.approx((a + b) / 2, abs=1e-6) for a, b in zip(*alone, strict=True)]


def test_batches_and_blocks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = numbers(pairs())
    monkeypatch.setattr(bertscore, "_embedded", bertscore.Memory(0))
    monkeypatch.setattr(bertscore, "BLOCK_BYTES", 1)
    assert close(numbers(pairs(), batch_tokens=16), whole)


def test_references_are_embedded_once_for_all_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[str] = []
    embed = bertscore._embed

    def recording(encoder: Any, texts: Any, budget: int) -> Any:
        embedded.extend(texts)
        return embed(encoder, texts, budget)

    monkeypatch.setattr(bertscore, "_embedded", bertscore.Memory(bertscore.REMEMBERED_BYTES))
    monkeypatch.setattr(bertscore, "_embed", recording)
    first = numbers([Item("first candidate", (REFERENCES[0],)), Item("a third one", (REFERENCES[0],))])
    assert sorted(embedded) == sorted(["first candidate", "a third one", REFERENCES[0]])
    embedded.clear()
    again = numbers([Item("first candidate", (REFERENCES[0],)), Item("second candidate", (REFERENCES[0],))])
    assert sorted(embedded) == ["first candidate", "second candidate"]
    assert close([again[0]], [first[0]])


def test_texts_without_a_word_for_the_encoder_never_reach_it() -> None:
    items = [Item("\ud800", ("cats purr",)), Item("cats purr", ("\u200b", "cats purr")), Item("cats", ("\x00",))]
    nothing, perfect, unreadable = (row["bertscore_f1"] for row in bertscore.score(items, {"references": "mean"}))
    assert isinstance(nothing, Absent) and nothing.state == "failed"
    assert perfect == pytest.approx(1, abs=1e-6)
    assert isinstance(unreadable, Absent) and unreadable.state == "not_applicable"


def test_idf_without_any_weight_left_is_not_a_number() -> None:
    value = bertscore.score([Item("cats purr", ("cats purr",))], {"idf": True})[0]["bertscore_f1"]
    assert isinstance(value, Absent) and value.state == "not_applicable"


# Encoders


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model root in which `team/encoder` is the packaged encoder."""
    packaged = bertscore.folder("minilm")
    assert packaged is not None
    (tmp_path / "team" / "encoder").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / "team" / "encoder" / name).symlink_to(packaged / name)
    monkeypatch.setenv("LUMIGATOR_MODEL_ROOTS", str(tmp_path))
    return tmp_path


def refused(**options: Any) -> str:
    """The reason why nothing is computed; `available` and `score` must say the same."""
    value: Value = bertscore.score(pairs()[:1], options)[0]["bertscore_f1"]
    assert isinstance(value, Absent) and value.state == "not_computed"
    assert bertscore.available(options) in ("", value.reason)
    return value.reason


def test_a_hub_id_is_found_in_a_model_root_or_by_its_path(root: Path) -> None:
    expected = numbers(pairs()[:1])
    assert close(numbers(pairs()[:1], encoder="team/encoder", layer=5), expected)
    assert close(numbers(pairs()[:1], encoder=str(root / "team" / "encoder"), layer=5), expected)
    signature = bertscore.metric.sign({"encoder": str(root / "team" / "encoder"), "layer": 5})[1]
    assert (signature["encoder"], signature["weights"]) == ("encoder", bertscore.metric.sign({})[1]["weights"])


def test_a_hub_id_is_found_in_the_hugging_face_cache(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "hub" / "models--other--name"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc123")
    (cached / "snapshots").mkdir()
    (cached / "snapshots" / "abc123").symlink_to(root / "team" / "encoder")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert bertscore.folder("other/name") == cached / "snapshots" / "abc123"


@pytest.mark.parametrize("name", ["nobody/nothing", "../team/encoder", "team/../team/encoder", "/no/such/folder", ""])
def test_an_encoder_that_is_not_here_is_not_downloaded(root: Path, name: str) -> None:
    assert "is not on this machine" in refused(encoder=name, layer=5)


def test_layers_that_do_not_exist_or_are_not_known_are_refused(root: Path) -> None:
    assert "has no layer 7: choose 1 to 6" in refused(layer=7)
    assert "choose the option 'layer', 1 to 6" in refused(encoder="team/encoder")


def test_weights_other_than_safetensors_are_refused(root: Path) -> None:
    folder = root / "team" / "encoder"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "no weights in safetensors form" in refused(encoder="team/encoder", layer=5)


def test_incomplete_weights_are_refused_instead_of_scored_with_random_ones(root: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = root / "team" / "encoder" / "model.safetensors"
    weights = {name: tensor for name, tensor in load_file(file).items() if "layer.2.attention" not in name}
    file.unlink()
    save_file(weights, file, metadata={"format": "pt"})
    assert "lacks 10 weights" in refused(encoder="team/encoder", layer=5)


def test_other_weights_are_another_signature(root: Path) -> None:
    from safetensors.torch import load_file, save_file

    before = bertscore.metric.sign({"encoder": "team/encoder", "layer": 5})[0]
    file = root / "team" / "encoder" / "model.safetensors"
    weights = load_file(file)
    file.unlink()
    weights["encoder.layer.0.attention.self.query.weight"] *= 1.01
    save_file(weights, file, metadata={"format": "pt"})
    assert bertscore.metric.sign({"encoder": "team/encoder", "layer": 5})[0] != before


def test_rescaling_needs_a_baseline_and_moves_it_to_zero(tmp_path: Path) -> None:
    assert "no baseline" in refused(rescale=True)
    file = tmp_path / "minilm.tsv"
    file.write_text("LAYER,P,R,F\n4,0.1,0.1,0.1\n5,0.5,0.6,0.7\n")
    plain, rescaled = numbers(pairs()[:1])[0], numbers(pairs()[:1], rescale=True, baseline=str(file))[0]
    assert rescaled == [pytest.approx((v - b) / (1 - b), abs=1e-6) for v, b in zip(plain, (0.5, 0.6, 0.7), strict=True)]
    assert "no row for layer 3" in refused(rescale=True, baseline=str(file), layer=3)


def test_the_published_baseline_of_a_known_encoder_is_found() -> None:
    path = bertscore.baseline({**bertscore.DEFAULTS, "encoder": "roberta-large"})
    assert path is not None
    assert bertscore.baseline_values(path, 17) == pytest.approx((0.83122575, 0.8312, 0.8312), abs=1e-3)


def test_the_limit_counts_the_positions_that_roberta_keeps_to_itself(tmp_path: Path) -> None:
    config = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert bertscore.limit(tmp_path) == 512
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')
    assert bertscore.limit(tmp_path) == 512
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 128}')
    assert bertscore.limit(tmp_path) == 128


def test_torch_keeps_its_settings() -> None:
    import torch

    before = (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype())
    numbers(pairs()[:1])
    assert (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()) == before
