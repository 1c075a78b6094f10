"""Texts become the same numbers with the compiled kernel and without, in any alphabet and with any blanks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evaluations.metrics import _chunks
from evaluations.metrics import _sentences as cutting
from evaluations.metrics._chunks import Chunks
from evaluations.tests.oracles import TEXTS, stock_punkt

needs_numba = pytest.mark.skipif(not find_spec("numba"), reason="the `fast` extra is not installed")

BLANKS = "\t\n\x0b\x0c\r \x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2005\u200a\u200b\u2028\u2029\u202f\u205f\u3000"
ODDITIES = st.text(st.sampled_from(BLANKS + "aé€😀\ud800\udfff.\x00\x7f\u20ac\u00c2"), max_size=12)


either_way = pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_numba)])


@contextmanager
def reading(compiled: bool) -> Iterator[Chunks]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chunks, "_kernel", None)
        if compiled:
            _chunks.hasten()
        yield Chunks()


def told(chunks: Chunks, texts: list[str], split: str) -> list[list[tuple[str, bool]]]:
    """The chunks of every text, and whether a sentence ends after each."""
    return [[(chunks.chunks[code >> 1], bool(code & 1)) for code in one.tolist()] for one in chunks.coded(texts, split)]


def expected(sentences: list[str]) -> list[tuple[str, bool]]:
    rows = [sentence.split() for sentence in sentences]
    return [(chunk, place == len(row) - 1) for row in rows for place, chunk in enumerate(row)]


@either_way
@settings(deadline=None, max_examples=150)
@given(batches=st.lists(st.lists(TEXTS | ODDITIES, max_size=4), min_size=1, max_size=3))
@example(batches=[["", " ", "a\u2028b c"], ["a b", "a\x1cb", "\ud800", "\udfff a"]])
def test_chunks_and_ends_are_those_of_split_and_punkt(batches: list[list[str]], compiled: bool) -> None:
    with reading(compiled) as chunks:
        for texts in batches:
            assert told(chunks, texts, "newline") == [expected(text.split("\n")) for text in texts]
            assert told(chunks, texts, "punkt") == [expected(stock_punkt().tokenize(text)) for text in texts]
    assert len(set(chunks.chunks)) == len(chunks.chunks)


@either_way
def test_thousands_of_words_keep_their_numbers(compiled: bool) -> None:
    texts = [" ".join(f"w{n * k}" for k in range(60)) for n in range(500)]
    with reading(compiled) as chunks:
        parts = [chunks.coded(texts[start : start + 50], "newline") for start in range(0, 500, 50)]
        once = [one.tolist() for part in parts for one in part]
        assert [one.tolist() for one in chunks.coded(texts, "newline")] == once
    assert [[chunks.chunks[code >> 1] for code in one] for one in once] == [text.split() for text in texts]


@needs_numba
def test_what_was_read_before_is_known_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_chunks, "_kernel", None)
    chunks, texts = Chunks(), ["Cats purr. Dogs bark.", "é cats"]
    before = [one.tolist() for one in chunks.coded(texts, "punkt")]
    _chunks.hasten()
    assert [one.tolist() for one in chunks.coded(texts, "punkt")] == before
    assert chunks.chunks == ["Cats", "purr.", "Dogs", "bark.", "é", "cats"]


@settings(deadline=None, max_examples=200)
@given(text=TEXTS)
@example(text="Mr. St. end. J. U.S. what? 3. word, x")
def test_many_looks_are_the_looks_of_each(text: str) -> None:
    assert list(cutting.looks(text.split())) == [cutting._look(chunk) for chunk in text.split()]
