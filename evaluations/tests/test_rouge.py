"""ROUGE gives the bits of rouge-score, in every kind, option and alphabet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evaluations.metrics import Absent, Check, Item, _rouge_counting, _rouge_words, rouge
from evaluations.tests.oracles import TEXTS, stock_punkt

KINDS = rouge.KINDS


@pytest.fixture(scope="module", autouse=True)
def offline_punkt() -> Iterator[None]:
    """rouge-score asks `nltk.sent_tokenize`, which would want a download: give it the packaged model."""
    import nltk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk, "sent_tokenize", stock_punkt().tokenize)
        yield


def numbers(output: str, *references: str, **options: Any) -> dict[str, Any]:
    return rouge.score([Item(output, references)], options)[0]


def reference_scorer(stemmer: bool, split: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(KINDS), use_stemmer=stemmer, split_summaries=split)


def flat(scores: dict[str, Any]) -> dict[str, float]:
    """rouge-score's result under our part names."""
    found = {}
    for kind, value in scores.items():
        found |= {kind: value.fmeasure, f"{kind}_precision": value.precision, f"{kind}_recall": value.recall}
    return found


@pytest.mark.parametrize(
    ("output", "reference", "expected"),
    [
        # 6 of 8 output words and of 9 reference words; the longest common run is "the quick brown the" + …: 5
        (
            "The quick brown dog jumps on the log.",
            "The quick brown fox jumps over the lazy dog",
            {"rouge1_precision": 6 / 8, "rouge1_recall": 6 / 9, "rouge1": 12 / 17, "rouge2_recall": 2 / 8},
        ),
        ("The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog", {"rougeL": 10 / 17}),
        # Sentences in another order: the run across both breaks, the runs within each do not.
        ("Sales rose. Costs fell.", "Costs fell. Sales rose.", {"rouge1": 1.0, "rougeL": 0.5, "rougeLsum": 1.0}),
        ("a b c", "x y z", {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0, "rougeLsum": 0.0}),
        ("...", "a b c", {"rouge1": 0.0, "rougeLsum_recall": 0.0}),
    ],
)
def test_table_of_numbers(output: str, reference: str, expected: dict[str, float]) -> None:
    found = numbers(output, reference)
    assert {part: found[part] for part in expected} == pytest.approx(expected, abs=1e-12)


def test_stemming_joins_inflections() -> None:
    assert numbers("guided dogs", "guiding dog")["rouge1"] == 1.0
    assert numbers("guided dogs", "guiding dog", stemmer=False)["rouge1"] == 0.0


def test_lines_are_sentences_only_when_asked() -> None:
    output, reference = "sales rose\ncosts fell", "costs fell\nsales rose"
    assert numbers(output, reference, sentences="newline")["rougeLsum"] == 1.0
    assert numbers(output, reference)["rougeLsum"] == 0.5


@settings(deadline=None, max_examples=150)
@given(output=TEXTS, reference=TEXTS, stemmer=st.booleans(), split=st.booleans())
def test_equal_to_rouge_score(output: str, reference: str, stemmer: bool, split: bool) -> None:
    assume(output.strip() and rouge._readable(reference, rouge.DEFAULTS))
    found = numbers(output, reference, stemmer=stemmer, sentences="punkt" if split else "newline")
    assert found == flat(reference_scorer(stemmer, split).score(reference, output))


@settings(deadline=None, max_examples=40)
@given(output=TEXTS, references=st.lists(TEXTS, min_size=1, max_size=4))
def test_the_best_reference_is_chosen_as_score_multi_chooses(output: str, references: list[str]) -> None:
    readable = [text for text in references if rouge._readable(text, rouge.DEFAULTS)]
    assume(output.strip() and readable)
    assert numbers(output, *references) == flat(reference_scorer(True, True).score_multi(readable, output))


def test_precision_and_recall_come_from_the_reference_with_the_best_f() -> None:
    short, long = "cats purr", "cats purr and dogs bark and birds sing"
    found = numbers("cats purr and dogs bark", short, long)
    assert (found["rouge1_precision"], found["rouge1_recall"]) == (1.0, 5 / 8)  # not the recall 1.0 against the short


def test_mean_averages_over_references() -> None:
    first, second = numbers("cats purr", "cats purr"), numbers("cats purr", "cats bark loudly")
    both = numbers("cats purr", "cats purr", "cats bark loudly", references="mean")
    assert both == pytest.approx({part: (first[part] + second[part]) / 2 for part in both})


def test_many_items_give_what_each_gives_alone() -> None:
    items = [
        Item(f"row {n} rose by {n % 7} points", tuple(f"row {k} fell {k % 5}" for k in range(n % 4)))
        for n in range(900)
    ]
    assert rouge.score(items, {}) == [rouge.score([item], {})[0] for item in items]


def test_blank_references_are_ignored() -> None:
    assert numbers("cats purr", "  ", "cats purr", "", references="mean")["rouge1"] == 1.0
    assert numbers("cats purr", "  ", "\n")["rouge1"] == Absent("not_applicable", "no reference summary")


def test_another_script_is_said_to_be_unreadable_instead_of_scored_zero() -> None:
    found = numbers("Σήμερα βρέχει", "Σήμερα βρέχει")["rouge1"]
    assert isinstance(found, Absent)
    assert found.state == "not_applicable"
    assert "unicode" in found.reason
    assert numbers("Σήμερα βρέχει", "Σήμερα βρέχει", tokenizer="unicode")["rouge1"] == 1.0
    assert numbers("今天下雨", "今天下雪", tokenizer="character")["rouge1"] == 0.75


def test_lone_surrogates_are_scored() -> None:
    assert numbers("cats \ud800 purr", "cats purr \udfff")["rouge1"] == 1.0


def test_without_the_fast_library_the_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Cats purr. Dogs don't bark!", "A dog barked; the cats purred.\nThen it rained.", "Nothing, e.g. rain."]
    items = [Item(output, tuple(texts)) for output in texts]
    fast, digest = rouge.score(items, {}), rouge.metric.sign({})[0]
    found = rouge.find_spec
    for module in (rouge, _rouge_words, _rouge_counting):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == "rouge_score_rs" else found(name))
    monkeypatch.setattr(_rouge_words, "_current", {})
    _rouge_words._tokenizer.cache_clear()
    try:
        assert type(_rouge_words._tokenizer(True).__self__).__module__ == "rouge_score.tokenizers"  # type: ignore[attr-defined]
        assert rouge.score(items, {}) == fast
        assert rouge.metric.sign({})[0] == digest
        assert "rouge-score-rs" in rouge.available({"tokenizer": "unicode"})
    finally:
        _rouge_words._tokenizer.cache_clear()


def test_every_letter_that_lower_case_makes_readable_counts() -> None:
    for number in range(sys.maxunicode + 1):
        letter = chr(number)
        readable = any("a" <= low <= "z" or "0" <= low <= "9" for low in letter.lower())
        assert rouge._readable(letter, rouge.DEFAULTS) == readable, hex(number)


@pytest.mark.parametrize("check", rouge.CHECKS, ids=lambda check: check.title)
def test_the_check_values_hold(check: Check) -> None:
    found = rouge.score([check.item], check.options)[0]
    assert {part: found[part] for part in check.expected} == pytest.approx(check.expected, abs=check.tolerance, rel=0)


def test_the_check_values_are_those_of_rouge_score() -> None:
    for check in rouge.CHECKS:
        scorer = reference_scorer(True, check.options.get("sentences") != "newline")
        found = flat(scorer.score(check.item.references[0], check.item.text))
        assert {part: found[part] for part in check.expected} == pytest.approx(check.expected, abs=1e-12, rel=0)


def test_a_full_vocabulary_is_replaced_and_the_numbers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [
        Item(f"row {n} rose by {n} points. It fell.", (f"row {n} fell by {n + 1}. Row {n}.",)) for n in range(1500)
    ]
    expected = rouge.score(items, {})
    monkeypatch.setattr(_rouge_words, "_current", {})
    monkeypatch.setattr(_rouge_words, "FULL", 100_000)
    first = _rouge_words.vocabulary(True)
    assert rouge.score(items, {}) == expected
    assert _rouge_words._current[True] is not first, "it began anew on the way"


def test_learning_that_a_time_limit_interrupts_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rouge_words, "_current", {})
    words = _rouge_words.vocabulary(True)
    words.read(["Cats purr."], "punkt")
    learn = words._learn

    def interrupted(fresh: list[str]) -> None:
        learn(fresh)
        raise TimeoutError

    words._learn = interrupted  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        words.read(["Dogs bark at e-mail."], "punkt")
    words._learn = learn  # type: ignore[method-assign]
    (read,) = words.read(["The e-mail barked at dogs."], "punkt")
    assert words.line_by_line(read) == "the e mail bark at dog\n"
    assert read.size == 6


def test_the_second_candidate_finds_its_references_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rouge_words, "_current", {})
    numbers("one output", "cats purr", "dogs bark")
    references = _rouge_words._current[True].references
    assert len(references) == 2
    numbers("another output", "cats purr", "dogs bark")
    assert len(references) == 2


def test_many_references_give_the_best_of_each_alone() -> None:
    references = tuple(f"row {n} rose by {n % 7} points and fell by {n % 5}" for n in range(50))
    alone = [numbers("row 8 rose by 3 points", reference) for reference in references]
    found = numbers("row 8 rose by 3 points", *references)
    assert all(found[kind] == max(one[kind] for one in alone) for kind in KINDS)


def test_an_unknown_option_value_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="'references' is 'best': choose one of max, mean"):
        numbers("a", "a", references="best")
