"""Parsing reads a JSON body and refuses what PostgreSQL could not keep, before any work is begun.

The size of a body is limited by DATA_UPLOAD_MAX_MEMORY_SIZE, which DRF 3.18 honours for JSON too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.parsers import JSONParser

DEEPEST = 32


class StrictJSON(JSONParser):
    """JSON of at most 32 levels and finite numbers, without NUL or halves of surrogate pairs.

    Raises ParseError, or ValidationError naming the place: a free-form field (generation parameters, say) would
    otherwise fail in the database, as an error of ours.
    """

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            data = super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError(f"This JSON is nested more than {DEEPEST} levels deep.") from None
        if wrong := dict(unstorable(data, ())):
            raise ValidationError(wrong)
        return data


def unstorable(value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """(where, what is wrong) for every text and number that cannot be stored."""
    where = ".".join(place)
    if len(place) > DEEPEST:
        yield ".".join(place[:4]), [f"nested more than {DEEPEST} levels deep"]
    elif isinstance(value, dict):
        for key, inner in value.items():
            if _is_broken(key):
                yield where, ["a name in here holds a NUL or half a surrogate pair; remove it"]
            else:
                yield from unstorable(inner, (*place, key[:60]))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from unstorable(inner, (*place, str(position)))
    elif isinstance(value, str) and _is_broken(value):
        yield where, ["the text holds a NUL or half a surrogate pair; remove it"]
    elif isinstance(value, float) and not math.isfinite(value):
        yield where, ["the number is too large"]


def _is_broken(text: str) -> bool:
    if "\0" in text:
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
