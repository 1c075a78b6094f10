"""Parsing reads a JSON body within bounds, and refuses what PostgreSQL could not keep, before anything is begun.

Django limits form bodies; DRF reads JSON straight from the connection, so without this a body may be of any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError, ValidationError
from rest_framework.parsers import JSONParser
from rest_framework.status import HTTP_413_REQUEST_ENTITY_TOO_LARGE

DEEPEST = 32


class TooLarge(APIException):
    status_code = HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "The body of this request is too large."
    default_code = "too_large"


class StrictJSON(JSONParser):
    """JSON of at most `limit` bytes (DATA_UPLOAD_MAX_MEMORY_SIZE), at most 32 levels deep, of finite numbers, without
    NUL and halves of surrogate pairs. Raises TooLarge (413), ParseError or ValidationError (400) naming the place."""

    limit: int | None = None

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        limit = self.limit or settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if limit is not None:
            _check_size(parser_context, limit)
        try:
            data = super().parse(stream, media_type, parser_context)
        except RecursionError:
            raise ParseError(f"This JSON is nested more than {DEEPEST} levels deep.") from None
        if wrong := dict(_unstorable(data, ())):
            raise ValidationError(wrong)
        return data


def _check_size(parser_context: Mapping[str, Any] | None, limit: int) -> None:
    headers = parser_context["request"].META if parser_context else {}
    length = str(headers.get("CONTENT_LENGTH") or "0")
    if not length.isdigit() or int(length) > limit:
        raise TooLarge(f"A JSON body may have {limit:,} bytes here: send less at once, or upload a file.")


def _unstorable(value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """(where, what is wrong) for every text and number that cannot be stored."""
    where = ".".join(place)
    if len(place) > DEEPEST:
        yield ".".join(place[:4]), [f"nested more than {DEEPEST} levels deep"]
    elif isinstance(value, dict):
        for key, inner in value.items():
            if _is_broken(key):
                yield where, ["a name in here holds a NUL or half a surrogate pair; remove it"]
            else:
                yield from _unstorable(inner, (*place, key[:60]))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _unstorable(inner, (*place, str(position)))
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
