"""Texts as rows of numbers, one for every chunk (what stands between blanks), with the ends of their sentences.

Chunks recur: each is looked at once and numbered. A batch of texts is split, numbered and cut into sentences by a few
passes over the whole batch; no step of Python is taken for a chunk that is known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from itertools import chain, count, islice, pairwise
from threading import RLock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluations.metrics import _sentences as cutting

Codes = NDArray[np.int32]
"""A text: for every chunk twice its number, plus one if a sentence ends after it."""

K = TypeVar("K")

OF_A_BREAK = 250  # bytes of a remembered decision between two neighbours

_kernel: Any = None  # the module `_chunks_kernel`, once somebody has so much to read that loading it pays


def hasten() -> None:
    """Read with the compiled kernel from now on, where numba is installed."""
    global _kernel
    if _kernel is None and find_spec("numba"):
        from evaluations.metrics import _chunks_kernel

        _kernel = _chunks_kernel


class Numbers(defaultdict[K, int]):
    """{key: its number}: 0, 1, 2 … in the order in which keys are first asked for."""

    def __init__(self) -> None:
        super().__init__(count().__next__)

    def of(self, keys: Sequence[K]) -> NDArray[np.int32]:
        """The numbers of `keys`."""
        return np.fromiter(map(self.__getitem__, keys), np.int32, len(keys))

    def since(self, known: int) -> list[K]:
        """The keys beyond the first `known`, in order."""
        newest = list(islice(reversed(self), len(self) - known))
        newest.reverse()
        return newest


class Chunks:
    """Distinct chunks by number, and what they say about the sentences around them. Thread-safe.

    What else there is to know of new chunks is added by subclasses in `_learn`. `bytes` is about what all of it
    takes: whoever keeps one of these begins anew when that is too much.
    """

    of_a_chunk = 250  # bytes, besides its letters

    def __init__(self) -> None:
        self.numbers: Numbers[str] = Numbers()
        self.chunks: list[str] = []
        self.bytes = 0
        self._looks = bytearray()
        self._breaks: dict[tuple[int, int], bool] = {}
        self._table: Any = None  # of the kernel
        self._lock = RLock()

    def _learn(self, fresh: list[str]) -> None:
        """Get to know chunks that are met for the first time; called under the lock.

        A time limit may interrupt it anywhere: then it is called again, with the same chunks and perhaps more.
        """

    def coded(self, texts: Sequence[str], split: str) -> list[Codes]:
        """The texts in numbers. `split` is "punkt", or "newline" where every line is a sentence."""
        with self._lock:
            by_lines = split == "newline"
            found = self._by_lines(texts) if by_lines else self.easily_coded(texts)
            hard = [place for place, codes in enumerate(found) if codes is None]
            cut = _lines if by_lines else cutting.sentences_of_chunks
            for place, codes in zip(hard, self._of_sentences(cut(texts[place]) for place in hard), strict=True):
                found[place] = codes
            return [codes for codes in found if codes is not None]

    def easily_coded(self, texts: Sequence[str]) -> list[Codes | None]:
        """The texts in numbers with Punkt's sentences; None for a text that has odd blanks or that it has to scan."""
        with self._lock:
            numbers, stops, odd = self._parted(texts)
            self._looks += cutting.looks(self.chunks[len(self._looks) :])
            looks = np.frombuffer(bytes(self._looks), np.uint8)[numbers]
            last = stops[1:][np.diff(stops) > 0] - 1
            ends = (looks & cutting.ENDS).astype(np.int32)
            asks = (looks & cutting.ASKS) > 0
            asks[last] = False
            for place in np.flatnonzero(asks).tolist():
                ends[place] = self._breaks_between(int(numbers[place]), int(numbers[place + 1]))
            ends[last] = 1
            hard = np.searchsorted(stops, np.flatnonzero(looks & cutting.HARD), side="right") - 1
            return _parts(2 * numbers + ends, stops, {*hard.tolist(), *odd})

    def _by_lines(self, texts: Sequence[str]) -> list[Codes | None]:
        """The texts in numbers, every line being a sentence; None for a text that has odd blanks."""
        lines = [text.split("\n") for text in texts]
        numbers, stops, odd = self._parted(list(chain.from_iterable(lines)))
        codes = 2 * numbers
        codes[stops[1:][np.diff(stops) > 0] - 1] += 1
        first = np.cumsum([0, *map(len, lines)])
        hard = np.searchsorted(first, odd, side="right") - 1
        return _parts(codes, stops[first], set(hard.tolist()))

    def _parted(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64], list[int]]:
        """(numbers, stops, odd): text t has numbers[stops[t]:stops[t + 1]], none where it is among the odd ones."""
        return self._scanned(texts) if _kernel else self._split(texts)

    def _split(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64], list[int]]:
        flat: list[str] = []
        stops, odd = [0], []
        for place, text in enumerate(texts):
            if cutting.has_odd_blanks(text):
                odd.append(place)
            else:
                flat += text.split()
            stops.append(len(flat))
        return self._numbered(flat), np.array(stops, np.int64), odd

    def _scanned(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64], list[int]]:
        assert _kernel
        if self._table is None:
            self._table = _kernel.Table()
        self._table.learn(self.chunks)
        numbers, unknown, stops, odd = self._table.scan(texts)
        if unknown:
            places = np.flatnonzero(numbers < 0)
            numbers[places] = self._numbered(unknown)[-1 - numbers[places]]
        return numbers, stops, np.flatnonzero(odd).tolist()

    def _numbered(self, chunks: list[str]) -> NDArray[np.int32]:
        numbers = self.numbers.of(chunks)
        fresh = self.numbers.since(len(self.chunks))
        if fresh:
            self._learn(fresh)
            self.chunks += fresh
            self.bytes += self.of_a_chunk * len(fresh) + 2 * sum(map(len, fresh))
        return numbers

    def _of_sentences(self, texts: Iterable[Iterable[list[str]]]) -> list[Codes]:
        """The codes of texts of which the chunks of every sentence are known."""
        flat: list[str] = []
        stops, ends = [0], []
        for sentences in texts:
            for chunks in filter(None, sentences):
                flat += chunks
                ends.append(len(flat) - 1)
            stops.append(len(flat))
        codes = 2 * self._numbered(flat)
        codes[np.array(ends, np.int64)] += 1
        return [codes[start:stop] for start, stop in pairwise(stops)]

    def _breaks_between(self, first: int, second: int) -> bool:
        key = (first, second)
        if key not in self._breaks:
            self._breaks[key] = cutting.breaks(self.chunks[first], self.chunks[second])
            self.bytes += OF_A_BREAK
        return self._breaks[key]


def _lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.split("\n")]


def _parts(codes: Codes, stops: NDArray[np.int64], hard: set[int]) -> list[Codes | None]:
    """The codes of every text, None for the hard ones."""
    found: list[Codes | None] = [codes[start:stop] for start, stop in pairwise(stops.tolist())]
    for place in hard:
        found[place] = None
    return found


def joined(parts: Iterable[NDArray[np.int32]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows of numbers one after the other, and where each begins: row r is at bounds[r]:bounds[r + 1]."""
    rows = list(parts)
    bounds = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=bounds[1:])
    return np.concatenate([np.zeros(0, np.int32), *rows]), bounds


def spread(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """starts[0], starts[0] + 1 … counts[0] of them, then those from starts[1] on, and so forth."""
    before = np.cumsum(counts) - counts
    places: NDArray[np.int64] = np.repeat(starts - before, counts) + np.arange(int(counts.sum()))
    return places
