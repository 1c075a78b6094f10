"""Names of columns as a header gives them, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence

from datasets_app.formats import MAX_COLUMNS, MAX_NAME_CHARACTERS, Problem


def named(cells: Sequence[str]) -> tuple[str, ...]:
    """Header cells as names. One may be blank, as in files that pandas writes with an index: it gets a name."""
    names = [cell.strip() for cell in cells]
    if names.count("") == 1:
        names[names.index("")] = f"column {names.index('') + 1}"
    return tuple(names)


def name_problems(row: int | None, names: Sequence[str]) -> list[Problem]:
    """Too many columns, nameless ones, names that are too long or there twice."""
    if len(names) > MAX_COLUMNS:
        message = f"There are {len(names)} columns, more than {MAX_COLUMNS}."
        return [Problem(row, "", message, "Keep the columns that are needed.")]
    problems = []
    nameless = [str(position) for position, name in enumerate(names, start=1) if not name.strip()]
    if nameless:
        message = f"Columns {', '.join(nameless)} have no name."
        problems.append(Problem(row, "", message, "Name every column in the first row, or remove empty ones."))
    for position, name in enumerate(names, start=1):
        if len(name) > MAX_NAME_CHARACTERS:
            message = f"The name of column {position} has {len(name)} characters, more than {MAX_NAME_CHARACTERS}."
            problems.append(Problem(row, "", message, "Begin the file with a row of short column names."))
        elif name and name in names[: position - 1]:
            message = f"Columns {names.index(name) + 1} and {position} have the same name."
            problems.append(Problem(row, name, message, "Give each column its own name."))
    return problems
