"""Admitting decides what a metric may score: blank outputs, missing references, and choices of options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from evaluations.metrics import Absent, Item, Part, Value

EMPTY = Absent("failed", "the output is empty")
NO_REFERENCE = Absent("not_applicable", "no reference summary")


def absence(item: Item) -> Absent | None:
    """Why a metric that compares with references cannot score `item`, or None. Blank references count as none.

    A missing reference comes first: no output of that document could have had a score, so none of them failed.
    """
    if not usable(item):
        return NO_REFERENCE
    return None if item.text.strip() else EMPTY


def usable(item: Item) -> list[str]:
    """The references of `item` that say something, in order."""
    return [reference for reference in item.references if reference.strip()]


def everywhere(absent: Absent, parts: Iterable[Part]) -> dict[str, Value]:
    """The same reason for every part."""
    return {part.name: absent for part in parts}


def choice(options: Mapping[str, Any], name: str, allowed: Sequence[str]) -> str:
    """The option `name`. Raises ValueError for a value that is not among `allowed`."""
    value = options[name]
    if value not in allowed:
        raise ValueError(f"the option {name!r} is {value!r}: choose one of {', '.join(allowed)}")
    return str(value)


AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "max": max,
    "mean": lambda values: sum(values) / len(values),
}
"""How the scores against several references become one."""
