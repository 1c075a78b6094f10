"""Duplicates finds texts that occur again: the same but for white space, and nearly the same.

Pure. Near duplicates are found by minimum hashes of their runs of five words in bands (Broder 1997; one permutation
for all: Li, Owen & Zhang 2012), and counted only where the runs themselves show a Jaccard similarity of 0.8 or more.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets_app.copying import UNSPACED_WORD

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]

SIMILAR = 0.8
RUN = 5  # words
BANDS, IN_BAND = 8, 4  # two texts of similarity 0.8 meet in a band with probability .985, of 0.9 with .9999
BINS = BANDS * IN_BAND
EMPTY = np.uint32(0xFFFFFFFF)
LOOKED_BACK = 4  # earlier texts in the same band that one is compared with
TRIED = 2  # of them, the likeliest, whose runs are really compared
LIKELY = 0.5  # the least share of equal minimum hashes for that

LONGEST = 100_000  # characters of a text that are looked at
BATCH = 1 << 16  # characters that are hashed together: a text of 200 words takes numpy 20 µs in company, 150 alone
KEPT_RUNS = 1 << 23  # 32 MiB of 4 bytes
OVERHEAD = 64  # runs that could be kept in the memory that Python takes for a text besides its runs
ODD = np.uint64(0x9E3779B97F4A7C15)


def text_hash(text: str) -> int:
    """64 bits of a text whose white space is normalised; never 0. Two of a million texts share one by chance in 3 of
    100 million datasets."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def repeated(hashes: array[int]) -> tuple[Rows, Rows]:
    """(rows whose hash an earlier row has, ascending; the first row that has it)."""
    values = np.frombuffer(hashes, dtype=np.uint64) if hashes else np.empty(0, np.uint64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]
    firsts = order[begins][np.cumsum(begins) - 1] if len(order) else order
    later, of = order[~begins], firsts[~begins]
    ascending = np.argsort(later)
    return later[ascending], of[ascending]


class Near(NamedTuple):
    """A row that is nearly the text of an earlier one: their similarity is 0.8 to 1."""

    row: int
    of: int
    similarity: float


class NearDuplicates:
    """Add every text; then ask for `found`. Memory: 32 MiB of runs at most, and some 20 MiB while hashing.

    Where the runs do not fit (above some 32,000 texts of 200 words), only texts whose smallest hash lies in a half, a
    quarter … of the range are kept. Near duplicates mostly have the same smallest hash and so are kept together: the
    share found among the texts kept is that of all texts, or a little less.
    """

    def __init__(self, kept_runs: int = KEPT_RUNS, batch: int = BATCH) -> None:
        self.kept_runs, self.batch = kept_runs, batch
        self.halvings = 0
        self.n_kept_runs = 0
        self._waiting: list[tuple[int, str]] = []
        self._size = 0
        self._kept: list[tuple[int, int, NDArray[np.uint32]]] = []  # (row, key of the sample, runs)

    def add(self, index: int, text: str, n_words: int) -> None:
        """A text whose white space is normalised. One of fewer than five words has no run and is left out."""
        text = text[:LONGEST]
        if len(text) > 15 * n_words and not text.isascii():
            parts = UNSPACED_WORD.sub(r" \g<0> ", text).split()
            text, n_words = " ".join(parts), len(parts)
        if n_words < RUN:
            return
        self._waiting.append((index, text))
        self._size += len(text)
        if self._size >= self.batch:
            self._hash()

    @property
    def is_sample(self) -> bool:
        return self.halvings > 0

    def found(self) -> tuple[int, list[Near]]:
        """(how many texts were looked at, those that are nearly the text of an earlier one, by row)."""
        self._hash()
        if not self._kept:
            return 0, []
        rows = np.array([row for row, _, _ in self._kept])
        runs = [values for _, _, values in self._kept]
        signatures = _signatures(runs)
        return len(rows), list(_verified(rows, runs, signatures))

    def _hash(self) -> None:
        """Turn the waiting texts into runs, and make room when there are too many."""
        if not self._waiting:
            return
        hashes, sizes = run_hashes([text for _, text in self._waiting])
        ends = np.cumsum(sizes)
        least = [hashes[end - size : end].min() if size else 0 for end, size in zip(ends, sizes, strict=True)]
        keys = _mixed(np.array(least, dtype=np.uint64) * ODD + ODD).tolist()
        for (row, _), key, end, size in zip(self._waiting, keys, ends.tolist(), sizes.tolist(), strict=True):
            mine = hashes[end - size : end]
            if not size:
                continue
            if not key >> (64 - self.halvings):
                self._kept.append((row, key, (mine >> np.uint64(32)).astype(np.uint32)))
                self.n_kept_runs += size + OVERHEAD
        self._waiting, self._size = [], 0
        while self.n_kept_runs > self.kept_runs and len(self._kept) > 1:
            self.halvings += 1
            self._kept = [one for one in self._kept if not one[1] >> (64 - self.halvings)]
            self.n_kept_runs = sum(len(values) + OVERHEAD for _, _, values in self._kept)


_powers: list[Hashes] = []


def _tables(size: int) -> tuple[Hashes, Hashes]:
    """Powers of an odd number modulo 2^64, and of its inverse, at least `size` of each."""
    if not _powers or len(_powers[0]) < size:
        inverse = np.uint64(pow(int(ODD), -1, 1 << 64))
        whole = max(size, 2 * BATCH)
        _powers[:] = [np.cumprod(np.full(whole, base), dtype=np.uint64) for base in (ODD, inverse)]
    return _powers[0], _powers[1]


def run_hashes(texts: list[str]) -> tuple[Hashes, Rows]:
    """(64-bit hashes of all runs of five words, text after text; how many each text has).

    Words are what blanks part, casefolded. All texts are hashed at once: the hash of a word is a difference of two
    prefix sums of bytes times powers, shifted to the place of the word by the inverse power.
    """
    data = "\n".join(texts).casefold().encode("utf-8", "surrogatepass") + b"\n"
    letters = np.frombuffer(data, dtype=np.uint8)
    powers, inverses = _tables(len(letters) + 1)
    ends = np.flatnonzero((letters == 32) | (letters == 10))
    starts = np.concatenate([[0], ends[:-1] + 1])
    sums = np.concatenate(
        [np.zeros(1, np.uint64), np.cumsum((letters.astype(np.uint64) + ODD) * powers[: len(letters)])]
    )
    word = _mixed((sums[ends] - sums[starts]) * inverses[starts])
    last = np.flatnonzero(letters[ends] == 10)
    n_words = np.diff(last, prepend=-1)
    text_of_word = np.repeat(np.arange(len(texts)), n_words)
    if len(word) < RUN:
        return np.empty(0, np.uint64), np.zeros(len(texts), np.int64)
    n = len(word) - RUN + 1
    run = np.zeros(n, np.uint64)
    for place in range(RUN):
        run = run * ODD + word[place : place + n]
    whole = text_of_word[:n] == text_of_word[RUN - 1 :]
    return _mixed(run[whole]), np.maximum(n_words - RUN + 1, 0)


def _mixed(values: Hashes) -> Hashes:
    """The finishing of splitmix64: every bit of the input changes half of the bits of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _signatures(runs: list[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    """One row of 32 minimum hashes a text; EMPTY where no run of the text falls into the bin."""
    table = np.full((len(runs), BINS), EMPTY, dtype=np.uint32)
    start = 0
    while start < len(runs):
        end, size = start, 0
        while end < len(runs) and (not size or size + len(runs[end]) <= 1 << 20):
            size += len(runs[end])
            end += 1
        values = np.concatenate(runs[start:end])
        owners = np.repeat(np.arange(end - start), [len(one) for one in runs[start:end]])
        place = owners * BINS + (values & np.uint32(BINS - 1)).astype(np.int64)
        np.minimum.at(table[start:end].reshape(-1), place, values)
        start = end
    return table


def _verified(rows: Rows, runs: list[NDArray[np.uint32]], signatures: NDArray[np.uint32]) -> list[Near]:
    """For every text the most similar of its likely earlier ones, where that reaches 0.8."""
    found = []
    for place, earlier in _candidates(signatures):
        best, similarity = -1, 0.0
        for other in earlier:
            value = jaccard(runs[place], runs[other])
            if value > similarity:
                best, similarity = other, value
        if similarity >= SIMILAR:
            found.append(Near(int(rows[place]), int(rows[best]), round(similarity, 3)))
    return found


def _candidates(signatures: NDArray[np.uint32]) -> list[tuple[int, list[int]]]:
    """[(a text, at most two earlier texts)], by text: those that share a band, the likeliest first."""
    laters, earliers = [], []
    for band in range(BANDS):
        part = signatures[:, band * IN_BAND : (band + 1) * IN_BAND]
        mixed = np.zeros(len(part), np.uint64)
        for column in range(IN_BAND):
            mixed = _mixed(mixed + part[:, column].astype(np.uint64) + ODD)
        filled = np.flatnonzero((part != EMPTY).any(axis=1))
        order = filled[np.argsort(mixed[filled], kind="stable")]
        keys = mixed[order]
        for back in range(1, LOOKED_BACK + 1):
            same = np.flatnonzero(keys[back:] == keys[:-back])
            laters.append(order[same + back])
            earliers.append(order[same])
    pairs = np.unique(np.stack([np.concatenate(laters), np.concatenate(earliers)], axis=1), axis=0)
    likeness = np.empty(len(pairs))
    for start in range(0, len(pairs), 1 << 16):
        left, right = (signatures[pairs[start : start + (1 << 16), side]] for side in (0, 1))
        used = (left != EMPTY) | (right != EMPTY)
        likeness[start : start + (1 << 16)] = ((left == right) & used).sum(axis=1) / used.sum(axis=1)
    likely = likeness >= LIKELY
    pairs, likeness = pairs[likely], likeness[likely]
    chosen: dict[int, list[int]] = {}
    for at in np.lexsort((pairs[:, 1], -likeness, pairs[:, 0])):
        later, earlier = pairs[at].tolist()
        if len(mine := chosen.setdefault(later, [])) < TRIED:
            mine.append(earlier)
    return list(chosen.items())


def jaccard(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    """The share of the different runs of both that both have, 0 to 1."""
    mine, theirs = np.unique(one), np.unique(other)
    both = len(np.intersect1d(mine, theirs, assume_unique=True))
    return both / (len(mine) + len(theirs) - both)
