"""Split a document into sentences, keeping dialogue turns and bullet points whole.

Rules only, no model and no data: the same text gives the same pieces on every machine. A line break ends a piece
(chat turns, bullets, headings) unless the line is plainly hard-wrapped prose that goes on below. In a dialogue a short
turn is one piece, however many sentences it has: without its speaker half of it means little.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

ABBREVIATIONS = frozenset(
    """adj adm adv approx apr art asst aug ave bros ca capt cf ch cmdr co col corp cpl dec dept dr ed eds eg eq eqs esp
    est etc feb fig figs fr gen gov hon hr hrs inc jan jr jul jun lt ltd maj mar max messrs min mr mrs ms mt no nos nov
    oct op pp prof ref refs rep rev sec sen sep sept sgt sr st ste supt tab vol vols vs viz ie al resp
    dist univ""".split()  # noqa: SIM905
)
"""Words that usually go on after their full stop; lower case, without it."""

MAY_CLOSE = frozenset(
    {"etc", "al", "inc", "ltd", "co", "corp", "jr", "sr", "bros", "hrs", "hr", "ave", "no", "max", "min"}
)
"""Abbreviations that also close sentences: they do when a usual opening word follows."""

OPENERS = frozenset(
    """a after all although an and another as at because both but by during each even every finally for from he her
    here his how however i if in instead it its later many meanwhile more most my no not now of on one other our over
    several she since so some such that the their then there these they this those though to today under until we
    what when where while who why with yet you your""".split()  # noqa: SIM905
)

_END = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s)|[。！？]+[”’」』）]*""")
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘«]+$")
_ACRONYM = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_NEXT_WORD = re.compile(r"\s*[\"'“‘«(\[]*([^\W_]+)")
_ITEM = re.compile(r"\s*(?:[-*•‣◦–—#>]|\(?[0-9]{1,3}[.)]\s|\(?[a-zA-Z][.)]\s)")
_TIME = (
    r"(?:[\[(]?(?:[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{1,4},?\s+)?[0-9]{1,2}[:.][0-9]{2}(?:[:.][0-9]{2})?"
    r"(?:\s?[apAP]\.?[mM]\.?)?[\])]?\s*(?:[-–—]\s*)?)?"
)
"""The time before a turn, perhaps: [10:02], 00:01:15, 12/03/24, 10:02 - …"""
_TURN = re.compile(rf"\s*{_TIME}[^\s:][^:]{{0,39}}:(?:\s|$)")
_SPEAKER = re.compile(rf"\s*{_TIME}(?:#\w{{1,30}}#|[\w<@][^\s:!?;,]*(?:[ ][^\s:!?;,]+){{0,3}}):\s")
_MARKED_SPEAKER = re.compile(r"\s+(?=#\w{1,30}#:)")
_LIST_NUMBER = re.compile(r"\s*\(?(?:[0-9]{1,3}|[a-zA-Z])$")
WRAPPED_AT = 50
"""Characters from which an unfinished line counts as hard-wrapped prose."""
SHORT_TURN = 25
"""Words of the longest turn that is kept whole, its speaker among them."""


def sentences(text: str) -> list[str]:
    """The pieces of `text` in order, whitespace inside each collapsed; nothing but whitespace is lost.

    >>> sentences("Dr. Moss paid 3.5 dollars. Why?\\n- a point\\nBo: hi. Bye.")
    ['Dr. Moss paid 3.5 dollars.', 'Why?', '- a point', 'Bo: hi.', 'Bye.']
    """
    lines = [turn for line in text.splitlines() for turn in _MARKED_SPEAKER.split(line)]
    keeps = _is_dialogue(lines)
    pieces: list[str] = []
    for block in _blocks(lines):
        if keeps and _SPEAKER.match(block) and len(block.split()) <= SHORT_TURN:
            pieces.append(_tidy(block))
        else:
            pieces.extend(_split(block))
    return pieces


def spans(text: str) -> list[tuple[int, int]]:
    """Where each piece of `sentences(text)` begins and ends in `text`, in characters, without the blanks around it."""
    found: list[tuple[int, int]] = []
    position = 0
    for piece in sentences(text):
        words = piece.split()
        start = position = text.index(words[0], position)
        for word in words:
            # What stands between is whitespace alone: the search ends where it begins, or a few blanks later.
            position = text.index(word, position) + len(word)
        found.append((start, position))
    return found


def _is_dialogue(lines: Sequence[str]) -> bool:
    """Two turns or more, and every third line one: a note in prose ("Warning: …") makes no dialogue."""
    turns = sum(bool(_SPEAKER.match(line)) for line in lines)
    return turns >= 2 and 3 * turns >= sum(not line.isspace() and line != "" for line in lines)


def _blocks(lines: Sequence[str]) -> Iterator[str]:
    """Lines, with hard-wrapped prose joined again."""
    held = ""
    for line in lines:
        if held and not _goes_on(held, line):
            yield held
            held = ""
        held = f"{held} {line}" if held else line
        if len(line.strip()) < WRAPPED_AT:
            yield held
            held = ""
    if held:
        yield held


def _goes_on(above: str, line: str) -> bool:
    """Whether `line` continues an unfinished line `above`: it starts in lower case, and is no bullet and no turn."""
    unfinished = above.rstrip()[-1:] not in ".!?…。！？:;\"'”’»)]"
    return unfinished and line.lstrip()[:1].islower() and not _ITEM.match(line) and not _TURN.match(line)


def _split(block: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(block):
        if _is_boundary(block, start, end):
            yield _tidy(block[start : end.end()])
            start = end.end()
    if rest := _tidy(block[start:]):
        yield rest


def _is_boundary(block: str, start: int, end: re.Match[str]) -> bool:
    before, mark = block[start : end.start()], end.group()
    if not before.strip():
        return False
    if mark.strip("\"'”’»)]") != ".":
        # "Really?" she said: the sentence goes on in lower case after a quoted question.
        return not (mark.endswith(("..", *"\"'”’»…")) and _next_word(block, end.end())[:1].islower())
    if start == 0 and _LIST_NUMBER.match(before):
        return False
    following = _next_word(block, end.end())
    if following[:1].islower():
        return False
    return _full_stop_closes(before, following)


def _full_stop_closes(before: str, following: str) -> bool:
    """Whether the full stop after `before` ends a sentence, or belongs to an abbreviation or an initial."""
    found = _LAST_WORD.search(before)
    word = found.group() if found else ""
    opens = following.lower() in OPENERS
    if _ACRONYM.fullmatch(word):
        return opens
    if len(word) == 1 and word.isalpha():
        return word == "I" or (word.islower() and not following[:1].isdigit()) or (opens and len(following) > 1)
    if word.lower() in MAY_CLOSE:
        return opens
    return word.lower() not in ABBREVIATIONS


def _next_word(block: str, position: int) -> str:
    found = _NEXT_WORD.match(block, position)
    return found.group(1) if found else ""


def _tidy(piece: str) -> str:
    return " ".join(piece.split())
