"""The rules on small documents: who may replace whom, what a gate shows, which contrast matters."""

from __future__ import annotations

from typing import Any

import pytest

from evaluations import deciding
from evaluations.deciding import choose, gates, non_inferiority
from evaluations.recommending import recommendation
from evaluations.tests.test_recommending import PART, baseline, document, model, remote


def bound(told: dict[str, Any], one: str, other: str, **figures: float) -> dict[str, Any]:
    """The bounds of `one` minus `other`."""
    ids = {row["label"]: row["candidate"] for row in told["candidates"]}
    return {"a": ids[other], "b": ids[one], "sd": 0.1, "n": 300, "groups": 300, **figures}


def margined(*rows: dict[str, Any], margin: float | None = 0.02, higher: bool = True, **more: Any) -> dict[str, Any]:
    told = document(*rows, **more)
    told["experiment"] = {"state": "completed", "primary_metric": PART, "margin": margin}
    told["parts"] = [{"name": PART, "label": "ROUGE-Lsum", "metric": "rouge", "higher_is_better": higher}]
    return told


def dear_and_cheap(**figures: float) -> dict[str, Any]:
    told = margined(remote("amber", 0.31, cost=2.0), remote("birch", 0.30, cost=1.0))
    told["bounds"] = [bound(told, "birch", "amber", **figures)]
    return told


PROVEN = {"difference": -0.003, "lower": -0.012, "upper": 0.006}
NOT_SHOWN = {"difference": -0.01, "lower": -0.03, "upper": 0.01}


def test_within_the_margin_the_cheaper_one_is_chosen() -> None:
    found = recommendation(dear_and_cheap(**PROVEN))
    assert found["sentence"] == (
        "There is no evidence of a difference on ROUGE-Lsum with 300 documents: choose birch, the cheapest of them, "
        "and shown to be at most 0.02 worse than amber."
    )
    assert (
        "It may replace amber: at worst 0.012 worse (one-sided 95 % bound), within the margin of 0.02."
        in (found["reasons"])
    )


def test_what_is_not_shown_to_be_within_the_margin_is_not_chosen() -> None:
    found = recommendation(dear_and_cheap(**NOT_SHOWN))
    assert found["label"] == "amber"
    assert found["sentence"].endswith("choose amber, the best on average; no other is shown to be at most 0.02 worse.")
    [caveat] = [text for text in found["caveats"] if text.startswith("birch is cheaper or faster")]
    assert caveat == (
        "birch is cheaper or faster, but not shown to be at most 0.02 worse than amber (one-sided 95 % bound -0.030): "
        "some 620 documents would do."
    )


def test_without_a_margin_the_bounds_decide_nothing() -> None:
    told = dear_and_cheap(**NOT_SHOWN)
    told["experiment"]["margin"] = None
    assert recommendation(told)["label"] == "birch"


def test_a_margin_is_for_the_part_that_decides() -> None:
    told = dear_and_cheap(**NOT_SHOWN)
    told["experiment"]["primary_metric"] = "meteor"
    assert recommendation(told)["label"] == "birch"


def test_among_those_within_the_margin_the_cheapest_is_chosen() -> None:
    told = margined(remote("amber", 0.32, cost=3.0), remote("birch", 0.31, cost=2.0), remote("cedar", 0.3, cost=1.0))
    told["bounds"] = [bound(told, "birch", "amber", **PROVEN), bound(told, "cedar", "amber", **NOT_SHOWN)]
    found = recommendation(told)
    assert found["sentence"].endswith("choose birch, the cheapest, of those shown to be at most 0.02 worse than amber.")
    assert any(text.startswith("cedar is cheaper or faster") for text in found["caveats"])


def test_a_clearly_worse_one_within_the_margin_is_named_and_not_chosen() -> None:
    told = margined(remote("amber", 0.31, cost=2.0), remote("birch", 0.30, cost=1.0))
    told["candidates"][1]["best_group"] = False
    told["bounds"] = [bound(told, "birch", "amber", **PROVEN)]
    found = recommendation(told)
    assert found["label"] == "amber"
    assert any(text.startswith("birch is clearly worse, but at worst 0.012 worse") for text in found["reasons"])


@pytest.mark.parametrize("turn", [False, True])
def test_the_bounds_serve_both_directions(turn: bool) -> None:
    told = dear_and_cheap(**NOT_SHOWN)
    if turn:
        [one] = told["bounds"]
        told["bounds"] = [{**one, "a": one["b"], "b": one["a"], "difference": 0.01, "lower": -0.01, "upper": 0.03}]
    amber, birch = told["candidates"]
    back = non_inferiority(told, amber, birch)
    assert back is not None
    assert (back["verdict"], back["bound"], back["against"]) == ("non-inferior", -0.01, birch["candidate"])
    forth = non_inferiority(told, birch, amber)
    assert forth is not None
    assert (forth["verdict"], forth["bound"], forth["n_needed"]) == ("inconclusive", -0.03, 619)


def test_where_lower_is_better_less_is_no_loss() -> None:
    told = margined(model("amber", 0.3), model("birch", 0.31), higher=False)
    told["bounds"] = [bound(told, "birch", "amber", difference=0.05, lower=0.04, upper=0.06)]
    ids = {row["label"]: row for row in told["candidates"]}
    found = non_inferiority(told, ids["birch"], ids["amber"])
    assert found is not None
    assert (found["verdict"], found["bound"]) == ("worse", -0.06)


def test_pairs_that_share_too_few_documents_stay_open() -> None:
    told = dear_and_cheap(**PROVEN)
    told["bounds"][0]["groups"] = 9
    found = non_inferiority(told, told["candidates"][1], told["candidates"][0])
    assert found is not None
    assert (found["verdict"], found["bound"]) == ("inconclusive", None)
    assert found["reason"] == "fewer than 10 documents that both have"


def test_bounds_that_were_never_computed_prove_nothing() -> None:
    told = dear_and_cheap(**PROVEN)
    told["bounds"] = []
    found = non_inferiority(told, told["candidates"][1], told["candidates"][0])
    assert found is not None
    assert (found["verdict"], found["reason"]) == (
        "inconclusive",
        "no bounds were kept: start the experiment to compute them",
    )
    assert recommendation(told)["label"] == "amber"


def test_a_margin_of_nothing_asks_for_no_loss_at_all() -> None:
    told = dear_and_cheap(**PROVEN)
    told["experiment"]["margin"] = 0.0
    assert recommendation(told)["label"] == "amber"


def test_that_a_model_answers_is_always_a_gate() -> None:
    told = document(model("amber", answer_rate=0.8), model("birch"), baseline())
    [gate] = gates(told)
    assert (gate["name"], gate["wanted"], gate["is_default"]) == ("min_answer_rate", 0.9, True)
    assert [(each["value"], each["passes"]) for each in gate["results"]] == [(0.8, False), (1.0, True)]


def test_a_gate_on_what_is_not_known_is_failed() -> None:
    told = document(remote("amber", cost=None), experiment={"state": "completed",
                    "gates": {"max_cost_per_1000_usd": 1.0, "min_answer_rate": 0.95}})  # fmt: skip
    found = {gate["name"]: gate for gate in gates(told)}
    assert found["max_cost_per_1000_usd"]["results"][0] == {"candidate": 1, "value": None, "passes": False}
    assert (found["min_answer_rate"]["wanted"], found["min_answer_rate"]["is_default"]) == (0.95, False)


def test_models_are_held_against_the_best_baseline_that_is_no_bound() -> None:
    told = document(model("amber"), baseline(mean=0.1), baseline("baseline/textrank", 0.2),
                    baseline("baseline/oracle", 0.6, uses_references=True),
                    pairs={("amber", "baseline/textrank"): "better"})  # fmt: skip
    found = deciding.baseline_check(told)
    names = {row["candidate"]: row["label"] for row in told["candidates"]}
    assert names[found["baseline"]] == "baseline/textrank"
    assert [(names[row["candidate"]], row["verdict"]) for row in found["rows"]] == [("amber", "better")]
    assert deciding.baseline_check(document(model("amber"))) == {"baseline": None, "rows": []}


def test_the_contrast_that_matters_is_the_leader_against_the_runner_up() -> None:
    told = document(model("amber", 0.4), model("birch", 0.39), model("cedar", 0.1), baseline(mean=0.395))
    for pair, detectable in zip(told["pairs"], (0.01, 0.02, 0.03, 0.04, 0.05, 0.06), strict=True):
        pair |= {"detectable": detectable, "n": 300, "difference": -0.005}
    found = deciding.contrast_that_matters(told)
    labels = {row["candidate"]: row["label"] for row in told["candidates"]}
    assert found is not None
    assert (labels[found["a"]], labels[found["b"]]) == ("amber", "birch")
    [caveat] = [text for text in recommendation(told)["caveats"] if "four times out of five" in text]
    assert caveat == (
        "With this many documents, differences of 0.020 between amber and birch can be seen four times out of five; "
        "smaller ones can be missed: for the 0.005 seen here, some 4,800 would do."
    )


def test_the_only_model_is_measured_against_the_baseline() -> None:
    told = document(model("amber", 0.4), baseline(), baseline("baseline/oracle", 0.6, uses_references=True))
    found = deciding.contrast_that_matters(told)
    labels = {row["candidate"]: row["label"] for row in told["candidates"]}
    assert found is not None
    assert {labels[found["a"]], labels[found["b"]]} == {"amber", "baseline/lead-3"}


def test_nobody_is_chosen_where_nobody_is_left() -> None:
    told = document(model("amber", 0.2), baseline(mean=0.3), pairs={("amber", "baseline/lead-3"): "worse"})
    found = choose(told)
    assert (found.passing, found.worthy, found.chosen) == ([told["candidates"][1]], [], None)


def sliced(*cells: tuple[str, float, str | None], **more: Any) -> dict[str, Any]:
    told = margined(model("amber", 0.31), model("birch", 0.3), margin=None, **more)
    told["slices"] = {
        "left_out": [],
        "rows": [
            {"key": label, "kind": "tag", "label": label, "n": 40,
             "cells": [{"candidate": 1, "mean": mean, "n": 40, "verdict": verdict}]}
            for label, mean, verdict in cells
        ],
    }  # fmt: skip
    return told


def test_the_weakest_slice_of_the_chosen_one_is_told() -> None:
    caveats = recommendation(sliced(("channel: mail", 0.35, None), ("channel: phone", 0.2, "worse")))["caveats"]
    assert (
        "Its weakest slice is channel: phone: 0.200 on 40 documents, against 0.310 over all (exploratory)." in caveats
    )
    assert any(text.startswith("It is clearly worse than the leader on channel: phone") for text in caveats)


def test_without_slices_nothing_is_said_of_them() -> None:
    assert not [text for text in recommendation(sliced())["caveats"] if "slice" in text]
