"""chrF gives sacrebleu's numbers, of single outputs and of the corpus, counted on arrays."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.chrf import CHRF

from evaluations.metrics import Absent, Check, Counted, Item, chrf
from evaluations.tests.oracles import TEXTS

SPOKEN = (TEXTS | st.text(alphabet="ab (.)", max_size=12)).filter(str.strip)  # few letters: many runs in common
OPTIONS = st.fixed_dictionaries(
    {
        "char_order": st.sampled_from([6, 6, 1, 3, 9]),
        "word_order": st.sampled_from([0, 2, 2, 4]),
        "beta": st.sampled_from([2, 2, 1, 3]),
        "lowercase": st.booleans(),
        "whitespace": st.booleans(),
    }
)


def number(output: str, *references: str, **options: Any) -> Counted:
    value = chrf.score([Item(output, references)], options)[0]["chrf"]
    assert isinstance(value, Counted), value
    return value


def totals(pairs: list[tuple[str, list[str]]], **options: Any) -> np.ndarray:
    return np.sum([number(output, *references, **options).counts for output, references in pairs], axis=0)


@pytest.mark.parametrize("check", chrf.CHECKS, ids=lambda check: check.title)
def test_check_values(check: Check) -> None:
    assert number(check.item.text, *check.item.references, **check.options) == pytest.approx(
        check.expected["chrf"], abs=check.tolerance
    )


@pytest.mark.parametrize(
    ("output", "reference", "options", "expected"),
    [
        ("cats purr", "cats purr", {}, 1.0),
        ("cats purr", "catspurr", {}, 1.0),  # blanks do not count
        ("abc", "xyz", {}, 0.0),
        ("a", "a", {}, 1.0),  # orders that neither has are left out
        ("abc", "abd", {}, (2 / 3 + 1 / 2 + 0) / 3),
        ("aaa", "aa", {"char_order": 1, "beta": 1}, 2 * 2 / (3 + 2)),  # two of three, two of two
        ("A", "a", {"lowercase": True}, 1.0),
        ("A", "a", {}, 0.0),
        ("a b", "a c", {"char_order": 1, "whitespace": True}, 2 / 3),
        ("(ab", "ab", {"char_order": 1, "word_order": 1, "beta": 1}, 2 * (7 / 12) / (7 / 12 + 1)),  # "(" is a word
    ],
)
def test_table_of_numbers(output: str, reference: str, options: dict[str, Any], expected: float) -> None:
    assert number(output, reference, **options) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=200)
@given(output=SPOKEN, references=st.lists(SPOKEN, min_size=1, max_size=3), options=OPTIONS)
def test_equal_to_sentence_chrf(output: str, references: list[str], options: dict[str, Any]) -> None:
    scorer = CHRF(**options)
    found = number(output, *references, **options)
    assert found == scorer.sentence_score(output, references).score / 100
    assert list(found.counts) == scorer._extract_corpus_statistics([output], [[text] for text in references])[0]


@settings(deadline=None, max_examples=60)
@given(
    pairs=st.lists(st.tuples(SPOKEN, st.lists(SPOKEN, min_size=1, max_size=3)), min_size=1, max_size=6),
    options=OPTIONS,
)
def test_summed_counts_equal_corpus_chrf(pairs: list[tuple[str, list[str]]], options: dict[str, Any]) -> None:
    streams = list(zip_longest(*(references for _, references in pairs)))  # ragged: None where there is no reference
    expected = CHRF(**options).corpus_score([output for output, _ in pairs], streams).score
    found = chrf.corpus_value(totals(pairs, **options), options)
    assert found == pytest.approx(expected / 100, abs=1e-12)


TRIPLES = st.tuples(*[st.integers(1, 9), st.integers(0, 9), st.integers(0, 1)] * 3)


@settings(deadline=None, max_examples=100)
@given(rows=st.lists(TRIPLES, min_size=1, max_size=8), beta=st.integers(1, 3))
def test_many_corpora_at_once(rows: list[tuple[int, ...]], beta: int) -> None:
    options = {"char_order": 3, "beta": beta}
    expected = [CHRF(char_order=3, beta=beta)._compute_f_score(list(row)) / 100 for row in rows]
    found = chrf.corpus_value(np.array(rows), options)
    assert found.shape == (len(rows),)
    assert found == pytest.approx(expected, abs=1e-12)
    stacked = chrf.corpus_value(np.array([rows, rows]), options)
    assert stacked.shape == (2, len(rows)) and (stacked == found).all()


def test_counts_without_anything_shared_or_counted_are_zero() -> None:
    assert chrf.corpus_value(np.zeros((2, 18), dtype=np.int64), {}).tolist() == [0.0, 0.0]
    assert chrf.corpus_value(np.array([3, 3, 0] * 6), {}) == 0.0


def test_the_reference_that_an_output_is_most_like_counts() -> None:
    near, far = "the cats purr", "a dog barks"
    both = number("the cats purred", far, near)
    alone = number("the cats purred", near)
    assert (both, both.counts) == (alone, alone.counts)
    assert number("the cats purred", far) < alone


def test_the_corpus_is_no_mean_of_its_outputs() -> None:
    pairs = [("cats purr", ["cats purr"]), ("a much longer text about something else", ["dogs, every one, bark"])]
    mean = np.mean([number(output, *references) for output, references in pairs])
    assert abs(chrf.corpus_value(totals(pairs), {}) - mean) > 0.05


def test_the_second_candidate_finds_its_references_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chrf, "_prepared", chrf.Memory(chrf.REMEMBERED_BYTES))
    references = ("cats purr", "dogs bark")
    first = number("cats bark", *references)
    kept = chrf._prepared.get(("cats purr", 6, 0, False, False))
    assert kept is not None
    assert number("cats bark", *references) == first
    assert len(chrf._prepared) == 2
    assert chrf._prepared.get(("cats purr", 6, 0, False, False)) is kept


def test_another_reading_of_the_same_reference_is_prepared_anew() -> None:
    assert number("CATS PURR", "cats purr") == 0.0
    assert number("CATS PURR", "cats purr", lowercase=True) == 1.0
    assert number("catspurr", "cats purr", lowercase=True) == 1.0
    assert number("catspurr", "cats purr", whitespace=True) < 1.0


def test_large_alphabets_and_long_runs_stay_exact() -> None:
    """A run of nine among 20,000 letters does not fit in 64 bits by itself."""
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + 20_000)))
    output = letters[5_000:15_000] + letters[:5_000]
    options = {"char_order": 9}
    assert number(output, letters, **options) == CHRF(char_order=9).sentence_score(output, [letters]).score / 100


def test_lone_surrogates_are_scored() -> None:
    assert number("cats \ud800 purr", "cats \ud800 purr") == 1.0
    assert number("cats \ud800 purr", "cats \udfff purr") < 1.0


def test_blank_references_are_ignored() -> None:
    assert number("cats purr", " ", "cats purr") == 1.0
    absent = chrf.score([Item("cats purr", (" ",))], {})[0]["chrf"]
    assert absent == Absent("not_applicable", "no reference summary")


@pytest.mark.parametrize(
    ("option", "value"),
    [("char_order", 0), ("char_order", "6"), ("word_order", -1), ("word_order", True), ("beta", 0), ("beta", 2.5)],
)
def test_an_option_out_of_its_limits_is_refused_with_them(option: str, value: object) -> None:
    low, high = chrf.LIMITS[option]
    with pytest.raises(ValueError, match=f"'{option}' is {value!r}: give a whole number from {low} to {high}"):
        number("a", "a", **{option: value})


def test_the_signature_has_the_fields_of_sacrebleu() -> None:
    scorer = CHRF(char_order=5, word_order=2, lowercase=True, whitespace=True)
    scorer.sentence_score("a", ["a"])
    theirs = scorer.get_signature().info
    ours = chrf.signature({"char_order": 5, "word_order": 2, "lowercase": True, "whitespace": True})
    fields = ("version", "case", "eff", "nc", "nw", "space")
    assert {field: ours[field] for field in fields} == {field: theirs[field] for field in fields}
