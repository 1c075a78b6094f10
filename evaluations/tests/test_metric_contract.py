"""What every metric promises, asked of each one that is found: a newcomer is tested by being there."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evaluations.metrics import Absent, Item, Metric, Value, available, part_owner

METRICS = list(available().values())
NAMES = [metric.name for metric in METRICS]
NOISE = 1e-6  # encoders round by batch; every other metric repeats to the last bit

ALTERNATIVES: dict[tuple[str, str], Mapping[str, Any]] = {
    ("rouge", "sentences"): {"sentences": "newline"},
    ("rouge", "references"): {"references": "mean"},
    ("rouge", "tokenizer"): {"tokenizer": "unicode"},
    ("meteor", "references"): {"references": "mean"},
    ("bleu", "tokenizer"): {"tokenizer": "char"},
    ("bleu", "smoothing"): {"smoothing": "floor"},
    ("chrf", "char_order"): {"char_order": 5},
    ("chrf", "word_order"): {"word_order": 2},
    ("chrf", "beta"): {"beta": 1},
    ("extractiveness", "ngrams"): {"ngrams": "types"},
    ("bertscore", "encoder"): {"encoder": "roberta-large"},
    ("bertscore", "layer"): {"layer": 6},
    ("bertscore", "references"): {"references": "mean"},
    ("bertscore", "baseline"): {"rescale": True, "baseline": str(Path(__file__))},
    ("bertscore", "idf"): {"idf": str(Path(__file__))},
    ("semantic_similarity", "encoder"): {"encoder": "sentence-transformers/all-mpnet-base-v2"},
    ("semantic_similarity", "long"): {"long": "cut"},
    ("semantic_similarity", "references"): {"references": "mean"},
    ("consistency", "model"): {"model": "facebook/bart-large-mnli"},
    ("consistency", "granularity"): {"granularity": "two sentences"},
}
"""Another value of each option that is not simply true or false."""

SPEED_ONLY = {("bertscore", "batch_tokens"), ("semantic_similarity", "batch_tokens"), ("consistency", "batch_tokens")}
"""Options that change no number and so stay out of the signature."""

REFERENCE = "The council approved the new budget on Monday. Taxes stay as they are, but fees will rise next year."
SOURCE = f"{REFERENCE} The debate took three hours. Dr. Grey abstained; two members were absent, e.g. because of flu."
OUTPUTS = (
    REFERENCE,
    "The council approved the budget. Fees will rise.",
    "On Monday the town's councillors agreed to spend more",
    "Completely unrelated words about football and rain!",
    "Der Rat hat den Haushalt beschlossen — “naïve” Gebühren: 3,5 %.",
    "?!",
)
ITEMS = [Item(text, (REFERENCE, "The budget passed."), SOURCE) for text in OUTPUTS]


@pytest.fixture(params=METRICS, ids=NAMES)
def metric(request: pytest.FixtureRequest) -> Metric:
    found: Metric = request.param
    reason = found.available(found.defaults)
    if reason:
        pytest.skip(f"{found.name}: {reason}")
    return found


def same(one: Mapping[str, Value], other: Mapping[str, Value]) -> bool:
    return one.keys() == other.keys() and all(
        one[part] == (pytest.approx(other[part], abs=NOISE) if isinstance(other[part], float) else other[part])
        for part in one
    )


def test_there_are_metrics_and_no_two_share_a_part() -> None:
    assert {"rouge", "meteor", "bertscore"} <= set(NAMES)
    assert len(part_owner()) == sum(len(metric.all_parts) for metric in METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=NAMES)
def test_it_explains_itself(metric: Metric) -> None:
    assert len(metric.about) > 200, "write a paragraph for somebody who has never heard of it"
    assert metric.label
    assert all(part.label and part.about for part in metric.parts)
    assert json.dumps(dict(metric.defaults)), "options are stored as JSON"


def test_every_item_gets_every_part(metric: Metric) -> None:
    results = metric.score(ITEMS, metric.defaults)
    assert len(results) == len(ITEMS)
    names = {part.name for part in metric.parts}
    assert all(result.keys() == names for result in results)
    assert all(isinstance(value, float | Absent) for result in results for value in result.values())
    assert metric.score([], metric.defaults) == []


def test_options_may_be_left_out(metric: Metric) -> None:
    assert all(map(same, metric.score(ITEMS, {}), metric.score(ITEMS, metric.defaults)))
    assert metric.sign({}) == metric.sign(metric.defaults)


def test_values_lie_within_the_stated_range(metric: Metric) -> None:
    for result in metric.score(ITEMS, metric.defaults):
        for part in metric.parts:
            value = result[part.name]
            if isinstance(value, float):
                assert part.low <= value and (part.high is None or value <= part.high), part.name


def test_the_same_question_has_the_same_answer(metric: Metric) -> None:
    assert all(map(same, metric.score(ITEMS, metric.defaults), metric.score(ITEMS, metric.defaults)))


def test_the_order_and_the_company_of_items_do_not_matter(metric: Metric) -> None:
    expected = metric.score(ITEMS, metric.defaults)
    order = list(range(len(ITEMS)))
    random.Random(7).shuffle(order)
    shuffled = metric.score([ITEMS[place] for place in order], metric.defaults)
    assert all(same(shuffled[rank], expected[place]) for rank, place in enumerate(order))
    assert all(same(metric.score([item], metric.defaults)[0], one) for item, one in zip(ITEMS, expected, strict=True))


@pytest.mark.parametrize("blank", ["", "  \n\t"])
def test_an_empty_output_failed_in_every_part_that_can_be_better_or_worse(metric: Metric, blank: str) -> None:
    alone, beside = metric.score([Item(blank, (REFERENCE,), SOURCE), ITEMS[1]], metric.defaults)
    for part in metric.parts:
        value = alone[part.name]
        if metric.needs_reference or part.higher_is_better is not None:
            assert isinstance(value, Absent) and value.state == "failed", part.name
            assert "empty" in value.reason
    assert same(beside, metric.score([ITEMS[1]], metric.defaults)[0])


@pytest.mark.parametrize("references", [(), ("",), (" ", "\n")])
def test_without_a_reference_it_does_not_apply(metric: Metric, references: tuple[str, ...]) -> None:
    if not metric.needs_reference:
        pytest.skip("needs no reference")
    for value in metric.score([Item("Some output.", references, SOURCE)], metric.defaults)[0].values():
        assert value == Absent("not_applicable", "no reference summary")


def test_a_blank_reference_beside_a_real_one_changes_nothing(metric: Metric) -> None:
    one, padded = (Item(OUTPUTS[1], references, SOURCE) for references in ((REFERENCE,), ("", REFERENCE, "  ")))
    assert same(*metric.score([one, padded], metric.defaults))


def test_a_perfect_copy_scores_best(metric: Metric) -> None:
    if not metric.needs_reference:
        pytest.skip("compares with no reference")
    copy, *others = metric.score([Item(text, (REFERENCE,), SOURCE) for text in OUTPUTS], metric.defaults)
    for part in metric.parts:
        best = copy[part.name]
        assert isinstance(best, float)
        values = [value for result in others if isinstance(value := result[part.name], float)]
        assert values, part.name
        if part.higher_is_better:
            assert best >= max(values) - NOISE, part.name
            assert best > min(values), part.name
        elif part.higher_is_better is False:
            assert best <= min(values) + NOISE, part.name


@pytest.mark.parametrize("metric", METRICS, ids=NAMES)
def test_the_signature_changes_with_every_option_and_with_nothing_else(metric: Metric) -> None:
    digest, signature = metric.sign({})
    assert (digest, signature) == metric.sign({})
    assert len(digest) == 16 and signature["metric"] == metric.name and len(signature) > 1
    for option, value in metric.defaults.items():
        key = (metric.name, option)
        if isinstance(value, bool):
            changed: Mapping[str, Any] = {option: not value}
        elif key in SPEED_ONLY:
            assert metric.sign({option: 4096})[0] == digest
            continue
        else:
            assert key in ALTERNATIVES, f"add another value of {option!r} to ALTERNATIVES"
            changed = ALTERNATIVES[key]
        without = {name: other for name, other in changed.items() if name != option}
        assert metric.sign(changed)[0] != metric.sign(without)[0], option
