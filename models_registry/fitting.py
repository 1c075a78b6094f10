"""Fit a document into a model's window: cut it, or divide it into parts, never the instruction around it. Pure.

What fits is for the caller to say: it counts the tokens of the whole input, prompt and all, with a text in the place
of the document. Cuts are made where a sentence ends; where that would leave over a quarter of the room empty (a
transcript without full stops, say), where a word ends; and only inside a word that is longer than the room itself.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from models_registry.sentences import spans

_WORD = re.compile(r"\S+")
OMITTED = "\n\n"
"""What stands where the middle was: a new paragraph, since a mark in words would be read as the document's own."""


@dataclass(frozen=True)
class Fitted:
    """Token ids that fit, and how many the whole text would have needed."""

    ids: list[int]
    needed: int


def around(prompt: str, source: str) -> list[str] | None:
    """The prompt without its document: joining the parts with a shorter document renders the prompt again.

    None when the document is empty or the prompt does not hold it word for word.
    """
    return prompt.split(source) if source and source in prompt else None


def fit(
    text: str, encode: Callable[[str], Sequence[int]], ends: Callable[[str], Sequence[int]], limit: int
) -> Fitted | None:
    """Cut `text` until `encode(text)` has at most `limit` tokens. None when even no text at all is too long.

    `encode` renders the text into the prompt and tokenizes it; `ends` gives the end, in characters, of each token of
    the bare text. Cutting can merge tokens anew, hence the loop; it needs one or two rounds.
    """
    ids = list(encode(text))
    if len(ids) <= limit:
        return Fitted(ids, len(ids))
    needed = len(ids)
    stops = ends(text)
    keep = len(stops) - (needed - limit)
    while keep > 0:
        ids = list(encode(text[: stops[keep - 1]].rstrip()))
        if len(ids) <= limit:
            return Fitted(ids, needed)
        keep -= len(ids) - limit
    return None


@dataclass
class Room:
    """The room for a document. `count` gives the tokens of the whole input with a text in the document's place, and at
    most `limit` of them may be. What is returned as fitting was counted, however oddly a tokenizer merges."""

    count: Callable[[str], int]
    limit: int
    overhead: int = field(init=False)
    """Tokens of the input without any document."""
    _expected: int = field(init=False)
    """Characters that will about fit, from the last text that was counted: where to look first."""

    def __post_init__(self) -> None:
        self.overhead = self.count("")
        self._expected = 4 * self.tokens

    @property
    def tokens(self) -> int:
        """Tokens of the document that fit, 0 when the prompt alone is too long."""
        return max(0, self.limit - self.overhead)

    def holds(self, text: str) -> bool:
        used = self.count(text)
        self._expected = len(text) * self.tokens // max(1, used - self.overhead)
        return used <= self.limit

    def is_nearly_full(self, text: str) -> bool:
        """Whether at most a quarter of the room is left beside this text."""
        return 4 * (self.count(text) - self.overhead) >= 3 * self.tokens

    def most(self, edges: Sequence[int], piece: Callable[[int], str], origin: int) -> int:
        """How many of the edges a piece can take in: the k for which piece(edges[k-1]) fits and the next does not.

        Edges lead away from `origin`. From the expected one it steps on by 1, 2, 4, … and then halves, so that the
        whole of a long document is never counted.
        """
        low, high, step = 0, len(edges) + 1, 1
        probe = bisect_right(edges, self._expected, key=lambda edge: abs(edge - origin))
        while high - low > 1:
            probe = min(max(probe, low + 1), high - 1)
            if self.holds(piece(edges[probe - 1])):
                low = probe
            else:
                high = probe
            if low and high <= len(edges):
                probe = (low + high) // 2
            elif low:
                probe = low + step
            else:
                probe = high - step
            step *= 2
        return low


def keep_head(text: str, room: Room) -> str | None:
    """As much of the beginning as fits; None when nothing does."""
    return text[: _Edges(text).end(0, room)].strip() or None


def keep_tail(text: str, room: Room) -> str | None:
    """As much of the end as fits; None when nothing does."""
    return text[_Edges(text).start(0, room) :].strip() or None


def keep_ends(text: str, room: Room) -> str | None:
    """The beginning in half of the room and the end in the other half, the middle left out; None when nothing fits."""
    edges = _Edges(text)
    end = edges.end(0, Room(room.count, room.overhead + room.tokens // 2))
    head = text[:end].strip()
    if not head:
        return keep_tail(text, room)
    beside = Room(lambda tail: room.count(f"{head}{OMITTED}{tail}" if tail else head), room.limit)
    tail = text[edges.start(end, beside) :].strip()
    return f"{head}{OMITTED}{tail}" if tail else head


def divide(text: str, room: Room) -> list[str] | None:
    """The text in parts that each fit, in order, nothing lost but blanks between them; None when nothing fits.

    The parts are about equally long: a rest of two words would be a poor document of its own.
    """
    edges = _Edges(text)
    parts = _parts(edges, room)
    if parts is None or len(parts) < 2:
        return parts
    share = (room.count(text) - room.overhead) / len(parts)
    even = Room(room.count, min(room.limit, room.overhead + round(share + room.tokens / 10)))
    again = _parts(edges, even)
    return again if again is not None and len(again) <= len(parts) else parts


def _parts(edges: _Edges, room: Room) -> list[str] | None:
    parts: list[str] = []
    end = 0
    while found := _WORD.search(edges.text, end):
        end = edges.end(found.start(), room)
        if end == found.start():
            return None
        parts.append(edges.text[found.start() : end].strip())
    return parts


class _Edges:
    """Where a text can be cut."""

    def __init__(self, text: str) -> None:
        self.text = text
        pieces = spans(text)
        self._starts = [start for start, _ in pieces]
        self._ends = [end for _, end in pieces]

    def end(self, start: int, room: Room) -> int:
        """Where the longest piece that begins at `start` and fits ends; `start` itself when not a character fits."""
        text, ends = self.text, self._ends

        def sentence_ends(reached: int) -> Sequence[int]:
            return ends[bisect_right(ends, reached) :]

        def word_ends(reached: int) -> Sequence[int]:
            following = bisect_right(ends, reached)
            until = ends[following] if following < len(ends) else len(text)
            return [word.end() for word in _WORD.finditer(text, reached, until)]

        def character_ends(reached: int) -> Sequence[int]:
            word = _WORD.search(text, reached)
            return range(word.start() + 1, word.end() + 1) if word else ()

        return _reach(start, (sentence_ends, word_ends, character_ends), lambda end: text[start:end].strip(), room)

    def start(self, floor: int, room: Room) -> int:
        """Where the longest piece that fits and lasts to the end of the text begins, at `floor` or later; the text's
        length when nothing fits."""
        text, starts = self.text, self._starts

        def sentence_starts(reached: int) -> Sequence[int]:
            return starts[bisect_left(starts, floor) :][::-1]

        def word_starts(reached: int) -> Sequence[int]:
            before = bisect_left(starts, reached)
            since = max(floor, starts[before - 1] if before else 0)
            return [word.start() for word in _WORD.finditer(text, since, reached)][::-1]

        def character_starts(reached: int) -> Sequence[int]:
            words = word_starts(reached)
            return range(len(text[:reached].rstrip()) - 1, words[0] - 1, -1) if words else ()

        levels = (sentence_starts, word_starts, character_starts)
        return _reach(len(text), levels, lambda start: text[start:].strip(), room)


def _reach(
    origin: int, levels: Sequence[Callable[[int], Sequence[int]]], piece: Callable[[int], str], room: Room
) -> int:
    """How far a piece from `origin` can go: over whole sentences, then words of the next one, then its characters."""
    reached = origin
    for edges_from in levels:
        edges = edges_from(reached)
        taken = room.most(edges, piece, origin)
        if not taken:
            continue
        reached = edges[taken - 1]
        if room.is_nearly_full(piece(reached)):
            break
    return reached
