"""How a comparison document is arranged for its page."""

from __future__ import annotations

from typing import Any

import pytest

from evaluations import presenting
from evaluations.presenting import Shown
from evaluations.templatetags import samples


def labels(shown: Shown) -> list[str]:
    return [line.row["label"] for group in shown.groups for line in group.lines]


def test_the_best_group_comes_first_under_its_own_heading() -> None:
    shown = Shown(samples.comparison())
    assert [len(group.lines) for group in shown.groups] == [3, 5]
    assert shown.groups[0].heading.startswith("Best group")
    assert [line.is_reference for line in shown.groups[0].lines] == [True, False, False]


def headings(document: dict[str, Any]) -> list[str]:
    return [group.heading for group in Shown(document).groups]


def test_a_model_that_leaves_every_other_behind_is_called_clearly_best() -> None:
    document = samples.comparison()
    for row in document["candidates"][1:]:
        row["best_group"] = False
    assert headings(document) == ["Clearly best", "The others"]


def test_a_model_without_a_rival_is_not_called_best() -> None:
    document = samples.comparison()
    document["candidates"] = [row for row in document["candidates"] if row["is_baseline"] or row["candidate"] == 1]
    assert headings(document) == ["The only model", "The baselines"]


@pytest.mark.parametrize(
    ("sort", "first", "last"),
    [
        ("cost", "baseline/lead-3", "orchard-chat"),
        ("-cost", "harbour-large", "orchard-chat"),
        ("-value", "harbour-large", "baseline/random-3"),
        ("label", "baseline/lead-3", "willow-chat"),
    ],
)
def test_a_column_sorts_and_what_has_no_value_stays_last(sort: str, first: str, last: str) -> None:
    assert (labels(Shown(samples.comparison(), sort=sort))[0], labels(Shown(samples.comparison(), sort=sort))[-1]) == (
        first,
        last,
    )


@pytest.mark.parametrize("sort", ["", "password", "-__class__", "--cost"])
def test_an_unknown_column_changes_nothing(sort: str) -> None:
    assert labels(Shown(samples.comparison(), sort=sort)) == labels(Shown(samples.comparison()))


def test_nothing_is_bold_while_a_rival_cannot_be_told_apart() -> None:
    assert not any(line.is_best for group in Shown(samples.comparison()).groups for line in group.lines)


def test_the_leader_is_bold_once_every_other_model_is_clearly_worse() -> None:
    document = samples.comparison()
    for row in document["candidates"][1:]:
        row["versus_leader"]["rougeLsum"]["verdict"] = "worse"
    shown = Shown(document)
    assert [line.row["label"] for group in shown.groups for line in group.lines if line.is_best] == ["harbour-large"]
    assert {part.name: part.best for part in shown.parts} == {"rougeLsum": 1, "rouge1": None, "meteor": None}


def test_a_description_has_no_best() -> None:
    document = samples.comparison()
    document["parts"][0]["higher_is_better"] = None
    for row in document["candidates"][1:]:
        row["versus_leader"]["rougeLsum"]["verdict"] = "worse"
    assert Shown(document).part.best is None


def test_the_matrix_of_pairs_tells_each_pair_from_both_sides() -> None:
    shown = Shown(samples.comparison())
    matrix = {row["candidate"]: cells for row, cells in shown.pairs}
    about_two, about_one = matrix[2][0], matrix[1][1]
    assert about_two is not None
    assert about_one is not None
    assert about_two["difference"] == -0.007
    assert (about_one["difference"], about_one["low"], about_one["high"]) == pytest.approx((0.007, -0.004, 0.018))
    assert matrix[4][0]["verdict"] == "worse"  # type: ignore[index]
    assert matrix[1][3]["verdict"] == "better"  # type: ignore[index]
    assert matrix[1][0] is None


def test_the_rule_is_the_best_baseline_that_does_not_read_the_references() -> None:
    document = samples.comparison()
    document["candidates"][5]["uses_references"] = True
    assert Shown(samples.comparison()).baseline["label"] == "baseline/lead-3"  # type: ignore[index]
    assert Shown(document).baseline["label"] == "baseline/random-3"  # type: ignore[index]


def test_quality_is_drawn_against_time_where_nothing_costs_money() -> None:
    document = samples.comparison()
    for row in document["candidates"]:
        row["cost_per_1000_usd"] = 0.0
    shown = Shown(document)
    assert shown.axis == "time"
    assert next(shown.points)["price"] == pytest.approx(1.9)


def test_nothing_computed_yet_is_shown_as_nothing() -> None:
    shown = Shown({**samples.comparison(), "candidates": [], "parts": [], "pairs": [], "signature": {}})
    assert (labels(shown), shown.pairs, shown.rule, shown.n, list(shown.table)) == ([], [], None, 0, [])


FOUND: dict[str, Any] = {
    "example": {"references": ["the reference"]},
    "outputs": [
        {"candidate": 4, "text": "first", "scores": {"meteor": {}, "rouge1_recall": {}, "rougeLsum": {}}},
        {"candidate": 5, "text": "", "scores": {}},
    ],
}


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("reference", ("reference", "the reference")), ("4", ("4", "first")), ("5", ("none", None)),
        ("none", ("none", None)), ("999", ("none", None)),
    ],
)  # fmt: skip
def test_outputs_are_compared_with_what_was_wished_and_exists(wish: str, expected: tuple[str, str | None]) -> None:
    assert presenting.against(FOUND, wish) == expected


def test_the_number_that_decides_is_named_first() -> None:
    headlines, details = presenting.scored_parts(FOUND, "rougeLsum")
    assert [part.name for part in headlines] == ["rougeLsum", "meteor"]
    assert [part.name for part in details] == ["rouge1_recall"]


def test_progress_is_told_in_tenths() -> None:
    assert presenting.said({"label": "Running", "done": 59, "total": 100, "is_final": False}) == "Running, 50% done"
    assert presenting.said({"label": "Completed", "done": 100, "total": 100, "is_final": True}) == "Completed"
