"""Reading turns bytes into rows: a document, its references, its id, group and tags; or into problems.

Pure and streaming: memory does not grow with the file, except for 16 bytes or so per id. The formats (`formats/`) know
how files are written; this module knows what a dataset is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from datasets_app import formats
from datasets_app.formats import EXPORT_INDEX, MAX_CELL_BYTES, MAX_COLUMNS, Header, Problem, Record, Source, Unreadable

MAX_ROWS = 5_000_000
MAX_PROBLEMS = 100
MAX_LABEL_CHARACTERS = 200  # an id, a group, the value of a tag
PREVIEW_ROWS = 100
HEAD_BYTES = 64 * 1024

SOURCES = (
    "examples", "example", "document", "documents", "text", "texts", "article", "dialogue", "dialog", "transcript",
    "source", "sources", "input", "content", "body", "context", "passage", "report", "email",
)  # fmt: skip
REFERENCES = (
    "ground_truth", "reference", "references", "summary", "summaries", "highlights", "abstract", "target", "tldr",
    "reference_summary", "gold",
)  # fmt: skip
IDS = ("id", "uid", "uuid", "example_id")
GROUPS = ("group", "groups", "category", "domain")
NUMBER = re.compile(r"\s*[-+]?[$€£]?\s*(\d[\d\s,.']*|\.\d+)([eE][-+]?\d+)?\s*%?\s*")

FOREIGN = (  # what people upload by mistake, by its first bytes
    (
        b"PK\x03\x04",
        "It is an Excel workbook or a zip archive.",
        "Export the sheet as CSV (UTF-8), or unpack it first.",
    ),
    (b"\xd0\xcf\x11\xe0", "It is an old Excel or Word file.", "Export the sheet as CSV (UTF-8)."),
    (b"\x1f\x8b", "It is compressed (gzip).", "Unpack it first."),
    (b"(\xb5/\xfd", "It is compressed (zstd).", "Unpack it first."),
    (b"%PDF", "It is a PDF.", "Put its text into a CSV or JSONL file, one document a row."),
    (b"PAR1", "It is a Parquet file, which is not read yet.", "Export it as JSONL or CSV."),
    (b"ARROW1", "It is an Arrow file.", "Export it as JSONL or CSV."),
)
UTF16 = "It looks like UTF-16."
AS_UTF8 = 'Save it as UTF-8 (in Excel: "CSV UTF-8", not "Unicode text").'


@dataclass(frozen=True)
class Columns:
    """Which column of the file is what. An empty name is none; columns that are not named are left out."""

    source: str = ""
    references: tuple[str, ...] = ()
    id: str = ""
    group: str = ""
    tags: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Columns:
        """From {source, references[], id, group, tags[]}, any of them absent or None. Names appear once in a list."""
        return cls(
            source=given.get("source") or "",
            references=tuple(dict.fromkeys(given.get("references") or ())),
            id=given.get("id") or "",
            group=given.get("group") or "",
            tags=tuple(dict.fromkeys(given.get("tags") or ())),
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "references": list(self.references),
            "id": self.id,
            "group": self.group,
            "tags": list(self.tags),
        }

    @property
    def named(self) -> tuple[str, ...]:
        """Every column in use, in the order source, references, id, group, tags."""
        return tuple(name for name in (self.source, *self.references, self.id, self.group, *self.tags) if name)


class Row(NamedTuple):
    """One example: `row` is its place in the file as its user counts, `key` its id there (possibly empty)."""

    row: int
    source: str
    references: list[str]
    key: str = ""
    group: str = ""
    tags: dict[str, Any] = {}


def guess_columns(header: Sequence[str], first: Sequence[Mapping[str, Any]] = ()) -> Columns:
    """The mapping that the names suggest: `examples` and `ground_truth` (with `ground_truth_2` …) by default, common
    synonyms otherwise; `source` is empty where no name is known. In a file that we exported, what is left are tags.

    `first` holds the cells of the first rows: a column of numbers is taken for the document only if no other can be.
    """
    tidy = {name: re.sub(r"[\s\-.]+", "_", name.strip().lower()) for name in header}

    def numbers(name: str) -> bool:
        cells = [row[name] for row in first if row.get(name) not in (None, "")]
        return bool(cells) and all(_is_number(cell) for cell in cells)

    def best(words: Sequence[str], taken: Iterable[str]) -> str:
        ranked = sorted((words.index(tidy[name]), name) for name in header if tidy[name] in words and name not in taken)
        return ranked[0][1] if ranked else ""

    if EXPORT_INDEX in header:
        return _our_own(header, tidy)
    source = best(SOURCES, [name for name in header if numbers(name)]) or best(SOURCES, ())
    references = _family(tidy, taken={source})
    key = best(IDS, {source, *references})
    return Columns(source, references, key, best(GROUPS, {source, *references, key}))


def _our_own(header: Sequence[str], tidy: Mapping[str, str]) -> Columns:
    """The columns of `exporting`, and everything else as tags."""
    source, key, group = (name if name in header else "" for name in ("examples", "id", "group"))
    references = _family(
        {name: plain for name, plain in tidy.items() if name == plain}, taken=set(), words=REFERENCES[:1]
    )
    used = {EXPORT_INDEX, source, key, group, *references}
    return Columns(source, references, key, group, tuple(name for name in header if name not in used))


def _family(tidy: Mapping[str, str], taken: set[str], words: Sequence[str] = REFERENCES) -> tuple[str, ...]:
    """The references of the first known word, with its numbered siblings in order: summary, summary_2, summary3."""
    for word in words:
        numbered = []
        for name, plain in tidy.items():
            match = re.fullmatch(rf"{word}_?(\d{{0,6}})", plain)
            if match and name not in taken:
                numbered.append((int(match[1] or 0), name))
        if numbered:
            return tuple(name for _, name in sorted(numbered))
    return ()


def _is_number(cell: Any) -> bool:
    if isinstance(cell, str):
        return len(cell) < 100 and NUMBER.fullmatch(cell) is not None
    return isinstance(cell, int | float) and not isinstance(cell, bool)


class Table:
    """A file that has been opened: its format, its columns, its first rows; then all of its rows, once.

    `problems` are those of the first PREVIEW_ROWS records. Nothing is raised for any bytes.
    """

    def __init__(self, source: Source) -> None:
        self.header: tuple[str, ...] = ()
        self.header_row: int | None = None
        self.first: list[Record] = []
        self.problems: list[Problem] = []
        self.format_name = ""
        self._ahead: list[Header | Record | Problem] = []
        self._items = _items(source, self)
        for item in self._items:
            self._ahead.append(item)
            if isinstance(item, Record):
                self.first.append(item)
            elif isinstance(item, Problem):
                self.problems.append(item)
            if len(self._ahead) > PREVIEW_ROWS:
                break
        if not self.header:
            names = dict.fromkeys(name for record in self.first for name in record.cells)
            self.header = tuple(names)[:MAX_COLUMNS]

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
        )

    def rows(self, columns: Columns) -> Iterator[Row | Problem]:
        """Every row under this mapping and every problem, in the order of the file. Can be called once."""
        return self._rows(columns, chain(self._ahead, self._items), is_whole=True)

    def preview(self, columns: Columns) -> Iterator[Row | Problem]:
        """The same for the first PREVIEW_ROWS, as often as wanted, before `rows`."""
        return self._rows(columns, self._ahead, is_whole=not self._has_more)

    def _rows(
        self, columns: Columns, items: Iterable[Header | Record | Problem], is_whole: bool
    ) -> Iterator[Row | Problem]:
        if wrong := self.mapping_problems(columns):
            yield from wrong
            return
        seen: dict[int, int] = {}  # hash of an id → its row; hashes, because five million ids would fill the memory
        n_records = n_problems = n_numbers = first_row = 0
        for item in items:
            if isinstance(item, Problem):
                n_problems += 1
                yield item
            elif isinstance(item, Record):
                n_records += 1
                if n_records > MAX_ROWS:
                    cure = "Split it into several datasets."
                    yield Problem(item.row, "", f"The file has more than {MAX_ROWS:,} rows.", cure)
                    return
                if n_numbers == n_records - 1:
                    cell = item.cells.get(columns.source)
                    n_numbers += isinstance(cell, str) and _is_number(cell)
                    first_row = first_row or item.row
                for found in _build(item, columns):
                    yield _only_once(found, columns, seen) if isinstance(found, Row) and found.key else found
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
            known = f"No column is known to hold the documents. The columns are {_listed(self.header)}."
            cure = "Say which column it is (source_column), or call it examples; call references ground_truth."
            return [Problem(self.header_row, "", known, cure)]
        problems = []
        for position, name in enumerate(columns.named):
            if name in columns.named[:position]:
                message = "The column is chosen for two things."
                problems.append(Problem(self.header_row, name, message, "Choose each column once."))
            elif name not in self.header and (name == columns.source or self.header_row or not self._has_more):
                message = f"There is no such column. The columns are {_listed(self.header)}."
                problems.append(Problem(self.header_row, name, message, "Choose one of them, or add it to the file."))
        return problems

    @property
    def _has_more(self) -> bool:
        return len(self._ahead) > PREVIEW_ROWS

    def _nothing(self) -> Problem:
        if self.header_row is not None:
            message = "There are column names but no rows."
            return Problem(self.header_row, "", message, "Add one row per document below them.")
        return Problem(None, "", "It is empty.", "Upload a CSV with a header, or a JSONL file, with a document a row.")


def read(source: Source, columns: Columns | None = None) -> Iterator[Row | Problem]:
    """The rows and problems of a file under `columns`, or under the guessed ones. Nothing is raised for any bytes."""
    table = Table(source)
    yield from table.rows(columns or table.guess())


def _unless(name: str, taken: set[str]) -> str:
    return "" if name in taken else name


def _items(source: Source, table: Table) -> Iterator[Header | Record | Problem]:
    """What the format of the file yields, with cells that cannot be stored turned into problems."""
    head = source.read(HEAD_BYTES)
    if problem := _foreign(head):
        yield problem
        return
    chosen = max(formats.available().values(), key=lambda one: one.likeness(head))
    table.format_name = chosen.name
    try:
        for item in chosen.records(_Replayed(head, source)):
            if isinstance(item, Header):
                table.header_row, table.header = item.row, item.names
            if isinstance(item, Record):
                dirt = list(_unstorable(item))
                if dirt:
                    yield from dirt
                    continue
            yield item
    except Unreadable as error:
        yield error.problem


class _Replayed:
    """A stream whose first bytes were already taken."""

    def __init__(self, head: bytes, source: Source) -> None:
        self.head, self.source = head, source

    def read(self, size: int, /) -> bytes:
        if self.head:
            taken, self.head = self.head[:size], self.head[size:]
            return taken
        return self.source.read(size)


def _foreign(head: bytes) -> Problem | None:
    for magic, message, cure in FOREIGN:
        if head.startswith(magic):
            return Problem(None, "", message, cure)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or (len(head) > 3 and head[:200].count(0) >= len(head[:200]) // 3):
        return Problem(None, "", UTF16, AS_UTF8)
    return None


def _unstorable(record: Record) -> Iterator[Problem]:
    """Text that PostgreSQL cannot hold (NUL, lone surrogates) and cells that are too large, wherever they are."""
    for name, cell in record.cells.items():
        for text in (name, cell) if isinstance(cell, str) else (name, *_texts(cell)):
            if text.isascii():  # free for CPython, and then characters are bytes
                size = len(text)
            else:
                try:
                    size = len(text.encode())
                except UnicodeEncodeError as error:
                    message = f"It holds half of a surrogate pair, U+{ord(text[error.start]):04X}."
                    yield Problem(record.row, name, message, "Remove it; write the character itself or both halves.")
                    break
            if "\0" in text:
                yield Problem(record.row, name, "It holds a NUL character (U+0000).", "Remove it.")
                break
            if size > MAX_CELL_BYTES:
                message = f"It has {size:,} bytes, more than {MAX_CELL_BYTES:,} (1 MiB)."
                yield Problem(record.row, name, message, "Split the document, or shorten it.")
                break


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


def _build(record: Record, columns: Columns) -> Iterator[Row | Problem]:
    """The row of one record, or each of its problems."""
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
    key, problem = _label(number, columns.id, cells, "An id")
    group, other = _label(number, columns.group, cells, "A group")
    problems.extend(one for one in (problem, other) if one)
    tags: dict[str, Any] = {}
    for name in columns.tags:
        cell = cells.get(name)
        if isinstance(cell, bool | int | float) and len(str(cell)) <= MAX_LABEL_CHARACTERS:
            tags[name] = cell
            continue
        value, problem = _label(number, name, cells, "A tag")
        if problem:
            problems.append(problem)
        elif value:
            tags[name] = value
    if problems:
        yield from problems
    else:
        yield Row(number, source, references, key, group, tags)  # type: ignore[arg-type]


def _no_document(record: Record, name: str) -> Problem:
    if name not in record.cells:
        message = f"The column is missing here; the row has {_listed(tuple(record.cells))}."
        return Problem(record.row, name, message, "Add it, or choose the column that every row has.")
    cell = record.cells[name]
    if cell is None or (isinstance(cell, str)):
        return Problem(record.row, name, "The document is blank.", "Fill it in, or remove the row.")
    if _is_number(cell):
        another = "Choose the column that holds the documents as text."
        return Problem(record.row, name, "It is a number; a document is text.", another)
    return Problem(record.row, name, f"It is {_kind(cell)}; a document is one text.", "Join its parts into one text.")


def _label(row: int, name: str, cells: Mapping[str, Any], what: str) -> tuple[str, Problem | None]:
    """The short text of a cell (empty for a missing one), or what is wrong with it."""
    cell = cells.get(name) if name else None
    if cell is None:
        return "", None
    if isinstance(cell, dict | list):
        return "", Problem(row, name, f"{what} is short text or a number; this is {_kind(cell)}.", "Write it as text.")
    text = cell.strip() if isinstance(cell, str) else str(cell).lower() if isinstance(cell, bool) else str(cell)
    if len(text) > MAX_LABEL_CHARACTERS:
        message = f"{what} has at most {MAX_LABEL_CHARACTERS} characters; this has {len(text):,}."
        return "", Problem(row, name, message, "Shorten it, or do not choose this column.")
    return text, None


def _only_once(row: Row, columns: Columns, seen: dict[int, int]) -> Row | Problem:
    earlier = seen.setdefault(hash(row.key), row.row)
    if earlier == row.row:
        return row
    message = f"The id “{row.key}” is on row {earlier} too."
    return Problem(row.row, columns.id, message, "Give each row its own id, or choose another id column, or none.")


def _kind(cell: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(cell), "something else")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"


def _choose_another(header: Sequence[str], wrong: str) -> str:
    others = [name for name in header if name != wrong]
    return "Choose the column that holds the documents" + (f": {_listed(others)}." if others else ".")


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
