"""XLSX, ECMA-376: the first visible sheet of an Excel workbook, its first row the names of the columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datasets_app.formats import Format, Header, Problem, Record, Source, Unreadable, whole
from datasets_app.formats._names import name_problems, named
from datasets_app.formats._workbook import AGAIN, Bad, Workbook, opened


def records(source: Source) -> Iterator[Header | Record | Problem]:
    """Rows are counted as the sheet does; empty cells are None, dates ISO 8601, formulas the values stored for them."""
    book = Workbook(opened(whole(source)))
    if not book.sheets:
        raise Unreadable(Problem(None, "", "The workbook has no sheet of cells.", AGAIN))
    chosen = next((sheet for sheet in book.sheets if sheet[2]), book.sheets[0])
    others = [sheet[0] for sheet in book.sheets if sheet is not chosen]
    header: Header | None = None
    for row, cells in book.rows(chosen[1]):
        if not any(cell != "" for cell in cells.values()):
            continue
        if header is None:
            header = Header(row, named(_texts(cells)), notes=_notes(chosen[0], others))
            if problems := [*_bad(row, cells, header.names), *name_problems(*header[:2])]:
                yield from problems
                return
            yield header
        elif problems := _bad(row, cells, header.names):
            yield from problems
        else:
            yield Record(row, {name: cells.get(place) for place, name in enumerate(header.names)})


def _texts(cells: dict[int, Any]) -> list[str]:
    return [str(cells.get(place, "")) for place in range(max(cells) + 1)]


def _bad(row: int, cells: dict[int, Any], names: tuple[str, ...]) -> list[Problem]:
    """The cells of a row that have no value, and those that no column is named for."""
    problems = []
    for place, cell in cells.items():
        if isinstance(cell, Bad):
            problems.append(Problem(row, names[place] if place < len(names) else "", cell.message, cell.cure))
        elif place >= len(names) and cell != "":
            message = f"It has a cell in column {place + 1}, the header has {len(names)} columns."
            problems.append(Problem(row, "", message, "Name the column in the first row, or clear the cell."))
    return problems


def _notes(chosen: str, others: list[str]) -> tuple[str, ...]:
    if not others:
        return ()
    shown = ", ".join(f"“{name[:60]}”" for name in others[:5]) + (" and others" if len(others) > 5 else "")
    return (f"Only the sheet “{chosen[:60]}” is read. To use {shown}, move it to the front or save it alone.",)


format = Format(
    name="xlsx",
    label="Excel",
    extensions=(".xlsx", ".xlsm"),
    about=(
        "The first sheet of a workbook: a first row with the names of the columns, then one document a row. Formulas "
        "count as the values that were stored with them; dates are read as 2026-01-31."
    ),
    likeness=lambda head: 2 if head.startswith(b"PK\x03\x04") else 0,
    records=records,
)
