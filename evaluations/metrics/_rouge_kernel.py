"""The counts behind ROUGE in compiled loops over integer ids: what the `fast` extra (numba) adds.

Equal to `_rouge_counting.count`, pair by pair; only `_rouge_counting` imports this module, and only where numba is
installed. Longest common subsequences are bit-parallel (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"):
a row of the table of Lin's definition becomes one bit a column, zero where the value grows, and 64 columns are
advanced at once.

Compiling takes about 10 s on one core, once per installation: numba keeps the result beside this file, or in the
user's cache directory (`NUMBA_CACHE_DIR` names another) when the package is read-only. Loading it takes about 1 s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

ROWS_KEPT = 1 << 20  # words of 64 bits: 8 MB of rows for reading a subsequence back; longer tables are redone by blocks

ONE, NO_BIT, ALL = np.uint64(1), np.uint64(0), np.uint64(0xFFFFFFFFFFFFFFFF)
PAIRS, NIBBLES, BYTES = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
SPREAD, SCATTER = np.uint64(0x0101010101010101), np.uint64(0x9E3779B97F4A7C15)
TWO, FOUR, TOP = np.uint64(2), np.uint64(4), np.uint64(56)


def _compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled on its first call and kept on disk, where any place for that is writable."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "no locator available": nothing is writable
        return numba.njit(nogil=True)(function)


@_compiled
def _ones(word: Any) -> Any:
    """How many bits of a 64-bit word are set."""
    word = word - ((word >> ONE) & PAIRS)
    word = (word & NIBBLES) + ((word >> TWO) & NIBBLES)
    word = (word + (word >> FOUR)) & BYTES
    return np.int64((word * SPREAD) >> TOP)


@_compiled
def _grown(rows: Any, at: Any, columns: Any) -> Any:
    """The value of the table after the first `columns` columns of the row at rows[at:]: its zero bits."""
    whole = columns >> 6
    found = 0
    for word in range(at, at + whole):
        found += _ones(~rows[word])
    if columns & 63:
        found += _ones(~rows[at + whole] & ((ONE << np.uint64(columns & 63)) - ONE))
    return found


@_compiled
def _advance(rows: Any, at: Any, to: Any, match: Any, words: Any) -> None:
    """Write the row that follows rows[at:] to rows[to:]. `match` has the columns with the token of the new row."""
    carry = NO_BIT
    for word in range(words):
        old = rows[at + word]
        both = old & match[word]
        summed = old + both
        total = summed + carry
        carry = ONE if summed < old or total < summed else NO_BIT
        rows[to + word] = total | (old & ~both)


@_compiled
def _flip(match: Any, token: Any, head: Any, following: Any) -> None:
    """Set the columns of `token`, or clear them when they are set."""
    column = head[token] if token >= 0 else -1
    while column >= 0:
        match[column >> 6] ^= ONE << np.uint64(column & 63)
        column = following[column]


@_compiled
def _run(
    reference: Any, lines: Any, low: Any, high: Any, rows: Any, at: Any, step: Any, match: Any, words: Any,
    head: Any, following: Any,
) -> None:  # fmt: skip
    """Advance the row at rows[at:] over the tokens at lines[low:high]: `step` words on each time, 0 for in place."""
    last = -1
    for line in range(low, high):
        token = reference[lines[line]]
        if token != last:  # a token that fills the text costs one walk over its columns, not one for each row
            _flip(match, last, head, following)
            _flip(match, token, head, following)
            last = token
        _advance(rows, at, at + step, match, words)
        at += step
    _flip(match, last, head, following)


@_compiled
def _mark(
    reference: Any, lines: Any, count: Any, output: Any, start: Any, width: Any, head: Any, following: Any,
    match: Any, rows: Any, marks: Any,
) -> None:  # fmt: skip
    """Mark the tokens at lines[:count] that stand in the longest common subsequence rouge-score reads back.

    Among equally long ones it is decided by rouge-score's order of steps: a match is taken, otherwise left only where
    the value there is greater than above, otherwise up. A table too large for `rows` is made again block by block.
    """
    words = (width + 63) >> 6
    block = max(1, len(rows) // words - 1)
    blocks = (count + block - 1) // block
    before = np.full(blocks * words, ALL, dtype=np.uint64)  # the row before each block
    for number in range(1, blocks):
        at = number * words
        for word in range(at, at + words):
            before[word] = before[word - words]
        _run(reference, lines, (number - 1) * block, number * block, before, at, 0, match, words, head, following)
    up, left, value = count, width, -1
    for number in range(blocks - 1, -1, -1):
        base = number * block
        for word in range(words):
            rows[word] = before[number * words + word]
        _run(reference, lines, base, up, rows, 0, words, match, words, head, following)
        if value < 0:
            value = _grown(rows, (up - base) * words, left)
        while up > base and left > 0 and value > 0:
            if reference[lines[up - 1]] == output[start + left - 1]:
                marks[lines[up - 1]] = 1
                up -= 1
                left -= 1
                value -= 1
                continue
            at = (up - base) * words
            level = (rows[at + ((left - 1) >> 6)] >> np.uint64((left - 1) & 63)) & ONE
            if level and _grown(rows, at - words, left) < value:
                left -= 1
            else:
                up -= 1


@_compiled
def _mark_narrow(
    reference: Any, lines: Any, count: Any, output: Any, start: Any, width: Any, masks: Any, rows: Any, marks: Any
) -> None:
    """`_mark` for a sentence of the output that fits one word, the ordinary case: masks[token] has its columns."""
    row = ALL
    rows[0] = row
    for line in range(count):
        both = row & masks[reference[lines[line]]]
        row = (row + both) | (row & ~both)
        rows[line + 1] = row
    low = ALL >> np.uint64(64 - width)
    up, left = count, width
    value = _ones(~row & low)
    while value > 0:
        if reference[lines[up - 1]] == output[start + left - 1]:
            marks[lines[up - 1]] = 1
            up -= 1
            left -= 1
            value -= 1
            low >>= ONE
        elif (rows[up] >> np.uint64(left - 1)) & ONE and _ones(~rows[up - 1] & low) < value:
            left -= 1
            low >>= ONE
        else:
            up -= 1


@_compiled
def _expand(codes: Any, first: Any, stop: Any, starts: Any, stems: Any, tokens: Any, ends: Any) -> Any:
    """Write the tokens of a text and where its sentences end; return (number of tokens, number of sentences)."""
    size = sentences = 0
    for place in range(first, stop):
        chunk = codes[place] >> 1
        for stem in range(starts[chunk], starts[chunk + 1]):
            tokens[size] = stems[stem]
            size += 1
        if (codes[place] & 1 or place == stop - 1) and size > (ends[sentences - 1] if sentences else 0):
            ends[sentences] = size
            sentences += 1
    return size, sentences


@_compiled
def _rename(reference: Any, size: Any, output: Any, length: Any, names: Any, met: Any) -> None:
    """Tokens of the output become 0, 1, 2 … as they are met, the same ones in the reference, its others -1.

    The tables of one pair then fit the processor's first cache, however large the vocabulary.
    """
    distinct = 0
    for place in range(length):
        token = output[place]
        if names[token] < 0:
            names[token] = distinct
            met[distinct] = token
            distinct += 1
        output[place] = names[token]
    for place in range(size):
        reference[place] = names[reference[place]]
    for place in range(distinct):
        names[met[place]] = -1


@_compiled
def _single(reference: Any, size: Any, output: Any, length: Any, counts: Any) -> Any:
    """Common tokens, each as often as it is in both."""
    found = 0
    for place in range(length):
        counts[output[place]] += 1
    for place in range(size):
        token = reference[place]
        if token >= 0 and counts[token] > 0:
            counts[token] -= 1
            found += 1
    for place in range(length):
        counts[output[place]] = 0
    return found


@_compiled
def _slot(first: Any, second: Any, keys: Any, mask: Any) -> Any:
    """Where the pair stands in the table, or the empty place where it would."""
    key = (np.int64(first) << 32) | np.int64(second)
    place = np.int64((np.uint64(key) * SCATTER) >> np.uint64(32)) & mask
    while keys[place] != -1 and keys[place] != key:
        place = (place + 1) & mask
    return place, key


@_compiled
def _double(reference: Any, size: Any, output: Any, length: Any, keys: Any, counts: Any, used: Any) -> Any:
    """Common pairs of neighbours, each as often as it is in both."""
    mask = 1
    while mask < 2 * length:
        mask *= 2
    mask -= 1
    for place in range(length - 1):
        slot, key = _slot(output[place], output[place + 1], keys, mask)
        keys[slot] = key
        used[place] = slot
        counts[slot] += 1
    found = 0
    for place in range(size - 1):
        if reference[place] >= 0 and reference[place + 1] >= 0:
            slot, _ = _slot(reference[place], reference[place + 1], keys, mask)
            if counts[slot] > 0:
                counts[slot] -= 1
                found += 1
    for place in range(length - 1):
        keys[used[place]] = -1
        counts[used[place]] = 0
    return found


@_compiled
def _count(
    codes: Any, bounds: Any, pairs: Any, starts: Any, stems: Any, vocabulary: Any, longest: Any, room: Any
) -> Any:
    found = np.zeros((len(pairs), 6), dtype=np.int64)
    reference, output = np.empty(longest, np.int32), np.empty(longest, np.int32)
    sentences, parts = np.empty(longest, np.int32), np.empty(longest, np.int32)
    lines, following = np.empty(longest, np.int32), np.empty(longest, np.int32)
    head, counts = np.full(longest, -1, np.int32), np.zeros(longest, np.int32)
    names, marks = np.full(vocabulary, -1, np.int32), np.zeros(longest, np.uint8)
    words = (longest + 63) >> 6
    match, masks = np.zeros(words, np.uint64), np.zeros(longest, np.uint64)
    rows = np.empty(max(2 * words, longest + 1, min(room, (longest + 1) * words)), np.uint64)
    table = 2
    while table < 2 * longest:
        table *= 2
    keys, slots, used = np.full(table, -1, np.int64), np.zeros(table, np.int32), np.empty(longest, np.int64)
    for pair in range(len(pairs)):
        text, other = pairs[pair, 0], pairs[pair, 1]
        size, count = _expand(codes, bounds[text], bounds[text + 1], starts, stems, reference, sentences)
        length, number = _expand(codes, bounds[other], bounds[other + 1], starts, stems, output, parts)
        found[pair, 4], found[pair, 5] = size, length
        if not size or not length:
            continue
        _rename(reference, size, output, length, names, following)
        found[pair, 0] = _single(reference, size, output, length, counts)
        found[pair, 1] = _double(reference, size, output, length, keys, slots, used)
        for part in range(-1, number):  # the whole text, for its longest common subsequence, then every sentence
            begin = parts[part - 1] if part > 0 else 0
            width = (parts[part] if part >= 0 else length) - begin
            narrow = width <= 64
            for column in range(width - 1, -1, -1):
                token = output[begin + column]
                if narrow:
                    masks[token] |= ONE << np.uint64(column)
                following[column] = head[token]
                head[token] = column
            for sentence in range(count if part >= 0 else 1):
                low = sentences[sentence - 1] if sentence > 0 else 0
                high = sentences[sentence] if part >= 0 else size
                many = 0  # a row without any match equals the row above: it is left out
                for place in range(low, high):
                    if reference[place] >= 0 and head[reference[place]] >= 0:
                        lines[many] = place
                        many += 1
                if narrow and part < 0:
                    row = ALL
                    for line in range(many):
                        both = row & masks[reference[lines[line]]]
                        row = (row + both) | (row & ~both)
                    found[pair, 2] = _ones(~row)
                elif narrow and many:
                    _mark_narrow(reference, lines, many, output, begin, width, masks, rows, marks)
                elif part < 0:
                    for word in range((width + 63) >> 6):
                        rows[word] = ALL
                    _run(reference, lines, 0, many, rows, 0, 0, match, (width + 63) >> 6, head, following)
                    found[pair, 2] = _grown(rows, 0, width)
                elif many:
                    _mark(reference, lines, many, output, begin, width, head, following, match, rows, marks)
            for column in range(width):
                head[output[begin + column]] = -1
                masks[output[begin + column]] = NO_BIT
        marked = 0
        for place in range(size):
            if marks[place]:
                marks[place] = 0
                lines[marked] = reference[place]
                marked += 1
        found[pair, 3] = _single(lines, marked, output, length, counts)
    return found


def count(
    codes: NDArray[np.int32],
    bounds: NDArray[np.int64],
    pairs: NDArray[np.int32],
    starts: NDArray[np.int32],
    stems: NDArray[np.int32],
    vocabulary: int,
    longest: int,
    rows_kept: int = ROWS_KEPT,
) -> NDArray[np.int64]:
    """(single, double, longest, summed, tokens of the reference, tokens of the output) for every pair: shape (p, 6).

    `codes` are all texts one after the other, text t at bounds[t]:bounds[t + 1], as `_rouge_words.Read` has them;
    `pairs` (p, 2) are (reference, output); chunk c has the stems stems[starts[c]:starts[c + 1]], each smaller than
    `vocabulary`; no text has more than `longest` stems.
    """
    found: NDArray[np.int64] = _count(codes, bounds, pairs, starts, stems, vocabulary, max(longest, 1), rows_kept)
    return found
