"""The pages of editing: mend one example, change the dataset as a whole, split it. Each makes a child dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from datasets_app import browsing, editing
from datasets_app.browsing_views import asked_for, controls, mine
from datasets_app.editing import Part, Refused
from datasets_app.filtering import Filter
from datasets_app.models import Dataset, Example
from lumigator.access import record, require
from lumigator.models import Role

SPARE_REFERENCES = 1
PARTS = 3


@require(Role.EDITOR)
@require_http_methods(["GET", "POST"])
def fix(request: HttpRequest, pk: int, index: int) -> HttpResponse:
    """The fields of one example, to be changed."""
    dataset = mine(request, pk)
    if index >= 2**31:
        raise Http404
    one = get_object_or_404(Example, dataset=dataset, index=index)
    names = list(dict.fromkeys([*editing.tags_of(dataset), *one.tags]))
    values = {
        "source": one.source,
        "references": one.references,
        "id": one.key,
        "group": one.group,
        "tags": [(name, one.tags.get(name, "")) for name in names],
    }
    errors: dict[str, list[str]] = {}
    if request.method == "POST":
        changes, values = _fixed(request.POST, one, names)
        try:
            child = editing.fix(dataset, user=cast(User, request.user), index=index, changes=changes)
            return _made(request, dataset, child, f"examples/{index}/")
        except Refused as error:
            errors = error.errors
    context = {"dataset": dataset, "example": one, "values": values, "errors": errors, "spare": range(SPARE_REFERENCES)}
    return render(request, "datasets/fix.html", context, status=422 if errors else 200)


def _fixed(sent: QueryDict, one: Example, names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what was changed, what the form shows again). Browsers send line ends as CR LF: that alone is no change."""

    def text(sent_text: str, was: str) -> str:
        return was if sent_text.replace("\r\n", "\n") == was.replace("\r\n", "\n") else sent_text.replace("\r\n", "\n")

    was = [*one.references, *[""] * SPARE_REFERENCES]
    references = [text(new, was[at] if at < len(was) else "") for at, new in enumerate(sent.getlist("reference"))]
    tags = {}
    for at, name in enumerate(names):
        new, old = sent.get(f"tag-{at}", "").strip(), one.tags.get(name, "")
        tags[name] = old if new == str(old) else new  # a number that nobody touched stays one
    changes = {
        "source": text(sent.get("source", ""), one.source),
        "references": [each for each in references if each.strip()],
        "id": sent.get("id", ""),
        "group": sent.get("group", ""),
        "tags": {name: value for name, value in tags.items() if value != ""},
    }
    return changes, {**changes, "references": references[: len(one.references)], "tags": list(tags.items())}


@require(Role.EDITOR)
@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    """What can be done with the examples that the filter in the address means, or with all."""
    dataset = mine(request, pk)
    chosen, _, wrong = asked_for(request, dataset)
    errors: dict[str, list[str]] = {name: [message] for name, message in wrong.items()}
    action = request.POST.get("action", "")
    if request.method == "POST" and not errors:
        try:
            make = _ACTIONS.get(action)
            if make is None:
                raise Refused({"action": [f"it is one of {', '.join(_ACTIONS)}"]})
            more: dict[str, Any] = {"user": cast(User, request.user), "name": request.POST.get("name", "")[:200]}
            return _made(request, dataset, make(dataset, chosen, request.POST, more))
        except Refused as error:
            errors = error.errors
    context = {
        "dataset": dataset,
        "chosen": chosen,
        "count": None if chosen.is_empty else browsing.count(dataset, chosen),
        "filters": controls(dataset, chosen),
        "tags": editing.tags_of(dataset),
        "errors": errors,
        "action": action,
        "sent": request.POST,
    }
    return render(request, "datasets/edit.html", context, status=422 if errors else 200)


def _drop(dataset: Dataset, chosen: Filter, sent: QueryDict, more: dict[str, Any]) -> Dataset:
    return editing.drop(dataset, chosen=chosen, keep=sent["action"] == "keep", **more)


def _relabel(dataset: Dataset, chosen: Filter, sent: QueryDict, more: dict[str, Any]) -> Dataset:
    tag, value = sent.get("tag", "").strip(), sent.get("value", "").strip()
    if tag:
        return editing.relabel(dataset, chosen=chosen, tag=tag, value=value or None, **more)
    return editing.relabel(dataset, chosen=chosen, group=value, **more)


def _sample(dataset: Dataset, chosen: Filter, sent: QueryDict, more: dict[str, Any]) -> Dataset:
    numbers: dict[str, Any] = {"n": _number(sent, "n"), "seed": _number(sent, "seed")}
    return editing.sample(dataset, chosen=chosen, by=sent.get("by", ""), **numbers, **more)


def _append(dataset: Dataset, chosen: Filter, sent: QueryDict, more: dict[str, Any]) -> Dataset:
    texts = {name: sent.get(name, "").replace("\r\n", "\n") for name in ("source", "reference")}
    fields = {"source": texts["source"], "references": [texts["reference"]], "id": sent.get("id", "")}
    return editing.append(dataset, example=fields, **more)


_ACTIONS: dict[str, Callable[[Dataset, Filter, QueryDict, dict[str, Any]], Dataset]] = {
    "drop": _drop, "keep": _drop, "relabel": _relabel, "sample": _sample, "append": _append,
}  # fmt: skip


@require(Role.EDITOR)
@require_http_methods(["GET", "POST"])
def split(request: HttpRequest, pk: int) -> HttpResponse:
    """Into parts by percentages; one may be sealed for the final confirmation."""
    dataset = mine(request, pk)
    errors: dict[str, list[str]] = {}
    lines = [("for comparing", "80", False), ("for confirming", "20", True), ("", "", False)]
    if request.method == "POST":
        sent = request.POST
        lines = [(sent.get(f"name-{n}", ""), sent.get(f"share-{n}", ""), f"sealed-{n}" in sent) for n in range(PARTS)]
        try:
            parts = [Part(name, share=_share(share), sealed=sealed) for name, share, sealed in lines if name.strip()]
            asked: dict[str, Any] = {"seed": _number(sent, "seed"), "by_group": "by_group" in sent}
            children = editing.split(dataset, user=cast(User, request.user), parts=parts, **asked)
        except Refused as error:
            errors = error.errors
        else:
            for child in children:
                record(request, "dataset.edit", child, parent=dataset.pk, edit="split")
            messages.success(request, f"“{dataset}” is split into {len(children)} datasets; it stays as it was.")
            return redirect("dataset", dataset.pk)
    context = {"dataset": dataset, "lines": lines, "errors": errors, "sent": request.POST}
    return render(request, "datasets/split.html", context, status=422 if errors else 200)


def _share(percent: str) -> float | None:
    """A percentage as a share; None for a blank one. Raises Refused."""
    if not percent.strip():
        return None
    try:
        share = float(percent) / 100
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise Refused({"parts": ["a share is a number between 0 and 100"]})
    return share


def _number(sent: QueryDict, name: str) -> int:
    text = sent.get(name, "").strip() or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise Refused({name: ["it is a whole number"]})
    return int(text)


def _made(request: HttpRequest, parent: Dataset, child: Dataset, rest: str = "") -> HttpResponse:
    record(request, "dataset.edit", child, parent=parent.pk, edit=child.edit["action"])
    what = "is ready" if child.is_ready else "is being made"
    messages.success(request, f"“{child}” {what}; “{parent}” stays as it was.")
    return redirect(f"/datasets/{child.pk}/{rest if child.is_ready else ''}")
