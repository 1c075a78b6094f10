"""What ROUGE reads: the stems of every distinct chunk, found once, and texts as rows of chunk numbers.

A chunk is what stands between blanks. `rouge-score` makes a text lower case, parts it at everything that is not a–z
or 0–9, and stems words of more than three letters: all of it within a chunk, so chunks can be remembered.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluations.metrics import _sentences as cutting
from evaluations.metrics._remembering import Memory

REMEMBERED_BYTES = 48 * 2**20  # of references
FULL = 40 * 2**20  # bytes of chunks, about 100,000 of them; then a new vocabulary begins
OF_A_CHUNK = 400  # bytes, besides its letters


class Read(NamedTuple):
    """A text: for every chunk twice its number, plus one if a sentence ends after it; and how many stems it has."""

    codes: NDArray[np.int32]
    size: int


class _Numbers(dict[str, int]):
    """{chunk: its number}, which learns a chunk when it is first asked for."""

    def __init__(self, learn: Callable[[str], int]) -> None:
        self.learn = learn

    def __missing__(self, chunk: str) -> int:
        return self.learn(chunk)


class Vocabulary:
    """Chunks by number: their stems, and what they say about the sentences around them. Thread-safe."""

    def __init__(self, stemmer: bool) -> None:
        self.tokenize = _tokenizer(stemmer)
        self.numbers = _Numbers(self._learn)
        self.chunks: list[str] = []
        self.looks = bytearray()
        self.lines: list[str] = []  # by code: the stems of a chunk, then a blank or a line end
        self.names: dict[str, int] = {}  # stem: its number
        self.starts, self.stems = array("i", [0]), array("i")
        self.bytes = 0
        self.references: Memory[Read] = Memory(REMEMBERED_BYTES)
        self._breaks: dict[tuple[int, int], bool] = {}
        self._lock = Lock()

    @property
    def is_full(self) -> bool:
        return self.bytes > FULL

    def _learn(self, chunk: str) -> int:
        found = self.tokenize(chunk)
        look = cutting.look(chunk)
        with self._lock:
            if chunk in self.numbers:  # another thread was faster
                return self.numbers[chunk]
            number = len(self.chunks)
            self.chunks.append(chunk)
            self.looks.append(look)
            line = " ".join(found)
            self.lines += (f"{line} ", f"{line}\n")
            self.stems.extend([self.names.setdefault(stem, len(self.names)) for stem in found])
            self.starts.append(len(self.stems))
            self.bytes += OF_A_CHUNK + 6 * len(chunk)
            self.numbers[chunk] = number
        return number

    def tables(self) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
        """(starts, stems, number of distinct stems): chunk c has the stems stems[starts[c]:starts[c + 1]]."""
        with self._lock:
            return np.array(self.starts, np.int32), np.array(self.stems, np.int32), len(self.names)

    def sentences(self, read: Read) -> list[list[int]]:
        """The stems of every sentence of a text, by number; sentences without any are left out."""
        found: list[list[int]] = []
        current: list[int] = []
        for code in read.codes.tolist():
            chunk = code >> 1
            current += self.stems[self.starts[chunk] : self.starts[chunk + 1]]
            if code & 1:
                found.append(current)
                current = []
        return [sentence for sentence in (*found, current) if sentence]

    def line_by_line(self, read: Read) -> str:
        """The stems of a text, one sentence a line."""
        return "".join(map(self.lines.__getitem__, read.codes.tolist()))

    def read(self, texts: Sequence[str], split: str) -> list[Read]:
        """The texts in numbers. `split` is "punkt", or "newline" where every line is a sentence."""
        codes: dict[int, NDArray[np.int32]] = {}
        easy: list[int] = []
        flat, ends = array("i"), []
        for place, text in enumerate(texts):
            if split == "newline":
                codes[place] = self._coded([line.split() for line in text.split("\n")])
            elif cutting.has_odd_blanks(text):
                codes[place] = self._coded(cutting.sentences_of_chunks(text))
            else:
                flat.extend(map(self.numbers.__getitem__, text.split()))
                easy.append(place)
                ends.append(len(flat))
        if easy:
            numbers, stops = np.array(flat, np.int32), np.array(ends)
            hard = self._ends(numbers, stops)
            starts = [0, *ends[:-1]]
            for rank, place in enumerate(easy):
                if rank in hard:
                    codes[place] = self._coded(cutting.sentences_of_chunks(texts[place]))
                else:
                    codes[place] = numbers[starts[rank] : ends[rank]]
        return self._sized([codes[place] for place in range(len(texts))])

    def _ends(self, numbers: NDArray[np.int32], stops: NDArray[np.int64]) -> set[int]:
        """Turn `numbers` into codes, in place. Returns the texts that Punkt has to scan, by rank.

        The texts lie one after the other and end at `stops`. Whether a sentence ends after the last chunk of a text
        makes no difference.
        """
        looks = np.frombuffer(bytes(self.looks), np.uint8)[numbers]
        hard = set(np.searchsorted(stops, np.flatnonzero(looks & cutting.HARD), side="right").tolist())
        ends = (looks & cutting.ENDS).astype(np.int32)
        for place in np.flatnonzero(looks[:-1] & cutting.ASKS).tolist():
            ends[place] = self._breaks_between(int(numbers[place]), int(numbers[place + 1]))
        numbers *= 2
        numbers += ends
        return hard

    def _breaks_between(self, first: int, second: int) -> bool:
        key = (first, second)
        if key not in self._breaks:
            self._breaks[key] = cutting.breaks(self.chunks[first], self.chunks[second])
            self.bytes += 200
        return self._breaks[key]

    def _coded(self, sentences: list[list[str]]) -> NDArray[np.int32]:
        codes: list[int] = []
        for chunks in filter(None, sentences):
            codes += [2 * self.numbers[chunk] for chunk in chunks]
            codes[-1] += 1
        return np.array(codes, np.int32)

    def _sized(self, codes: list[NDArray[np.int32]]) -> list[Read]:
        starts, _, _ = self.tables()
        lengths = np.cumsum([0, *map(len, codes)])
        chunks = np.concatenate([np.zeros(0, np.int32), *codes]) >> 1
        sizes = np.concatenate([[0], np.cumsum((starts[1:] - starts[:-1])[chunks])])[lengths]
        return [Read(one, size) for one, size in zip(codes, np.diff(sizes).tolist(), strict=True)]


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
