"""CSV, RFC 4180: a header, then one document a row; comma, semicolon, tab or bar between the cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from datasets_app.formats import (
    EXPORT_INDEX,
    MAX_CELL_BYTES,
    MAX_RECORD_CHARACTERS,
    Format,
    Header,
    Problem,
    Record,
    Source,
    Unreadable,
)
from datasets_app.formats._lines import lines, too_long
from datasets_app.formats._names import name_problems, named

DELIMITERS = ",;\t|"
QUOTING = "Put the whole cell in double quotes and double every quote inside it; most programs do so when they export."
FORMULA = re.compile(r"'*[=+\-@\t\r\n\0＝＋－＠]")  # what a spreadsheet would run, or our own guard in front of it


def guarded(cell: str) -> str:
    """`cell` so that no spreadsheet takes it for a formula: behind an apostrophe (SECURITY S22)."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """The inverse of `guarded`, for its results only: the apostrophe of other people's files is their own."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def records(source: Source) -> Iterator[Header | Record | Problem]:
    # The csv module has one limit for the whole process, 131,072 characters by default: a document may be longer.
    # It is only ever raised, never put back: other threads may be in the middle of a file, and what bounds our
    # memory is MAX_RECORD_CHARACTERS and the bytes of each cell, whatever this limit is.
    if csv.field_size_limit() < MAX_CELL_BYTES:
        csv.field_size_limit(MAX_CELL_BYTES)
    feed = _Feed(source)
    parser = csv.reader(feed, delimiter=_delimiter(feed.first), strict=True)
    row, header, is_ours = feed.n_blank, None, False
    while True:
        row += 1
        feed.used = 0
        try:
            cells = next(parser)
        except StopIteration:
            return
        except csv.Error as error:
            raise Unreadable(_syntax(row, str(error))) from None
        except Unreadable as error:  # it counts lines; rows that span lines make a difference
            raise Unreadable(Problem(row, "", error.problem.message, error.problem.cure)) from None
        if not any(cells):
            continue  # a blank line, or the rows of bare delimiters that spreadsheets leave at the end
        if header is None:
            header = Header(row, named(cells))
            is_ours = EXPORT_INDEX in header.names
            if is_ours:
                header = Header(row, tuple(unguarded(name) for name in header.names))
            if problems := name_problems(*header[:2]):
                yield from problems
                return
            yield header
        elif len(cells) != len(header.names):
            yield _ragged(row, len(cells), header.names)
        else:
            if is_ours:
                cells = [unguarded(cell) for cell in cells]
            yield Record(row, dict(zip(header.names, cells, strict=True)))


class _Feed:
    """The lines for the parser from the first that is not blank, bounding what one record may take.

    `used` counts the characters handed out since it was last set to 0; `n_blank` the blank lines left out.
    """

    def __init__(self, source: Source) -> None:
        self.lines = lines(source)
        self.n_blank = self.used = 0
        self.first = ""
        for line in self.lines:
            if line.strip():
                self.first = line
                break
            self.n_blank += 1
        self.is_fed = not self.first

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = next(self.lines) if self.is_fed else self.first
        self.is_fed = True
        self.used += len(line)
        if self.used > MAX_RECORD_CHARACTERS:
            raise Unreadable(too_long(0))
        return line


def _delimiter(first: str) -> str:
    """The one that gives the first line the most cells: names of columns rarely hold any. A comma when none does."""

    def width(delimiter: str) -> int:
        try:
            return len(next(csv.reader([first], delimiter=delimiter), []))
        except csv.Error:
            return 0

    return max(DELIMITERS, key=width)


def _ragged(row: int, n: int, names: tuple[str, ...]) -> Problem:
    has = f"It has {n} cell{'s' * (n != 1)}, the header has {len(names)}"
    if n > len(names):
        return Problem(row, "", f"{has}.", "Put cells that hold the delimiter or a line break in double quotes.")
    cure = "Add the missing cells (empty ones count), or remove the row."
    return Problem(row, "", f"{has}: nothing is left for the column “{names[n]}”.", cure)


def _syntax(row: int, error: str) -> Problem:
    """What the csv module complains about, in words."""
    if "field limit" in error:
        message = f"A cell is larger than {MAX_CELL_BYTES >> 20} MiB, or a double quote is never closed."
    elif "unexpected end" in error:
        message = "A double quote is opened and never closed."
    else:
        message = "Text follows a closing double quote."
    return Problem(row, "", f"{message} Reading stopped here.", QUOTING)


format = Format(
    name="csv",
    label="CSV",
    extensions=(".csv", ".tsv", ".txt", ".gz"),
    about=(
        "A first row with the names of the columns, then one document a row. Comma, semicolon, tab or bar between the "
        "cells; cells with line breaks, quotes or delimiters in double quotes; UTF-8. It may be packed with gzip."
    ),
    likeness=lambda head: 1,
    records=records,
)
