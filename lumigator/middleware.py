"""Give every request an id that its logs, its audit lines and its error page share, and the team it acts for."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from lumigator.access import membership

ACCEPTED = re.compile(r"[A-Za-z0-9-]{8,64}")


class RequestId:
    """Sets `request.request_id`: the caller's X-Request-Id where it is well-formed, else a new one; echoes it.

    Pages with somebody's data are never stored by caches on the way (`no-store`), static files are.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-Id", "")
        request.request_id = given if ACCEPTED.fullmatch(given) else uuid.uuid4().hex  # type: ignore[attr-defined]
        response = self.get_response(request)
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        if not request.path.startswith("/static/"):
            response.setdefault("Cache-Control", "no-store")
        return response


class ActingTeam:
    """Decides, before any view runs, for which team this request acts, so that no queryset reaches beyond it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith("/static/"):
            membership(request)
        return self.get_response(request)
