"""The pages of ground truth: what needs review, a new one, the review itself, and its publication.

They change through `annotating`, `publishing` and `steering`, like the API.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from datasets_app.models import Example
from evaluations import annotating, comparing, presenting, publishing, steering
from evaluations.ground_truth_forms import NewGroundTruth
from evaluations.models import Draft, Generation, GroundTruth, Publication
from evaluations.planning import Refused
from lumigator.access import record, require, role_of, team_of
from lumigator.models import Role

PAGE = 20
ITEMS = 50


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)  # pages are for the signed-in


def _mine(request: HttpRequest, pk: int) -> GroundTruth:
    rows = GroundTruth.objects.for_user(request.user)
    return get_object_or_404(rows.select_related("experiment__dataset", "experiment__created_by", "team"), pk=pk)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None


@require_GET
def listing(request: HttpRequest) -> HttpResponse:
    """Newest first, in pages by key: `?after=` is the last id of the page before."""
    rows = GroundTruth.objects.for_user(request.user).select_related("experiment__dataset").order_by("-id")
    if (after := _number(request.GET.get("after"))) is not None:
        rows = rows.filter(id__lt=after)
    found = list(rows.prefetch_related("experiment__candidates", "publications")[: PAGE + 1])
    counted = annotating.counts(found, _user(request))
    context = {
        "rows": [(each, counted[each.pk], annotating.stage(each, counted[each.pk])) for each in found[:PAGE]],
        "next": found[PAGE - 1].pk if len(found) > PAGE else None,
        "is_first": after is None,
    }
    return render(request, "ground_truth/list.html", context)


@require(Role.EDITOR)
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """Ask what to draft (`?dataset=`, `?model=` choose beforehand). A POST looks at the plan, or starts."""
    team = team_of(request)
    if request.method == "GET":
        initial = {"dataset": request.GET.get("dataset"), "model": request.GET.get("model")}
        return render(request, "ground_truth/new.html", {"form": NewGroundTruth(team=team, initial=initial)})
    form, trial = NewGroundTruth(request.POST, team=team), None
    if form.is_valid():
        try:
            if request.POST.get("then") != "start":
                trial = annotating.trial(team=team, user=_user(request), data=form.as_asked())
                return render(request, "ground_truth/new.html", {"form": form, "trial": trial})
            with transaction.atomic():
                made = annotating.create(
                    team=team,
                    user=_user(request),
                    data=form.as_asked(),
                    request_id=getattr(request, "request_id", ""),
                )
                record(request, "ground_truth.create", made)
                steering.start(made.experiment)
                record(request, "ground_truth.start", made)
            return redirect("ground-truth", made.pk)
        except Refused as refused:
            form.refuse(refused.errors)
    return render(request, "ground_truth/new.html", {"form": form}, status=422)


@require_GET
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    ground_truth = _mine(request, pk)
    return _detail(request, ground_truth)


def _detail(request: HttpRequest, ground_truth: GroundTruth, status: int = 200, **more: Any) -> HttpResponse:
    progress = comparing.progress(ground_truth.experiment)
    counted = annotating.counts([ground_truth], _user(request))[ground_truth.pk]
    context = {
        "ground_truth": ground_truth,
        "experiment": ground_truth.experiment,
        "candidate": ground_truth.candidate,
        "progress": progress,
        "said": presenting.said(progress),
        "counts": counted,
        "stage": annotating.stage(ground_truth, counted),
        "agreement": annotating.agreement(ground_truth),
        "publishable": publishing.publishable(ground_truth),
        "published": ground_truth.publications.select_related("dataset", "created_by"),
        "reviewers": annotating.reviewers_of(ground_truth.team),
        "ahead": annotating.look_ahead(ground_truth) if progress["state"] == "draft" else None,
    }
    return render(request, "ground_truth/detail.html", {**context, **more}, status=status)


@require_GET
def progress(request: HttpRequest, pk: int) -> HttpResponse:
    """The fragment that an open page asks for until the drafting has ended, then once for the whole page."""
    ground_truth = _mine(request, pk)
    seen = comparing.progress(ground_truth.experiment)
    said = presenting.said(seen)
    context = {
        "ground_truth": ground_truth,
        "experiment": ground_truth.experiment,
        "progress": seen,
        "counts": annotating.counts([ground_truth], _user(request))[ground_truth.pk],
        "said": said,
        "speaks": said != request.GET.get("said"),
    }
    response = render(request, "ground_truth/_progress.html", context)
    if seen["is_final"] or seen["state"] != request.GET.get("state", seen["state"]):
        response["HX-Refresh"] = "true"
    return response


# --- the review -----------------------------------------------------------------------------------------------------


@require(Role.EDITOR)
@require_GET
def review(request: HttpRequest, pk: int) -> HttpResponse:
    """Go to the next document to decide behind `?after=`, or say that none is left."""
    ground_truth = _mine(request, pk)
    after = _number(request.GET.get("after"))
    found = annotating.next_for(ground_truth, _user(request), -1 if after is None else after)
    if found is None:
        messages.info(request, "Nothing is left for you to review here now.")
        return redirect("ground-truth", pk)
    return redirect(_address(found))


def _address(draft: Draft) -> str:
    address = reverse("ground-truth-item", args=[draft.ground_truth_id, draft.index])
    return f"{address}?reading=2" if draft.reading == 2 else address


@require_GET
def items(request: HttpRequest, pk: int) -> HttpResponse:
    """Every first reading, by `?decision=`, in pages by key: `?after=` is the last index of the page before."""
    ground_truth = _mine(request, pk)
    rows = Draft.objects.filter(ground_truth=ground_truth, reading=1).select_related("reviewer", "assigned_to")
    decision = request.GET.get("decision", "")
    if decision in Draft.Decision.values:
        rows = rows.filter(decision=decision)
    if (after := _number(request.GET.get("after"))) is not None:
        rows = rows.filter(index__gt=after)
    found = list(rows.order_by("index")[: ITEMS + 1])
    wanted = [draft.example_id for draft in found[:ITEMS]]
    texts = Example.objects.filter(pk__in=wanted).annotate(begins=annotating.BEGINNING).only("key", "index", "dataset")
    examples = {each.pk: each for each in texts}
    made = annotating.outcomes(ground_truth, wanted)
    context = {
        "ground_truth": ground_truth,
        "rows": [(draft, examples[draft.example_id], made.get(draft.example_id)) for draft in found[:ITEMS]],
        "next": found[ITEMS - 1].index if len(found) > ITEMS else None,
        "is_first": after is None,
        "decision": decision,
        "decisions": Draft.Decision.choices,
    }
    return render(request, "ground_truth/items.html", context)


@require_http_methods(["GET", "POST"])
def item(request: HttpRequest, pk: int, index: int) -> HttpResponse:
    """One document beside its draft. A POST by an editor decides, and goes on to the next undecided one."""
    ground_truth = _mine(request, pk)
    asked = request.GET.get("reading")
    reading = int(asked) if asked in ("1", "2") else 0
    draft = annotating.draft_of(ground_truth, index, user=_user(request), reading=reading)
    if draft is None:
        raise Http404
    if request.method == "POST":
        return _decide(request, ground_truth, draft)
    return _shown(request, ground_truth, draft)


@require(Role.EDITOR)
def _decide(request: HttpRequest, ground_truth: GroundTruth, draft: Draft) -> HttpResponse:
    text, decision = request.POST.get("text", ""), request.POST.get("decision", "")
    version = _number(request.POST.get("version"))
    if decision == Draft.Decision.ACCEPTED and "text" in request.POST:
        decision = Draft.Decision.EDITED  # as the box says: what was typed there is not dropped
    try:
        annotating.decide(
            draft,
            reviewer=_user(request),
            decision=decision,
            version=-1 if version is None else version,
            text=text.replace("\0", "\ufffd"),
            is_admin=role_of(request) == Role.ADMIN,
        )
    except Refused as refused:
        words = " ".join(sentence for sentences in refused.errors.values() for sentence in sentences)
        return _shown(request, ground_truth, draft, problem=f"Not saved: {words}.", typed=text, status=422)
    except annotating.Overtaken as overtaken:
        draft = annotating.draft_of(ground_truth, draft.index, user=_user(request), reading=draft.reading) or draft
        return _shown(request, ground_truth, draft, problem=str(overtaken), typed=text, status=409)
    if decision == Draft.Decision.UNREVIEWED:
        return redirect(_address(draft))
    found = annotating.next_for(ground_truth, _user(request), draft.index)
    if found is not None:
        return redirect(_address(found))
    messages.success(request, "That was the last one for you: nothing is left to review here now.")
    return redirect("ground-truth", ground_truth.pk)


def _shown(
    request: HttpRequest,
    ground_truth: GroundTruth,
    draft: Draft,
    *,
    problem: str = "",
    typed: str | None = None,
    status: int = 200,
) -> HttpResponse:
    example = Example.objects.get(pk=draft.example_id)
    made = annotating.outcome(draft)
    drafted = made.text if made and made.status == Generation.Status.OK else None
    told = annotating.counts([ground_truth], _user(request))[ground_truth.pk]
    same = Draft.objects.filter(ground_truth=ground_truth, reading=1)
    is_edited = draft.decision == Draft.Decision.EDITED
    context = {
        "ground_truth": ground_truth,
        "draft": draft,
        "example": example,
        "made": made,
        "drafted": drafted,
        "typed": typed if typed is not None else draft.text if is_edited else drafted or "",
        "references": zip(example.references, publishing.references_by(example), strict=True),
        "counts": told,
        "problem": problem,
        "previous": same.filter(index__lt=draft.index).order_by("-index").values_list("index", flat=True).first(),
        "next": same.filter(index__gt=draft.index).order_by("index").values_list("index", flat=True).first(),
        "is_mine": annotating.may_decide(draft, _user(request), is_admin=role_of(request) == Role.ADMIN),
        "longest": annotating.LONGEST_REFERENCE,
    }
    return render(request, "ground_truth/item.html", context, status=status)


# --- changes --------------------------------------------------------------------------------------------------------


def _change(verb: str, action: Callable[..., bool], done: str) -> Callable[..., HttpResponse]:
    """A POST that changes the state of the drafting with `action` and goes back to its page."""

    @require(Role.EDITOR)
    @require_POST
    def change(request: HttpRequest, pk: int) -> HttpResponse:
        ground_truth = _mine(request, pk)
        before = ground_truth.experiment.look.label.lower()
        if action(ground_truth.experiment):
            record(request, f"ground_truth.{verb}", ground_truth)
            messages.success(request, done)
        else:
            messages.warning(request, f"Nothing was changed: the drafting was {before} and could not {verb}.")
        return redirect("ground-truth", pk)

    change.__name__ = verb
    return change


start: Callable[..., Any] = _change("start", steering.start, "Started.")
pause = _change("pause", steering.pause, "Paused: calls that are under way end first. What is drafted stays.")
resume = _change("resume", steering.resume, "Goes on. What is drafted is not drafted again.")
cancel = _change("cancel", steering.cancel, "Cancelled. What is drafted stays, and can be reviewed.")


@require(Role.EDITOR)
@require_POST
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    ground_truth = _mine(request, pk)
    with transaction.atomic():
        record(request, "ground_truth.delete", ground_truth)
        is_gone = annotating.delete(ground_truth)
        if not is_gone:
            transaction.set_rollback(True)
    if not is_gone:
        messages.error(request, "It still drafts: cancel it first, then delete it.")
        return redirect("ground-truth", pk)
    messages.success(request, "Deleted. Datasets that were published from it stay.")
    return redirect("ground-truths")


@require(Role.EDITOR)
@require_POST
def assign(request: HttpRequest, pk: int) -> HttpResponse:
    ground_truth = _mine(request, pk)
    chosen = [number for text in request.POST.getlist("reviewers") if (number := _number(text)) is not None]
    people = list(annotating.reviewers_of(ground_truth.team).filter(pk__in=chosen))
    overlap = _number(request.POST.get("overlap") or "0")
    try:
        with transaction.atomic():
            annotating.assign(ground_truth, people, 101 if overlap is None else overlap)
            record(request, "ground_truth.assign", ground_truth, reviewers=len(people), overlap=overlap)
    except Refused as refused:
        return _detail(request, ground_truth, 422, assignment_errors=refused.errors, chosen=chosen)
    messages.success(request, "Assigned." if people else "Anybody may take any document now.")
    return redirect("ground-truth", pk)


@require(Role.ADMIN)
@require_POST
def accept_all(request: HttpRequest, pk: int) -> HttpResponse:
    ground_truth = _mine(request, pk)
    with transaction.atomic():
        n = annotating.accept_all(ground_truth, _user(request))
        record(request, "ground_truth.accept_all", ground_truth, accepted=n)
    messages.success(request, f"{n:,} accepted unread; they stay marked as such.")
    return redirect("ground-truth", pk)


@require(Role.EDITOR)
@require_POST
def publish(request: HttpRequest, pk: int) -> HttpResponse:
    ground_truth = _mine(request, pk)
    rows = request.POST.get("rows") or Publication.Rows.APPROVED
    name = request.POST.get("name", "").strip()[:200].replace("\0", "")
    try:
        with transaction.atomic():
            made = publishing.publish(ground_truth, user=_user(request), rows=rows, name=name)
            record(request, "ground_truth.publish", ground_truth, dataset=made.dataset_id, **made.counts)
    except Refused as refused:
        return _detail(request, ground_truth, 422, publish_errors=refused.errors)
    messages.success(request, f"“{made.dataset}” is published.")
    return redirect("dataset", made.dataset_id)
