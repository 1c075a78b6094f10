"""Which slices there are, who is in them, and what is told of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations.significance import benjamini_hochberg
from evaluations.slicing import LEAST, MOST_VALUES, Documents, Slice, compared, slices_of


def documents(tags: list[dict[str, Any]], **more: Any) -> Documents:
    return Documents(tags, **{"groups": None, "sizes": [100] * len(tags), **more})


def keys(found: list[Slice]) -> list[str]:
    return [each.key for each in found]


def test_a_tag_makes_a_slice_for_each_value_with_enough_documents() -> None:
    tags = [{"channel": "mail"}] * 12 + [{"channel": "phone"}] * 10 + [{"channel": "fax"}] * 9 + [{}] * 3
    found, left_out = slices_of(documents(tags))
    assert keys(found) == ["tag:channel=mail", "tag:channel=phone"]
    assert found[1].rows == list(range(12, 22))
    assert found[1].where == {"name": "channel", "value": "phone"}
    assert left_out == []


def test_a_document_counts_for_every_value_of_a_list() -> None:
    tags = [{"topics": ["tax", "home"]}] * 10 + [{"topics": ["tax"]}] * 5
    found, _ = slices_of(documents(tags))
    assert {each.key: len(each.rows) for each in found} == {"tag:topics=home": 10}
    assert found[0].where["value"] == ["home"]


def test_a_slice_of_all_documents_says_nothing() -> None:
    assert slices_of(documents([{"language": "en"}] * 40))[0] == []


def test_many_values_are_cut_and_it_is_said() -> None:
    tags = [{"shop": f"{number % 25:02d}"} for number in range(25 * LEAST + 1)]
    found, left_out = slices_of(documents(tags))
    assert len(found) == MOST_VALUES
    assert found[0].key == "tag:shop=00"
    assert left_out == [f"shop has 25 values with {LEAST} documents or more: the {MOST_VALUES} largest."]


def test_a_tag_without_a_large_value_is_named() -> None:
    found, left_out = slices_of(documents([{"id": str(number)} for number in range(30)]))
    assert (found, left_out) == ([], ["id: no value has 10 documents."])


@given(st.lists(st.integers(0, 60), min_size=0, max_size=200))
@settings(deadline=None, max_examples=100)
def test_quarters_by_length_hold_every_document_once(sizes: list[int]) -> None:
    found, _ = slices_of(documents([{}] * len(sizes), sizes=sizes))
    rows = [row for each in found for row in each.rows]
    assert len(rows) == len(set(rows))
    for each in found:
        assert all(each.where["above"] is None or sizes[row] > each.where["above"] for row in each.rows)
        assert all(each.where["to"] is None or sizes[row] <= each.where["to"] for row in each.rows)
    if len(sizes) >= 4 * LEAST and len(set(sizes)) == len(sizes):
        assert sorted(rows) == list(range(len(sizes)))


def test_what_was_cut_is_a_slice_where_it_is_known() -> None:
    found, _ = slices_of(documents([{}] * 24, cut=[True] * 10 + [False] * 14))
    assert keys(found) == ["cut:yes", "cut:no"]
    assert slices_of(documents([{}] * 24))[0] == []


def matrix(n: int, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.beta(3, 4, (n, 1)) + random.normal(0, 0.05, (n, 3))


HALVES = [Slice("a", "tag", "a", list(range(60))), Slice("b", "tag", "b", list(range(60, 120)))]


def test_a_candidate_that_is_worse_in_one_slice_only_is_found_there() -> None:
    scores = matrix(120)
    scores[:60, 1] -= 0.1
    told = compared(HALVES, scores, reference=0, rivals=[1, 2], resamples=2_000)
    verdicts = [[cell.get("verdict") for cell in one["cells"]] for one in told]
    assert verdicts == [[None, "worse", "no clear difference"], [None, "no clear difference", "no clear difference"]]
    assert told[0]["cells"][1]["low"] < told[0]["cells"][1]["difference"] < told[0]["cells"][1]["high"] < 0
    assert (told[0]["n"], told[0]["groups"]) == (60, 60)


def test_all_slices_and_rivals_are_adjusted_together() -> None:
    told = compared(HALVES, matrix(120), reference=0, rivals=[1, 2], resamples=2_000)
    cells = [cell for one in told for cell in one["cells"] if "p" in cell]
    assert [cell["q"] for cell in cells] == benjamini_hochberg([cell["p"] for cell in cells])
    assert len(cells) == 4


def test_a_small_slice_has_an_interval_and_no_verdict() -> None:
    scores = matrix(40)
    scores[:, 1] -= 0.3
    [told] = compared([Slice("a", "tag", "a", list(range(15)))], scores, reference=0, rivals=[1])
    assert told["cells"][1]["verdict"] == "too little data"
    assert told["cells"][1]["high"] < 0
    assert told["cells"][1]["p"] < 0.01


def test_documents_of_one_group_are_one_piece_of_evidence() -> None:
    groups = ["one"] * 20 + [f"g{number}" for number in range(20)]
    cut = [Slice("group:one", "group", "one", list(range(20)))]
    [told] = compared(cut, matrix(40), reference=0, rivals=[1], groups=groups)
    assert (told["n"], told["groups"]) == (20, 1)
    cell = told["cells"][1]
    assert (cell["low"], cell["p"], cell["verdict"]) == (None, None, "too little data")
    assert cell["difference"] is not None


def test_what_is_absent_counts_nowhere() -> None:
    scores = matrix(40)
    scores[:35, 1] = np.nan
    [told] = compared([Slice("a", "tag", "a", list(range(36)))], scores, reference=0, rivals=[1])
    assert (told["cells"][1]["n"], told["cells"][1]["p"]) == (1, None)
    assert told["cells"][0]["n"] == 36


def test_without_a_leader_there_are_means_only() -> None:
    [told] = compared(HALVES[:1], matrix(60), reference=None, rivals=[])
    assert all(set(cell) == {"mean", "n"} for cell in told["cells"])


def test_where_lower_is_better_the_verdict_turns() -> None:
    scores = matrix(120)
    scores[:, 1] -= 0.1
    told = compared(HALVES, scores, reference=0, rivals=[1], higher_is_better=False, resamples=2_000)
    assert {one["cells"][1]["verdict"] for one in told} == {"better"}


def test_the_same_seed_gives_the_same_numbers() -> None:
    once, again = (compared(HALVES, matrix(120), reference=0, rivals=[1, 2], seed=5, resamples=500) for _ in range(2))
    assert once == again
