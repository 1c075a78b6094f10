"""JSON, RFC 8259: one list of objects, read one object at a time (SECURITY S19, S21).

An object is parsed straight from the text at hand; only where that fails is it searched for its end, which tells an
object that goes on in the next piece from one that is broken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from datasets_app.formats import MAX_RECORD_CHARACTERS, Format, Header, Problem, Record, Source, Unreadable
from datasets_app.formats._lines import NotUtf8, texts, too_long
from datasets_app.formats._values import DECODER, Refused, as_object, whole_object

LOOKS_LIKE_A_LIST = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*([\[{\]\"]|$)")
NOT_BLANK = re.compile(r"[^ \t\n\r]")
MARK = re.compile(r'["{}\[\],]')
STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
CURE = 'Write a list of objects, such as [{"examples": "…", "ground_truth": "…"}, …].'


def records(source: Source) -> Iterator[Header | Record | Problem]:
    """The objects of the list; their rows are counted from 1."""
    text = _Window(source)
    row = 0
    text.skip_blanks()
    text.at += 1  # the bracket, or it would not have come to this format
    while True:
        row += 1
        text.row = row
        mark = text.skip_blanks()
        if mark == "]" and row == 1:
            break
        try:
            yield Record(row, _element(text, mark))
        except Refused as error:
            yield Problem(row, error.column, error.message, error.cure)
        mark = text.skip_blanks()
        if mark == "]":
            break
        if mark != ",":
            raise Unreadable(_broken(row, mark))
        text.at += 1
    text.at += 1
    if behind := text.skip_blanks():
        raise Unreadable(Problem(row, "", f"“{behind}” follows the end of the list.", "Write one list, and only that."))


class _Window:
    """The text that was read and not yet used, from position `at` on."""

    def __init__(self, source: Source) -> None:
        self.pieces = texts(source)
        self.text = ""
        self.at = 0
        self.row = 1

    def more(self) -> bool:
        """Read on until what is unused has at least doubled: then searching it anew costs no more than reading it.

        False at the end of the file.
        """
        pieces = [self.text[self.at :]]
        wanted = max(1, len(pieces[0]))
        if wanted > MAX_RECORD_CHARACTERS:
            raise Unreadable(too_long(self.row))
        while wanted > 0:
            try:
                piece = next(self.pieces, "")
            except NotUtf8 as error:
                raise Unreadable(error.problem(self.row, "".join(pieces)[-40:] + error.before[-40:])) from None
            if not piece:
                break
            pieces.append(piece)
            wanted -= len(piece)
        self.text, self.at = "".join(pieces), 0
        return len(pieces) > 1

    def skip_blanks(self) -> str:
        """Move to the next character that is not blank, and tell which it is; "" at the end of the file."""
        while True:
            if found := NOT_BLANK.search(self.text, self.at):
                self.at = found.start()
                return found[0]
            self.at = len(self.text)
            if not self.more():
                return ""


def _element(text: _Window, mark: str) -> dict[str, Any]:
    if mark == "{":
        try:
            value, end = DECODER.raw_decode(text.text, text.at)
        except (json.JSONDecodeError, RecursionError, ValueError, Refused):
            pass  # it goes on in the next piece, or is broken: its end is needed to tell, and to go on behind it
        else:
            text.at = end
            return as_object(value, CURE)
    end = _end(text)
    found, text.at = text.text[text.at : end], end
    return whole_object(found, CURE)


def _end(text: _Window) -> int:
    """Where the element at `text.at` ends, by its brackets and quotes. Raises Unreadable where the file ends before."""
    depth, ahead = 0, 0  # ahead: how far behind text.at everything is known
    while True:
        found = MARK.search(text.text, text.at + ahead)
        string = STRING.match(text.text, found.start()) if found and found[0] == '"' else None
        if found is None or (found[0] == '"' and string is None):
            ahead = (found.start() if found else len(text.text)) - text.at
            if not text.more():
                raise Unreadable(_broken(text.row, ""))
            continue
        if string:
            ahead = string.end() - text.at
            continue
        mark = found[0]
        if depth == 0 and mark in ",]}":
            return found.start()
        ahead = found.end() - text.at
        depth += (mark in "[{") - (mark in "]}")
        if depth == 0 and mark in "]}":
            return found.end()


def _broken(row: int, mark: str) -> Problem:
    if not mark:
        return Problem(row, "", "The file ends in the middle of the list.", "Write or upload it again: it was cut off.")
    message = f"A comma or the end of the list is expected behind it, not “{mark}”. Reading stopped here."
    return Problem(row, "", message, CURE)


format = Format(
    name="json",
    label="JSON",
    extensions=(".json",),
    about=(
        'One list of JSON objects: [{"examples": "…", "ground_truth": "…"}, …]. A list of texts as ground_truth gives '
        "a document several references. Its objects are counted from row 1. UTF-8. It may be packed with gzip."
    ),
    likeness=lambda head: 2 if LOOKS_LIKE_A_LIST.match(head) else 0,
    records=records,
)
