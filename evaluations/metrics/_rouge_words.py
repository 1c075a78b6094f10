"""What ROUGE reads: the stems of every distinct chunk, found once, and texts as rows of chunk numbers.

A chunk is what stands between blanks. `rouge-score` makes a text lower case, parts it at everything that is not a–z
or 0–9, and stems words of more than three letters: all of it within a chunk, so chunks can be remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluations.metrics._chunks import Chunks, Codes, Numbers, joined
from evaluations.metrics._remembering import Memory

REMEMBERED_BYTES = 24 * 2**20  # of references
FULL = 40 * 2**20  # bytes of chunks and words, about 80,000 chunks; then a new vocabulary begins
OF_A_WORD = 250  # bytes, besides its letters
WORDS = re.compile("[a-z0-9]+|\n")


class Read(NamedTuple):
    """A text, and how many stems it has."""

    codes: Codes
    size: int


class Vocabulary(Chunks):
    """Chunks by number, and their stems. Thread-safe."""

    of_a_chunk = 350

    def __init__(self, stemmer: bool) -> None:
        super().__init__()
        self.tokenize = _tokenizer(stemmer)
        self.references: Memory[Read] = Memory(REMEMBERED_BYTES)
        self._words: Numbers[str] = Numbers()
        self._stem_of = np.zeros(1, np.int32)  # by word; the first is no word but the end of a chunk
        self._words["\n"]
        self._names: Numbers[str] = Numbers()  # of stems
        self._starts, self._stems = np.zeros(1, np.int32), np.zeros(0, np.int32)
        self._lines: list[str] = []  # by code: the stems of a chunk, then a blank or a line end

    @property
    def is_full(self) -> bool:
        return self.bytes > FULL

    def _learn(self, fresh: list[str]) -> None:
        found = WORDS.findall("\n".join([*fresh, ""]).lower())
        words = self._words.of(found)
        new = self._words.since(len(self._stem_of))
        if new:
            stems = self._names.of(self._stemmed(new))
            self._stem_of = np.concatenate([self._stem_of, stems])
            self.bytes += OF_A_WORD * len(new) + 2 * sum(map(len, new))
        ends = np.flatnonzero(words == 0)
        known = self._starts[: len(self.chunks) + 1]
        starts = ends - np.arange(len(ends)) + known[-1]  # where the stems of the next chunk begin
        self._stems = np.concatenate([self._stems[: known[-1]], self._stem_of[words[words > 0]]])
        self._starts = np.concatenate([known, starts.astype(np.int32)])

    def _stemmed(self, words: list[str]) -> list[str]:
        """One stem for every word, all of them in one call. No stem is empty: a word keeps a letter at least."""
        stems = self.tokenize(" ".join(words))
        if len(stems) != len(words):
            raise ValueError(f"the tokenizer of ROUGE made {len(stems)} stems of {len(words)} words: reinstall it")
        return stems

    def tables(self) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
        """(starts, stems, number of distinct stems): chunk c has the stems stems[starts[c]:starts[c + 1]]."""
        with self._lock:
            return self._starts, self._stems, len(self._names)

    def sentences(self, read: Read) -> list[list[int]]:
        """The stems of every sentence of a text, by number; sentences without any are left out."""
        starts, stems, _ = self.tables()
        chunks = read.codes >> 1
        found: list[list[int]] = []
        current: list[int] = []
        rows = zip(read.codes.tolist(), starts[chunks].tolist(), starts[chunks + 1].tolist(), strict=True)
        for code, start, stop in rows:
            current += stems[start:stop].tolist()
            if code & 1:
                found.append(current)
                current = []
        return [sentence for sentence in (*found, current) if sentence]

    def line_by_line(self, read: Read) -> str:
        """The stems of a text, one sentence a line."""
        if 2 * len(self.chunks) > len(self._lines):
            self._line_up()
        return "".join(map(self._lines.__getitem__, read.codes.tolist()))

    def _line_up(self) -> None:
        with self._lock:
            first = len(self._lines) // 2
            names = list(self._names)
            starts = self._starts[first : len(self.chunks) + 1].tolist()
            stems = list(map(names.__getitem__, self._stems[starts[0] : starts[-1]].tolist()))
            for start, stop in pairwise(starts):
                line = " ".join(stems[start - starts[0] : stop - starts[0]])
                self._lines += (f"{line} ", f"{line}\n")

    def read(self, texts: Sequence[str], split: str) -> list[Read]:
        """The texts in numbers. `split` is "punkt", or "newline" where every line is a sentence."""
        codes = self.coded(texts, split)
        starts, _, _ = self.tables()
        flat, bounds = joined(codes)
        chunks = flat >> 1
        sizes = np.zeros(len(chunks) + 1, np.int64)
        np.cumsum(starts[chunks + 1] - starts[chunks], out=sizes[1:])
        return list(map(Read, codes, np.diff(sizes[bounds]).tolist()))


_current: dict[bool, Vocabulary] = {}


def vocabulary(stemmer: bool) -> Vocabulary:
    """The vocabulary of this process. It is replaced, with the references read by it, once it is full."""
    found = _current.get(stemmer)
    if found is None or found.is_full:
        found = _current[stemmer] = Vocabulary(stemmer)
    return found


@cache
def _tokenizer(stemmer: bool) -> Callable[[str], list[str]]:
    """rouge-score's tokenizer: the compiled one, or itself where that has no wheel."""
    if find_spec("rouge_score_rs"):
        from rouge_score_rs.tokenizers import DefaultTokenizer as Compiled

        return Compiled(use_stemmer=stemmer).tokenize  # type: ignore[no-untyped-call]
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=stemmer).tokenize
