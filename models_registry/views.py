"""The pages of the registry: the models, one model, adding one, and the connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods

from lumigator.access import record, require, role_of, team_of
from lumigator.models import Role
from models_registry import adding, checking, choosing, connecting, forms
from models_registry.models import Connection, ModelEntry
from models_registry.providers import ProviderError

MOST = 300
"""Rows on one page; a registry that outgrows it is searched."""

GROUPS = {
    "local": "Run here: documents stay on this installation",
    "private": "Your own endpoints: documents go to a host your administrator allowed",
    "external": "External: documents go to the provider",
    "baseline": "Baselines: what every model must beat, and the bound of copying",
}


@dataclass(frozen=True)
class Row:
    entry: ModelEntry
    ready: choosing.Readiness

    @property
    def size_gb(self) -> float | None:
        return self.entry.size_bytes / 1e9 if self.entry.size_bytes else None

    @property
    def group(self) -> str:
        return "baseline" if self.entry.is_baseline else self.entry.privacy


@dataclass
class Group:
    label: str
    rows: list[Row] = field(default_factory=list)

    @property
    def reasons(self) -> dict[str, list[Row]]:
        """Why some of its models cannot run: each sentence once, with its models."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            if not row.ready.can_run:
                found.setdefault(row.ready.words, []).append(row)
        return found


def _mine(request: HttpRequest) -> QuerySet[ModelEntry]:
    return ModelEntry.objects.for_user(request.user).filter(team=team_of(request)).select_related("team")


@require(Role.VIEWER)
@require_GET
def models(request: HttpRequest) -> HttpResponse:
    filters = forms.Filters(request.GET)
    chosen: dict[str, Any] = filters.cleaned_data if filters.is_valid() else {}
    entries = list(_chosen(_mine(request), chosen).order_by("slug")[: MOST + 1])
    shown = entries[:MOST]
    ready = choosing.readiness_of_all(team_of(request), shown)
    rows = [Row(entry, each) for entry, each in zip(shown, ready, strict=True)]
    if wanted := chosen.get("can_run"):
        rows = [row for row in rows if row.ready.can_run == (wanted == "yes")]
    groups = {name: Group(label) for name, label in GROUPS.items()}
    for row in rows:
        groups[row.group].rows.append(row)
    context = {
        "groups": [group for group in groups.values() if group.rows],
        "filters": filters,
        "is_filtered": any(chosen.values()) or not filters.is_valid(),
        "n_shown": len(rows),
        "n_ready": sum(row.ready.can_run for row in rows),
        "is_cut": len(entries) > MOST,
        "most": MOST,
    }
    return render(request, "registry/models.html", context, status=200 if filters.is_valid() else 400)


def _chosen(rows: QuerySet[ModelEntry], chosen: dict[str, Any]) -> QuerySet[ModelEntry]:
    """The rows that the (validated) filters ask for."""
    if words := chosen.get("q"):
        rows = rows.filter(Q(slug__icontains=words) | Q(name__icontains=words) | Q(about__icontains=words))
    if task := chosen.get("task"):
        rows = rows.filter(tasks__contains=[task])
    if where := chosen.get("where"):
        rows = rows.filter(is_baseline=True) if where == "baseline" else rows.filter(is_baseline=False, privacy=where)
    return rows


@require(Role.VIEWER)
@require_http_methods(["GET", "POST"])
def model(request: HttpRequest, slug: str) -> HttpResponse:
    if "\0" in slug:
        raise Http404
    entry = get_object_or_404(_mine(request), slug=slug)
    if request.method == "GET":
        return _model_page(request, entry, forms.ChangeModel.of(entry))
    mine = role_of(request)
    if mine is None or not mine.covers(Role.EDITOR):
        raise PermissionDenied("Changing and checking models needs the role editor in your team.")
    action = request.POST.get("action", "")
    if action == "check":
        found = checking.check(entry)
        record(request, "model.check", entry, can_run=found.can_run)
        return _model_page(request, entry, forms.ChangeModel.of(entry), found)
    if action in ("enable", "disable"):
        adding.change(entry, enabled=action == "enable")
        record(request, "model.change", entry, fields=["enabled"])
        messages.success(request, f"{entry.name} is {action}d.")
        return redirect("model", entry.slug)
    if action == "delete":
        return _delete_model(request, entry)
    return _change_model(request, entry)


def _change_model(request: HttpRequest, entry: ModelEntry) -> HttpResponse:
    form = forms.ChangeModel(request.POST)
    if form.is_valid():
        try:
            adding.change(entry, **form.facts())
        except adding.Refused as refused:
            entry.refresh_from_db()
            forms.show_problems(form, refused)
        else:
            record(request, "model.change", entry, fields=sorted(form.cleaned_data))
            messages.success(request, f"{entry.name} is changed. Experiments that were made before keep what they had.")
            return redirect("model", entry.slug)
    return _model_page(request, entry, form, status=422)


def _delete_model(request: HttpRequest, entry: ModelEntry) -> HttpResponse:
    if entry.from_catalogue:
        messages.error(request, "This model ships with Lumigator: disable it instead.")
        return redirect("model", entry.slug)
    record(request, "model.delete", entry, uri=entry.uri)
    entry.delete()
    messages.success(request, f"{entry.name} is deleted. Experiments that used it keep their results.")
    return redirect("models")


def _model_page(
    request: HttpRequest,
    entry: ModelEntry,
    form: forms.ChangeModel,
    check: checking.Check | None = None,
    status: int = 200,
) -> HttpResponse:
    candidates = entry.candidates.select_related("experiment").order_by("-experiment_id", "position")[:50]
    context = {
        "entry": entry,
        "row": Row(entry, choosing.readiness(entry)),
        "reads_prompt": _reads_prompt(entry),
        "candidates": candidates,
        "form": form,
        "check": check,
    }
    return render(request, "registry/model.html", context, status=status)


def _reads_prompt(entry: ModelEntry) -> bool:
    try:
        return choosing.reads_prompt(entry)
    except ProviderError:
        return False


@require(Role.EDITOR)
@require_http_methods(["GET", "POST"])
def add(request: HttpRequest) -> HttpResponse:
    form = forms.AddModel(request.POST or None, initial={"uri": request.GET.get("uri", "")[:400]})
    if request.method == "POST" and form.is_valid():
        try:
            entry = adding.add(team_of(request), **form.facts())
        except adding.Refused as refused:
            forms.show_problems(form, refused)
        else:
            record(request, "model.add", entry, uri=entry.uri)
            messages.success(request, f"{entry.name} is in the registry. Check whether it could run.")
            return redirect("model", entry.slug)
    context = {"form": form, "schemes": forms.schemes_help(forms.roots_for_help())}
    return render(request, "registry/add.html", context, status=422 if form.is_bound else 200)


def _connections_of(request: HttpRequest) -> QuerySet[Connection]:
    return Connection.objects.for_user(request.user).filter(team=team_of(request))


@sensitive_post_parameters("key")
@require(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def connections(request: HttpRequest) -> HttpResponse:
    form = forms.AddConnection(request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = dict(form.cleaned_data)
        key = data.pop("key")
        made = Connection(team=team_of(request), **data)
        if _store(made, key or None, form) is not None:
            record(request, "connection.add", made, provider=made.provider, with_key=made.has_key)
            messages.success(request, f"The connection {made.name} is made.")
            return redirect("connections")
    context = {"connections": _connections_of(request).order_by("provider", "name")[:MOST], "form": form}
    return render(request, "registry/connections.html", context, status=422 if form.is_bound else 200)


@sensitive_post_parameters("key")
@require(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def connection(request: HttpRequest, pk: int) -> HttpResponse:
    mine = get_object_or_404(_connections_of(request), pk=pk)
    if request.method == "POST" and request.POST.get("action") == "delete":
        record(request, "connection.delete", mine, provider=mine.provider)
        mine.delete()
        messages.success(request, f"The connection {mine.name} and its key are deleted.")
        return redirect("connections")
    form = forms.ChangeConnection(request.POST or None, connection=mine)
    if request.method == "POST" and form.is_valid():
        values, key = form.facts()
        for name, value in values.items():
            setattr(mine, name, value)
        cleared = _store(mine, key, form)
        if cleared is not None:
            fields = sorted({*form.changed_data} - {"key"}) + (["key"] if key is not None else [])
            record(request, "connection.change", mine, fields=fields, key_cleared=cleared)
            messages.success(request, f"The connection {mine.name} is changed.")
            if cleared:
                messages.warning(request, connecting.KEY_CLEARED)
            return redirect("connections")
    context = {"connection": mine, "form": form}
    return render(request, "registry/connection.html", context, status=422 if form.is_bound else 200)


def _store(connection: Connection, key: str | None, form: forms.ConnectionFields) -> bool | None:
    """Whether a stored key was cleared; None when nothing was saved, and then the form says why."""
    try:
        with transaction.atomic():
            return connecting.store(connection, key)
    except IntegrityError:
        form.add_error(
            "name", f"There is a connection {connection.name!r} for {connection.provider}: choose another name."
        )
        return None
