"""JSONL, https://jsonlines.org: one JSON object a line, read strictly (RFC 8259; SECURITY S21)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from datasets_app.formats import MAX_COLUMNS, MAX_NAME_CHARACTERS, Format, Header, Problem, Record, Source
from datasets_app.formats._lines import lines

MAX_DEPTH = 32
LOOKS_LIKE_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*(\{|\[\s*[\[{\]\"])")


def records(source: Source) -> Iterator[Header | Record | Problem]:
    for number, line in enumerate(lines(source), start=1):
        if line.isspace():
            continue
        try:
            yield Record(number, _object(line))
        except _Refused as error:
            yield Problem(number, error.column, error.message, error.cure)


class _Refused(Exception):
    def __init__(self, message: str, cure: str, column: str = "") -> None:
        super().__init__(message)
        self.message, self.cure, self.column = message, cure, column


def _object(line: str) -> dict[str, Any]:
    try:
        value = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise _Refused(f"It is not JSON: {error.msg} at character {error.colno}.", _cure(line)) from None
    except RecursionError:
        raise _Refused(*_TOO_DEEP) from None
    except ValueError:  # int() refuses more digits than sys.get_int_max_str_digits(), 4,300
        raise _Refused("It holds an integer of more than 4,300 digits.", "Write it as text, in quotes.") from None
    if not isinstance(value, dict):
        raise _Refused(f"It is {_kind(value)}, not an object.", _cure(line))
    if len(value) > MAX_COLUMNS:
        message = f"It has {len(value)} columns, more than {MAX_COLUMNS}."
        raise _Refused(message, "Keep the columns that are needed.")
    for name, cell in value.items():
        if not name.strip() or len(name) > MAX_NAME_CHARACTERS:
            message = f"A column has a blank name, or one of more than {MAX_NAME_CHARACTERS} characters."
            raise _Refused(message, "Give each column a short name.")
        if isinstance(cell, dict | list | float):
            _check(name, cell)
    return value


def _check(name: str, cell: Any) -> None:
    """Refuse what is nested too deeply, and numbers that are not finite. Level by level: recursion has its limit."""
    depth, level = 1, [cell]
    while level:
        depth += any(isinstance(one, dict | list) for one in level)
        if depth > MAX_DEPTH:
            raise _Refused(*_TOO_DEEP, column=name)
        inner: list[Any] = []
        for one in level:
            if isinstance(one, float) and not math.isfinite(one):
                message = f"It holds {one}: no number, or one that is too large."
                raise _Refused(message, "Write null, or leave the column out.", column=name)
            inner.extend(one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        level = [one for one in inner if isinstance(one, dict | list | float)]


_TOO_DEEP = (f"It is nested deeper than {MAX_DEPTH} levels.", "Keep text, and lists of text, directly in the object.")


def _cure(line: str) -> str:
    if line.lstrip().startswith("["):
        return "Write one object a line, without the list around them."
    return 'Write one object a line, such as {"examples": "…", "ground_truth": "…"}.'


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _Refused("It is there twice.", "Keep one of the two, or rename one.", column=twice)
    return found


# NaN and Infinity are no JSON, but Python's decoder knows them: `_check` can then say in which column they are.
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=float)

format = Format(
    name="jsonl",
    label="JSONL",
    extensions=(".jsonl", ".ndjson", ".json"),
    about=(
        'One JSON object a line: {"examples": "…", "ground_truth": "…"}. A list of texts as ground_truth gives a '
        "document several references; a missing or null one gives it none. UTF-8."
    ),
    likeness=lambda head: 2 if LOOKS_LIKE_JSON.match(head) else 0,
    records=records,
)
