"""The API of ground truth: have references drafted, decide on each draft, publish what was approved.

It changes through `annotating`, `publishing` and `steering`. Viewers read, editors decide and publish, only admins
accept everything unread; what belongs to another team is not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter

from datasets_app.models import Example
from evaluations import annotating, comparing, publishing, steering
from evaluations.api import refused
from evaluations.ground_truth_shapes import (
    DECISIONS,
    AssignmentSerializer,
    DecisionSerializer,
    DraftPlanSerializer,
    GroundTruthDetailSerializer,
    GroundTruthSerializer,
    ItemDetailSerializer,
    ItemSerializer,
    NewGroundTruthSerializer,
    PublicationSerializer,
    PublishSerializer,
)
from evaluations.models import Draft, Experiment, Generation, GroundTruth
from evaluations.planning import Refused
from evaluations.shapes import ProgressSerializer, Strict
from lumigator.access import record, role_of, team_of
from lumigator.api import Conflict, Pages, idempotent, only
from lumigator.models import Role
from lumigator.parsing import StrictJSON
from lumigator.schema import problem

BEGINS = 160
BAD = problem("What is wrong, by field.")
NOT_NOW = problem("The state of the ground truth does not allow this, or somebody else was faster.")
INDEX = OpenApiParameter("index", OpenApiTypes.INT, OpenApiParameter.PATH, description="Of the document, from 0.")
READING = OpenApiParameter("reading", enum=[1, 2], description="Default: the one assigned to you, else 1.")


class ItemPages(Pages):
    ordering: Any = ("index", "reading")  # DRF takes a tuple, too


# --- the endpoints --------------------------------------------------------------------------------------------------

BODIES: dict[str | None, type[serializers.BaseSerializer[Any]]] = {
    "create": NewGroundTruthSerializer,
    "decide": DecisionSerializer,
    "assign": AssignmentSerializer,
    "publish": PublishSerializer,
    **dict.fromkeys(("start", "pause", "resume", "cancel", "accept_all"), Strict),
}


class GroundTruthViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[GroundTruth]):
    """References that a model drafts and people approve."""

    queryset = GroundTruth.objects.none()
    serializer_class = GroundTruthSerializer
    pagination_class = Pages
    parser_classes = [StrictJSON]
    lookup_value_regex = r"\d{1,18}"
    http_method_names = ["get", "post", "patch", "delete", "head", "options"]
    roles = {"accept_all": Role.ADMIN}

    def get_queryset(self) -> QuerySet[GroundTruth]:
        mine = GroundTruth.objects.for_user(self.request.user).filter(team=team_of(self.request))
        return mine.select_related("experiment__dataset", "experiment__created_by", "team")

    def get_serializer_class(self) -> type[serializers.BaseSerializer[Any]]:
        """For the browsable pages: what to POST or PATCH here."""
        return BODIES.get(self.action, GroundTruthSerializer)

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "team": team_of(self.request)}

    @extend_schema(
        operation_id="ground_truth_list",
        summary="The ground truth of your team, newest first",
        responses=GroundTruthSerializer(many=True),
    )
    def list(self, request: Request) -> Response:
        only(request, "page_size", "cursor")
        rows = self.get_queryset().prefetch_related("experiment__candidates")
        found = cast(Sequence[GroundTruth], self.paginate_queryset(rows))
        counted = annotating.counts(found, _user(request))
        return self.get_paginated_response([_told(each, counted[each.pk]) for each in found])

    @extend_schema(
        operation_id="ground_truth_create",
        summary="Have references drafted, at once or after a look at the plan",
        request=NewGroundTruthSerializer,
        responses={201: GroundTruthDetailSerializer, 400: BAD},
    )
    @idempotent
    def create(self, request: Request) -> Response:
        team = team_of(request)
        body = NewGroundTruthSerializer(data=request.data, context={"team": team})
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        try:
            with transaction.atomic():
                made = annotating.create(
                    team=team, user=_user(request), data=asked, request_id=getattr(request, "request_id", "")
                )
                record(request, "ground_truth.create", made)
                if asked["start"] and steering.start(made.experiment):
                    record(request, "ground_truth.start", made)
        except Refused as error:
            raise refused(error, models="model") from None
        headers = {"Location": reverse("api-ground-truth-detail", args=[made.pk])}
        return Response(_detail(request, made), status=status.HTTP_201_CREATED, headers=headers)

    @extend_schema(
        operation_id="ground_truth_retrieve",
        summary="One ground truth: progress, decisions, agreement, publications",
        responses=GroundTruthDetailSerializer,
    )
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(_detail(request, self.get_object()))

    @extend_schema(
        operation_id="ground_truth_destroy",
        summary="Delete it with its drafts and decisions; published datasets stay",
        responses={204: None, 409: NOT_NOW},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        ground_truth = self.get_object()
        with transaction.atomic():
            record(request, "ground_truth.delete", ground_truth)
            if not annotating.delete(ground_truth):
                raise Conflict(f"The drafting is {_words(ground_truth)}: cancel it first, then delete it.")
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(summary="What the drafting will take: calls, tokens, money", responses=DraftPlanSerializer)
    @action(detail=True, pagination_class=None)
    def plan(self, request: Request, pk: str) -> Response:
        return Response(annotating.plan(self.get_object()))

    # --- the drafting -----------------------------------------------------------------------------------------------

    @extend_schema(summary="Start drafting", request=None, responses={202: ProgressSerializer, 409: NOT_NOW})
    @action(detail=True, methods=["post"])
    @idempotent
    def start(self, request: Request, pk: str) -> Response:
        return self._change(request, "start", steering.start)

    @extend_schema(
        summary="Stop handing out work; what is drafted stays",
        request=None,
        responses={202: ProgressSerializer, 409: NOT_NOW},
    )
    @action(detail=True, methods=["post"])
    @idempotent
    def pause(self, request: Request, pk: str) -> Response:
        return self._change(request, "pause", steering.pause)

    @extend_schema(
        summary="Go on; what is drafted is not drafted again, errors that may pass are tried again",
        request=None,
        responses={202: ProgressSerializer, 409: NOT_NOW},
    )
    @action(detail=True, methods=["post"])
    @idempotent
    def resume(self, request: Request, pk: str) -> Response:
        return self._change(request, "resume", steering.resume)

    @extend_schema(
        summary="Stop drafting for good; what is drafted stays",
        request=None,
        responses={202: ProgressSerializer, 409: NOT_NOW},
    )
    @action(detail=True, methods=["post"])
    @idempotent
    def cancel(self, request: Request, pk: str) -> Response:
        return self._change(request, "cancel", steering.cancel)

    def _change(self, request: Request, verb: str, change: Callable[[Experiment], bool]) -> Response:
        _nothing(request)
        ground_truth = self.get_object()
        with transaction.atomic():
            if not change(ground_truth.experiment):
                raise Conflict(f"The drafting is {_words(ground_truth)}: it cannot {verb} now.")
            record(request, f"ground_truth.{verb}", ground_truth)
        return Response(comparing.progress(ground_truth.experiment), status=status.HTTP_202_ACCEPTED)

    # --- the review -------------------------------------------------------------------------------------------------

    @extend_schema(
        operation_id="ground_truth_items_list",
        summary="The documents with their drafts and what was decided, in the order of the dataset",
        parameters=[
            OpenApiParameter("decision", enum=[*DECISIONS]),
            OpenApiParameter("assignee", description="A user name, me or nobody."),
            OpenApiParameter("reading", enum=[1, 2], description="Default: both."),
        ],
        responses={200: ItemSerializer(many=True), 400: BAD},
    )
    @action(detail=True, pagination_class=ItemPages, filter_backends=[])
    def items(self, request: Request, pk: str) -> Response:
        only(request, "decision", "assignee", "reading", "page_size", "cursor")
        ground_truth = self.get_object()
        rows = Draft.objects.filter(ground_truth=ground_truth).select_related("reviewer", "assigned_to")
        found: Any = self.paginate_queryset(_narrowed(rows, request))  # type: ignore[arg-type]
        return self.get_paginated_response(_items(ground_truth, found))

    @extend_schema(
        operation_id="ground_truth_items_retrieve",
        summary="One document whole, with its draft",
        parameters=[INDEX, READING],
        responses={200: ItemDetailSerializer, 400: BAD},
    )
    @action(detail=True, url_path=r"items/(?P<index>\d{1,9})", pagination_class=None)
    def item(self, request: Request, pk: str, index: str) -> Response:
        only(request, "reading")
        reading = request.query_params.get("reading", "")
        if reading not in ("", "1", "2"):
            raise ValidationError({"reading": ["it is 1 or 2"]})
        draft = _draft(request, self.get_object(), int(index), int(reading or 0))
        return Response(_whole(draft))

    @extend_schema(
        operation_id="ground_truth_items_decide",
        summary="Accept, edit or reject one draft; saved at once",
        description="409 when somebody decided since you looked: yours is not saved, so look again.",
        parameters=[INDEX],
        request=DecisionSerializer,
        responses={200: ItemDetailSerializer, 400: BAD, 409: NOT_NOW},
    )
    @item.mapping.patch
    def decide(self, request: Request, pk: str, index: str) -> Response:
        body = DecisionSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        if asked["decision"] == "edited" and "text" not in asked:
            raise ValidationError({"text": ["give the edited reference"]})
        draft = _draft(request, self.get_object(), int(index), asked.get("reading", 0))
        try:
            saved = annotating.decide(
                draft,
                reviewer=_user(request),
                decision=asked["decision"],
                version=asked["version"],
                text=asked.get("text", ""),
                is_admin=role_of(request) == Role.ADMIN,
            )
        except Refused as error:
            raise refused(error) from None
        except annotating.Overtaken as error:
            raise Conflict(str(error)) from None
        return Response(_whole(saved))

    @extend_schema(
        summary="Split what is undecided between reviewers, and have some documents read twice",
        request=AssignmentSerializer,
        responses={200: GroundTruthDetailSerializer, 400: BAD},
    )
    @action(detail=True, methods=["post"])
    @idempotent
    def assign(self, request: Request, pk: str) -> Response:
        ground_truth = self.get_object()
        body = AssignmentSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        names = list(dict.fromkeys(body.validated_data["reviewers"]))
        people = {each.get_username(): each for each in annotating.reviewers_of(ground_truth.team)}
        if strangers := [name for name in names if name not in people]:
            words = f"{', '.join(strangers[:20])} may not review here; there is {', '.join(people)}"
            raise ValidationError({"reviewers": [words]})
        overlap = body.validated_data["overlap"]
        try:
            with transaction.atomic():
                annotating.assign(ground_truth, [people[name] for name in names], overlap)
                record(request, "ground_truth.assign", ground_truth, reviewers=len(names), overlap=overlap)
        except Refused as error:
            raise refused(error) from None
        return Response(_detail(request, ground_truth))

    @extend_schema(
        summary="Accept every draft that nobody decided on, unread (admins only; it is recorded, and stays visible)",
        request=None,
        responses={200: GroundTruthDetailSerializer},
    )
    @action(detail=True, methods=["post"], url_path="accept-all")
    @idempotent
    def accept_all(self, request: Request, pk: str) -> Response:
        _nothing(request)
        ground_truth = self.get_object()
        with transaction.atomic():
            n = annotating.accept_all(ground_truth, _user(request))
            record(request, "ground_truth.accept_all", ground_truth, accepted=n)
        return Response(_detail(request, ground_truth))

    @extend_schema(
        summary="Make a dataset of what was approved so far; each call makes another",
        request=PublishSerializer,
        responses={201: PublicationSerializer, 400: BAD},
    )
    @action(detail=True, methods=["post"])
    @idempotent
    def publish(self, request: Request, pk: str) -> Response:
        ground_truth = self.get_object()
        body = PublishSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        try:
            with transaction.atomic():
                made = publishing.publish(
                    ground_truth, user=_user(request), rows=asked["rows"], name=asked.get("name", "")
                )
                record(request, "ground_truth.publish", ground_truth, dataset=made.dataset_id, **made.counts)
        except Refused as error:
            raise refused(error) from None
        headers = {"Location": reverse("api-dataset-detail", args=[made.dataset_id])}
        return Response(PublicationSerializer(made).data, status=status.HTTP_201_CREATED, headers=headers)


# --- small questions ------------------------------------------------------------------------------------------------


def _user(request: Request) -> User:
    return cast(User, request.user)  # RolePermission lets members in only


def _nothing(request: Request) -> None:
    """A POST without fields: refuse any."""
    Strict(data=request.data or {}).is_valid(raise_exception=True)


def _words(ground_truth: GroundTruth) -> str:
    return ground_truth.experiment.look.label.lower()


def _told(ground_truth: GroundTruth, counted: dict[str, Any]) -> dict[str, Any]:
    experiment, candidate = ground_truth.experiment, ground_truth.candidate
    return {
        "id": ground_truth.pk,
        "name": experiment.name,
        "dataset": experiment.dataset_id,
        "dataset_name": experiment.dataset.name,
        "model": candidate.spec.get("uri", ""),
        "label": candidate.label,
        "revision": candidate.spec.get("revision") or "",
        "prompt": candidate.spec.get("prompt") or "",
        "prompt_version": candidate.spec.get("prompt_version") or "",
        "sample": {"n": experiment.sample_n, "seed": experiment.seed},
        "budget_usd": None if experiment.budget_micro is None else experiment.budget_micro / 1_000_000,
        "spent_usd": experiment.spent_micro / 1_000_000,
        "state": experiment.state,
        "is_final": experiment.has_ended,
        "stage": annotating.stage(ground_truth, counted).name,
        "problem": experiment.problem or candidate.problem,
        "counts": counted,
        "created_by": experiment.created_by.get_username() if experiment.created_by else None,
        "created_at": experiment.created_at,
    }


def _detail(request: Request, ground_truth: GroundTruth) -> dict[str, Any]:
    progress = comparing.progress(ground_truth.experiment)
    return {
        **_told(ground_truth, annotating.counts([ground_truth], _user(request))[ground_truth.pk]),
        "progress": progress,
        "agreement": annotating.agreement(ground_truth),
        "publishable": publishing.publishable(ground_truth),
        "published": PublicationSerializer(
            ground_truth.publications.select_related("dataset", "created_by"), many=True
        ).data,
    }


def _narrowed(rows: QuerySet[Draft], request: Request) -> QuerySet[Draft]:
    asked = request.query_params
    if (decision := asked.get("decision")) is not None:
        if decision not in DECISIONS:
            raise ValidationError({"decision": [f"it is one of {', '.join(DECISIONS)}"]})
        rows = rows.filter(decision=decision)
    if (reading := asked.get("reading")) is not None:
        if not re.fullmatch("[12]", reading):
            raise ValidationError({"reading": ["it is 1 or 2"]})
        rows = rows.filter(reading=int(reading))
    assignee = asked.get("assignee")
    if assignee == "nobody":
        return rows.filter(assigned_to=None)
    if assignee == "me":
        return rows.filter(assigned_to=_user(request))
    return rows.filter(assigned_to__username=assignee) if assignee is not None else rows


def _items(ground_truth: GroundTruth, drafts: Sequence[Draft]) -> list[dict[str, Any]]:
    wanted = [draft.example_id for draft in drafts]
    begins = Example.objects.filter(pk__in=wanted).values_list("pk", "key", annotating.BEGINNING)
    texts = {pk: (key, begin) for pk, key, begin in begins}
    made = annotating.outcomes(ground_truth, wanted)
    return [_item(draft, *texts[draft.example_id], made.get(draft.example_id)) for draft in drafts]


def _item(draft: Draft, key: str, begins: str, made: Generation | None) -> dict[str, Any]:
    drafted = made.text if made and made.status == Generation.Status.OK else ""
    return {
        "index": draft.index,
        "id": key or None,
        "reading": draft.reading,
        "begins": " ".join(begins.split())[:BEGINS],
        "draft": {
            "status": made.status if made else "waiting",
            "text": made.text if made else "",
            "error": made.error if made else "",
            "finish_reason": made.finish_reason if made else "",
            "was_truncated": bool(made and made.was_truncated),
        },
        "decision": draft.decision,
        "text": drafted if draft.decision == Draft.Decision.ACCEPTED else draft.text,
        "is_written": draft.is_written,
        "in_bulk": draft.in_bulk,
        "assigned_to": draft.assigned_to.get_username() if draft.assigned_to else None,
        "reviewer": draft.reviewer.get_username() if draft.reviewer else None,
        "decided_at": draft.decided_at,
        "version": draft.version,
    }


def _whole(draft: Draft) -> dict[str, Any]:
    example = Example.objects.get(pk=draft.example_id)
    by = publishing.references_by(example)
    return {
        **_item(draft, example.key, example.source[: 4 * BEGINS], annotating.outcome(draft)),
        "source": example.source,
        "references": [{"text": text, "by": who} for text, who in zip(example.references, by, strict=True)],
    }


def _draft(request: Request, ground_truth: GroundTruth, index: int, reading: int) -> Draft:
    found = annotating.draft_of(ground_truth, index, user=_user(request), reading=reading)
    if found is None:
        raise NotFound(f"There is no draft of document {index} here.")
    return found


router = DefaultRouter()
router.register("ground-truth", GroundTruthViewSet, basename="api-ground-truth")
