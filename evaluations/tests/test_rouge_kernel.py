"""The counts behind ROUGE are those of rouge-score's own functions, in big integers and in the compiled kernel."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evaluations.metrics import Item, _rouge_counting, rouge
from evaluations.metrics._rouge_counting import count

needs_numba = pytest.mark.skipif(not find_spec("numba"), reason="the `fast` extra is not installed")
Sentences = list[list[int]]

# Few different tokens: almost every step of reading back is a choice among equals. Empty sentences, and long ones
# that take more than one 64-bit word.
FEW = st.integers(1, 5).flatmap(
    lambda kinds: st.lists(st.lists(st.integers(0, kinds), max_size=9), min_size=1, max_size=4)
)
LONG = st.lists(st.lists(st.integers(0, 7), min_size=60, max_size=140), min_size=1, max_size=2)
TEXT = FEW | LONG


def published(reference: Sentences, output: Sentences) -> tuple[float, ...]:
    """The twelve figures as rouge-score's functions compute them from tokens."""
    from rouge_score import rouge_scorer

    expected, found = (
        [str(token) for one in reference for token in one],
        [str(token) for one in output for token in one],
    )
    scores = [
        rouge_scorer._score_ngrams(rouge_scorer._create_ngrams(expected, n), rouge_scorer._create_ngrams(found, n))
        for n in (1, 2)
    ]
    scores.append(rouge_scorer._score_lcs(expected, found))
    scores.append(
        rouge_scorer._summary_level_lcs(
            *([[str(t) for t in sentence] for sentence in text] for text in (reference, output))
        )
    )
    return tuple(float(figure) for score in scores for figure in (score.fmeasure, *score[:2]))


def compiled(cases: Sequence[tuple[Sentences, Sentences]], **limits: int) -> list[tuple[float, ...]]:
    """The kernel's figures, each token being a chunk of one stem."""
    from evaluations.metrics import _rouge_kernel

    codes: list[int] = []
    bounds = [0]
    for text in (text for case in cases for text in case):
        for sentence in filter(None, text):
            codes += [2 * token for token in sentence]
            codes[-1] += 1
        bounds.append(len(codes))
    size = max(codes, default=0) // 2 + 1
    found = _rouge_kernel.count(
        np.array(codes, np.int32),
        np.array(bounds, np.int64),
        np.arange(2 * len(cases), dtype=np.int32).reshape(-1, 2),
        np.arange(size + 1, dtype=np.int32),
        np.arange(size, dtype=np.int32),
        size,
        int(np.diff(bounds).max()),
        **limits,
    )
    return _rouge_counting._figures(found)


@settings(deadline=None, max_examples=200)
@given(reference=TEXT, output=TEXT)
@example(reference=[[1, 2, 1]], output=[[2, 1, 2], [1, 1]])
@example(reference=[[], [1]], output=[[]])
def test_big_integers_count_what_rouge_score_counts(reference: Sentences, output: Sentences) -> None:
    ours = _rouge_counting._figures(np.array([count(list(filter(None, reference)), list(filter(None, output)))]))
    assert ours == [published(reference, output)]


@settings(deadline=None, max_examples=100)
@given(reference=LONG, output=LONG)
def test_tables_made_again_block_by_block_choose_the_same(reference: Sentences, output: Sentences) -> None:
    expected = count(reference, output)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rouge_counting, "KEPT_BITS", 700)
        assert count(reference, output) == expected


@settings(deadline=None, max_examples=100)
@given(one=st.lists(st.integers(0, 9), max_size=150), other=st.lists(st.integers(0, 9), max_size=150))
def test_the_longest_common_subsequence_is_as_long_without_rapidfuzz(one: list[int], other: list[int]) -> None:
    from rouge_score.rouge_scorer import _lcs_table

    expected = _lcs_table(one, other)[-1][-1]
    assert _rouge_counting.longest(one, other) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rouge_counting, "find_spec", lambda name: None)
        assert _rouge_counting.longest(one, other) == expected


@needs_numba
@settings(deadline=None, max_examples=150)
@given(cases=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
@example(cases=[([[1, 2, 1]], [[2, 1, 2], [1, 1]]), ([[], [1]], [[]])])
def test_the_kernel_counts_what_rouge_score_counts(cases: list[tuple[Sentences, Sentences]]) -> None:
    expected = [published(*case) for case in cases]
    assert compiled(cases) == expected
    assert compiled(cases, rows_kept=1) == expected, "with the least memory"


@needs_numba
def test_after_many_pairs_the_kernel_goes_on_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [
        Item(f"Row {n} rose by {n % 7}. It then fell.", tuple(f"Row {k} fell {k % 5}; it rose." for k in range(n % 3)))
        for n in range(300)
    ]
    monkeypatch.setattr(_rouge_counting, "_done", 0)
    expected = rouge.score(items, {})
    assert 0 < _rouge_counting._done < _rouge_counting.COMPILED_AFTER
    used: list[int] = []
    compiled_counts = _rouge_counting._compiled_counts
    monkeypatch.setattr(_rouge_counting, "_compiled_counts", lambda *given: used.append(1) or compiled_counts(*given))
    _rouge_counting.hasten()
    assert rouge.score(items, {}) == expected
    assert used


@pytest.fixture(params=["library", pytest.param("kernel", marks=needs_numba)])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(_rouge_counting, "_done", 10**9 if request.param == "kernel" else -(10**9))
    return str(request.param)


def figures(output: str, reference: str) -> tuple[float, ...]:
    found = rouge.score([Item(output, (reference,))], {})[0]
    return tuple(float(found[name]) for name in rouge.NAMES)  # type: ignore[arg-type]


@pytest.mark.usefixtures("means")
def test_twenty_thousand_equal_words_are_counted() -> None:
    found = figures("word " * 20_000, "word " * 10_000)
    assert found[1::3] == (0.5, 9_999 / 19_999, 0.5, 0.5)
    assert found[2::3] == (1.0, 1.0, 1.0, 1.0)


@pytest.mark.usefixtures("means")
def test_a_word_of_a_million_letters_is_one_word() -> None:
    word = "ab" * 500_000
    assert figures(f"{word} cats", f"{word} cats") == (1.0,) * 12
    assert figures(f"{word} cats", f"{word}x cats")[:3] == (0.5, 0.5, 0.5)


@pytest.mark.usefixtures("means")
def test_long_texts_get_the_numbers_of_the_library() -> None:
    from rouge_score_rs.rouge_scorer import RougeScorer

    rng = np.random.default_rng(3)
    prose, endless = (
        tuple(
            " ".join(f"w{n}{mark if k % 20 == 19 else ''}" for k, n in enumerate(rng.zipf(1.3, 1500) % 500))
            for _ in "ab"
        )
        for mark in (".", "")
    )
    scorer = RougeScorer(list(rouge.KINDS), use_stemmer=True)  # type: ignore[no-untyped-call]
    for reference, output in (prose, endless, (prose[0], endless[1])):
        lines = [text.replace(". ", ".\n") for text in (reference, output)]
        expected = scorer.score(*lines)
        assert figures(output, reference) == tuple(
            figure for kind in rouge.KINDS for figure in (expected[kind].fmeasure, *expected[kind][:2])
        )
