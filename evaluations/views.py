"""The pages of experiments. They read through `comparing`, change through `planning`, and compute nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from datasets_app.models import Example
from evaluations import browsing, comparing, filtering, planning, presenting, rescoring, states, steering
from evaluations.forms import NewExperiment
from evaluations.models import Experiment
from lumigator.access import record, require, team_of
from lumigator.models import Role

PAGE = 50
SHOWN = {"": (), "active": (*states.ACTIVE, "paused"), "ended": states.ENDED, "draft": ("draft",)}


@require_GET
def listing(request: HttpRequest) -> HttpResponse:
    """Newest first, in pages by key; `?show=` is one of SHOWN, `?after=` the last id of the page before."""
    show = request.GET.get("show", "")
    rows = Experiment.objects.for_user(request.user).select_related("dataset").defer("statistics")
    if wanted := SHOWN.get(show):
        rows = rows.filter(state__in=wanted)
    if (after := request.GET.get("after", "")).isdecimal() and len(after) < 19:
        rows = rows.filter(id__lt=int(after))
    rows = rows.annotate(n_models=Count("candidates", filter=Q(candidates__is_baseline=False)))
    found = list(rows.order_by("-id")[: PAGE + 1])
    context = {
        "experiments": found[:PAGE],
        "next": found[PAGE - 1].id if len(found) > PAGE else None,
        "show": show if show in SHOWN else "",
        "is_first": not after,
    }
    return render(request, "evaluations/list.html", context)


@require(Role.EDITOR)
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """Ask what to compare (`?dataset=`, `?model=` choose beforehand). A POST creates it, and starts it if so wished."""
    team = team_of(request)
    if request.method == "GET":
        initial = {"dataset": request.GET.get("dataset"), "models": request.GET.getlist("model")}
        return render(request, "evaluations/new.html", {"form": NewExperiment(team=team, initial=initial)})
    form = NewExperiment(request.POST, team=team)
    if form.is_valid():
        try:
            experiment = planning.create(
                team=team,
                user=request.user,  # type: ignore[arg-type]
                data=form.as_asked(),
                request_id=getattr(request, "request_id", ""),
            )
        except planning.Refused as refused:
            form.refuse(refused.errors)
        else:
            record(request, "experiment.create", experiment)
            if request.POST.get("then") != "keep" and steering.start(experiment):
                record(request, "experiment.start", experiment)
            return redirect("experiment", experiment.pk)
    return render(request, "evaluations/new.html", {"form": form}, status=422)


def _experiment(request: HttpRequest, pk: int) -> Experiment:
    rows = Experiment.objects.for_user(request.user).select_related("dataset", "created_by")
    return get_object_or_404(rows, pk=pk)


@require_GET
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    experiment = _experiment(request, pk)
    progress = comparing.progress(experiment)
    context = {
        "experiment": experiment,
        "question": presenting.question(experiment),
        "progress": progress,
        "said": presenting.said(progress),
        "candidates": experiment.candidates.all(),
        "recommendation": comparing.comparison(experiment)["recommendation"] if is_told(experiment) else None,
    }
    return render(request, "evaluations/detail.html", context)


def is_told(experiment: Experiment) -> bool:
    """Whether there is a comparison to read: the experiment came to its end."""
    return experiment.state in ("completed", "completed_with_errors")


@require_GET
def progress(request: HttpRequest, pk: int) -> HttpResponse:
    """The fragment that an open page asks for again and again until the state is final, then once for the whole page.

    `?said=` is what its reader was told last; the spoken line is sent only when that changed.
    """
    experiment = _experiment(request, pk)
    seen = comparing.progress(experiment)
    said = presenting.said(seen)
    context = {
        "experiment": experiment,
        "progress": seen,
        "said": said,
        "speaks": said != request.GET.get("said"),
    }
    response = render(request, "evaluations/_progress.html", context)
    if seen["is_final"] or seen["state"] != request.GET.get("state", seen["state"]):
        response["HX-Refresh"] = "true"
    return response


@require_GET
def comparison(request: HttpRequest, pk: int) -> HttpResponse:
    """Which is best? `?metric=` asks it of another part than the one that decides, `?against=` holds the others against
    this candidate, `?sort=` is of presenting.SORTS."""
    experiment = _experiment(request, pk)
    metric, against = request.GET.get("metric", ""), request.GET.get("against", "")
    try:
        document = comparing.comparison(
            experiment,
            metric="" if metric == experiment.primary_metric else metric,
            against=int(against) if against.isdecimal() and len(against) < 19 else None,
        )
    except (KeyError, ValueError):
        raise Http404 from None
    shown = presenting.Shown(document, sort=request.GET.get("sort", ""))
    context = {
        "experiment": experiment,
        "question": presenting.question(experiment),
        "doc": document,
        "shown": shown,
        "is_told": is_told(experiment),
        "outdated": rescoring.outdated(experiment),
        "mixed": rescoring.mixed(experiment),
    }
    return render(request, "evaluations/comparison.html", context)


@require_GET
def examples(request: HttpRequest, pk: int) -> HttpResponse:
    """Every document with each candidate's score, the largest disagreement first. `?sort=` is spread, index or the id
    of a candidate, with a minus for descending; `?slice=` is one of the comparison's; `?after=` continues a page."""
    experiment = _experiment(request, pk)
    asked = request.GET.get("sort") or "-spread"
    order = "desc" if asked.startswith("-") else "asc"
    try:
        page = browsing.examples(
            experiment,
            sort=asked.removeprefix("-"),
            order=order,
            after=request.GET.get("after", ""),
            part_of=request.GET.get("slice", ""),
        )
    except LookupError:
        raise Http404 from None
    except ValueError as exc:
        raise BadRequest(str(exc)) from exc
    context = {
        "experiment": experiment,
        "page": page,
        "candidates": experiment.candidates.all(),
        "sort": asked,
        "slices": filtering.slices(experiment),
        "slice": request.GET.get("slice", ""),
        "is_first": not request.GET.get("after"),
    }
    return render(request, "evaluations/examples.html", context)


@require_GET
def example(request: HttpRequest, pk: int, index: int) -> HttpResponse:
    """One document with every output side by side. `?against=` is reference, none or a candidate's id."""
    experiment = _experiment(request, pk)
    try:
        found = browsing.example(experiment, index)
    except Example.DoesNotExist:
        raise Http404 from None
    against, compared = presenting.against(found, request.GET.get("against", "reference"))
    headlines, details = presenting.scored_parts(found, experiment.primary_metric)
    context = {
        "experiment": experiment,
        "found": found,
        "against": against,
        "compared": compared,
        "headlines": headlines,
        "details": details,
    }
    return render(request, "evaluations/example.html", context)


def _change(verb: str, action: Callable[..., bool], done: str) -> Callable[..., HttpResponse]:
    """A POST that changes an experiment's state with `action` and goes back to its page."""

    @require(Role.EDITOR)
    @require_POST
    def change(request: HttpRequest, pk: int) -> HttpResponse:
        experiment = _experiment(request, pk)
        before = experiment.look.label.lower()
        try:
            moved = action(experiment)
        except planning.Refused as refused:
            messages.error(request, str(refused))
            return redirect("experiment", pk)
        if moved:
            record(request, f"experiment.{verb}", experiment)
            messages.success(request, done)
        else:
            messages.warning(request, f"Nothing was changed: the experiment was {before} and could not {verb}.")
        return redirect("experiment", pk)

    change.__name__ = verb
    return change


start: Callable[..., Any] = _change("start", steering.start, "Started.")
pause = _change("pause", steering.pause, "Paused: calls that are under way end first. What is finished stays.")
resume = _change("resume", steering.resume, "Goes on. Finished work is not done again.")
cancel = _change("cancel", steering.cancel, "Cancelled. What is finished stays.")
rescore = _change("rescore", steering.rescore, "Scoring anew. The scores that were there stay beside the new ones.")
