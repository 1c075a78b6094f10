"""Extractiveness equals the published procedures word for word, on ordinary and on malicious texts."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evaluations.metrics import Absent, Item
from evaluations.metrics._words import Words
from evaluations.metrics.extractiveness import BY_HAND, PARTS, fragments, metric, score, shared_pairs

LETTERS = st.lists(st.sampled_from("abc"), max_size=30).map(tuple) | st.lists(
    st.sampled_from("abcdefgh"), max_size=40
).map(tuple)
TEXTS = st.lists(st.sampled_from("abcdef"), min_size=4, max_size=30)


def cut(output: Words, source: Words) -> list[int]:
    return fragments(output, source, shared_pairs(output, source))


def as_published(output: Words, source: Words) -> list[int]:
    """The procedure of Grusky et al. 2018, step by step, places from 0: the fragments' lengths."""
    found, i, j = [], 0, 0
    while i < len(output):
        longest = 0
        while j < len(source):
            if output[i] == source[j]:
                further, there = i, j
                while further < len(output) and there < len(source) and output[further] == source[there]:
                    further, there = further + 1, there + 1
                longest = max(longest, further - i)
                j = there
            else:
                j += 1
        i, j = i + max(longest, 1), 0
        if longest:
            found.append(longest)
    return found


def values(output: str, source: str, **options: str) -> dict[str, float]:
    scored = score([Item(output, (), source)], options)[0]
    return {name: value for name, value in scored.items() if isinstance(value, float)}


@pytest.mark.parametrize("check", metric.checks, ids=lambda check: check.title)
def test_the_check_values_are_met(check) -> None:
    scored = score([check.item], check.options)[0]
    assert {name: scored[name] for name in check.expected} == pytest.approx(dict(check.expected), abs=1e-12)


@settings(deadline=None, max_examples=400)
@given(LETTERS, LETTERS)
def test_fragments_are_those_of_the_published_procedure(output: Words, source: Words) -> None:
    assert cut(output, source) == as_published(output, source)


@settings(deadline=None, max_examples=300)
@given(LETTERS, st.lists(st.integers(0, 20), max_size=6))
@example(("a", "a", "a", "a", "a", "a", "b"), [0, 0, 0])  # the last words are also the beginning of a longer match
def test_fragments_of_repeated_pieces_too(source: Words, starts: list[int]) -> None:
    output = tuple(word for start in starts for word in (*source[start : start + 7], "a"))
    assert cut(output, source) == as_published(output, source)


def test_the_published_search_goes_on_behind_a_match() -> None:
    assert cut(("a", "a", "b"), ("a", "a", "a", "b")) == [2, 1]  # "a a b" begins inside the first match


@pytest.mark.parametrize(
    ("output", "source", "expected"),
    [
        (("a",) * 20_000, ("a",) * 20_000, [20_000]),
        (("a", "a", "b") * 6_000, ("a",) * 20_000, [2] * 6_000),
        (("a", "b") * 10_000, ("b", "a") * 10_000, [19_999, 1]),
    ],
)
def test_texts_made_to_be_slow_are_not(output: Words, source: Words, expected: list[int]) -> None:
    assert cut(output, source) == expected  # step by step the second takes minutes


@settings(deadline=None, max_examples=100)
@given(TEXTS)
def test_a_copy_is_covered_by_one_piece_and_has_nothing_new(text: list[str]) -> None:
    copy = values(" ".join(text), " ".join(text))
    assert copy == {
        "coverage": 1.0,
        "density": float(len(text)),
        "compression": 1.0,
        **{f"novel_{n}grams": 0.0 for n in range(1, 5)},
        "copy_support": 1.0,
    }


@settings(deadline=None, max_examples=200)
@given(TEXTS, TEXTS)
def test_shares_are_those_of_the_definitions(output: list[str], source: list[str]) -> None:
    tokens = values(" ".join(output), " ".join(source))
    types = values(" ".join(output), " ".join(source), ngrams="types")
    for n in range(1, 5):
        own = [output[start : start + n] for start in range(len(output) - n + 1)]
        there = [source[start : start + n] for start in range(len(source) - n + 1)]
        different = [run for place, run in enumerate(own) if run not in own[:place]]
        assert tokens[f"novel_{n}grams"] == sum(run not in there for run in own) / len(own)
        assert types[f"novel_{n}grams"] == sum(run not in there for run in different) / len(different)
    assert tokens["copy_support"] == types["copy_support"] == pytest.approx(1 - tokens["novel_3grams"])
    assert tokens["coverage"] == pytest.approx(1 - tokens["novel_1grams"])
    assert tokens["coverage"] <= tokens["density"] <= len(output)
    assert tokens["compression"] == len(source) / len(output)


def test_nothing_in_common_is_a_true_zero() -> None:
    assert values("Wholly other words stand here.", BY_HAND.source) == {
        "coverage": 0.0,
        "density": 0.0,
        "compression": 13 / 5,
        **{f"novel_{n}grams": 1.0 for n in range(1, 5)},
        "copy_support": 0.0,
    }


def test_case_and_marks_do_not_count() -> None:
    assert values("THE CAT; sat (on) the — mat", BY_HAND.source)["density"] == 6.0


@pytest.mark.parametrize(
    ("output", "source", "reason"),
    [
        ("Some output.", "", "no source document"),
        ("Some output.", " \n", "no source document"),
        ("", "", "no source document"),
        ("", "A source.", "the output is empty: there is nothing to describe"),
        ("?!", "A source.", "the output has no words"),
        ("Some output.", "…", "the source document has no words"),
    ],
)
def test_what_cannot_be_described_says_why(output: str, source: str, reason: str) -> None:
    scored = score([Item(output, ("A reference.",), source)], {})[0]
    assert scored == {part.name: Absent("not_applicable", reason) for part in PARTS}


def test_an_output_too_short_for_an_ngram_has_no_value_for_it() -> None:
    scored = score([Item("The cat.", (), BY_HAND.source)], {})[0]
    assert (scored["coverage"], scored["density"], scored["novel_2grams"]) == (1.0, 2.0, 0.0)
    for part, needed in (("novel_3grams", 3), ("novel_4grams", 4), ("copy_support", 3)):
        assert scored[part] == Absent("not_applicable", f"the output has 2 of the {needed} words that this needs")


def test_an_unknown_way_of_counting_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of tokens, types"):
        score([BY_HAND], {"ngrams": "sets"})


def test_no_part_is_better_or_worse_and_none_is_called_factuality() -> None:
    assert all(part.higher_is_better is None for part in metric.parts)
    assert not any("factual" in f"{part.name} {part.label} {part.about}".lower() for part in metric.parts)
    assert metric.needs_source and not metric.needs_reference
