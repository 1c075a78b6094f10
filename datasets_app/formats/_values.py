"""JSON values, read strictly (RFC 8259; SECURITY S21): what JSONL and a JSON list have in common."""

from __future__ import annotations

import json
import math
from typing import Any

from datasets_app.formats import MAX_COLUMNS, MAX_NAME_CHARACTERS

MAX_DEPTH = 32


class Refused(Exception):
    """One object cannot be taken: why, and how to mend it. The next one may be good."""

    def __init__(self, message: str, cure: str, column: str = "") -> None:
        super().__init__(message)
        self.message, self.cure, self.column = message, cure, column


TOO_DEEP = (f"It is nested deeper than {MAX_DEPTH} levels.", "Keep text, and lists of text, directly in the object.")
ONE_A_LINE = 'Write one object a line, such as {"examples": "…", "ground_truth": "…"}.'


def whole_object(text: str, cure: str = ONE_A_LINE) -> dict[str, Any]:
    """The object that `text` is, with nothing behind it. Raises Refused, with `cure` where it is no object."""
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Refused(f"It is not JSON: {error.msg} at character {error.colno}.", cure) from None
    except RecursionError:
        raise Refused(*TOO_DEEP) from None
    except ValueError:  # int() refuses more digits than sys.get_int_max_str_digits(), 4,300
        raise Refused("It holds an integer of more than 4,300 digits.", "Write it as text, in quotes.") from None
    return as_object(value, cure)


def as_object(value: Any, cure: str = ONE_A_LINE) -> dict[str, Any]:
    """`value`, if it is an object whose cells can be taken. Raises Refused."""
    if not isinstance(value, dict):
        raise Refused(f"It is {_kind(value)}, not an object.", cure)
    if len(value) > MAX_COLUMNS:
        message = f"It has {len(value)} columns, more than {MAX_COLUMNS}."
        raise Refused(message, "Keep the columns that are needed.")
    for name, cell in value.items():
        if len(name) > MAX_NAME_CHARACTERS or not name.strip():
            message = f"A column has a blank name, or one of more than {MAX_NAME_CHARACTERS} characters."
            raise Refused(message, "Give each column a short name.")
        if isinstance(cell, dict | list | float):
            check(name, cell)
    return value


def check(name: str, cell: Any) -> None:
    """Refuse what is nested too deeply, and numbers that are not finite. Level by level: recursion has its limit."""
    depth, level = 1, [cell]
    while level:
        depth += any(isinstance(one, dict | list) for one in level)
        if depth > MAX_DEPTH:
            raise Refused(*TOO_DEEP, column=name)
        inner: list[Any] = []
        for one in level:
            if isinstance(one, float) and not math.isfinite(one):
                message = f"It holds {one}: no number, or one that is too large."
                raise Refused(message, "Write null, or leave the column out.", column=name)
            inner.extend(one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        level = [one for one in inner if isinstance(one, dict | list | float)]


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Refused("It is there twice.", "Keep one of the two, or rename one.", column=twice)
    return found


# NaN and Infinity are no JSON, but Python's decoder knows them: `check` can then say in which column they are.
DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=float)
