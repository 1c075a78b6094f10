"""The API of experiments: ask, plan, start, follow, compare, look into, download; and the metrics there are.

It reads through `comparing` and `forecasting`, changes through `planning` and `importing`, and computes nothing.
A request acts for one team: its token's, or the one chosen in its session; other teams' experiments are not there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer, extend_schema
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter

from datasets_app.models import Example
from evaluations import browsing, comparing, downloading, forecasting, importing, planning, states, steering
from evaluations.comparison_shapes import ComparisonSerializer
from evaluations.models import Candidate, Experiment
from evaluations.shapes import (
    AddedSerializer,
    CandidateListSerializer,
    CandidateSerializer,
    ChangeSerializer,
    ExamplePageSerializer,
    ExperimentDetailSerializer,
    ExperimentSerializer,
    ModelWishSerializer,
    NewExperimentSerializer,
    PlanSerializer,
    PredictionsFileSerializer,
    PredictionsSerializer,
    ProgressSerializer,
    SideBySideSerializer,
    Strict,
)
from evaluations.steering import locked
from lumigator.access import record, team_of
from lumigator.api import Conflict, Pages, idempotent, only
from lumigator.parsing import StrictJSON
from lumigator.schema import problem

PAGE = 50
LONGEST_PAGE = 200
NAMES = 100
BAD = problem("What is wrong, by field.")
NOT_NOW = problem("The state of the experiment does not allow this.")
FORMAT = OpenApiParameter("format", enum=list(downloading.DOWNLOADS), default="csv")
STATE = OpenApiParameter("state", enum=list(states.EXPERIMENT), description="Only those in this state.")
NEW_CANDIDATE = PolymorphicProxySerializer(
    "NewCandidate", [ModelWishSerializer, PredictionsSerializer], resource_type_field_name=None
)
METRIC = OpenApiParameter("metric", description="A metric part. Default: the one that decides.")
AGAINST = OpenApiParameter("against", OpenApiTypes.INT, description="The candidate to hold the others against.")
SLICE = OpenApiParameter("slice", description="Only the documents of this slice: a key of the comparison's `slices`.")


BODIES: dict[str | None, type[serializers.BaseSerializer[Any]]] = {
    "create": NewExperimentSerializer,
    "partial_update": ChangeSerializer,
    "add_candidate": ModelWishSerializer,
    **dict.fromkeys(("start", "pause", "resume", "cancel", "rescore"), Strict),
}


def refused(error: planning.Refused, **places: str) -> ValidationError:
    """The sentences of `planning.Refused` as the fields' errors; `places` renames fields to those of the body."""
    return ValidationError({places.get(field, field): sentences for field, sentences in error.errors.items()})


class ExperimentViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[Experiment]):
    """Candidate models on one dataset, and what came of them."""

    queryset = Experiment.objects.none()
    serializer_class = ExperimentSerializer
    pagination_class = Pages
    parser_classes = [StrictJSON]
    lookup_value_regex = r"\d{1,18}"
    http_method_names = ["get", "post", "patch", "delete", "head", "options"]

    def get_queryset(self) -> QuerySet[Experiment]:
        mine = Experiment.objects.for_user(self.request.user).filter(team=team_of(self.request))
        return mine.select_related("dataset", "created_by")

    def get_serializer_class(self) -> type[serializers.BaseSerializer[Any]]:
        """For the browsable pages: what to POST or PATCH here."""
        return BODIES.get(self.action, ExperimentSerializer)

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "team": team_of(self.request)}

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        # An export is no rendering of DRF's: `Accept: text/csv` must not end in 406.
        return super().perform_content_negotiation(request, force or getattr(self, "action", "") == "export")

    # --- the experiment ---------------------------------------------------------------------------------------------

    @extend_schema(
        summary="The experiments of your team, newest first",
        parameters=[STATE],
        responses={200: ExperimentSerializer(many=True), 400: BAD},
    )
    def list(self, request: Request) -> Response:
        only(request, "state", "page_size", "cursor")
        rows = self.get_queryset().defer("statistics", "prompt", "dataset__profile", "dataset__columns")
        if (wanted := request.query_params.get("state")) is not None:
            if wanted not in states.EXPERIMENT:
                raise ValidationError({"state": [f"it is one of {', '.join(states.EXPERIMENT)}"]})
            rows = rows.filter(state=wanted)
        return self.get_paginated_response(ExperimentSerializer(self.paginate_queryset(rows), many=True).data)

    @extend_schema(
        summary="Make an experiment, and start it if asked",
        request=NewExperimentSerializer,
        responses={201: ExperimentDetailSerializer, 400: BAD},
    )
    @idempotent
    def create(self, request: Request) -> Response:
        team = team_of(request)
        body = NewExperimentSerializer(data=request.data, context={"team": team})
        body.is_valid(raise_exception=True)
        try:
            with transaction.atomic():
                experiment = planning.create(
                    team=team,
                    user=request.user,  # type: ignore[arg-type]
                    data=body.asked(),
                    request_id=getattr(request, "request_id", ""),
                )
                record(request, "experiment.create", experiment)
                if body.validated_data["start"] and steering.start(experiment):
                    record(request, "experiment.start", experiment)
        except planning.Refused as error:
            raise refused(error) from None
        headers = {"Location": reverse("api-experiment-detail", args=[experiment.pk])}
        return Response(_detail(experiment), status=status.HTTP_201_CREATED, headers=headers)

    @extend_schema(summary="One experiment with its candidates", responses=ExperimentDetailSerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(_detail(self.get_object()))

    @extend_schema(
        summary="Change the name or the budget; nothing else of an experiment can be changed",
        request=ChangeSerializer,
        responses={200: ExperimentDetailSerializer, 400: BAD},
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        experiment = self.get_object()
        body = ChangeSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        asked = body.validated_data
        if "name" in asked:
            experiment.name = asked["name"]
        if "budget_usd" in asked:
            experiment.budget_micro = planning.micro(asked["budget_usd"])
        with transaction.atomic():
            experiment.save(update_fields=["name", "budget_micro"])
            record(request, "experiment.change", experiment, fields=sorted(asked))
        return Response(_detail(experiment))

    @extend_schema(
        summary="Delete a draft, or an experiment that has ended, with all that came of it",
        responses={204: None, 409: NOT_NOW},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        with transaction.atomic():
            experiment = locked(self.get_object().pk)
            if not (experiment.has_ended or experiment.state == "draft"):
                raise Conflict(f"The experiment is {_words(experiment)}: cancel it first, then delete it.")
            record(request, "experiment.delete", experiment, state=experiment.state, n=experiment.n_examples)
            experiment.delete()
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        summary="What it will take: calls, tokens, money, and the difference that so many documents show",
        responses=PlanSerializer,
    )
    @action(detail=True, pagination_class=None)
    def plan(self, request: Request, pk: str) -> Response:
        return Response(forecasting.forecast(self.get_object()))

    # --- its states -------------------------------------------------------------------------------------------------

    @extend_schema(
        summary="Start, or do what was added since the end",
        request=None,
        responses={202: ProgressSerializer, 409: NOT_NOW},
    )
    @action(detail=True, methods=["post"])
    @idempotent
    def start(self, request: Request, pk: str) -> Response:
        if not Candidate.objects.filter(experiment=self.get_object()).exists():
            raise Conflict("The experiment has no candidate yet: add a model, or outputs made elsewhere, first.")
        return self._change(request, "start", steering.start)

    @extend_schema(
        summary="Stop handing out work; what is finished stays",
        request=None,
        responses={202: ProgressSerializer, 409: NOT_NOW},
    )
    @action(detail=True, methods=["post"])
    @idempotent
    def pause(self, request: Request, pk: str) -> Response:
        return self._change(request, "pause", steering.pause)

    @extend_schema(
        summary="Go on; finished work is not done again, errors that may pass are tried again",
        request=None,
        responses={202: ProgressSerializer, 409: NOT_NOW},
    )
    @action(detail=True, methods=["post"])
    @idempotent
    def resume(self, request: Request, pk: str) -> Response:
        return self._change(request, "resume", steering.resume)

    @extend_schema(
        summary="Stop for good; what is finished stays", request=None, responses={202: ProgressSerializer, 409: NOT_NOW}
    )
    @action(detail=True, methods=["post"])
    @idempotent
    def cancel(self, request: Request, pk: str) -> Response:
        return self._change(request, "cancel", steering.cancel)

    @extend_schema(
        summary="Score anew what the metrics of today sign differently; the old scores stay beside the new ones",
        request=None,
        responses={202: ProgressSerializer, 409: NOT_NOW},
    )
    @action(detail=True, methods=["post"])
    @idempotent
    def rescore(self, request: Request, pk: str) -> Response:
        return self._change(request, "rescore", steering.rescore)

    def _change(self, request: Request, verb: str, change: Callable[[Experiment], bool]) -> Response:
        _nothing(request)
        experiment = self.get_object()
        with transaction.atomic():
            if not change(experiment):
                raise Conflict(f"The experiment is {_words(experiment)}: it cannot {verb} now.")
            record(request, f"experiment.{verb}", experiment)
        return Response(comparing.progress(experiment), status=status.HTTP_202_ACCEPTED)

    @extend_schema(
        summary="How far it is; with If-None-Match 304 while nothing moved",
        responses={200: ProgressSerializer, 304: None},
    )
    @action(detail=True, pagination_class=None)
    def progress(self, request: Request, pk: str) -> Response:
        document = comparing.progress(self.get_object())
        tag = _etag(document)
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if tag in (each.strip() for each in request.headers.get("If-None-Match", "").split(",")):
            return Response(status=status.HTTP_304_NOT_MODIFIED, headers=headers)
        return Response(document, headers=headers)

    # --- its candidates ---------------------------------------------------------------------------------------------

    @extend_schema(
        operation_id="experiments_candidates_list", summary="Its candidates", responses=CandidateListSerializer
    )
    @action(detail=True, filter_backends=[], pagination_class=None, parser_classes=[StrictJSON, MultiPartParser])
    def candidates(self, request: Request, pk: str) -> Response:
        rows = self.get_object().candidates.select_related("model")
        found = CandidateSerializer(rows, many=True).data
        return Response({"results": found, "next": None, "previous": None})

    @extend_schema(
        summary="Add a model, or outputs made elsewhere, to a draft or to an experiment that has ended",
        description="The new candidate's work is done at the next start.",
        request={
            "application/json": NEW_CANDIDATE,
            "multipart/form-data": PredictionsFileSerializer,
        },
        responses={201: AddedSerializer, 400: BAD, 409: NOT_NOW},
    )
    @candidates.mapping.post
    @idempotent
    def add_candidate(self, request: Request, pk: str) -> Response:
        with transaction.atomic():
            experiment = locked(self.get_object().pk)
            if not (experiment.has_ended or experiment.state == "draft"):
                raise Conflict(
                    f"The experiment is {_words(experiment)}: add candidates before it starts, or when it has ended."
                )
            try:
                candidate, imported = _added(experiment, request)
            except planning.Refused as error:
                raise refused(error, models="model", predictions=_source(request)) from None
            record(request, "experiment.candidate", experiment, candidate=candidate.pk)
        report = _report(imported) if imported else None
        return Response(
            {**CandidateSerializer(candidate).data, "import_report": report}, status=status.HTTP_201_CREATED
        )

    # --- what came of it --------------------------------------------------------------------------------------------

    @extend_schema(
        summary="The comparison: which is best, how sure that is, what it costs",
        parameters=[METRIC, AGAINST],
        responses={200: ComparisonSerializer, 400: BAD},
    )
    @action(detail=True, pagination_class=None)
    def comparison(self, request: Request, pk: str) -> Response:
        only(request, "metric", "against")
        experiment = self.get_object()
        part, against = request.query_params.get("metric", ""), request.query_params.get("against", "")
        if against and not (against.isdecimal() and len(against) < 19):
            raise ValidationError({"against": ["give the id of a candidate"]})
        try:
            document = comparing.comparison(
                experiment,
                metric="" if part == experiment.primary_metric else part,
                against=int(against) if against else None,
            )
        except KeyError:
            raise ValidationError({"metric": [_no_such_part(experiment, part)]}) from None
        except ValueError as error:
            raise ValidationError({"against": [str(error)]}) from None
        return Response(document)

    @extend_schema(
        operation_id="experiments_examples_list",
        summary="Its documents with every candidate's score, the largest disagreement first",
        parameters=[
            OpenApiParameter("sort", description="spread (default), index, or the id of a candidate: its score."),
            OpenApiParameter("order", enum=["asc", "desc"], description="Default: desc; for index asc."),
            OpenApiParameter("after", description="Where the page before ended; `next` has it."),
            OpenApiParameter("page_size", OpenApiTypes.INT, description=f"1 to {LONGEST_PAGE}, default {PAGE}."),
            METRIC,
            SLICE,
        ],
        responses={200: ExamplePageSerializer, 400: BAD},
    )
    @action(detail=True, filter_backends=[], pagination_class=None)
    def examples(self, request: Request, pk: str) -> Response:
        only(request, "sort", "order", "after", "metric", "slice", "page_size")
        experiment = self.get_object()
        asked = request.query_params
        sort = asked.get("sort", "spread")
        order = asked.get("order", "asc" if sort == "index" else "desc")
        part = asked.get("metric", "")
        if order not in ("asc", "desc"):
            raise ValidationError({"order": ["it is asc or desc"]})
        if part and part not in downloading.part_names(experiment):
            raise ValidationError({"metric": [_no_such_part(experiment, part)]})
        try:
            page = browsing.examples(
                experiment,
                sort=sort,
                order=order,
                after=asked.get("after", ""),
                metric=part,
                part_of=asked.get("slice", ""),
                size=_size(request),
            )
        except LookupError as error:
            raise ValidationError({"slice": [str(error)]}) from None
        except ValueError as error:
            raise ValidationError({"after" if "place in this list" in str(error) else "sort": [str(error)]}) from None
        return Response(
            {
                "metric": page["metric"],
                "sort": page["sort"],
                "order": page["order"],
                "results": page["rows"],
                "next": _next(request, page["next"]),
                "previous": None,
            }
        )

    @extend_schema(
        summary="One document, its references and what every candidate made of it",
        parameters=[OpenApiParameter("index", OpenApiTypes.INT, OpenApiParameter.PATH, description="From 0.")],
        responses=SideBySideSerializer,
    )
    @action(detail=True, url_path=r"examples/(?P<index>\d{1,9})", pagination_class=None)
    def example(self, request: Request, pk: str, index: str) -> Response:
        try:
            return Response(browsing.example(self.get_object(), int(index)))
        except Example.DoesNotExist:
            raise NotFound(f"The dataset has no document {index}.") from None

    @extend_schema(
        summary="Every output with its scores, as a file",
        description="CSV cells that a spreadsheet would run as a formula begin with an apostrophe.",
        parameters=[FORMAT],
        responses={(200, "text/csv"): OpenApiTypes.STR, (200, "application/x-ndjson"): OpenApiTypes.STR},
    )
    @action(detail=True, pagination_class=None)
    def export(self, request: Request, pk: str) -> StreamingHttpResponse:
        only(request, "format")
        experiment = self.get_object()
        name = request.query_params.get("format", "csv")
        if name not in downloading.DOWNLOADS:
            raise ValidationError({"format": [f"it is one of {', '.join(downloading.DOWNLOADS)}"]})
        record(request, "experiment.export", experiment, format=name)
        return downloading.download(experiment, name)


# --- small questions ------------------------------------------------------------------------------------------------


def _detail(experiment: Experiment) -> Any:
    experiment._prefetched_objects_cache = {  # type: ignore[attr-defined]
        "candidates": experiment.candidates.select_related("model")
    }
    return ExperimentDetailSerializer(experiment).data


def _words(experiment: Experiment) -> str:
    return experiment.look.label.lower()


def _nothing(request: Request) -> None:
    """A POST without fields: refuse any."""
    Strict(data=request.data or {}).is_valid(raise_exception=True)


def _etag(progress: dict[str, Any]) -> str:
    """The same while nothing moved: the clock alone does not make it another."""
    facts = {name: value for name, value in progress.items() if name not in ("elapsed_seconds", "eta_seconds")}
    return f'"{sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]}"'


def _added(experiment: Experiment, request: Request) -> tuple[Candidate, importing.Imported | None]:
    if _has(request, "file"):
        body: Strict = PredictionsFileSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        file = body.validated_data["file"]
        if file.size > importing.LIMIT_BYTES:
            raise ValidationError({"file": [f"it is larger than {importing.LIMIT_BYTES >> 20} MiB; split it"]})
        imported = importing.import_bytes(experiment, body.validated_data["label"], file.read(), file.name)
        return _reread(imported.candidate), imported
    if _has(request, "predictions"):
        body = PredictionsSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        rows: Iterator[dict[str, Any]] = iter(body.validated_data["predictions"])
        imported = importing.import_rows(experiment, body.validated_data["label"], rows)
        return _reread(imported.candidate), imported
    body = ModelWishSerializer(data=request.data)
    body.is_valid(raise_exception=True)
    return planning.add_candidate(experiment, dict(body.validated_data)), None


def _reread(candidate: Candidate) -> Candidate:
    return Candidate.objects.select_related("model").get(pk=candidate.pk)


def _source(request: Request) -> str:
    return "file" if _has(request, "file") else "predictions"


def _has(request: Request, name: str) -> bool:
    """Whether the body has this field. A body can be any JSON: null and 5 hold nothing, and “file” is no field."""
    return isinstance(request.data, Mapping) and name in request.data


def _report(imported: importing.Imported) -> dict[str, Any]:
    return {
        "matched": imported.matched,
        "n_unmatched": len(imported.unmatched),
        "n_missing": len(imported.missing),
        "unmatched": imported.unmatched[:NAMES],
        "missing": imported.missing[:NAMES],
        "sentences": imported.sentences(),
    }


def _no_such_part(experiment: Experiment, part: str) -> str:
    names = downloading.part_names(experiment)
    if part in names:
        return f"nothing was scored with {part} yet"
    return f"there is no metric part {part[:60]!r} in this experiment; there is {', '.join(names)}"


def _size(request: Request) -> int:
    given = request.query_params.get("page_size", str(PAGE))
    if not given.isdecimal() or not 1 <= int(given[:9]) <= LONGEST_PAGE:
        raise ValidationError({"page_size": [f"give a number from 1 to {LONGEST_PAGE}"]})
    return int(given)


def _next(request: Request, after: str) -> str | None:
    if not after:
        return None
    query = request.query_params.copy()
    query["after"] = after
    return request.build_absolute_uri(f"{request.path}?{query.urlencode()}")


router = DefaultRouter()
router.register("experiments", ExperimentViewSet, basename="api-experiment")
