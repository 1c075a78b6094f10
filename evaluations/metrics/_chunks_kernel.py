"""Numbering the chunks of texts in compiled loops over their bytes: what the `fast` extra (numba) adds to `_chunks`.

A table of hashes finds the number of every known chunk; the bytes are compared, too, so that no collision of hashes
goes unseen. Compiling takes a few seconds, once per installation: numba keeps the result beside this file, or in the
user's cache directory (`NUMBA_CACHE_DIR` names another) when the package is read-only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

BASIS, PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, 64 bits
HALF = np.uint64(32)
LOW = np.uint64(0xFFFFFFFF)
RECENT = 1 << 15  # places for unknown chunks met in one batch; a clash costs only a second look at the dictionary


def _compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled on its first call and kept on disk, where any place for that is writable."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "no locator available": nothing is writable
        return numba.njit(nogil=True)(function)


@_compiled
def _is_odd(data: Any, at: Any, stop: Any) -> Any:
    """Whether a blank begins here that is none of ASCII's (U+0085, U+00A0, U+1680, U+2000 …), in UTF-8."""
    first = data[at]
    if first == 0xC2 and at + 1 < stop:
        return data[at + 1] == 0x85 or data[at + 1] == 0xA0
    if at + 2 >= stop:
        return False
    second, third = data[at + 1], data[at + 2]
    if first == 0xE2 and second == 0x80:
        return third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF
    return (
        (first == 0xE1 and second == 0x9A and third == 0x80)
        or (first == 0xE2 and second == 0x81 and third == 0x9F)
        or (first == 0xE3 and second == 0x80 and third == 0x80)
    )


@_compiled
def _equal(one: Any, first: Any, last: Any, other: Any, begin: Any, stop: Any) -> Any:
    if last - first != stop - begin:
        return False
    for step in range(stop - begin):  # noqa: SIM110 – numba compiles no generator
        if one[first + step] != other[begin + step]:
            return False
    return True


@_compiled
def _slot(data: Any, begin: Any, stop: Any, hashed: Any, table: Any, pool: Any, starts: Any) -> Any:
    """Where the chunk data[begin:stop] stands in the table, or the empty place where it would.

    An entry is one more than the number of a chunk, above it half of its hash; 0 is empty.
    """
    mask = len(table) - 1
    place = np.int64((hashed ^ (hashed >> HALF)) & np.uint64(mask))
    while table[place]:
        if table[place] >> HALF == hashed >> HALF:
            number = np.int64(table[place] & LOW) - 1
            if _equal(pool, starts[number], starts[number + 1], data, begin, stop):
                return place
        place = (place + 1) & mask
    return place


@_compiled
def _scan(data: Any, bounds: Any, table: Any, pool: Any, starts: Any) -> Any:
    """(numbers of all chunks, begins and ends of the unknown ones, where each text stops, whether each is odd).

    The unknown chunk of rank r has the number -1 - r. Most of those that recur have one rank: they are sought where
    their hash was met last.
    """
    room = len(data) // 2 + len(bounds)
    numbers, begins, ends = np.empty(room, np.int32), np.empty(room, np.int64), np.empty(room, np.int64)
    stops, odd = np.zeros(len(bounds), np.int64), np.zeros(len(bounds) - 1, np.bool_)
    met = np.full(RECENT, -1, np.int32)
    count = unknown = 0
    for text in range(len(bounds) - 1):
        at, stop = bounds[text], bounds[text + 1]
        first = count
        while at < stop:
            while at < stop and (data[at] == 32 or 9 <= data[at] <= 13):
                at += 1
            begin, hashed = at, BASIS
            while at < stop and data[at] != 32 and not 9 <= data[at] <= 13:
                byte = data[at]
                if 28 <= byte <= 31 or (byte >= 0xC2 and _is_odd(data, at, stop)):
                    odd[text] = True
                hashed = (hashed ^ np.uint64(byte)) * PRIME
                at += 1
            if at == begin:
                continue
            number = np.int64(table[_slot(data, begin, at, hashed, table, pool, starts)] & LOW) - 1
            if number < 0:
                place = np.int64((hashed ^ (hashed >> HALF)) & np.uint64(RECENT - 1))
                rank = met[place]
                if rank < 0 or not _equal(data, begins[rank], ends[rank], data, begin, at):
                    rank = met[place] = unknown
                    begins[unknown], ends[unknown] = begin, at
                    unknown += 1
                number = -1 - rank
            numbers[count] = number
            count += 1
        if odd[text]:
            count = first
        stops[text + 1] = count
    return numbers[:count], begins[:unknown], ends[:unknown], stops, odd


@_compiled
def _insert(first: Any, stop: Any, table: Any, pool: Any, starts: Any) -> None:
    for number in range(first, stop):
        begin, end = starts[number], starts[number + 1]
        hashed = BASIS
        for at in range(begin, end):
            hashed = (hashed ^ np.uint64(pool[at])) * PRIME
        place = _slot(pool, begin, end, hashed, table, pool, starts)
        table[place] = (hashed & ~LOW) | np.uint64(number + 1)


class Table:
    """The numbers of known chunks. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._known = 0
        self._pool, self._starts = np.zeros(0, np.uint8), np.zeros(1, np.int32)
        self._table = np.zeros(2, np.uint64)

    def learn(self, chunks: Sequence[str]) -> None:
        """Know all of `chunks`, whose places in the list are their numbers; those known before come first again."""
        if self._known == len(chunks):
            return
        data, sizes = _laid_out(chunks[self._known :])
        known = self._starts[: self._known + 1]
        self._pool = np.concatenate([self._pool[: known[-1]], data])
        self._starts = np.concatenate([known, known[-1] + np.cumsum(sizes, dtype=np.int32)])
        first = self._known
        if 2 * len(chunks) > len(self._table):
            self._table = np.zeros(1 << (2 * len(chunks)).bit_length(), np.uint64)
            first = 0
        _insert(first, len(chunks), self._table, self._pool, self._starts)
        self._known = len(chunks)

    def scan(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], list[str], NDArray[np.int64], NDArray[np.bool_]]:
        """(numbers, unknown, stops, odd): the number of every chunk, -1 - r for the one at `unknown[r]`.

        Text t has numbers[stops[t]:stops[t + 1]]; none where it is odd, as it has a blank that Punkt takes for none.
        """
        data, sizes = _laid_out(texts)
        bounds = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=bounds[1:])
        numbers, begins, ends, stops, odd = _scan(data, bounds, self._table, self._pool, self._starts)
        letters, places = data.tobytes(), zip(begins.tolist(), ends.tolist(), strict=True)
        return numbers, [str(letters[begin:end], "utf-8", "surrogatepass") for begin, end in places], stops, odd


def _laid_out(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(all texts one after the other, the size of each) in bytes of UTF-8, where lone surrogates have a place, too."""
    together = "".join(texts)
    parts = texts if together.isascii() else [text.encode("utf-8", "surrogatepass") for text in texts]
    sizes = np.fromiter(map(len, parts), np.int64, len(parts))
    return np.frombuffer(together.encode("utf-8", "surrogatepass"), np.uint8), sizes
