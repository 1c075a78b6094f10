"""Batches of Arrow's columns as records: text, numbers, true or false, and lists of texts (SECURITY S20).

Texts that are encoded by a dictionary stay so until their cells are taken one by one: a value that stands a million
times in a file of a few bytes is in the memory once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from datasets_app.formats import Header, Problem, Record, Unreadable, bomb, decoded_limit
from datasets_app.formats._names import name_problems

if TYPE_CHECKING:
    import pyarrow as pa

TOO_MUCH_MEMORY = "Write it with smaller row groups (in pandas: row_group_size=10_000), or as JSONL."


def header_of(schema: pa.Schema) -> Header:
    """The columns that can be read, in the order of the file, and what the others are."""
    left_out = {str(field.name): kind for field in schema if (kind := _unreadable(field.type))}
    names = tuple(str(field.name) for field in schema if not _unreadable(field.type))
    return Header(None, names, left_out)


def header_problems(header: Header) -> list[Problem]:
    """Why no record can be had under this header; empty when they can."""
    if not header.names:
        kinds = ", ".join(f"{name} ({kind})" for name, kind in list(header.left_out.items())[:12]) or "none"
        message = f"No column holds text, numbers or lists of texts. The columns are {kinds}."
        return [Problem(None, "", message, "Write the documents as a column of text (utf8).")]
    return name_problems(None, (*header.names, *(name for name in header.left_out if name not in header.names)))


def _unreadable(kind: pa.DataType) -> str:
    """What a column is that cannot be read; "" for one that can."""
    import pyarrow as pa

    is_type = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return f"extension type {kind.extension_name}"
    if is_type.is_dictionary(kind):
        kind = kind.value_type
    if is_type.is_list(kind) or is_type.is_large_list(kind):
        return "" if _is_text(kind.value_type) or is_type.is_null(kind.value_type) else str(kind)
    if _is_text(kind) or is_type.is_boolean(kind) or is_type.is_integer(kind) or is_type.is_floating(kind):
        return ""
    return "" if is_type.is_null(kind) else str(kind)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


class Cells:
    """Turns batches into records, counted from 1, and what all of them hold against the limit for the file's size."""

    def __init__(self, names: Sequence[str], n_bytes: int) -> None:
        self.names = names
        self.n_bytes = n_bytes
        self.left = decoded_limit(n_bytes)
        self.row = 0
        self.dictionaries: dict[str, tuple[Any, list[Any]]] = {}

    def records(self, batch: pa.RecordBatch) -> Iterator[Record | Problem]:
        """Raises Unreadable once the file has become too large."""
        columns = {}
        bad: dict[int, list[Problem]] = {}
        for name in self.names:
            columns[name] = cells = self._column(name, batch.column(name), bad)
            self.left -= sum(_size(cell) for cell in cells)
            if self.left < 0:
                raise bomb(self.n_bytes)
        for place, row in enumerate(zip(*columns.values(), strict=True)):
            if place in bad:
                yield from bad[place]
            else:
                yield Record(self.row + place + 1, dict(zip(self.names, row, strict=True)))
        self.row += batch.num_rows

    def _column(self, name: str, column: pa.Array, bad: dict[int, list[Problem]]) -> list[Any]:
        import pyarrow as pa

        values = self._values(name, column, bad)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_floating(kind):
            for place, value in enumerate(values):
                if value is not None and not math.isfinite(value):
                    message = f"It holds {value}: no number, or one that is too large."
                    problem = Problem(self.row + place + 1, name, message, "Write null, or leave the column out.")
                    bad.setdefault(place, []).append(problem)
        return values

    def _values(self, name: str, column: pa.Array, bad: dict[int, list[Problem]]) -> list[Any]:
        import pyarrow as pa

        if pa.types.is_dictionary(column.type):
            known = self._dictionary(name, column.dictionary)
            values = [None if index is None else known[index] for index in column.indices.to_pylist()]
        else:
            values = self._texts(column)
        for place, value in enumerate(values):
            if value is _NOT_UTF8:
                message = "The text of this cell is not UTF-8."
                problem = Problem(self.row + place + 1, name, message, "Write the column as UTF-8 text.")
                bad.setdefault(place, []).append(problem)
                values[place] = None
        return values

    def _dictionary(self, name: str, dictionary: pa.Array) -> list[Any]:
        """Its values. Batches of one row group share one: what is kept, and so cannot be freed, tells it again."""
        kept, values = self.dictionaries.get(name, (None, []))
        if kept is None or len(kept) != len(dictionary) or _addresses(kept) != _addresses(dictionary):
            values = self._texts(dictionary)
            self.dictionaries[name] = (dictionary, values)
        return values

    def _texts(self, column: pa.Array) -> list[Any]:
        try:
            return list(column.to_pylist())
        except UnicodeDecodeError:
            return [_one(value) for value in column]


_NOT_UTF8 = object()


def _one(value: pa.Scalar[Any]) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return _NOT_UTF8


def _addresses(array: pa.Array) -> list[tuple[int, int] | None]:
    return [buffer and (buffer.address, buffer.size) for buffer in array.buffers()] + [(array.offset, 0)]


def _size(cell: Any) -> int:
    if isinstance(cell, str):
        return len(cell)
    return 8 + sum(len(one or "") for one in cell) if isinstance(cell, list) else 8


def damaged(what: str, error: Exception) -> Unreadable:
    """For what pyarrow raised over a file; its words may quote the file and are cut."""
    if "encrypt" in str(error).lower() or "decrypt" in str(error).lower():
        return encrypted(what)
    first = (str(error).splitlines() or [type(error).__name__])[0][:160].rstrip(". ")
    message = f"The {what} file is damaged or cut off ({first})."
    return Unreadable(Problem(None, "", message, "Write it again and upload the whole file."))


def encrypted(what: str) -> Unreadable:
    return Unreadable(Problem(None, "", f"The {what} file is encrypted.", "Export it without encryption."))
