"""The pages that belong to no app: home, sign-in, guide, health, errors."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LoginView, LogoutView
from django.core.exceptions import DisallowedHost, PermissionDenied
from django.db import DatabaseError, connection
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from datasets_app.models import Dataset
from evaluations import explaining, metrics, selfchecking
from evaluations.models import Experiment, SelfCheck
from lumigator.access import record, role_of, teams_of
from lumigator.models import Role, SignInLink
from models_registry import providers


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    mine = Experiment.objects.for_user(request.user).select_related("dataset")
    return render(
        request,
        "home.html",
        {
            "experiments": mine[:8],
            "datasets": Dataset.objects.for_user(request.user)[:5],
        },
    )


@method_decorator(login_not_required, name="dispatch")
class SignIn(LoginView):
    template_name = "sign_in.html"
    redirect_authenticated_user = True

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        record(self.request, "sign-in")
        return response


class SignOut(LogoutView):
    pass


@login_not_required
@require_http_methods(["GET", "POST"])
def sign_in_by_link(request: HttpRequest, secret: str) -> HttpResponse:
    """A GET only asks "sign in?": link previews and prefetches must not use the link up. The POST signs in."""
    if request.method == "GET":
        return render(request, "sign_in_by_link.html")
    user = SignInLink.redeem(secret)
    if user is None:
        return render(request, "sign_in_by_link.html", {"is_spent": True}, status=410)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    record(request, "sign-in", detail="one-time link")
    return redirect("home")


@require_POST
def choose_team(request: HttpRequest) -> HttpResponse:
    """Act for another of one's teams from now on, in this session."""
    chosen = next((team for team in teams_of(request) if team.slug == request.POST.get("team")), None)
    if chosen is None:
        raise Http404
    request.session["team"] = chosen.pk
    return redirect("home")


@require_GET
def guide(request: HttpRequest) -> HttpResponse:
    """What every metric and provider of this installation is, in its own words."""
    return render(
        request,
        "guide/guide.html",
        {
            "metrics": [explaining.explained(metric) for metric in metrics.available().values()],
            "example": metrics.EXAMPLE,
            "providers": providers.available().values(),
        },
    )


@require_http_methods(["GET", "POST"])
def selfcheck(request: HttpRequest) -> HttpResponse:
    """Whether this installation measures right: the newest report; a POST asks a worker for a new one."""
    if request.method == "POST":
        mine = role_of(request)
        if mine is None or not mine.covers(Role.EDITOR):
            raise PermissionDenied("This needs the role editor in your team.")
        selfchecking.ask(request.user)  # type: ignore[arg-type]
        record(request, "selfcheck")
        return redirect("selfcheck")
    waiting = SelfCheck.objects.filter(done_at=None).first()
    return render(request, "guide/selfcheck.html", {"done": selfchecking.latest(), "waiting": waiting})


@require_GET
def components(request: HttpRequest) -> HttpResponse:
    """Every component of the pages on one page: light, dark and printed."""
    return render(request, "components.html")


@login_not_required
@require_GET
def alive(request: HttpRequest) -> HttpResponse:
    """Liveness: this process answers."""
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required
@require_GET
def ready(request: HttpRequest) -> HttpResponse:
    """Readiness: the database answers and its migrations are applied."""
    problem = readiness_problem()
    return JsonResponse({"ready": not problem, "problem": problem}, status=503 if problem else 200)


def readiness_problem() -> str:
    from django.db.migrations.executor import MigrationExecutor

    try:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            return "migrations are not applied: run `manage.py migrate`"
    except DatabaseError:
        return "the database does not answer"
    return ""


@extend_schema(
    summary="Whether the service can work",
    responses=inline_serializer("Health", {"status": serializers.CharField(), "problem": serializers.CharField()}),
)
@api_view(["GET"])
@permission_classes([AllowAny])
def health(request: Request) -> Response:
    problem = readiness_problem()
    return Response({"status": "ok" if not problem else "degraded", "problem": problem}, status=503 if problem else 200)


def _error_page(request: HttpRequest, status: int, title: str, advice: str, *, is_bare: bool = False) -> HttpResponse:
    request_id = getattr(request, "request_id", "")
    if request.path.startswith("/api/"):
        body = {"type": "about:blank", "title": title, "status": status, "detail": advice, "errors": []}
        return JsonResponse(body | {"request_id": request_id}, status=status, content_type="application/problem+json")
    context = {"title": title, "advice": advice, "status": status, "request_id": request_id}
    # After a fault the page must not need what may be broken: no request, so no context that asks the database.
    return render(None if is_bare or status >= 500 else request, "error.html", context, status=status)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if isinstance(exception, DisallowedHost):  # a whole page would ask for the host again, and fail
        advice = "Use the address you were given. An administrator can add this one to LUMIGATOR_ALLOWED_HOSTS."
        return _error_page(request, 400, "This server does not go by that name", advice, is_bare=True)
    return _error_page(request, 400, "This request could not be understood", "Go back, check the form and try again.")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    advice = str(exception) or "Ask an administrator of your team for the right to do this."
    return _error_page(request, 403, "You may not do this", advice)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _error_page(
        request, 404, "There is no such page", "It may belong to another team, or have been deleted. Start from home."
    )


def server_error(request: HttpRequest) -> HttpResponse:
    advice = "The fault is ours. Try again; if it stays, give the request id below to your administrator."
    return _error_page(request, 500, "Something went wrong here", advice)
