"""BERTScore gives bert-score's numbers, embeds references once, and stays on this machine."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations.metrics import Absent, Check, Item, Value, _encoding, _finding, bertscore
from evaluations.tests.oracles import WORDS

PARTS = [part.name for part in bertscore.SCORED]
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
        model_type=str(_finding.folder("minilm")),
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


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A file over which idf is counted: every reference on a line of its own, one of them twice, and a blank line."""
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join([*REFERENCES, "", REFERENCES[0], ""]), encoding="utf-8")
    return path


def test_equal_to_bert_score_with_idf(corpus: Path) -> None:
    from bert_score import BERTScorer

    scorer = BERTScorer(
        model_type=str(_finding.folder("minilm")),
        num_layers=5,
        device="cpu",
        batch_size=1,
        nthreads=0,
        idf=True,
        idf_sents=[*REFERENCES, REFERENCES[0]],
    )
    found = scorer.score(OUTPUTS, REFERENCES, batch_size=1)
    theirs = [list(row) for row in zip(*(part.tolist() for part in found), strict=True)]
    assert close(numbers(pairs(), idf=str(corpus)), theirs)
    assert not close(numbers(pairs()), theirs)


def test_idf_does_not_depend_on_what_is_scored_together(corpus: Path) -> None:
    assert close([numbers([item], idf=str(corpus))[0] for item in pairs()], numbers(pairs(), idf=str(corpus)))


def test_a_changed_idf_file_is_counted_anew_and_another_signature(corpus: Path) -> None:
    before, digest = numbers(pairs()[:1], idf=str(corpus)), bertscore.metric.sign({"idf": str(corpus)})[0]
    corpus.write_text("The dog.\nThe log.\n")
    assert not close(numbers(pairs()[:1], idf=str(corpus)), before)
    assert bertscore.metric.sign({"idf": str(corpus)})[0] != digest


@pytest.mark.parametrize("idf", [True, "/no/such/file"])
def test_idf_without_a_file_to_count_it_over_is_refused(idf: Any) -> None:
    assert "with one text a line, or leave it empty" in refused(idf=idf)


@pytest.mark.parametrize(("content", "why"), [(b" \n\n", "holds no text"), (b"\xff\xfe", "cannot be read as UTF-8")])
def test_an_idf_file_that_holds_no_text_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    assert why in refused(idf=str(path))


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


def test_how_much_was_read_is_on_record() -> None:
    short, long = "three little words", "word " * 1_020
    row = bertscore.score([Item(short, (short,)), Item(short, (long, short)), Item(long, (long,))], {})
    shares = [found["bertscore_read"] for found in row]
    assert shares == [1.0, pytest.approx((3 + 510 + 3) / (3 + 1_020 + 3)), pytest.approx(0.5)]


def test_a_long_text_raises_no_warning(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers  # its import stops the records on their way up

    assert transformers
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    _encoding._load_once.cache_clear()  # a tokenizer warns once
    numbers([Item("word " * 700, ("word",))])
    assert not caplog.records


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
    embed = _encoding.embed

    def recording(encoder: Any, texts: Any, budget: int) -> Any:
        embedded.extend(texts)
        return embed(encoder, texts, budget)

    monkeypatch.setattr(bertscore, "_embedded", bertscore.Memory(bertscore.REMEMBERED_BYTES))
    monkeypatch.setattr(_encoding, "embed", recording)
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


def test_idf_without_any_weight_left_is_not_a_number(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("cats purr")
    found = bertscore.score([Item("cats purr", ("cats purr",))], {"idf": str(tmp_path / "corpus.txt")})[0]
    value = found["bertscore_f1"]
    assert isinstance(value, Absent) and value.state == "not_applicable"
    assert found["bertscore_read"] == 1.0


@pytest.mark.parametrize("check", bertscore.metric.checks, ids=lambda check: check.title)
def test_the_check_values_are_those_of_bert_score(check: Check) -> None:
    theirs = published([check.item.text], [list(check.item.references)])[0]
    assert theirs == [pytest.approx(check.expected[part], abs=check.tolerance) for part in PARTS]
    assert numbers([check.item]) == [pytest.approx(theirs, abs=1e-6)]


# Encoders


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model root in which `team/encoder` is the packaged encoder."""
    packaged = _finding.folder("minilm")
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


def test_torch_keeps_its_settings() -> None:
    import torch

    before = (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype())
    numbers(pairs()[:1])
    assert (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()) == before
