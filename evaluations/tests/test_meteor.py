"""METEOR gives NLTK's numbers, with WordNet's synonyms and without NLTK's downloads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evaluations.metrics import Absent, Check, Item, _meteor_words, meteor
from evaluations.metrics._wordnet import synonyms
from evaluations.tests.oracles import TEXTS, WordNet, stock_words

SYNONYMS: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("wordnet_synonyms.json").read_text(encoding="utf-8")
)

# The pair of the docstring of nltk.translate.meteor_score, and its further references.
HYPOTHESIS = "It is a guide to action which ensures that the military always obeys the commands of the party"
REFERENCES = (
    "It is a guide to action that ensures that the military will forever heed Party commands",
    "It is the guiding principle which guarantees the military forces always being under the command of the Party",
    "It is the practical guide for the army always to heed the directions of the party",
)


def number(output: str, *references: str, aggregate: str = "max") -> float:
    value = meteor.score([Item(output, references)], {"references": aggregate})[0]["meteor"]
    assert isinstance(value, float)
    return value


def test_the_published_check_value() -> None:
    assert round(number(HYPOTHESIS, REFERENCES[0]), 4) == 0.6944


def test_the_best_of_several_references_counts() -> None:
    assert round(number(HYPOTHESIS, *REFERENCES), 4) == 0.6944
    alone = [number(HYPOTHESIS, reference) for reference in REFERENCES]
    assert number(HYPOTHESIS, *REFERENCES, aggregate="mean") == pytest.approx(sum(alone) / 3)


@pytest.mark.parametrize(
    ("output", "reference", "expected"),
    [
        ("this is a cat", "non matching hypothesis", 0.0),
        ("cats", "cats", 1 - 0.5),  # one word, one chunk: half is the penalty
        ("one two three four", "one two three four", 1 - 0.5 / 4**3),
        ("the dogs run", "the dog runs", 1 - 0.5 / 3**3),  # by stems
        ("the auto stops", "the car stops", 1 - 0.5 / 3**3),  # by a synonym
        ("a big house", "a large house", (2 / 3) * (1 - 0.5)),  # not: synonyms of the stem "larg" are asked for
        ("two one", "one two", 1 - 0.5),  # both aligned, in two chunks
        ("one two", "one two three four", (0.5 / (0.9 + 0.1 * 0.5)) * (1 - 0.5 / 2**3)),  # precision 1, recall ½
    ],
)
def test_table_of_numbers(output: str, reference: str, expected: float) -> None:
    assert number(output, reference) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=150)
@given(output=TEXTS, references=st.lists(TEXTS.filter(str.strip), min_size=1, max_size=3))
def test_equal_to_nltk(output: str, references: list[str]) -> None:
    from nltk.translate.meteor_score import meteor_score

    assume(output.strip())
    expected = meteor_score([stock_words(text) for text in references], stock_words(output), wordnet=WordNet())
    assert number(output, *references) == expected


# Few different words, in forms that share stems or synonyms: almost every partner is a choice among several.
LOOKALIKES = st.lists(
    st.sampled_from("car cars auto automobile buy buys purchase buying begin start begins . it's".split()),  # noqa: SIM905
    min_size=1,
    max_size=25,
).map(" ".join)


@settings(deadline=None, max_examples=100)
@given(items=st.lists(st.tuples(LOOKALIKES, st.lists(LOOKALIKES, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_a_batch_of_texts_full_of_choices_is_aligned_as_nltk_aligns_each(items: list[tuple[str, list[str]]]) -> None:
    from nltk.translate.meteor_score import meteor_score

    found = meteor.score([Item(output, tuple(references)) for output, references in items], {})
    assert found == [
        {"meteor": meteor_score([stock_words(one) for one in references], stock_words(output), wordnet=WordNet())}
        for output, references in items
    ]


def test_many_items_give_what_each_gives_alone() -> None:
    items = [
        Item(f"Row {n} rose by {n % 7} points.", tuple(f'Row {k} "fell" {k % 5}, it rose' for k in range(n % 4)))
        for n in range(700)
    ]
    assert meteor.score(items, {}) == [meteor.score([item], {})[0] for item in items]


def test_a_full_lexicon_is_replaced_and_the_numbers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [Item(f"row {n} rose by {n} points.", (f"row {n} fell by {n + 1}. Row {n}.",)) for n in range(1100)]
    expected = meteor.score(items, {})
    monkeypatch.setattr(_meteor_words, "_current", [])
    monkeypatch.setattr(_meteor_words, "FULL", 100_000)
    first = _meteor_words.lexicon()
    assert meteor.score(items, {}) == expected
    assert _meteor_words._current[0] is not first


def test_stems_without_the_fast_library_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["guiding", "guides", "sky", "o'clock", "1990s", "été"]
    fast = _meteor_words.stemmed(words)
    monkeypatch.setattr(_meteor_words, "_compiled_tokenizer", lambda: None)
    assert _meteor_words.stemmed(words) == fast


@pytest.mark.parametrize("check", meteor.CHECKS, ids=lambda check: check.title)
def test_the_check_values_hold_here_and_in_nltk(check: Check) -> None:
    from nltk.translate.meteor_score import meteor_score

    reference, output = stock_words(check.item.references[0]), stock_words(check.item.text)
    theirs = meteor_score([reference], output, wordnet=WordNet())
    assert theirs == pytest.approx(check.expected["meteor"], abs=check.tolerance, rel=0)
    assert number(check.item.text, *check.item.references) == theirs


@settings(deadline=None, max_examples=200)
@given(words=st.lists(st.text("abdeginrsty019", min_size=1, max_size=14), min_size=1, max_size=20))
def test_stems_equal_nltk(words: list[str]) -> None:
    from nltk.stem.porter import PorterStemmer

    assert _meteor_words.stemmed(words) == [PorterStemmer().stem(word) for word in words]


@pytest.mark.parametrize("word", SYNONYMS)
def test_synonyms_equal_wordnet(word: str) -> None:
    """The table was written by NLTK's reader over the dictionary files (all 152,385 forms were compared once)."""
    assert synonyms(word) == set(SYNONYMS[word])


def test_morphy_prefers_exceptions_and_otherwise_detaches_endings() -> None:
    assert "goose" in synonyms("geese")
    assert synonyms("dogs") == synonyms("dog") == synonyms("DOGS")
    assert synonyms("no such word") == synonyms("x" * 10_000) == frozenset()


def test_the_second_candidate_finds_its_references_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_meteor_words, "_current", [])
    first = number(HYPOTHESIS, *REFERENCES)
    references = _meteor_words.lexicon().references
    assert len(references) == 3
    assert number(HYPOTHESIS, *REFERENCES) == first
    assert len(references) == 3


def test_blank_references_are_ignored() -> None:
    assert number("cats purr", " ", "cats purr", aggregate="mean") == number("cats purr", "cats purr")
    absent = meteor.score([Item("cats purr", (" ",))], {})[0]["meteor"]
    assert absent == Absent("not_applicable", "no reference summary")


def test_very_long_words_and_lone_surrogates_are_scored() -> None:
    assert number("y" * 50_000 + " cats", "y" * 50_000 + " dogs") > 0
    assert number("cats \ud800", "cats \ud800") > 0.9
