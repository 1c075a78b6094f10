"""The pages of datasets: list, upload in two steps, one dataset, its examples."""

from __future__ import annotations

import json
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from datasets_app import deleting, formats, pending
from datasets_app.exporting import EXPORTS
from datasets_app.formats import Problem, printable
from datasets_app.forms import ColumnUse, UploadForm, chosen_columns, use_of
from datasets_app.ingest import BadFile, ingest, ingest_sample
from datasets_app.models import Dataset, Example
from datasets_app.reading import Columns, Gathered, Table
from lumigator.access import record, require, team_of
from lumigator.models import Role

PAGE = 50
PREVIEWED = 5
CELL_CHARACTERS = 160


@require(Role.VIEWER)
@require_GET
def datasets(request: HttpRequest) -> HttpResponse:
    mine = Dataset.objects.for_user(request.user).defer("profile", "columns").order_by("-id")
    before = _number(request.GET.get("before"))
    found = list(mine.filter(id__lt=before)[: PAGE + 1] if before else mine[: PAGE + 1])
    older = found[PAGE - 1].pk if len(found) > PAGE else None
    return render(request, "datasets/list.html", {"datasets": found[:PAGE], "before": before, "older": older})


@require(Role.EDITOR)
@require_http_methods(["GET", "POST"])
def upload(request: HttpRequest) -> HttpResponse:
    """Step one: choose a file. Its bytes wait in storage until step two confirms them."""
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        pending.sweep()
        data = form.cleaned_data
        pending.hold(request, data["file"], name=data["name"], privacy=data["privacy"])
        return redirect("dataset-check")
    status = 422 if form.is_bound else 200
    return render(
        request, "datasets/upload.html", {"form": form, "formats": formats.available().values()}, status=status
    )


@require(Role.EDITOR)
@require_http_methods(["GET", "POST"])
def check(request: HttpRequest) -> HttpResponse:
    """Step two: what the file looks like and what each column is; then store it, look again, or drop it."""
    waiting = pending.held(request)
    if waiting is None:
        messages.warning(request, "No file is waiting to be checked: choose it again.")
        return redirect("dataset-upload")
    action = request.POST.get("action", "look")
    if action == "drop":
        pending.drop(request)
        return redirect("dataset-upload")
    with waiting.open() as file:
        table = Table(file)
        columns, wrong = chosen_columns(request.POST, table.header) if request.POST else (table.guess(), [])
    if action == "store" and not wrong:
        try:
            dataset = _store(request, waiting, columns)
        except BadFile as error:
            return _checked(request, waiting, table, columns, error.problems, error.rest, status=422)
        return redirect("dataset", dataset.pk)
    gathered = Gathered()
    for item in table.preview(columns) if not wrong else ():
        if isinstance(item, Problem):
            gathered.add(item)
    status = 422 if wrong else 200
    return _checked(request, waiting, table, columns, wrong or gathered.problems, gathered.rest, status=status)


def _store(request: HttpRequest, waiting: pending.Pending, columns: Columns) -> Dataset:
    with waiting.open() as file, transaction.atomic():
        dataset = ingest(
            team=team_of(request),
            user=cast(User, request.user),  # pages are for the signed-in
            name=waiting.name,
            file=file,
            columns=columns.as_dict(),
            privacy=waiting.privacy,
            file_name=waiting.file_name,
        )
        record(request, "dataset.upload", dataset, n_examples=dataset.n_examples, bytes=dataset.file_bytes)
    pending.drop(request)
    messages.success(request, f"“{dataset}” is ready: {dataset.n_examples:,} examples.")
    return dataset


def _checked(
    request: HttpRequest,
    waiting: pending.Pending,
    table: Table,
    columns: Columns,
    problems: list[Problem],
    rest: str,
    status: int,
) -> HttpResponse:
    first = table.first[:PREVIEWED]
    uses = [
        ColumnUse(position, name, use_of(name, columns), _shown(next((one.cells.get(name) for one in first), "")))
        for position, name in enumerate(table.header)
    ]
    shown = [name for name in columns.named if name in table.header] or list(table.header[:6])
    context = {
        "waiting": waiting,
        "format": formats.available().get(table.format_name),
        "uses": uses,
        "shown": [printable(name) for name in shown],
        "rows": [(one.row, [_shown(one.cells.get(name)) for name in shown]) for one in first],
        "problems": problems,
        "rest": rest,
        "was_read_whole": status == 422,
    }
    return render(request, "datasets/check.html", context, status=status)


def _shown(cell: Any) -> str:
    text = "" if cell is None else cell if isinstance(cell, str) else json.dumps(cell)
    return printable(text, CELL_CHARACTERS)


@require(Role.EDITOR)
@require_POST
def sample(request: HttpRequest) -> HttpResponse:
    dataset = ingest_sample(team_of(request), cast(User, request.user))
    record(request, "dataset.sample", dataset)
    return redirect("dataset", dataset.pk)


@require(Role.VIEWER)
@require_GET
def dataset(request: HttpRequest, pk: int) -> HttpResponse:
    found = _mine(request, pk)
    lengths = [("Documents", found.profile.get("source_words")), ("References", found.profile.get("reference_words"))]
    context = {
        "dataset": found,
        "lengths": [pair for pair in lengths if pair[1]],
        "examples": _table(found, 0, PREVIEWED),
        "exports": list(EXPORTS),
    }
    return render(request, "datasets/dataset.html", context)


@require(Role.VIEWER)
@require_GET
def examples(request: HttpRequest, pk: int) -> HttpResponse:
    found = _mine(request, pk)
    start = _number(request.GET.get("from")) or 0
    rows = _table(found, start, PAGE + 1)
    context = {
        "dataset": found,
        "examples": rows[:PAGE],
        "start": start,
        "earlier": max(0, start - PAGE) if start else None,
        "later": rows[PAGE]["index"] if len(rows) > PAGE else None,
    }
    return render(request, "datasets/examples.html", context)


@require(Role.VIEWER)
@require_GET
def example(request: HttpRequest, pk: int, index: int) -> HttpResponse:
    found = _mine(request, pk)
    one = get_object_or_404(Example, dataset=found, index=index)
    context = {
        "dataset": found,
        "example": one,
        "n_words": len(one.source.split()),
        "references": [(text, len(text.split())) for text in one.references],
        "previous": index - 1 if index else None,
        "next": index + 1 if index + 1 < found.n_examples else None,
    }
    return render(request, "datasets/example.html", context)


@require(Role.EDITOR)
@require_POST
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    found = _mine(request, pk)
    try:
        with transaction.atomic():
            record(request, "dataset.delete", found, n_examples=found.n_examples)
            deleting.delete(found)
    except deleting.InUse as error:
        messages.error(request, str(error))
        return redirect("dataset", pk)
    messages.success(request, f"“{found}” is deleted.")
    return redirect("datasets")


def _mine(request: HttpRequest, pk: int) -> Dataset:
    return get_object_or_404(Dataset.objects.for_user(request.user).select_related("created_by", "parent"), pk=pk)


def _table(found: Dataset, start: int, n: int) -> list[dict[str, Any]]:
    """The beginnings of `n` examples from index `start`: documents of a megabyte stay in the database."""
    rows = Example.objects.filter(dataset=found, index__gte=start).order_by("index")
    beginnings = {"start": Left("source", 220), "reference": Left("references__0", 160)}
    lines = rows.values("index", "key", "group", "tags", n_references=F("references__len"), **beginnings)[:n]
    tags = found.columns.get("tags", ())
    return [
        {
            **line,
            "label": line["key"] or f"#{line['index'] + 1}",
            "words": [line["tags"].get(name, "") for name in tags],
        }
        for line in lines
    ]


def _number(text: str | None) -> int | None:
    """A non-negative number of at most 12 digits, else None: what it counts is in the database's range."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 12 else None
