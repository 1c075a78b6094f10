"""Copying tells how much of a reference was lifted from its document: as a whole, and word by word.

Pure. Coverage, density and compression are those of Grusky, Naaman & Artzi 2018 ("Newsroom"), computed by their greedy
procedure; the metric "extractiveness" computes the same of a model's outputs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

MOST_WORDS, MOST_PLACES = 5_000, 500  # of a reference; of a pair of words in a document: hostile texts end, too
LEAST_CHARACTERS = 12  # a reference of one or two words stands in its document without having been copied

Words = tuple[str, ...]

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3021-\u312f\u31a0-\u31ff\u3400-\u9fff\uf900-\ufaff"
UNSPACED_WORD = re.compile(f"[{UNSPACED}]")
ASCII_WORD = re.compile(r"[a-z0-9]++(?:'[a-z0-9]++)*+")
ANY_WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]++(?:['’][^\W_{UNSPACED}]++)*+")


class Extract(NamedTuple):
    """Coverage (0 to 1), density (mean length in words of the copied piece that a word belongs to, from 0) and
    compression (words of the document for one of the reference, above 0)."""

    coverage: float
    density: float
    compression: float


def words(text: str) -> Words:
    """The words of `text`, casefolded; scripts without blanks (Chinese, Japanese, Thai …) are cut into characters."""
    folded = text.casefold()
    return tuple((ASCII_WORD if folded.isascii() else ANY_WORD).findall(folded))


def how_copied(reference: str, source: str) -> str:
    """ "whole" (it is the document), "beginning" (the document begins with it), "inside" (it stands in it word for
    word), or "". White space must be normalised in both: words with single blanks between them."""
    if len(reference) < LEAST_CHARACTERS or reference not in source:
        return ""
    if len(reference) == len(source):
        return "whole"
    return "beginning" if source.startswith(reference) else "inside"


def extract(reference: Words, source: Words) -> Extract | None:
    """How extractive the words of a reference (its first 5,000) are; None when one of the two has no words."""
    reference = reference[:MOST_WORDS]
    if not reference or not source:
        return None
    lengths = fragments(reference, source)
    return Extract(
        sum(lengths) / len(reference),
        sum(length * length for length in lengths) / len(reference),
        len(source) / len(reference),
    )


def fragments(reference: Words, source: Words) -> list[int]:
    """The lengths of the extractive fragments: from each place the longest piece that `source` repeats, then on
    behind it. As published, the search in `source` goes on behind a match, so matches do not overlap there."""
    wanted, known = set(pairwise(reference)), set(source)
    places: dict[tuple[str, str], list[int]] = {}
    for place, pair in enumerate(pairwise(source)):
        if pair in wanted:
            places.setdefault(pair, []).append(place)
    lengths, start = [], 0
    while start < len(reference):
        found = places.get((reference[start], reference[start + 1]), []) if start + 1 < len(reference) else []
        length = _longest(reference, start, source, found) or int(reference[start] in known)
        if length:
            lengths.append(length)
        start += length or 1
    return lengths


def _longest(reference: Words, start: int, source: Words, places: Sequence[int]) -> int:
    """The longest match from `start` on, at those places of the source where two words agree."""
    longest = behind = 0
    most = len(reference) - start
    for place in places[:MOST_PLACES]:
        if place < behind:
            continue
        length = 2
        while length < most and place + length < len(source) and reference[start + length] == source[place + length]:
            length += 1
        longest, behind = max(longest, length), place + length
    return longest
