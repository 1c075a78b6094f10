"""Reading turns bytes into rows: a document, its references, its id, group and tags; or into problems.

Pure and streaming: memory does not grow with the file, except for some 24 bytes per id. The formats (`formats/`) know
how files are written, `mapping` which column is what, `building` what a row is. Files from outside are read by
`confining`, which runs this module in a limited child process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

from datasets_app import formats
from datasets_app.building import MAX_LABEL_CHARACTERS, Ids, Row, build, listed, only_once, unstorable
from datasets_app.formats import MAX_COLUMNS, Header, Problem, Record, Source, Unreadable
from datasets_app.formats._gzip import MAGIC, Gunzipped
from datasets_app.mapping import Columns, guess_columns, is_number

__all__ = ["MAX_LABEL_CHARACTERS", "Columns", "Gathered", "Problem", "Row", "Table", "guess_columns", "read"]

MAX_ROWS = 5_000_000
MAX_PROBLEMS = 100
PREVIEW_ROWS = 100
PREVIEW_CHARACTERS = 4 << 20  # the preview ends early where rows are this long together
HEAD_BYTES = 64 * 1024

FOREIGN = (  # what people upload by mistake, by its first bytes
    (
        b"\xd0\xcf\x11\xe0",
        "It is an old Excel or Word file, or a workbook with a password.",
        "Save it as .xlsx without a password, or export the sheet as CSV (UTF-8).",
    ),
    (b"PK\x05\x06", "It is an empty zip archive.", "Upload the file that was to be in it."),
    (b"(\xb5/\xfd", "It is compressed (zstd).", "Unpack it first."),
    (b"BZh", "It is compressed (bzip2).", "Unpack it first."),
    (b"\xfd7zXZ\0", "It is compressed (xz).", "Unpack it first."),
    (b"7z\xbc\xaf", "It is compressed (7-Zip).", "Unpack it first."),
    (b"%PDF", "It is a PDF.", "Put its text into a CSV or JSONL file, one document a row."),
)
UTF16 = "It looks like UTF-16."
AS_UTF8 = 'Save it as UTF-8 (in Excel: "CSV UTF-8", not "Unicode text").'
PACKABLE = ("csv", "json", "jsonl")  # what may be in a gzip file; the others are packed inside


class Table:
    """A file that has been opened: its format, its columns, its first rows; then all of its rows, once.

    * `header`: the names of the columns; `header_row` is the row that names them, None where none does.
    * `first`: the first records, and `problems` those among them (about PREVIEW_ROWS).
    * `format_name` is a key of `formats.available()`, or "" for a file of none; `is_packed`: in gzip.
    * `left_out`: {column: what it is} of columns that cannot be read; `notes`: sentences on what else is not read.
    * `bytes_read`: how far the file has been read, for a progress bar.

    Nothing is raised for any bytes; MemoryError, and what the source itself raises, come through.
    """

    _items: Iterator[Record | Problem]
    _stream: _Stream | None

    def __init__(self, source: Source | Path, split: str = "") -> None:
        """`source` is a stream of a file, or a folder that `save_to_disk` of the library `datasets` wrote: of a
        `split`, where it holds several."""
        self._clear()
        if isinstance(source, Path):
            self._items = _items_of_folder(source, split, self)
        else:
            self._stream = _Stream(source)
            self._items = _items(self._stream, self)
        self._look_ahead()

    def _clear(self) -> None:
        self.header: tuple[str, ...] = ()
        self.header_row: int | None = None
        self.first: list[Record] = []
        self.problems: list[Problem] = []
        self.format_name = ""
        self.is_packed = False
        self.left_out: Mapping[str, str] = {}
        self.notes: tuple[str, ...] = ()
        self._is_declared = False  # every record has these columns, for the file says so
        self._has_more = False
        self._ahead: list[Record | Problem] = []
        self._items = iter(())
        self._stream = None

    def _look_ahead(self) -> None:
        size = 0
        for item in self._items:
            self._ahead.append(item)
            if isinstance(item, Record):
                size += sum(len(cell) for cell in item.cells.values() if isinstance(cell, str | list))
            if len(self._ahead) >= PREVIEW_ROWS or size > PREVIEW_CHARACTERS:
                self._has_more = True
                break
        self._sort_ahead()
        if not self.header:
            names = dict.fromkeys(name for record in self.first for name in record.cells)
            self.header = tuple(names)[:MAX_COLUMNS]

    def _sort_ahead(self) -> None:
        self.first = [item for item in self._ahead if isinstance(item, Record)]
        self.problems = [item for item in self._ahead if isinstance(item, Problem)]

    @property
    def bytes_read(self) -> int:
        return self._stream.bytes_read if self._stream else 0

    def guess(self) -> Columns:
        return guess_columns(self.header, [record.cells for record in self.first])

    def columns(self, given: Mapping[str, Any] | None) -> Columns:
        """What was given, and guesses for what was not: {} guesses all, {"id": ""} guesses the rest but wants no id.

        No column is guessed into two places, so a guess gives way to what was given.
        """
        given = {name: value for name, value in (given or {}).items() if value is not None}
        fixed = Columns.from_dict(given)
        guess, taken = self.guess(), set(fixed.named)
        return Columns(
            source=fixed.source if "source" in given else _unless(guess.source, taken),
            references=fixed.references
            if "references" in given
            else tuple(name for name in guess.references if name not in taken),
            id=fixed.id if "id" in given else _unless(guess.id, taken),
            group=fixed.group if "group" in given else _unless(guess.group, taken),
            tags=fixed.tags if "tags" in given else tuple(name for name in guess.tags if name not in taken),
            predictions=fixed.predictions,
        )

    def rows(self, columns: Columns) -> Iterator[Row | Problem]:
        """Every row under this mapping and every problem, in the order of the file. Can be called once."""
        return self._rows(columns, chain(self._ahead, self._items), is_whole=True)

    def preview(self, columns: Columns) -> Iterator[Row | Problem]:
        """The same for the first rows (PREVIEW_ROWS, fewer where they are very long), as often as wanted."""
        return self._rows(columns, self._ahead, is_whole=not self._has_more)

    def _rows(self, columns: Columns, items: Iterable[Record | Problem], is_whole: bool) -> Iterator[Row | Problem]:
        if wrong := self.mapping_problems(columns):
            yield from wrong
            return
        ids = Ids()
        n_records = n_problems = n_numbers = first_row = 0
        for item in items:
            if n_records + n_problems >= MAX_ROWS:
                cure = "Split it into several datasets."
                yield Problem(item.row, "", f"The file has more than {MAX_ROWS:,} rows.", cure)
                return
            if isinstance(item, Problem):
                n_problems += 1
                yield item
                continue
            n_records += 1
            if n_numbers == n_records - 1:
                cell = item.cells.get(columns.source)
                n_numbers += isinstance(cell, str) and is_number(cell)
                first_row = first_row or item.row
            found = build(item, columns)
            if isinstance(found, list):
                yield from found
            else:
                yield only_once(found, columns, ids) if found.key else found
        if is_whole and not n_records and not n_problems:
            yield self._nothing()
        elif is_whole and n_records and n_numbers == n_records:
            message = "Every cell of this column is a number; a document is text."
            yield Problem(first_row, columns.source, message, _choose_another(self.header, columns.source))

    def mapping_problems(self, columns: Columns) -> list[Problem]:
        """What is wrong with the mapping itself. A file whose records name their own columns may lack any of them."""
        if not self.header:
            return []
        if not columns.source:
            known = f"No column is known to hold the documents. The columns are {listed(self.header)}."
            cure = "Say which column it is (source_column), or call it examples; call references ground_truth."
            return [Problem(self.header_row, "", known, cure)]
        problems = []
        for position, name in enumerate(columns.named):
            if name in columns.named[:position]:
                message = "The column is chosen for two things."
                problems.append(Problem(self.header_row, name, message, "Choose each column once."))
            elif name in self.left_out:
                message = f"The column cannot be read: it is of the type {self.left_out[name]}."
                problems.append(Problem(self.header_row, name, message, "Write it as text, or choose another."))
            elif name not in self.header and (name == columns.source or self._is_declared or not self._has_more):
                message = f"There is no such column. The columns are {listed(self.header)}."
                problems.append(Problem(self.header_row, name, message, "Choose one of them, or add it to the file."))
        return problems

    def _nothing(self) -> Problem:
        if self._is_declared:
            message = "There are column names but no rows."
            return Problem(self.header_row, "", message, "Add one row per document below them.")
        return Problem(None, "", "It is empty.", "Upload a CSV with a header, or a JSONL file, with a document a row.")


def read(source: Source, columns: Columns | None = None) -> Iterator[Row | Problem]:
    """The rows and problems of a file under `columns`, or under the guessed ones. Nothing is raised for any bytes."""
    table = Table(source)
    yield from table.rows(columns or table.guess())


def _unless(name: str, taken: set[str]) -> str:
    return "" if name in taken else name


def _items(stream: _Stream, table: Table) -> Iterator[Record | Problem]:
    """What the format of the file yields, with cells that cannot be stored turned into problems."""
    source: _Stream = stream
    try:
        if stream.head.startswith(MAGIC):
            source = _Stream(Gunzipped(stream))
            table.is_packed = True
        if problem := _foreign(source.head):
            yield problem
            return
        chosen = max(formats.available().values(), key=lambda one: one.likeness(source.head))
        table.format_name = chosen.name
        if table.is_packed and chosen.name not in PACKABLE:
            message = f"It is {chosen.label} and gzip around it."
            yield Problem(None, "", message, "Unpack it, and upload what was in it.")
            return
        yield from _storable(chosen.records(source), table)
    except Unreadable as error:
        yield error.problem


def _items_of_folder(path: Path, split: str, table: Table) -> Iterator[Record | Problem]:
    from datasets_app.formats import arrow

    table.format_name = arrow.format.name
    try:
        yield from _storable(arrow.records_of_folder(path, split), table)
    except Unreadable as error:
        yield error.problem
    except OSError as error:
        yield Problem(None, "", f"The folder cannot be read ({error.strerror}).", "Check that it may be read.")


def _storable(items: Iterable[Header | Record | Problem], table: Table) -> Iterator[Record | Problem]:
    known: set[str] = set()
    for item in items:
        if isinstance(item, Header):
            table.header_row, table.header = item.row, item.names
            table.left_out, table.notes = item.left_out, item.notes
            table._is_declared = True
        elif isinstance(item, Record) and (dirt := unstorable(item, known)):
            yield from dirt
        else:
            yield item


class _Stream:
    """A stream whose first bytes were already looked at, and that knows how far it was read."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.file = _seekable(source)
        self.n = 0
        self.head = b""
        while len(self.head) < HEAD_BYTES and (chunk := source.read(HEAD_BYTES - len(self.head))):
            self.head += chunk
        self.ahead = self.head

    def read(self, size: int, /) -> bytes:
        if self.ahead:
            taken, self.ahead = self.ahead[:size], self.ahead[size:]
        else:
            taken = self.source.read(size)
        self.n += len(taken)
        return taken

    def whole(self) -> IO[bytes] | None:
        """The file itself, at its beginning, where it can be sought."""
        if self.file:
            self.file.seek(0)
        return self.file

    @property
    def bytes_read(self) -> int:
        return max(self.n, self.file.tell() if self.file and not self.n and not self.file.closed else 0)


def _seekable(source: Any) -> Any:
    """`source`, if it is a file at its beginning that can be sought in."""
    if not isinstance(source, _Stream | Gunzipped) and hasattr(source, "seek") and hasattr(source, "tell"):
        can: Any = getattr(source, "seekable", lambda: False)
        if can() and source.tell() == 0:
            return source
    return None


def _foreign(head: bytes) -> Problem | None:
    for magic, message, cure in FOREIGN:
        if head.startswith(magic):
            return Problem(None, "", message, cure)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or (
        not head.startswith((b"PAR1", b"PARE", b"PK", b"ARROW1", b"\xff\xff\xff\xff"))
        and len(head) > 3
        and head[:200].count(0) >= len(head[:200]) // 3
    ):
        return Problem(None, "", UTF16, AS_UTF8)
    return None


def _choose_another(header: Sequence[str], wrong: str) -> str:
    others = [name for name in header if name != wrong]
    return "Choose the column that holds the documents" + (f": {listed(others)}." if others else ".")


class Gathered:
    """At most MAX_PROBLEMS problems, and how many there were in all."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.n = 0

    def add(self, problem: Problem) -> None:
        self.n += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)

    @property
    def rest(self) -> str:
        """What is said behind the last problem that is shown; empty when all are."""
        n = self.n - len(self.problems)
        return f"… and {n:,} more problem{'s' * (n != 1)}." if n else ""
