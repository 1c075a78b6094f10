"""consistency asks an inference model about every pair of sentences; the model here is tiny, random and real."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from evaluations.metrics import Absent, Item, Value, _sentences, consistency

WHY_NOT = _sentences.missing()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

WORDS = """the council met on monday tuesday fees for parking will rise fall by ten percent again in march taxes stay as
they are cats purr dogs bark . , ? !""".split()  # noqa: SIM905
SOURCE = "The council met on Monday. Fees for parking will rise by ten percent. Taxes stay as they are. Cats purr."
OUTPUT = "Parking fees rise. The council will fall in March."
LABELS = {0: "contradiction", 1: "entailment", 2: "neutral"}


def made(place: Path, labels: Mapping[int, str] = LABELS, limit: int = 64) -> Path:
    """A BERT of two layers with random weights from a fixed seed that reads pairs of `limit` tokens."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    bare = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    bare.normalizer = normalizers.Lowercase()
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    bare.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, model_max_length=limit, **special)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=limit,
        id2label=dict(labels),
        label2id={label: place for place, label in labels.items()},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        model = BertForSequenceClassification(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.4)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("nli"))


def judged(place: Path, *items: Item, **options: Any) -> list[tuple[Value, Value]]:
    rows = consistency.score(items, {"model": str(place), **options})
    return [(row["consistency"], row["consistency_worst"]) for row in rows]


def looped(place: Path, premises: Sequence[str], hypotheses: Sequence[str], *, against: bool = False) -> list[float]:
    """The value of each hypothesis by a plain loop over transformers, one pair at a time."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(place).eval()
    tokenizer = AutoTokenizer.from_pretrained(place)
    values = []
    for hypothesis in hypotheses:
        rows = []
        for premise in premises:
            with torch.no_grad():
                logits = network(**tokenizer(premise, hypothesis, return_tensors="pt")).logits[0]
            rows.append(dict(zip(network.config.id2label.values(), logits.softmax(0).tolist(), strict=True)))
        entailed = max(row["entailment"] for row in rows)
        values.append((1 + entailed - max(row["contradiction"] for row in rows)) / 2 if against else entailed)
    return values


PREMISES = SOURCE.replace(". ", ".|").split("|")
HYPOTHESES = OUTPUT.replace(". ", ".|").split("|")


@pytest.mark.parametrize("against", [False, True])
def test_equal_to_a_plain_loop_over_transformers(model: Path, against: bool) -> None:
    values = looped(model, PREMISES, HYPOTHESES, against=against)
    assert len(set(values)) == 2, "or the model says the same of everything"
    mean, worst = judged(model, Item(OUTPUT, (), SOURCE), contradiction=against)[0]
    assert (mean, worst) == (pytest.approx(sum(values) / 2, abs=1e-6), pytest.approx(min(values), abs=1e-6))
    assert all(0 <= value <= 1 for value in values)


def test_two_sentences_are_read_together(model: Path) -> None:
    pairs = [f"{one} {two}" for one, two in pairwise(PREMISES)]
    values = looped(model, pairs, HYPOTHESES)
    found = judged(model, Item(OUTPUT, (), SOURCE), granularity="two sentences")[0]
    assert found == (pytest.approx(sum(values) / 2, abs=1e-6), pytest.approx(min(values), abs=1e-6))


def test_windows_hold_as_many_whole_sentences_as_fit(tmp_path: Path) -> None:
    place = made(tmp_path, limit=32)  # 29 without the frame, 21 of them for the source: 6 + 9 + 6, and 3
    windows = [" ".join(PREMISES[:3]), PREMISES[3]]
    values = looped(place, windows, HYPOTHESES)
    found = judged(place, Item(OUTPUT, (), SOURCE), granularity="window")[0]
    assert found == (pytest.approx(sum(values) / 2, abs=1e-6), pytest.approx(min(values), abs=1e-6))


def test_a_sentence_that_is_too_long_is_read_in_pieces_and_not_cut_off(tmp_path: Path) -> None:
    place = made(tmp_path, limit=32)
    endless = " ".join(["fees will rise"] * 10)  # 30 tokens, where a premise has room for 21
    halves = [" ".join(["fees will rise"] * 5)] * 2
    assert judged(place, Item("Cats purr.", (), endless))[0][0] == pytest.approx(
        looped(place, halves, ["Cats purr."])[0], abs=1e-6
    )
    said = " ".join(["dogs bark"] * 7)  # 14 tokens, where a hypothesis has room for 8
    pieces = [" ".join(["dogs bark"] * 3) + " dogs", "bark " + " ".join(["dogs bark"] * 3)]
    assert judged(place, Item(said, (), "Cats purr."))[0][0] == pytest.approx(
        sum(looped(place, ["Cats purr."], pieces)) / 2, abs=1e-6
    )


def test_batches_company_and_order_do_not_change_the_numbers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [Item(OUTPUT, (), SOURCE), Item("Dogs bark.", (), SOURCE), Item(OUTPUT, (), "Cats purr on Monday.")]
    whole = judged(model, *items)
    monkeypatch.setattr(consistency, "PAIRS_AT_ONCE", 3)
    for found in (judged(model, *items, batch_tokens=16), list(reversed(judged(model, *reversed(items))))):
        assert [pytest.approx(row, abs=1e-6) for row in whole] == found
    assert [judged(model, item)[0] for item in items] == [pytest.approx(row, abs=1e-6) for row in whole]


def test_a_sentence_said_twice_counts_twice(model: Path) -> None:
    once, other = looped(model, PREMISES, ["Cats purr.", "Dogs bark."])
    found = judged(model, Item("Cats purr. Cats purr. Dogs bark.", (), SOURCE))[0][0]
    assert found == pytest.approx((2 * once + other) / 3, abs=1e-6)


def test_what_cannot_be_judged_has_a_reason_and_no_number(model: Path) -> None:
    rows = judged(
        model, Item("  ", (), SOURCE), Item(OUTPUT), Item("", (), " "), Item("?!", (), SOURCE), Item(OUTPUT, (), "— …")
    )
    assert all(mean == worst for mean, worst in rows)
    assert [(value.state, value.reason) for value, _ in rows if isinstance(value, Absent)] == [
        ("failed", "the output is empty"),
        ("not_applicable", "no source document"),
        ("not_applicable", "no source document"),
        ("failed", "the output has no sentence with a letter or digit"),
        ("not_applicable", "the source has no sentence with a letter or digit"),
    ]


def test_odd_text_is_scored(model: Path) -> None:
    [(mean, worst)] = judged(model, Item("\ud800 Cätze 你好\n\n· purr", (), f"{SOURCE} \x00 [SEP] 😀"))
    assert isinstance(mean, float) and isinstance(worst, float)


def test_judging_raises_no_warning(
    model: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers  # its import stops the records on their way up

    assert transformers
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    consistency._load_once.cache_clear()  # a tokenizer warns once
    judged(model, Item(OUTPUT, (), f"{SOURCE} " + "fees will rise " * 100))
    assert not caplog.records


# Labels and weights


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"0": "CONTRADICTION", "1": "NEUTRAL", "2": "ENTAILMENT"}, (2, 0)),
        ({"0": "SUPPORTS", "1": "REFUTES", "2": "NOT ENOUGH INFO"}, (0, 1)),
        ({"0": "entailment", "1": "not_entailment"}, (0, None)),
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, (None, None)),
        (None, (None, None)),
    ],
)
def test_labels_are_read_by_their_names(told: Any, expected: tuple[int | None, int | None]) -> None:
    assert consistency.labels({"id2label": told}) == expected


def test_the_order_of_the_labels_is_the_models_own(model: Path, tmp_path: Path) -> None:
    other = shutil.copytree(model, tmp_path / "nli")
    config = json.loads((other / "config.json").read_text())
    config["id2label"] = {"0": "entailment", "1": "neutral", "2": "contradiction"}
    config["label2id"] = {"entailment": 0, "neutral": 1, "contradiction": 2}
    (other / "config.json").write_text(json.dumps(config))
    assert consistency.metric.sign({"model": str(other)})[0] != consistency.metric.sign({"model": str(model)})[0]
    values = looped(other, PREMISES, HYPOTHESES)
    assert judged(other, Item(OUTPUT, (), SOURCE))[0][0] == pytest.approx(sum(values) / 2, abs=1e-6)
    assert judged(model, Item(OUTPUT, (), SOURCE))[0][0] != pytest.approx(sum(values) / 2, abs=1e-3)


def refused(**options: Any) -> str:
    value = consistency.score([Item(OUTPUT, (), SOURCE)], options)[0]["consistency"]
    assert isinstance(value, Absent) and value.state == "not_computed"
    assert consistency.available(options) in ("", value.reason)
    return value.reason


def test_a_model_that_names_no_entailment_is_refused(tmp_path: Path) -> None:
    place = made(tmp_path, {0: "negative", 1: "positive"})
    assert "is called entailment: choose a natural language inference model" in refused(model=str(place))


def test_contradiction_is_refused_where_no_label_is_called_so(tmp_path: Path) -> None:
    place = made(tmp_path, {0: "entailment", 1: "not_entailment"})
    assert isinstance(judged(place, Item(OUTPUT, (), SOURCE))[0][0], float)
    assert "turn the option 'contradiction' off" in refused(model=str(place), contradiction=True)


def test_a_model_that_is_not_here_is_not_fetched() -> None:
    reason = refused(model="nobody/nothing")
    assert reason == "the inference model 'nobody/nothing' is not on this machine: put it into a model root first"


def test_pickled_and_incomplete_weights_are_refused(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    pickled = shutil.copytree(model, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "no weights in safetensors form" in refused(model=str(pickled))
    headless = shutil.copytree(model, tmp_path / "headless")
    kept = {name: value for name, value in load_file(model / "model.safetensors").items() if "classifier" not in name}
    save_file(kept, headless / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 2 weights" in refused(model=str(headless))


def test_the_signature_names_the_weights_and_the_formula(model: Path) -> None:
    _, signature = consistency.metric.sign({"model": str(model), "contradiction": True})
    assert (signature["model"], signature["max_tokens"]) == (model.name, 64)
    assert signature["value"] == "(1 + entailment - contradiction) / 2"
    assert consistency.metric.sign({"model": "nobody/nothing"})[1]["weights"] == "missing"


def test_an_unknown_granularity_is_refused() -> None:
    with pytest.raises(ValueError, match="'granularity' is 'word'"):
        consistency.score([Item(OUTPUT, (), SOURCE)], {"granularity": "word"})


@pytest.mark.skipif(bool(consistency.available({})), reason=consistency.available({}) or "the weights are here")
@pytest.mark.parametrize("check", consistency.metric.checks, ids=lambda check: check.title)
def test_the_default_model_knows_what_follows(check: Any) -> None:
    found = consistency.score([check.item], check.options)[0]
    assert found == {part: pytest.approx(value, abs=check.tolerance) for part, value in check.expected.items()}
