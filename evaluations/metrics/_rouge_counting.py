"""The numbers of ROUGE for pairs of texts, by the fastest means that are installed and pay; always the same bits.

* Pairs go to `rouge-score-rs`, their words stemmed already: stemming is two thirds of its time.
* Pairs with long sentences go to big integers, as its tables for ROUGE-Lsum take time and memory by the product of
  two sentences: here a row of the table of Lin's definition is one integer with a bit for every column (Hyyrö 2004,
  "Bit-parallel LCS-length computation revisited"). So does everything where `rouge-score-rs` has no wheel. Only the
  length for two whole texts, of which nothing is read back, comes from `rapidfuzz` (texts of 8,000 words: 14 → 3 ms).
* With numba, a process that has scored much goes on with `_rouge_kernel`, several times faster again. A small job
  never waits for the compiler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluations.metrics import _chunks
from evaluations.metrics._rouge_words import Read, Vocabulary, vocabulary

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
COMPILED_AFTER = 100_000_000  # cells: half a second's work, where loading the compiled kernel takes about one
OF_A_PAIR = 4_000  # cells whose time every pair takes besides its own
LONG = 1_000_000  # cells of a pair whose sentences are looked at
WIDE = 40_000  # cells of an average pair of sentences from which big integers are faster
LARGEST_TABLE = 25_000_000  # cells that rouge-score-rs may hold at once: 100 MB
KEPT_BITS = 2**28  # of rows kept for reading a subsequence back, and of columns of tokens: 32 MB each

_done = 0  # cells of the tables of the pairs that this process scored without the kernel


def numbers(pairs: Sequence[tuple[str, str]], stemmer: bool, split: str) -> list[tuple[float, ...]]:
    """F, precision and recall of ROUGE-1, -2, -L and -Lsum for every (reference, output), in this order: 12 floats.

    `split` is "punkt" (sentences for ROUGE-Lsum are found) or "newline" (every line is one).
    """
    global _done
    compiled = _done >= COMPILED_AFTER and find_spec("numba") is not None
    if compiled:
        _chunks.hasten()
    words = vocabulary(stemmer)
    places = {text: place for place, text in enumerate(dict.fromkeys(chain.from_iterable(pairs)))}
    reads = _read(words, places, {reference for reference, _ in pairs}, split)
    ranks = [(places[reference], places[output]) for reference, output in pairs]
    if compiled:
        return _figures(_compiled_counts(words, reads, ranks))
    _done += sum(reads[reference].size * reads[output].size + OF_A_PAIR for reference, output in ranks)
    return _uncompiled(words, [(reads[reference], reads[output]) for reference, output in ranks])


def hasten() -> None:
    """Go on with the compiled kernel at once, where numba is installed: for who knows that there is much to score."""
    global _done
    _done = COMPILED_AFTER


def _read(words: Vocabulary, texts: Iterable[str], references: set[str], split: str) -> list[Read]:
    """The texts in order. References are remembered: every candidate is compared with them."""
    reads: dict[str, Read | None] = {}
    for text in texts:
        reads[text] = words.references.get((split, text)) if text in references else None
    unread = [text for text, read in reads.items() if read is None]
    for text, read in zip(unread, words.read(unread, split), strict=True):
        reads[text] = read
        if text in references:
            own = Read(read.codes.copy(), read.size)  # the codes of a whole batch share their memory
            words.references.keep((split, text), own, 2 * len(text) + own.codes.nbytes + 400)
    return [read for read in reads.values() if read is not None]


def _compiled_counts(words: Vocabulary, reads: Sequence[Read], ranks: list[tuple[int, int]]) -> NDArray[np.int64]:
    from evaluations.metrics import _rouge_kernel

    starts, stems, size = words.tables()
    codes = np.concatenate([np.zeros(0, np.int32), *(read.codes for read in reads)])
    bounds = np.fromiter(accumulate((len(read.codes) for read in reads), initial=0), np.int64, len(reads) + 1)
    longest = max((read.size for read in reads), default=0)
    pairs = np.array(ranks, np.int32).reshape(-1, 2)
    return _rouge_kernel.count(codes, bounds, pairs, starts, stems, size, longest)


def _figures(counts: NDArray[np.int64]) -> list[tuple[float, ...]]:
    """The figures of rouge-score from counts as `count` has them, with its very operations."""
    tokens = np.repeat(counts[:, 4:], 4, axis=1).reshape(-1, 2, 4)
    tokens[:, :, 1] -= 1
    recall, precision = (counts[:, None, :4] / np.maximum(tokens, 1)).transpose(1, 0, 2)
    total = precision + recall
    f = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    rows: list[list[float]] = np.stack([f, precision, recall], axis=2).reshape(-1, 12).tolist()
    return list(map(tuple, rows))


def _uncompiled(words: Vocabulary, pairs: Sequence[tuple[Read, Read]]) -> list[tuple[float, ...]]:
    """Ordinary pairs by the library, those with long sentences by ourselves."""
    fast = find_spec("rouge_score_rs") is not None
    own = {place: sentences for place, pair in enumerate(pairs) if (sentences := _long_sentences(words, *pair, fast))}
    ordinary = iter(
        _by_library([tuple(map(words.line_by_line, pair)) for place, pair in enumerate(pairs) if place not in own])
    )
    return [
        _figures(np.array([count(*own[place])]))[0] if place in own else next(ordinary) for place in range(len(pairs))
    ]


def _long_sentences(
    words: Vocabulary, reference: Read, output: Read, fast: bool
) -> tuple[list[list[int]], list[list[int]]] | None:
    """The sentences of both texts where big integers count faster than the library, or can at all; None elsewhere."""
    cells = reference.size * output.size
    if fast and cells <= LONG:
        return None
    expected, found = words.sentences(reference), words.sentences(output)
    if fast and cells <= WIDE * len(expected) * len(found):
        largest = max(map(len, expected), default=0) * max(map(len, found), default=0)
        return (expected, found) if largest > LARGEST_TABLE else None
    return expected, found


def _by_library(lines: Sequence[tuple[str, ...]]) -> Iterable[tuple[float, ...]]:
    """The figures of every (reference, output), whose words are stems and whose lines are sentences."""
    if not lines:
        return
    for score in _scorer().score_batch([pair[0] for pair in lines], [pair[1] for pair in lines]):
        row: list[float] = []
        for kind in KINDS:
            precision, recall, f = score[kind]
            row += (f, precision, recall)
        yield tuple(row)


@cache
def _scorer() -> Any:
    from rouge_score_rs.rouge_scorer import RougeScorer

    return RougeScorer(list(KINDS))  # type: ignore[no-untyped-call]


def count(reference: list[list[int]], output: list[list[int]]) -> tuple[int, ...]:
    """(single, double, longest, summed, tokens of the reference, tokens of the output): what is in both.

    Both are sentences of tokens. `single` counts common tokens and `double` common pairs of neighbours, each as often
    as it is in both; `longest` is the length of the longest common subsequence of the whole texts; `summed` the hits
    of ROUGE-Lsum.
    """
    expected, found = list(chain.from_iterable(reference)), list(chain.from_iterable(output))
    return (
        (Counter(expected) & Counter(found)).total(),
        (Counter(pairwise(expected)) & Counter(pairwise(found))).total(),
        longest(expected, found),
        _union(reference, output),
        len(expected),
        len(found),
    )


def longest(one: list[int], other: list[int]) -> int:
    """The length of the longest common subsequence; with rapidfuzz in milliseconds for texts of 8,000 words."""
    if find_spec("rapidfuzz"):
        from rapidfuzz.distance import LCSseq

        return int(LCSseq.similarity(one, other))
    return _Columns(other).longest(one)


def _union(reference: list[list[int]], output: list[list[int]]) -> int:
    """Tokens of the reference in any common subsequence of two sentences, no more often than the output has them."""
    columns = [_Columns(sentence) for sentence in output]
    left = Counter(chain.from_iterable(output))
    hits = 0
    for sentence in reference:
        marked: set[int] = set()
        for sentence_columns in columns:
            marked.update(sentence_columns.read_back(sentence))
        for place in marked:
            hits += left[sentence[place]] > 0
            left[sentence[place]] -= 1
    return hits


class _Columns:
    """The table of longest common subsequences of `output` (its columns) and any other text (its rows).

    A row is an integer whose bit j is 0 where the value grows by one in column j.
    """

    def __init__(self, output: list[int]) -> None:
        self.output = output
        self.width = len(output)
        self.all = (1 << self.width) - 1
        self.places: dict[int, list[int]] = {}
        for place, token in enumerate(output):
            self.places.setdefault(token, []).append(place)
        self._known: dict[int, int] = {}

    def of(self, token: int) -> int:
        """The bits of the columns with `token`."""
        bits = self._known.get(token)
        if bits is None:
            cells = bytearray((self.width + 7) // 8)
            for place in self.places[token]:
                cells[place >> 3] |= 1 << (place & 7)
            bits = int.from_bytes(cells, "little")
            if (len(self._known) + 1) * self.width <= KEPT_BITS:
                self._known[token] = bits
        return bits

    def next(self, row: int, token: int) -> int:
        """The row below `row`, which has `token`."""
        both = row & self.of(token)
        return ((row + both) | (row & ~both)) & self.all

    def longest(self, text: list[int]) -> int:
        """The length of the longest common subsequence."""
        row = self.all
        for token in text:
            if token in self.places:
                row = self.next(row, token)
        return self.width - row.bit_count()

    def read_back(self, text: list[int]) -> list[int]:
        """The places in `text` of the longest common subsequence that rouge-score chooses among equally long ones.

        From the end: a match is taken; otherwise left only where the value there is greater than above, otherwise
        up. A row without any match equals the one above and is always stepped over, so it is left out.
        """
        rows = [place for place, token in enumerate(text) if token in self.places]
        block = max(1, KEPT_BITS // max(1, self.width))
        before = [self.all]  # the row before each block: a table too large to keep is made again block by block
        for base in range(0, len(rows) - block, block):
            row = before[-1]
            for place in rows[base : base + block]:
                row = self.next(row, text[place])
            before.append(row)
        chosen: list[int] = []
        left, value = self.width, -1
        for number in range(len(before) - 1, -1, -1):
            inside = rows[number * block : (number + 1) * block]
            kept = list(accumulate(inside, lambda row, place: self.next(row, text[place]), initial=before[number]))
            if value < 0:
                value = self.width - kept[-1].bit_count()
            up = len(inside)
            while up and left and value:
                if text[inside[up - 1]] == self.output[left - 1]:
                    chosen.append(inside[up - 1])
                    up, left, value = up - 1, left - 1, value - 1
                elif kept[up] >> (left - 1) & 1 and _grown(kept[up - 1], left) < value:
                    left -= 1
                else:
                    up -= 1
        return chosen


def _grown(row: int, columns: int) -> int:
    """The value of the table after the first `columns` columns of `row`."""
    return columns - (row & ((1 << columns) - 1)).bit_count()
