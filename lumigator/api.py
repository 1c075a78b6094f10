"""What every endpoint of the API shares: problem+json errors, cursor pages, idempotent POSTs."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from functools import wraps
from hashlib import sha256
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import IntegrityError, transaction
from django.http import Http404
from rest_framework import exceptions, status
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

from lumigator.access import team_of
from lumigator.models import IdempotencyKey
from models_registry.providers import ProviderError

log = logging.getLogger(__name__)


class Pages(CursorPagination):
    """Keyset pages: newest first, {results, next, previous}; `?page_size=` up to 200.

    A cursor is base64 that anybody can write: `place` is what the value of the ordering field in it looks like.
    """

    ordering = "-id"
    page_size_query_param = "page_size"
    max_page_size = 200
    place = re.compile(r"[0-9]{1,18}")

    def decode_cursor(self, request: Request) -> Any:
        cursor = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None and not self.place.fullmatch(str(cursor.position)):
            raise exceptions.NotFound(self.invalid_cursor_message)
        return cursor


class TooLarge(exceptions.APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = "The body is larger than this endpoint reads; send documents and outputs as a multipart file."
    default_code = "too_large"


class Conflict(exceptions.APIException):
    status_code = status.HTTP_409_CONFLICT
    default_detail = "The state of the object does not allow this."
    default_code = "conflict"


def problem(exc: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: problem+json (RFC 9457) with the request id, and one entry per wrong field."""
    from rest_framework.views import exception_handler  # at import time DRF's views are still importing us

    if isinstance(exc, RequestDataTooBig):
        exc = TooLarge()
    if isinstance(exc, ProviderError):
        exc = exceptions.ValidationError({exc.code: [str(exc)]})
    response = exception_handler(exc, context)
    if response is None:
        return None
    if isinstance(exc, Http404):
        detail = "There is no such thing here, or it belongs to another team."
    elif isinstance(exc, PermissionDenied):
        detail = str(exc) or "You may not do this."
    else:
        detail = str(getattr(exc, "detail", exc))
    errors = list(field_errors(response.data)) if isinstance(exc, exceptions.ValidationError) else []
    if errors:
        detail = "; ".join(f"{error['loc']}: {error['msg']}" if error["loc"] else error["msg"] for error in errors)
    code = getattr(exc, "default_code", "error") if not isinstance(exc, Http404) else "not_found"
    response.data = {
        "type": f"/problems/{code}",
        "title": (getattr(exc, "default_detail", None) and str(exc.default_detail)) or detail,  # type: ignore[attr-defined]
        "status": response.status_code,
        "detail": detail,
        "errors": errors,
        "request_id": getattr(context["request"], "request_id", ""),
    }
    if getattr(getattr(context["request"], "accepted_renderer", None), "format", "json") == "json":
        response.content_type = "application/problem+json"
    return response


def field_errors(data: Any, loc: str = "") -> Iterator[dict[str, str]]:
    """{loc, msg} of every sentence in the detail of a ValidationError, however deep."""
    if isinstance(data, dict):
        for key, value in data.items():
            inner = "" if key == "non_field_errors" else str(key)
            yield from field_errors(value, f"{loc}.{inner}".strip("."))
    elif isinstance(data, list):
        for position, value in enumerate(data):
            nested = isinstance(value, dict | list)
            yield from field_errors(value, f"{loc}.{position}".strip(".") if nested else loc)
    else:
        yield {"loc": loc, "msg": str(data)}


def idempotent(action: Callable[..., Response]) -> Callable[..., Response]:
    """For a viewset's POST: with an `Idempotency-Key` header the same request is answered once and then repeated.

    Same key and body: the stored answer; another body: 422; the first still running: 409. Only answers below 500
    are kept, and the key is taken in the same transaction as the work, so a crash leaves neither.
    """

    @wraps(action)
    def once(view: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get("Idempotency-Key", "")
        if not key:
            return action(view, request, *args, **kwargs)
        if len(key) > 200 or not key.isprintable():
            raise exceptions.ValidationError({"Idempotency-Key": "at most 200 characters, none of them a control"})
        files = [[file.name, _digest_of(file)] for file in request.FILES.values()]
        body = json.dumps([request.data, files], sort_keys=True, default=str)
        mine = {
            "user": request.user,
            "route": f"{team_of(request).pk} {request.method} {request.path}"[:200],
            "key": key,
        }
        print_ = sha256(body.encode()).hexdigest()
        try:
            with transaction.atomic():
                row = IdempotencyKey.objects.create(**mine, fingerprint=print_)
                response = action(view, request, *args, **kwargs)
                data = json.loads(json.dumps(response.data, default=str))
                row.status, row.body = response.status_code, {"data": data, "location": response.get("Location")}
                row.save(update_fields=["status", "body"])
                return response
        except IntegrityError:
            stored = IdempotencyKey.objects.filter(**mine).first()
            if stored is None:
                raise
        if stored.fingerprint != print_:
            raise _Unprocessable()
        if stored.status is None:
            raise Conflict("The first request with this Idempotency-Key is still running.")
        answer: dict[str, Any] = stored.body or {}
        headers = {"Idempotent-Replay": "true"}
        if answer.get("location"):
            headers["Location"] = answer["location"]
        return Response(answer.get("data"), status=stored.status, headers=headers)

    return once


def _digest_of(file: Any) -> str:
    found = sha256()
    for chunk in file.chunks():
        found.update(chunk)
    file.seek(0)
    return found.hexdigest()


class _Unprocessable(exceptions.APIException):
    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_detail = "This Idempotency-Key was used for another request: send a new key."
    default_code = "idempotency_key_reused"


def only(request: Request, *names: str) -> None:
    """Raises ValidationError for a query parameter that nobody reads; `names` are those that are read."""
    unknown = [name[:60] for name in request.query_params if name not in names]
    if unknown:
        known = f"; there is {', '.join(names)}" if names else ""
        wrong = {name: [f"there is no such parameter here{known}"] for name in unknown[:20]}
        raise exceptions.ValidationError(wrong)
