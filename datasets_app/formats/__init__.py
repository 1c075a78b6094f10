"""File formats of datasets: one module each, found by `available()`. Copy a neighbour to add one.

A format turns a stream of bytes into records, one at a time, in constant memory, and names what it cannot read as
problems. It knows nothing about documents and references (that is `reading`), never touches the database, and imports
its heavy library inside the function that needs it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import IO, Any, NamedTuple, Protocol

from lumigator.discovery import discover

MAX_COLUMNS = 256
MAX_CELL_BYTES = 1 << 20
MAX_NAME_CHARACTERS = 200
MAX_RECORD_CHARACTERS = 16 << 20  # all cells of one record together; bounds memory before any cell is known
MAX_RATIO = 100  # how many bytes one byte of a compressed file may become (SECURITY S20)
MAX_DECODED_BYTES = 4 << 30
FREE_DECODED_BYTES = 16 << 20  # so many harm nobody, however well a small file was compressed
EXPORT_INDEX = "lumigator_index"  # the column that marks a file as one of our own exports


def printable(text: str, limit: int = 300) -> str:
    """`text` as a page or a log line can hold it: whole characters, one line, at most `limit` of them."""
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    text = text.encode("utf-8", "replace").decode()
    return "".join(one if one.isprintable() else "?" if one == "\0" else " " for one in text)


class Source(Protocol):
    """What formats read from: forward only, because an upload may arrive over the network."""

    def read(self, size: int, /) -> bytes: ...


def whole(source: Source) -> IO[bytes]:
    """The file behind `source`, at its beginning, for a format that has to seek in it.

    A source that offers one has a method `whole()`; any other is copied to a temporary file, which is gone when it is
    closed or forgotten.
    """
    offered: Callable[[], IO[bytes] | None] = getattr(source, "whole", lambda: None)
    if file := offered():
        return file
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as what reads it
    while chunk := source.read(1 << 20):
        copy.write(chunk)
    copy.seek(0)
    return copy


def decoded_limit(n_bytes: int) -> int:
    """How many bytes a compressed file of `n_bytes` may become: MAX_RATIO times as many, within fixed bounds."""
    return min(max(MAX_RATIO * n_bytes, FREE_DECODED_BYTES), MAX_DECODED_BYTES)


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


def bomb(n_bytes: int) -> Unreadable:
    """For a compressed file of `n_bytes` that becomes more than `decoded_limit`."""
    return Unreadable(
        Problem(
            None,
            "",
            f"Unpacked it is larger than {decoded_limit(n_bytes) >> 20:,} MiB, the limit for a file of its size "
            f"({MAX_RATIO} times as large, {MAX_DECODED_BYTES >> 30} GiB at most).",
            "Split it into several datasets, or export it as plain CSV or JSONL.",
        )
    )


class Header(NamedTuple):
    """The columns that every record has. Formats whose records name their own columns (JSONL) have none.

    `row` is the row that names them; None where the file names them elsewhere. `left_out` tells of further columns
    that are no text, numbers or lists of texts, {name: what they are}; `notes` are sentences on what else was not read.
    """

    row: int | None
    names: tuple[str, ...]
    left_out: Mapping[str, str] = MappingProxyType({})
    notes: tuple[str, ...] = ()


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
      that ends the reading is raised as `Unreadable`. Nothing else is ever raised, whatever the bytes, but for
      MemoryError and what `source.read` raises itself.
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
