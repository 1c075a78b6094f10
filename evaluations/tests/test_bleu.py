"""BLEU gives sacrebleu's numbers, of single outputs and of the corpus, with any number of references."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from evaluations.metrics import Absent, Check, Counted, Item, bleu
from evaluations.tests.oracles import TEXTS

SPOKEN = TEXTS.filter(str.strip)
MARKED = st.text(alphabet=" .,-09aB&;'<>\"\n\t\u2028\u00a0%{$", max_size=40) | st.lists(
    st.sampled_from(["<skipped>", "-\n", "&quot;", "&amp;", "1,000.5", "e-mail", "3-4", "...", " ", "."]), max_size=12
).map("".join)
TOKENIZERS = st.sampled_from(bleu.TOKENIZERS)
SMOOTHINGS = st.sampled_from(bleu.SMOOTHINGS)

# The example of sacrebleu's README and the values of its tests (test/test_bleu.py).
OUTPUTS = ("The dog bit the man.", "It wasn't surprising.", "The man had just bitten him.")
REFERENCES = (
    ("The dog bit the man.", "The dog had bit the man."),
    ("It was not unexpected.", "No one was surprised."),
    ("The man bit him first.", "The man had bitten the dog."),
)


def number(output: str, *references: str, **options: Any) -> Counted:
    value = bleu.score([Item(output, references)], options)[0]["bleu"]
    assert isinstance(value, Counted), value
    return value


def totals(pairs: list[tuple[str, list[str]]], **options: Any) -> np.ndarray:
    return np.sum([number(output, *references, **options).counts for output, references in pairs], axis=0)


def published(output: str, references: list[str], **options: Any) -> float:
    return sacrebleu.sentence_bleu(
        output,
        references,
        smooth_method=options["smoothing"],
        lowercase=options["lowercase"],
        tokenize=options["tokenizer"],
        use_effective_order=True,
    ).score


@pytest.mark.parametrize("check", bleu.CHECKS, ids=lambda check: check.title)
def test_check_values(check: Check) -> None:
    assert number(check.item.text, *check.item.references, **check.options) == pytest.approx(
        check.expected["bleu"], abs=check.tolerance
    )


@pytest.mark.parametrize(
    ("output", "references", "expected"),
    [
        ("cats purr on the mat", ["cats purr on the mat"], 1.0),
        ("cats", ["cats"], 1.0),  # effective order: a text of one word has no longer runs
        ("cats purr", ["dogs bark"], 0.0),
        ("cats purr", ["cats purr and dogs bark"], np.exp(1 - 5 / 2)),  # all is shared: only the penalty for length
        ("cats cats cats", ["cats"], (1 / 3 * 1 / 4 * 1 / 4) ** (1 / 3)),  # one of three; then 1/(2·2), 1/(4·1): exp
        ("cats purr", ["cats bark", "dogs purr"], (2 / 2 * 1 / 2) ** (1 / 2)),  # each word in another reference
        ("a b c d", ["a b c d e f", "a b"], 1.0),  # both lengths are equally close: the shorter one counts
    ],
)
def test_table_of_numbers(output: str, references: list[str], expected: float) -> None:
    assert number(output, *references) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 48.530827),
        ({"tokenizer": "none"}, 49.1919566),
        ({"tokenizer": "intl"}, 43.91623493),
        ({"smoothing": "none"}, 48.530827),
    ],
)
def test_published_values_of_a_corpus(options: dict[str, Any], expected: float) -> None:
    pairs = [(output, list(references)) for output, references in zip(OUTPUTS, REFERENCES, strict=True)]
    assert bleu.corpus_value(totals(pairs, **options), options) == pytest.approx(expected / 100, abs=1e-8)


@settings(deadline=None, max_examples=150)
@given(
    output=SPOKEN | MARKED.filter(str.strip),
    references=st.lists(SPOKEN | MARKED.filter(str.strip), min_size=1, max_size=3),
    tokenizer=TOKENIZERS,
    smoothing=SMOOTHINGS,
    lowercase=st.booleans(),
)
def test_equal_to_sentence_bleu(output: str, references: list[str], **options: Any) -> None:
    value = bleu.score([Item(output, tuple(references))], options)[0]["bleu"]
    assume(value != bleu.NOTHING_READABLE)
    assert value == pytest.approx(published(output, references, **options) / 100, abs=1e-12)


@settings(deadline=None, max_examples=150)
@given(text=MARKED | TEXTS)
def test_words_are_cut_one_by_one_as_in_the_whole_text(text: str) -> None:
    assert bleu._scorer("13a", False, "exp")._preprocess_segment(text) == BLEU()._preprocess_segment(text)


@settings(deadline=None, max_examples=60)
@given(
    pairs=st.lists(st.tuples(SPOKEN, st.lists(SPOKEN, min_size=1, max_size=3)), min_size=1, max_size=6),
    tokenizer=TOKENIZERS,
    smoothing=SMOOTHINGS,
    lowercase=st.booleans(),
)
def test_summed_counts_equal_corpus_bleu(pairs: list[tuple[str, list[str]]], **options: Any) -> None:
    streams = list(zip_longest(*(references for _, references in pairs)))  # ragged: None where there is no reference
    expected = sacrebleu.corpus_bleu(
        [output for output, _ in pairs],
        streams,
        smooth_method=options["smoothing"],
        lowercase=options["lowercase"],
        tokenize=options["tokenizer"],
    )
    found = bleu.corpus_value(totals(pairs, **options), options)
    assert found == pytest.approx(expected.score / 100, abs=1e-12)


COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60), *[st.integers(0, 5)] * 4, *[st.integers(0, 9)] * 4)


@settings(deadline=None, max_examples=100)
@given(rows=st.lists(COUNTS, min_size=1, max_size=8), smoothing=SMOOTHINGS)
def test_many_corpora_at_once(rows: list[tuple[int, ...]], smoothing: str) -> None:
    expected = [
        BLEU.compute_bleu(list(row[2:6]), list(row[6:]), row[0], row[1], smooth_method=smoothing).score / 100
        for row in rows
    ]
    counts = np.array(rows)
    before = counts.copy()
    found = bleu.corpus_value(counts, {"smoothing": smoothing})
    assert found.shape == (len(rows),)
    assert found == pytest.approx(expected, abs=1e-12, rel=1e-12)
    assert (counts == before).all()
    stacked = bleu.corpus_value(np.stack([counts, counts]), {"smoothing": smoothing})
    assert stacked.shape == (2, len(rows)) and (stacked == found).all()


def test_the_corpus_is_no_mean_of_its_outputs() -> None:
    pairs = [
        ("cats purr on the mat", ["cats purr on the mat"]),
        ("it rained all day and all night long", ["snow fell"]),
    ]
    assert [number(output, *references) for output, references in pairs] == [1.0, 0.0]
    shares = (5 / (5 + 8), 4 / (4 + 7), 3 / (3 + 6), 2 / (2 + 5))
    assert bleu.corpus_value(totals(pairs), {}) == pytest.approx(
        np.prod(shares) ** (1 / 4)
    )  # .34, where the mean is .5


def test_the_second_candidate_finds_its_references_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bleu, "_prepared", bleu.Memory(bleu.REMEMBERED_BYTES))
    first = number(OUTPUTS[0], *REFERENCES[0])
    kept = bleu._remembered(REFERENCES[0], bleu._scorer("13a", False, "exp"))
    number(OUTPUTS[2], *REFERENCES[0])
    again = number(OUTPUTS[0], *REFERENCES[0])
    assert len(bleu._prepared) == 1
    assert bleu._remembered(REFERENCES[0], bleu._scorer("13a", False, "exp")) is kept
    assert (again, again.counts) == (first, first.counts)


def test_smoothings_share_prepared_references_and_tokenizers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bleu, "_prepared", bleu.Memory(bleu.REMEMBERED_BYTES))
    for smoothing in bleu.SMOOTHINGS:
        number("Cats purr.", "Cats bark.", smoothing=smoothing)
    assert len(bleu._prepared) == 1
    assert number("Cats purr.", "cats purr.", tokenizer="none", lowercase=True) == 1.0
    assert len(bleu._prepared) == 2


def test_no_tokenizer_keeps_whole_texts() -> None:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    from sacrebleu.tokenizers.tokenizer_intl import TokenizerV14International
    from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

    kinds = (Tokenizer13a, TokenizerV14International, TokenizerRegexp)
    before = [kind.__call__.cache_info() for kind in kinds]
    for tokenizer in bleu.TOKENIZERS:
        number("A text that nobody scored before, nor ever will.", "Another such text.", tokenizer=tokenizer)
    assert [kind.__call__.cache_info() for kind in kinds] == before


def test_a_reference_without_a_word_for_the_tokenizer_is_said_to_be_unreadable() -> None:
    absent = bleu.score([Item("cats purr", ("<skipped>",))], {})[0]["bleu"]
    assert isinstance(absent, Absent) and absent.state == "not_applicable" and "tokenizer" in absent.reason
    assert number("<skipped>", "<skipped>", tokenizer="none") == 1.0


@pytest.mark.parametrize("tokenizer", bleu.TOKENIZERS)
def test_very_long_words_and_lone_surrogates_are_scored(tokenizer: str) -> None:
    assert number("y" * 5_000 + " cats \ud800", "y" * 5_000 + " cats \ud800", tokenizer=tokenizer) == pytest.approx(1.0)


@pytest.mark.parametrize(("option", "value"), [("tokenizer", "spm"), ("smoothing", "more")])
def test_an_unknown_option_value_is_refused_with_the_choices(option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"'{option}' is '{value}': choose one of "):
        number("a", "a", **{option: value})


def test_the_signature_has_the_fields_of_sacrebleu() -> None:
    scorer = BLEU(effective_order=True, smooth_method="floor", tokenize="intl", lowercase=True)
    scorer.sentence_score("a", ["a"])
    theirs = scorer.get_signature().info
    ours = bleu.signature({"smoothing": "floor", "tokenizer": "intl", "lowercase": True})
    fields = ("version", "case", "eff", "tok", "smooth")
    assert {field: ours[field] for field in fields} == {field: theirs[field] for field in fields}
