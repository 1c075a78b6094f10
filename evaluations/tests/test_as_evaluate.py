"""Our metrics as objects of Hugging Face's `evaluate`: the same numbers, through the interface its users know."""

from __future__ import annotations

import math
from pathlib import Path

import evaluate
import numpy as np
import pytest

from evaluations.as_evaluate import load
from evaluations.metrics import Absent, Item, available

OUTPUTS = ["The council approved the budget.", "Rain is expected on Monday.", "Fees will rise by ten percent."]
REFERENCES = [
    "On Monday the council passed the budget.",
    "The forecast says rain for Monday.",
    "Parking fees go up by ten percent next year.",
]


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """evaluate makes a folder for each metric, where its configuration said when it was imported."""
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path)


@pytest.mark.parametrize("name", ["rouge", "meteor"])
def test_it_is_an_evaluate_metric_with_our_numbers(name: str) -> None:
    metric, ours = load(name), available()[name]
    assert isinstance(metric, evaluate.Metric)
    scored = ours.score([Item(*each) for each in zip(OUTPUTS, [(r,) for r in REFERENCES], strict=True)], {})
    result = metric.compute(predictions=OUTPUTS, references=REFERENCES, per_example=True)
    for part in ours.parts:
        values = [each[part.name] for each in scored]
        assert result["per_example"][part.name] == values
        assert result[part.name] == np.mean(values)
    assert "absent" not in result


def test_it_describes_itself() -> None:
    metric = load("rouge")
    assert (metric.name, metric.module_type) == ("rouge", "metric")
    assert metric.description == available()["rouge"].about
    assert "Lin 2004" in metric.citation
    assert list(metric.features) == ["predictions", "references"]
    assert "list of str" in metric.inputs_description
    assert metric.signature == available()["rouge"].sign({})


def test_options_change_the_numbers_and_the_signature() -> None:
    plain, changed = load("rouge"), load("rouge", stemmer=False)
    given = {"predictions": ["the councils approve budgets"], "references": ["the council approved the budget"]}
    assert plain.compute(**given)["rouge1"] > changed.compute(**given)["rouge1"]
    assert plain.signature != changed.signature


def test_batches_add_up_and_are_forgotten_after_compute() -> None:
    metric = load("rouge")
    whole = metric.compute(predictions=OUTPUTS, references=REFERENCES)
    metric.add_batch(predictions=OUTPUTS[:1], references=REFERENCES[:1])
    metric.add(prediction=OUTPUTS[1], reference=REFERENCES[1])
    assert len(metric) == 2
    assert metric.compute(predictions=OUTPUTS[2:], references=REFERENCES[2:]) == whole
    assert len(metric) == 0
    with pytest.raises(ValueError, match="nothing to compute"):
        metric.compute()


def test_an_output_may_have_several_references() -> None:
    metric = load("rouge")
    several = [[REFERENCES[1], REFERENCES[0]], [REFERENCES[1]], [REFERENCES[2], "Something else."]]
    assert metric.compute(predictions=OUTPUTS, references=several) == metric.compute(
        predictions=OUTPUTS, references=REFERENCES
    )


def test_what_has_no_number_is_counted_with_its_reason() -> None:
    result = load("rouge").compute(
        predictions=[OUTPUTS[0], "  ", OUTPUTS[1]], references=[REFERENCES[0], REFERENCES[1], []], per_example=True
    )
    value, empty, without = result["per_example"]["rouge1"]
    assert (empty, without) == (None, None)
    assert result["rouge1"] == value / 2, "an empty output counts as the worst, a missing reference not at all"
    assert result["absent"]["rouge1"] == {"the output is empty": 1, "no reference summary": 1}


def test_a_part_without_any_number_is_none() -> None:
    result = load("rouge").compute(predictions=[OUTPUTS[0]], references=[[""]])
    assert result["rouge1"] is None
    assert result["absent"]["rouge1"] == {"no reference summary": 1}


def test_the_value_of_a_whole_corpus_is_not_a_mean() -> None:
    metric = next((metric for metric in available().values() if metric.corpus), None)
    if metric is None or metric.available(metric.defaults):
        pytest.skip("no metric with a corpus value can be computed here")
    assert metric.corpus
    result = load(metric.name).compute(predictions=OUTPUTS, references=OUTPUTS, per_example=True)
    assert math.isclose(result[metric.corpus.part.name], metric.corpus.part.high or math.nan)
    assert metric.corpus.part.name not in result["per_example"]


def test_sources_are_accepted_by_a_metric_that_reads_none() -> None:
    metric = load("rouge")
    with_sources = metric.compute(predictions=OUTPUTS, references=REFERENCES, sources=["a", "b", "c"])
    assert with_sources == metric.compute(predictions=OUTPUTS, references=REFERENCES)


def test_every_metric_that_needs_no_weights_can_be_used() -> None:
    sources = [f"{text} The rest of the document says more." for text in REFERENCES]
    items = [Item(*each) for each in zip(OUTPUTS, [(text,) for text in REFERENCES], sources, strict=True)]
    light = [metric for metric in available().values() if metric.queue == "cpu" and not metric.available({})]
    assert {"rouge", "meteor"} <= {metric.name for metric in light}
    for metric in light:
        found = load(metric.name).compute(predictions=OUTPUTS, references=REFERENCES, sources=sources, per_example=True)
        for part, scored in found["per_example"].items():
            values = [each[part] for each in metric.score(items, metric.defaults)]
            assert scored == [None if isinstance(value, Absent) else value for value in values], part
            assert (found[part] is None) == all(value is None for value in scored), part


def test_evaluate_combines_ours() -> None:
    both = evaluate.combine([load("rouge"), load("meteor")])
    result = both.compute(predictions=OUTPUTS, references=REFERENCES)
    for name in ("rouge", "meteor"):
        alone = load(name).compute(predictions=OUTPUTS, references=REFERENCES)
        assert {part: result[part] for part in alone} == alone
    both.add(OUTPUTS[0], REFERENCES[0])
    both.add_batch(OUTPUTS[1:], REFERENCES[1:])
    assert both.compute() == result


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"predictions": "one text", "references": ["a"]}, "predictions is of type str: give a list"),
        ({"predictions": None, "references": ["a"]}, "predictions is of type NoneType"),
        ({"predictions": ["a", None], "references": ["a", "b"]}, r"predictions\[1\] is of type NoneType"),
        ({"predictions": ["a"]}, "rouge compares with references"),
        ({"predictions": ["a", "b"], "references": ["a"]}, "2 predictions and 1 references"),
        ({"predictions": ["a"], "references": [7]}, r"references\[0\] is of type int"),
        ({"predictions": ["a"], "references": [["b", 7]]}, r"references\[0\]\[1\] is of type int"),
        ({"predictions": ["a"], "references": ["a"], "sources": []}, "1 predictions and 0 sources"),
        ({"predictions": ["a"], "references": ["a"], "use_stemmer": True}, "unknown inputs use_stemmer"),
        ({"predictions": [], "references": []}, "nothing to compute"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_words(given: dict[str, object], message: str) -> None:
    metric = load("rouge")
    with pytest.raises(ValueError, match=message):
        metric.compute(**given)
    assert len(metric) == 0


def test_unknown_names_and_options_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no metric 'ruge': choose one of .*rouge"):
        load("ruge")
    with pytest.raises(ValueError, match=r"no option 'use_stemmer': it has stemmer"):
        load("rouge", use_stemmer=True)
    with pytest.raises(ValueError, match="'tokenizer' is 'klingon'"):
        load("rouge", tokenizer="klingon")


def test_what_this_installation_cannot_compute_says_why() -> None:
    with pytest.raises(RuntimeError, match="bertscore cannot be computed here: "):
        load("bertscore", encoder="/there/is/nothing")


def test_absences_know_their_kind() -> None:
    """What the mean above rests on: an empty output is a failure, a missing reference is not."""
    found = available()["rouge"].score([Item("", ("a",)), Item("a")], {})
    assert [value.state for each in found if isinstance(value := each["rouge1"], Absent)] == [
        "failed",
        "not_applicable",
    ]
