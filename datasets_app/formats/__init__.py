"""File formats of datasets: one module each, found by `available()`. Copy a neighbour to add one.

A format turns a stream of bytes into records, one at a time, in constant memory, and names what it cannot read as
problems. It knows nothing about documents and references (that is `reading`), never touches the database, and imports
its heavy library inside the function that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

from lumigator.discovery import discover

MAX_COLUMNS = 256
MAX_CELL_BYTES = 1 << 20
MAX_NAME_CHARACTERS = 200
MAX_RECORD_CHARACTERS = 16 << 20  # all cells of one record together; bounds memory before any cell is known
EXPORT_INDEX = "lumigator_index"  # the column that marks a file as one of our own exports


def printable(text: str, limit: int = 300) -> str:
    """`text` as a page or a log line can hold it: whole characters, one line, at most `limit` of them."""
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    text = text.encode("utf-8", "replace").decode()
    return "".join(one if one.isprintable() else "?" if one == "\0" else " " for one in text)


class Source(Protocol):
    """What formats read from: forward only, because an upload may arrive over the network."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file: where, what, and how to mend it.

    `row` counts as the user's editor does: the row of the sheet from 1 (a CSV's header is row 1), the line of a JSONL
    file. None means the file as a whole. An empty `column` means the whole row.
    """

    row: int | None
    column: str
    message: str
    cure: str

    def __post_init__(self) -> None:
        # Names and cells come from the file: what no page can show (NUL, lone surrogates) is shown as a question mark.
        for name in ("column", "message"):
            object.__setattr__(self, name, printable(getattr(self, name)))

    @property
    def where(self) -> str:
        if self.row is None:
            return "file"
        return f"row {self.row}, column {self.column}" if self.column else f"row {self.row}"

    def __str__(self) -> str:
        return f"{self.where}: {self.message} {self.cure}"


class Unreadable(Exception):
    """Nothing behind this problem can be read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Header(NamedTuple):
    """The columns that every record has. Formats whose records name their own columns (JSONL) have none."""

    row: int
    names: tuple[str, ...]


class Record(NamedTuple):
    """One row: its number as the user sees it, and its cells (text, or what JSON can hold) by column."""

    row: int
    cells: dict[str, Any]


@dataclass(frozen=True)
class Format:
    """A plug-in.

    * `about`: a sentence or two for somebody who has to prepare a file; shown on the upload page.
    * `likeness(head)`: how sure the format is, from the first bytes of a file (the name of a file never counts):
      0 not mine, 1 could be, 2 nobody else's.
    * `records(source)`: at most one `Header`, first; then records and problems in the order of the file. A problem
      that ends the reading is raised as `Unreadable`. Nothing else is ever raised, whatever the bytes.
    """

    name: str
    label: str
    extensions: tuple[str, ...]
    about: str
    likeness: Callable[[bytes], int]
    records: Callable[[Source], Iterator[Header | Record | Problem]]


@cache
def available() -> dict[str, Format]:
    """Every format of this installation by name."""
    from datasets_app import formats

    return discover(formats, "format", Format)
