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
from models_registry import adding, choosing, connecting, curating, forms, trying
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


VERBS = (("enable", "Enable", "enabled"), ("retire", "Retire", "retired"), ("draft", "Make it a draft", "draft"))


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

    @property
    def life(self) -> curating.State:
        return curating.look(self.entry)

    def value(self, key: str) -> Any:
        """What the table is sorted by; None is not known, and comes last."""
        entry = self.entry
        price = 0 if entry.is_free else entry.price_in
        return {
            "slug": entry.slug.lower(),
            "window": entry.window,
            "parameters": entry.parameters,
            "size": entry.size_bytes,
            "price": price,
            "here": (not self.ready.can_run, self.ready.label),
        }[key]


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
    context = {
        "groups": _grouped(rows, chosen.get("sort") or ""),
        "filters": filters,
        "is_filtered": any(value for name, value in chosen.items() if name != "sort") or not filters.is_valid(),
        "n_shown": len(rows),
        "n_ready": sum(row.ready.can_run for row in rows),
        "is_cut": len(entries) > MOST,
        "most": MOST,
    }
    return render(request, "registry/models.html", context, status=200 if filters.is_valid() else 400)


def _grouped(rows: list[Row], sort: str) -> list[Group]:
    """By where documents go; or, sorted, all as one group without a label."""
    if sort:
        key = sort.removeprefix("-")
        known = [row for row in rows if row.value(key) is not None]
        known.sort(key=lambda row: row.value(key), reverse=sort.startswith("-"))
        rows = known + [row for row in rows if row.value(key) is None]
        return [Group("", rows)] if rows else []
    groups = {name: Group(label) for name, label in GROUPS.items()}
    for row in rows:
        groups[row.group].rows.append(row)
    return [group for group in groups.values() if group.rows]


def _chosen(rows: QuerySet[ModelEntry], chosen: dict[str, Any]) -> QuerySet[ModelEntry]:
    """The rows that the (validated) filters ask for."""
    if words := chosen.get("q"):
        rows = rows.filter(Q(slug__icontains=words) | Q(name__icontains=words) | Q(about__icontains=words))
    if task := chosen.get("task"):
        rows = rows.filter(tasks__contains=[task])
    if scheme := chosen.get("provider"):
        rows = rows.filter(uri__startswith=f"{scheme}://")
    if kind := chosen.get("kind"):
        rows = rows.filter(architecture=kind)
    if state := chosen.get("state"):
        rows = rows.filter(state=state)
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
        asked = trying.ask(entry, by=request.user.get_username())
        record(request, "model.check", entry, check=asked.pk, state=asked.state)
        return redirect("model", entry.slug)
    if action in curating.VERBS:
        return _move_model(request, entry, curating.VERBS[action])
    if action == "delete":
        return _delete_model(request, entry)
    return _change_model(request, entry)


def _move_model(request: HttpRequest, entry: ModelEntry, to: str) -> HttpResponse:
    note = request.POST.get("note", "").replace("\0", "")
    try:
        step = curating.move(entry, to, actor=request.user.get_username(), note=note)
    except curating.NotPossible as exc:
        messages.error(request, f"{exc}.")
        return redirect("model", entry.slug)
    if step is not None:
        record(request, "model.state", entry, before=step.before, after=step.after)
    messages.success(request, f"{entry.name} is {curating.look(entry).label.lower()}.")
    return redirect("model", entry.slug)


@require(Role.VIEWER)
@require_GET
def check(request: HttpRequest, slug: str) -> HttpResponse:
    """The latest check, for the page that waits for it to end."""
    if "\0" in slug:
        raise Http404
    entry = get_object_or_404(_mine(request), slug=slug)
    if not request.headers.get("HX-Request"):
        return redirect("model", entry.slug)
    latest = entry.checks.first()
    answer = render(request, "registry/_check.html", {"entry": entry, "check": latest})
    if latest is not None and not latest.is_open:
        answer["HX-Refresh"] = "true"  # the state and the facts beside it may have changed, too
    return answer


def _change_model(request: HttpRequest, entry: ModelEntry) -> HttpResponse:
    form = forms.ChangeModel(request.POST)
    if form.is_valid():
        try:
            adding.change(entry, by=request.user.get_username(), **form.facts())
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
        messages.error(request, "This model ships with Lumigator: retire it instead.")
        return redirect("model", entry.slug)
    record(request, "model.delete", entry, uri=entry.uri)
    entry.delete()
    messages.success(request, f"{entry.name} is deleted. Experiments that used it keep their results.")
    return redirect("models")


def _model_page(
    request: HttpRequest,
    entry: ModelEntry,
    form: forms.ChangeModel,
    status: int = 200,
) -> HttpResponse:
    candidates = entry.candidates.select_related("experiment").order_by("-experiment_id", "position")[:50]
    context = {
        "entry": entry,
        "row": Row(entry, choosing.readiness(entry)),
        "reads_prompt": _reads_prompt(entry),
        "candidates": candidates,
        "form": form,
        "check": entry.checks.first(),
        "checks": entry.checks.all()[:10],
        "changes": entry.changes.all()[:20],
        "verbs": VERBS,
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
            entry = adding.add(team_of(request), by=request.user.get_username(), **form.facts())
        except adding.Refused as refused:
            forms.show_problems(form, refused)
        else:
            record(request, "model.add", entry, uri=entry.uri)
            messages.success(request, f"{entry.name} is in the registry, as a draft. Check it or enable it.")
            return redirect("model", entry.slug)
    context = {
        "form": form,
        "schemes": forms.schemes_help(forms.roots_for_help()),
        "connections": _connections_of(request).filter(enabled=True).order_by("provider", "name")[:50],
    }
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


@require(Role.EDITOR)
@require_http_methods(["GET", "POST"])
def offered(request: HttpRequest, pk: int) -> HttpResponse:
    """What the service behind a connection offers, each to be added with one click."""
    mine = get_object_or_404(_connections_of(request), pk=pk)
    if request.method == "POST":
        return _add_offered(request, mine)
    found, problem = [], ""
    try:
        found = connecting.offered(mine)
    except ProviderError as exc:
        problem = str(exc)
    return render(request, "registry/offered.html", {"connection": mine, "offered": found, "problem": problem})


def _add_offered(request: HttpRequest, connection: Connection) -> HttpResponse:
    uri = request.POST.get("uri", "")[:400]
    begins = connecting.address_of(connection, "")
    if not uri.startswith(begins):
        messages.error(request, f"Models of this connection begin with {begins}: take one of the list.")
        return redirect("offered", connection.pk)
    try:
        entry = adding.add(team_of(request), uri=uri, by=request.user.get_username())
    except adding.Refused as refused:
        for sentences in refused.errors.values():
            messages.error(request, " ".join(sentences))
        return redirect("offered", connection.pk)
    record(request, "model.add", entry, uri=entry.uri)
    messages.success(request, f"{entry.name} is in the registry, as a draft. Check it or enable it.")
    return redirect("offered", connection.pk)


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
