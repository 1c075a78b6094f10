"""The playground: one text, up to six models side by side, each shown as it finishes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from datasets_app import editing
from datasets_app.models import Dataset, Example
from evaluations import completing, tasks
from evaluations.completing import SIDE_BY_SIDE, Wish
from evaluations.models import Completion
from evaluations.planning import Refused
from lumigator.access import record, require, team_of
from lumigator.models import Role
from models_registry import choosing
from models_registry.models import ModelEntry


class PlaygroundForm(forms.Form):
    """The fields are those of the API's completions/, with several models."""

    text = forms.CharField(
        max_length=completing.LONGEST_TEXT, strip=False, widget=forms.Textarea(attrs={"rows": 12}), required=False
    )
    prompt = forms.CharField(max_length=20_000, required=False, widget=forms.Textarea(attrs={"rows": 3}))
    max_new_tokens = forms.IntegerField(required=False, min_value=1, max_value=8192)

    def generation(self) -> dict[str, Any]:
        most = self.cleaned_data["max_new_tokens"]
        return {"max_new_tokens": most} if most else {}


@require(Role.EDITOR)
@require_http_methods(["GET", "POST"])
def playground(request: HttpRequest) -> HttpResponse:
    """`?model=` chooses beforehand, `?dataset=` and `?index=` take a document, whose dataset's privacy is kept."""
    example = _example(request)
    chosen = request.POST.getlist("models") or request.GET.getlist("model")
    form = PlaygroundForm(request.POST or None)
    problems: list[str] = []
    if request.method == "POST" and form.is_valid():
        wish = Wish(
            text="" if example else form.cleaned_data["text"],
            example=example,
            prompt=form.cleaned_data["prompt"].strip(),
            generation=form.generation(),
        )
        batch, problems = _ask(request, chosen, wish)
        if batch:
            return redirect("playground-answers", batch)
    context = {
        "form": form,
        "example": example,
        "entries": [(entry, choosing.why_not(entry), entry.slug in chosen) for entry in _entries(request)],
        "problems": problems,
        "most": SIDE_BY_SIDE,
        "task": tasks.available()["summarization"],
    }
    return render(request, "evaluations/playground.html", context, status=422 if request.method == "POST" else 200)


def _entries(request: HttpRequest) -> list[ModelEntry]:
    rows = ModelEntry.objects.filter(team=team_of(request), enabled=True)
    rows = rows.exclude(architecture=ModelEntry.Architecture.IMPORTED).select_related("team")
    return [entry for entry in rows.order_by("is_baseline", "slug") if not entry.provider.uses_references]


def _example(request: HttpRequest) -> Example | None:
    """The document that the address names; None where it names none. Raises Http404 for one that is not there."""
    dataset, index = request.GET.get("dataset", ""), request.GET.get("index", "")
    if not dataset and not index:
        return None
    if not (dataset.isdecimal() and index.isdecimal() and len(dataset) < 19 and len(index) < 10):
        raise Http404
    mine = Dataset.objects.for_user(request.user).filter(team=team_of(request))
    return get_object_or_404(Example.objects.select_related("dataset"), dataset__in=mine, dataset=dataset, index=index)


def _ask(request: HttpRequest, models: Sequence[str], wish: Wish) -> tuple[uuid.UUID | None, list[str]]:
    """(the batch, []) when every model was asked; (None, sentences) when nothing was, for a wrong wish is asked of
    nobody."""
    chosen = list(dict.fromkeys(models))
    if not 1 <= len(chosen) <= SIDE_BY_SIDE:
        return None, [f"Choose one to {SIDE_BY_SIDE} models; {len(chosen)} are chosen."]
    batch = uuid.uuid4()
    problems: list[str] = []
    with transaction.atomic():  # nobody hears of a wish before all of them are written
        for model in chosen:
            try:
                mine = replace(wish, generation={}) if _is_inline(request, model) else wish
                made = completing.ask(team_of(request), request.user, model, mine, batch=batch)  # type: ignore[arg-type]
                record(request, "completion", made, model=made.label)
            except Refused as refused:
                problems += [sentence for sentences in refused.errors.values() for sentence in sentences]
        transaction.set_rollback(bool(problems))
    return (None, list(dict.fromkeys(problems))) if problems else (batch, [])


def _is_inline(request: HttpRequest, model: str) -> bool:
    """Whether it is a method of ours that takes no generation parameters."""
    entry = ModelEntry.objects.filter(team=team_of(request), slug=model).first()
    return entry is not None and entry.provider.place == "inline"


@require_GET
def answers(request: HttpRequest, batch: uuid.UUID) -> HttpResponse:
    """What was asked, and the answers as far as they are there."""
    rows = list(_of_batch(request, batch))
    if not rows:
        raise Http404
    waiting = sum(not row.has_ended for row in rows)
    return render(
        request,
        "evaluations/playground_answers.html",
        {
            "completions": rows,
            "first": rows[0],
            "waiting": waiting,
            "batch": batch,
            "datasets": Dataset.objects.for_user(request.user)
            .filter(team=team_of(request), state=Dataset.State.READY)
            .defer("profile")[:100],
        },
    )


@require(Role.EDITOR)
@require_POST
def keep(request: HttpRequest, batch: uuid.UUID) -> HttpResponse:
    """Add the text to a dataset, as a child with one more example; `reference` is the answer to keep as its reference
    summary, if any: its tag says which model wrote it, for a reference that a model wrote is not a person's."""
    rows = {str(row.pk): row for row in _of_batch(request, batch)}
    if not rows:
        raise Http404
    first = next(iter(rows.values()))
    chosen = rows.get(request.POST.get("reference", ""))
    mine = Dataset.objects.for_user(request.user).filter(team=team_of(request), state=Dataset.State.READY)
    wanted = request.POST.get("dataset", "")
    parent = mine.filter(pk=int(wanted)).first() if wanted.isdecimal() and len(wanted) < 19 else None
    if parent is None:
        messages.warning(request, "Choose the dataset that the text is to be added to.")
        return redirect("playground-answers", batch)
    example: dict[str, Any] = {"source": first.source}
    if chosen is not None and chosen.text:
        example |= {"references": [chosen.text], "tags": {"reference_by": chosen.label}}
    try:
        child = editing.append(parent, user=request.user, example=example)  # type: ignore[arg-type]
    except editing.Refused as refused:
        messages.error(request, str(refused))
        return redirect("playground-answers", batch)
    record(request, "dataset.edit", child, how="append", parent=parent.pk)
    messages.success(request, f"“{child.name}” is “{parent.name}” with this text as one more example.")
    return redirect("dataset", child.pk)


@require_GET
def answer(request: HttpRequest, batch: uuid.UUID, pk: int) -> HttpResponse:
    """One answer, which an open page asks for again until it is there."""
    completion = get_object_or_404(_of_batch(request, batch), pk=pk)
    return render(request, "evaluations/_answer.html", {"completion": completion})


def _of_batch(request: HttpRequest, batch: uuid.UUID) -> Any:
    mine = Completion.objects.for_user(request.user).filter(team=team_of(request), batch=batch)
    return mine.select_related("example__dataset").order_by("id")
