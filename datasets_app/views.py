"""The pages of datasets: list, upload in two steps, one dataset, its examples."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from datasets_app import deleting, formats, pending
from datasets_app.browsing import beginnings, find
from datasets_app.browsing_views import lineage, table
from datasets_app.exporting import EXPORTS
from datasets_app.filtering import Filter
from datasets_app.formats import Problem, printable
from datasets_app.formats.csv import guarded
from datasets_app.forms import ColumnUse, UploadForm, chosen_columns, use_of
from datasets_app.ingest import BadFile, accept, ingest, ingest_sample, twin
from datasets_app.ingesting import KEPT_PROBLEMS, opened
from datasets_app.models import Dataset, Import
from datasets_app.reading import Columns, Gathered, Table
from datasets_app.showing import shown
from lumigator.access import record, require, team_of
from lumigator.models import Role

PAGE = 50
PREVIEWED = 5
CELL_CHARACTERS = 160
MAPPING_KEY = "pending_columns"
SHOWN_PROBLEMS = 100


@require(Role.VIEWER)
@require_GET
def datasets(request: HttpRequest) -> HttpResponse:
    mine = Dataset.objects.for_user(request.user).defer("profile", "columns", "edit").order_by("-id")
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
    with waiting.open() as file, opened(file) as table:
        columns, wrong = chosen_columns(request.POST, table.header) if request.POST else (table.guess(), [])
        request.session[MAPPING_KEY] = columns.as_dict()
        gathered = Gathered()
        for item in table.preview(columns) if not wrong else ():
            if isinstance(item, Problem):
                gathered.add(item)
    if action in ("store", "again") and not waiting.is_small:
        wrong = wrong or gathered.problems
    known = twin(team=team_of(request), sha256=waiting.sha256, privacy=waiting.privacy, columns=lambda: columns)
    if not wrong and (action == "again" or (action == "store" and known is None)):
        try:
            dataset = _store(request, waiting, columns)
        except BadFile as error:
            return _checked(request, waiting, table, columns, error.problems, error.rest, known, status=422)
        return redirect("dataset", dataset.pk)
    status = 422 if wrong else 409 if action == "store" else 200
    return _checked(request, waiting, table, columns, wrong or gathered.problems, gathered.rest, known, status=status)


def _store(request: HttpRequest, waiting: pending.Pending, columns: Columns) -> Dataset:
    """Small files are imported here and now, larger ones by a worker. Raises BadFile."""
    asked: dict[str, Any] = {
        "team": team_of(request),
        "user": cast(User, request.user),  # pages are for the signed-in
        "name": waiting.name,
        "privacy": waiting.privacy,
        "file_name": waiting.file_name,
    }
    if not waiting.is_small:
        with transaction.atomic():
            dataset = accept(upload=waiting.key, digest=waiting.digest, columns=columns, **asked)
            record(request, "dataset.upload", dataset, bytes=dataset.file_bytes)
        pending.hand_over(request)
        return dataset
    with waiting.open() as file, transaction.atomic():
        dataset = ingest(file=file, columns=columns.as_dict(), **asked)
        record(request, "dataset.upload", dataset, n_examples=dataset.n_examples, bytes=dataset.file_bytes)
    pending.drop(request)
    messages.success(request, f"“{dataset}” is ready: {dataset.n_examples:,} examples.")
    return dataset


@require(Role.EDITOR)
@require_GET
def check_problems(request: HttpRequest) -> HttpResponse:
    """Everything that is wrong with the file that waits, as a file; of a large one, with its first rows."""
    waiting = pending.held(request)
    if waiting is None:
        return redirect("dataset-check")
    columns = Columns.from_dict(request.session.get(MAPPING_KEY, {}))
    with waiting.open() as file, opened(file) as table:
        items = table.rows(columns) if waiting.is_small else table.preview(columns)
        return _report((item for item in items if isinstance(item, Problem)), waiting.file_name)


def _report(problems: Iterable[Problem], name: str) -> HttpResponse:
    """A problem a row, as a CSV that no spreadsheet runs (SECURITY S22); the first KEPT_PROBLEMS of them."""
    lines = io.StringIO()
    write = csv.writer(lines).writerow
    write(["row", "column", "problem", "cure"])
    for problem, _ in zip(problems, range(KEPT_PROBLEMS), strict=False):
        row = "" if problem.row is None else problem.row
        write([row, *map(guarded, (problem.column, problem.message, problem.cure))])
    response = HttpResponse("\ufeff" + lines.getvalue(), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = content_disposition_header(True, f"problems of {printable(name, 100)}.csv")
    response["X-Content-Type-Options"] = "nosniff"
    return response


def _checked(
    request: HttpRequest,
    waiting: pending.Pending,
    table: Table,
    columns: Columns,
    problems: list[Problem],
    rest: str,
    known: Dataset | None,
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
        "known": known,
        "was_refused": status == 422,
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
    if not found.is_ready:
        return render(request, "datasets/import.html", _import_of(found))
    lengths = [("Documents", found.profile.get("source_words")), ("References", found.profile.get("reference_words"))]
    context = {
        "dataset": found,
        "lengths": [pair for pair in lengths if pair[1]],
        "shown": shown(found.profile, may_leave=found.may_leave),
        "examples": table(found, find(found, Filter(), n=PREVIEWED, shape=beginnings).rows),
        **lineage(found, request.user),
        "exports": list(EXPORTS),
    }
    return render(request, "datasets/dataset.html", context)


def _import_of(found: Dataset) -> dict[str, Any]:
    intake = Import.objects.filter(dataset=found).first()
    told = [Problem(**one) for one in intake.problems[:SHOWN_PROBLEMS]] if intake else []
    return {"dataset": found, "intake": intake, "problems": told}


@require(Role.VIEWER)
@require_GET
def progress(request: HttpRequest, pk: int) -> HttpResponse:
    """How far an import is, as a fragment; once it has ended, the page is loaded anew."""
    found = _mine(request, pk)
    answer = render(request, "datasets/_progress.html", _import_of(found))
    if not found.is_importing:
        answer["HX-Refresh"] = "true"
    return answer


@require(Role.VIEWER)
@require_GET
def problems(request: HttpRequest, pk: int) -> HttpResponse:
    """What is wrong with the file of a dataset that failed, as a file."""
    found = _mine(request, pk)
    intake = get_object_or_404(Import, dataset=found)
    return _report((Problem(**one) for one in intake.problems), found.file_name or found.name)


@require(Role.EDITOR)
@require_POST
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    found = _mine(request, pk)
    try:
        with transaction.atomic():
            record(request, "dataset.delete", found, n_examples=found.n_examples)
            is_gone = deleting.delete(found)
    except deleting.InUse as error:
        messages.error(request, str(error))
        return redirect("dataset", pk)
    what = "import is cancelled and nothing of it is kept" if found.is_importing else "dataset is deleted"
    messages.success(request, f"“{found}”: the {what}." if is_gone else f"“{found}”: {deleting.CANCELLED}")
    return redirect("datasets")


def _mine(request: HttpRequest, pk: int) -> Dataset:
    return get_object_or_404(Dataset.objects.for_user(request.user).select_related("created_by", "parent"), pk=pk)


def _number(text: str | None) -> int | None:
    """A non-negative number of at most 12 digits, else None: what it counts is in the database's range."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 12 else None
