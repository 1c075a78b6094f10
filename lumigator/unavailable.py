"""Unavailable says that the file store of this installation could not do its part, to people in words, not as a fault.

What the operator needs (addresses, variables) is in the exception: the log and the terminal show it. A page or an API
answer shows only the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

log = logging.getLogger(__name__)


class FileStoreUnavailable(OSError):
    """The store was not reached, or refused. `reason` completes the sentence “The file store …” without an address."""

    def __init__(self, reason: str, where: str, cure: str) -> None:
        super().__init__(f"the file store {where} {reason}. {cure}")
        self.reason = reason


class SayWhatIsAway:
    """Middleware: 503 with the reason, for pages and the API, where a view could not reach the file store."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, FileStoreUnavailable):
            return None
        request_id = getattr(request, "request_id", "")
        log.error("%s (request %s)", exception, request_id or "without an id")
        title, status = "Files cannot be reached now", 503
        advice = (
            f"The file store {exception.reason}, so this could not be finished. Try again in a few minutes; if it "
            "stays, give the request id to your administrator, whose log has the details."
        )
        if request.path.startswith("/api/"):
            body = {"type": "about:blank", "title": title, "status": status, "detail": advice, "errors": []}
            content_type = "application/problem+json"
            return JsonResponse(body | {"request_id": request_id}, status=status, content_type=content_type)
        context = {"title": title, "advice": advice, "status": status, "request_id": request_id}
        return render(request, "error.html", context, status=status)
