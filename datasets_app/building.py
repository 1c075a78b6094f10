"""Building makes the row of a dataset from one record of a file, or says what is wrong with it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from datasets_app.formats import MAX_CELL_BYTES, Problem, Record
from datasets_app.mapping import Columns, is_number

MAX_LABEL_CHARACTERS = 200  # an id, a group, the value of a tag
MAX_KNOWN = 1000


class Row(NamedTuple):
    """One example: `row` is its place in the file as its user counts, `key` its id there (possibly empty).

    `predictions` are {column: output}; a column that is empty here is an empty output, one that is missing is none.
    """

    row: int
    source: str
    references: list[str]
    key: str = ""
    group: str = ""
    tags: dict[str, Any] = {}
    predictions: dict[str, str] = {}


def build(record: Record, columns: Columns) -> Row | list[Problem]:
    """The row of one record, or every problem of it."""
    number, cells = record
    problems: list[Problem] = []
    source = cells.get(columns.source)
    if not isinstance(source, str) or not source or source.isspace():
        problems.append(_no_document(record, columns.source))
    references: list[str] = []
    for name in columns.references:
        cell = cells.get(name)
        for one in cell if isinstance(cell, list) else (cell,):
            if isinstance(one, str):
                if one and not one.isspace():
                    references.append(one)
            elif one is not None:
                message = f"A reference is text or a list of texts; this is {_kind(one)}."
                problems.append(Problem(number, name, message, "Write it as text, or leave it empty."))
                break
    key = _label(number, columns.id, cells, "An id", problems) if columns.id else ""
    group = _label(number, columns.group, cells, "A group", problems) if columns.group else ""
    tags: dict[str, Any] = {}
    for name in columns.tags:
        cell = cells.get(name)
        if isinstance(cell, int | float) and len(str(cell)) <= MAX_LABEL_CHARACTERS:
            tags[name] = cell
            continue
        if value := _label(number, name, cells, "A tag", problems):
            tags[name] = value
    predictions: dict[str, str] = {}
    for name in columns.predictions:
        cell = cells.get(name)
        if isinstance(cell, str):
            predictions[name] = cell
        elif cell is not None:
            message = f"An output is text; this is {_kind(cell)}."
            problems.append(Problem(number, name, message, "Write it as text, or leave it out."))
    return problems or Row(number, source, references, key, group, tags, predictions)  # type: ignore[arg-type]


def _no_document(record: Record, name: str) -> Problem:
    if name not in record.cells:
        message = f"The column is missing here; the row has {listed(tuple(record.cells))}."
        return Problem(record.row, name, message, "Add it, or choose the column that every row has.")
    cell = record.cells[name]
    if cell is None or (isinstance(cell, str)):
        return Problem(record.row, name, "The document is blank.", "Fill it in, or remove the row.")
    if is_number(cell):
        another = "Choose the column that holds the documents as text."
        return Problem(record.row, name, "It is a number; a document is text.", another)
    return Problem(record.row, name, f"It is {_kind(cell)}; a document is one text.", "Join its parts into one text.")


def _label(row: int, name: str, cells: Mapping[str, Any], what: str, problems: list[Problem]) -> str:
    """The short text of a cell; empty for a missing one, and for a wrong one, which is added to the problems."""
    cell = cells.get(name)
    if cell is None:
        return ""
    if isinstance(cell, dict | list):
        message = f"{what} is short text or a number; this is {_kind(cell)}."
        problems.append(Problem(row, name, message, "Write it as text."))
        return ""
    text = cell.strip() if isinstance(cell, str) else str(cell).lower() if isinstance(cell, bool) else str(cell)
    if len(text) > MAX_LABEL_CHARACTERS:
        message = f"{what} has at most {MAX_LABEL_CHARACTERS} characters; this has {len(text):,}."
        problems.append(Problem(row, name, message, "Shorten it, or do not choose this column."))
        return ""
    return text


def _kind(cell: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(cell), "something else")


def listed(names: Sequence[str]) -> str:
    """At most twelve names, and how many there are besides."""
    shown = ", ".join(names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"


class Ids:
    """Which row an id was on first: an open hash table of 12 bytes a slot, because five million ids in a dict take 0.7
    GB. Two ids with the same 64-bit hash would be taken for one; among five million the chance of it is 1e-6."""

    def __init__(self) -> None:
        self.n = 0
        self._empty(1 << 10)

    def _empty(self, size: int) -> None:
        self.hashes, self.rows, self.mask = array("q", bytes(8 * size)), array("I", bytes(4 * size)), size - 1

    def first_row(self, key: str, row: int) -> int:
        """The row that had `key` before; `row` itself where none had."""
        hashed = hash(key) or 1  # 0 is an empty slot
        place = self._place(hashed)
        if self.hashes[place]:
            return self.rows[place]
        self.hashes[place], self.rows[place] = hashed, row
        self.n += 1
        if 2 * self.n > self.mask:
            self._grow()
        return row

    def _place(self, hashed: int) -> int:
        """The slot of this hash, or the empty one that it would take."""
        hashes, mask = self.hashes, self.mask
        place = hashed & mask
        while hashes[place] and hashes[place] != hashed:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        hashes, rows = self.hashes, self.rows
        self._empty(2 * len(hashes))
        for hashed, row in zip(hashes, rows, strict=True):
            if hashed:
                place = self._place(hashed)
                self.hashes[place], self.rows[place] = hashed, row


def only_once(row: Row, columns: Columns, ids: Ids) -> Row | Problem:
    """The row, or the problem that its id was there before."""
    earlier = ids.first_row(row.key, row.row)
    if earlier == row.row:
        return row
    message = f"The id “{row.key}” is on row {earlier} too."
    return Problem(row.row, columns.id, message, "Give each row its own id, or choose another id column, or none.")


def unstorable(record: Record, known: set[str]) -> list[Problem]:
    """Text that PostgreSQL cannot hold (NUL, lone surrogates) and cells that are too large, wherever they are.

    `known` are names of columns that were looked at; those of this record are added.
    """
    problems: list[Problem] = []
    for name, cell in record.cells.items():
        if name in known and (_is_storable(cell) if isinstance(cell, str) else _holds_no_text(cell)):
            continue
        texts = (name, cell) if isinstance(cell, str) else (name, *_texts(cell))
        if problem := next((problem for text in texts if (problem := _wrong(record.row, name, text))), None):
            problems.append(problem)
        elif len(known) < MAX_KNOWN:
            known.add(name)
    return problems


def _is_storable(text: str) -> bool:
    """Whether a quick look finds nothing wrong: nearly all that is read needs no other."""
    if "\0" in text or len(text) > MAX_CELL_BYTES // 4:
        return False
    try:
        return text.isascii() or bool(text.encode())  # to ask for ASCII costs nothing
    except UnicodeEncodeError:
        return False


def _holds_no_text(cell: Any) -> bool:
    return cell is None or isinstance(cell, int | float)


def _wrong(row: int, name: str, text: str) -> Problem | None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        message = f"It holds half of a surrogate pair, U+{ord(text[error.start]):04X}."
        return Problem(row, name, message, "Remove it; write the character itself or both halves.")
    if "\0" in text:
        return Problem(row, name, "It holds a NUL character (U+0000).", "Remove it.")
    if size > MAX_CELL_BYTES:
        message = f"It has {size:,} bytes, more than {MAX_CELL_BYTES:,} (1 MiB)."
        return Problem(row, name, message, "Split the document, or shorten it.")
    return None


def _texts(cell: Any) -> Iterator[str]:
    """Every text inside a nested cell, keys too."""
    waiting = [cell]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting.extend((*one, *one.values()))
        elif isinstance(one, list):
            waiting.extend(one)
