"""Split a document into sentences, keeping dialogue turns and bullet points whole.

Rules only, no model and no data: the same text gives the same pieces on every machine. A line break ends a piece
(chat turns, bullets, headings) unless the line is plainly hard-wrapped prose that goes on below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

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
_TURN = re.compile(r"\s*[^\s:][^:]{0,39}:(?:\s|$)")
_LIST_NUMBER = re.compile(r"\s*\(?(?:[0-9]{1,3}|[a-zA-Z])$")
WRAPPED_AT = 50
"""Characters from which an unfinished line counts as hard-wrapped prose."""


def sentences(text: str) -> list[str]:
    """The pieces of `text` in order, whitespace inside each collapsed; nothing but whitespace is lost.

    >>> sentences("Dr. Moss paid 3.5 dollars. Why?\\n- a point\\nBo: hi. Bye.")
    ['Dr. Moss paid 3.5 dollars.', 'Why?', '- a point', 'Bo: hi.', 'Bye.']
    """
    return [piece for block in _blocks(text) for piece in _split(block)]


def _blocks(text: str) -> Iterator[str]:
    """Lines, with hard-wrapped prose joined again."""
    held = ""
    for line in text.splitlines():
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
