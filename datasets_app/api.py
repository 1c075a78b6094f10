"""The API of datasets: upload, list, look into, download, delete."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_field,
    extend_schema_view,
)
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter

from datasets_app import deleting
from datasets_app.exporting import EXPORTS, download
from datasets_app.ingest import BadFile, ingest
from datasets_app.models import Dataset, Example
from datasets_app.reading import Columns
from lumigator.access import record, team_of
from lumigator.api import Conflict, Pages, idempotent


class ColumnsSerializer(serializers.Serializer[Any]):
    source = serializers.CharField()  # type: ignore[assignment]  # Field has a `source` of its own, for other things
    references = serializers.ListField(child=serializers.CharField())
    id = serializers.CharField()
    group = serializers.CharField()
    tags = serializers.ListField(child=serializers.CharField())


class DatasetSerializer(serializers.ModelSerializer[Dataset]):
    columns = serializers.SerializerMethodField(help_text="Which column of the file became what.")
    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True, read_only=True)

    class Meta:
        model = Dataset
        fields = [
            "id",
            "name",
            "state",
            "problem",
            "origin",
            "parent",
            "privacy",
            "n_examples",
            "n_with_reference",
            "columns",
            "sha256",
            "file_name",
            "file_bytes",
            "created_at",
            "created_by",
        ]
        read_only_fields = fields

    @extend_schema_field(ColumnsSerializer)
    def get_columns(self, dataset: Dataset) -> dict[str, Any]:
        return Columns.from_dict(dataset.columns).as_dict()


class ExampleSerializer(serializers.ModelSerializer[Example]):
    id = serializers.CharField(source="key", help_text="The id in the file; empty where it has none.")

    class Meta:
        model = Example
        fields = ["index", "id", "source", "references", "group", "tags"]
        read_only_fields = fields


class UploadSerializer(serializers.Serializer[Any]):
    """What is not sent is guessed from the names of the file's columns; an empty value says that there is none."""

    file = serializers.FileField(max_length=200, help_text="CSV or JSONL, UTF-8; the type is found by its content.")
    name = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")
    source_column = serializers.CharField(required=False, help_text="The column with the documents.")
    reference_columns = serializers.ListField(
        child=serializers.CharField(allow_blank=True), required=False, help_text="Repeated, or with commas between."
    )
    id_column = serializers.CharField(required=False, allow_blank=True)
    group_column = serializers.CharField(required=False, allow_blank=True)
    tag_columns = serializers.ListField(
        child=serializers.CharField(allow_blank=True), required=False, help_text="Repeated, or with commas between."
    )
    privacy = serializers.ChoiceField(choices=Dataset.Privacy.choices, default=Dataset.Privacy.ANY)

    def columns(self) -> dict[str, Any]:
        """For `ingest`: {source, references[], id, group, tags[]}, only what was sent."""
        data = self.validated_data
        singles = {"source": "source_column", "id": "id_column", "group": "group_column"}
        lists = {"references": "reference_columns", "tags": "tag_columns"}
        return {name: data[field] for name, field in singles.items() if field in data} | {
            name: [part.strip() for value in data[field] for part in value.split(",") if part.strip()]
            for name, field in lists.items()
            if field in data
        }


class WordsSerializer(serializers.Serializer[Any]):
    n = serializers.IntegerField()
    min = serializers.IntegerField()
    median = serializers.FloatField()
    mean = serializers.FloatField()
    p95 = serializers.FloatField()
    max = serializers.IntegerField()


class ValueCountSerializer(serializers.Serializer[Any]):
    value = serializers.CharField()
    n = serializers.IntegerField()


class ValuesSerializer(serializers.Serializer[Any]):
    n = serializers.IntegerField(help_text="Distinct values.")
    is_capped = serializers.BooleanField(help_text="There are more than n.")
    largest = ValueCountSerializer(many=True)


class ProfileSerializer(serializers.Serializer[Any]):
    n_examples = serializers.IntegerField()
    n_with_reference = serializers.IntegerField()
    n_with_several_references = serializers.IntegerField()
    max_references = serializers.IntegerField()
    source_words = WordsSerializer(allow_null=True)
    reference_words = WordsSerializer(allow_null=True, help_text="null where there is no reference.")
    groups = ValuesSerializer()
    tags = serializers.DictField(child=ValuesSerializer())


class ExamplePages(Pages):
    ordering = "index"


REFUSED = OpenApiResponse(
    OpenApiTypes.OBJECT, description="problem+json; `errors` names row and column, message and cure."
)
FORMAT = OpenApiParameter("format", enum=list(EXPORTS), default="csv", description="How the examples are written.")


@extend_schema_view(
    list=extend_schema(summary="The datasets of your teams, newest first"),
    retrieve=extend_schema(summary="One dataset"),
)
class DatasetViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Any]):
    """Documents with zero or more reference summaries each. A dataset that is ready never changes."""

    queryset = Dataset.objects.none()
    serializer_class = DatasetSerializer
    parser_classes = [MultiPartParser]
    lookup_value_regex = r"\d{1,18}"

    def get_queryset(self) -> QuerySet[Dataset]:
        return Dataset.objects.for_user(self.request.user).select_related("created_by")

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        # A download is no rendering of DRF's: `Accept: text/csv` must not end in 406.
        return super().perform_content_negotiation(request, force or getattr(self, "action", "") == "download")

    @extend_schema(
        summary="Upload a dataset",
        request={"multipart/form-data": UploadSerializer},
        responses={201: DatasetSerializer, 400: REFUSED},
    )
    @idempotent
    def create(self, request: Request) -> Response:
        form = UploadSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        data = form.validated_data
        try:
            with transaction.atomic():
                dataset = ingest(
                    team=team_of(request),
                    user=cast(User, request.user),  # RolePermission lets members in only
                    name=data["name"],
                    file=data["file"],
                    columns=form.columns(),
                    privacy=data["privacy"],
                )
                record(request, "dataset.upload", dataset, n_examples=dataset.n_examples, bytes=dataset.file_bytes)
        except BadFile as error:
            raise ValidationError(_by_place(error)) from None
        headers = {"Location": reverse("api-dataset-detail", args=[dataset.pk])}
        return Response(self.get_serializer(dataset).data, status=status.HTTP_201_CREATED, headers=headers)

    @extend_schema(summary="Delete a dataset that no experiment uses", responses={204: None, 409: REFUSED})
    def destroy(self, request: Request, pk: str) -> Response:
        dataset = self.get_object()
        try:
            with transaction.atomic():
                record(request, "dataset.delete", dataset, n_examples=dataset.n_examples)
                deleting.delete(dataset)
        except deleting.InUse as error:
            raise Conflict(str(error)) from None
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(summary="Its examples, in the order of the file", responses=ExampleSerializer(many=True))
    @action(detail=True, pagination_class=ExamplePages, filter_backends=[])
    def examples(self, request: Request, pk: str) -> Response:
        page = self.paginate_queryset(Example.objects.filter(dataset=self.get_object()))
        return self.get_paginated_response(ExampleSerializer(page, many=True).data)

    @extend_schema(summary="Its counts, lengths in words, groups and tags", responses=ProfileSerializer)
    @action(detail=True)
    def profile(self, request: Request, pk: str) -> Response:
        dataset = self.get_object()
        if not dataset.profile:
            raise Conflict("Its figures are not known: they are computed when a dataset becomes ready.")
        return Response(ProfileSerializer(dataset.profile).data)

    @extend_schema(
        summary="Its examples as a file",
        description="CSV cells that a spreadsheet would run as a formula begin with an apostrophe; uploading the file "
        "again gives the same examples.",
        parameters=[FORMAT],
        responses={(200, "text/csv"): OpenApiTypes.STR, (200, "application/x-ndjson"): OpenApiTypes.STR},
    )
    @action(detail=True)
    def download(self, request: Request, pk: str) -> StreamingHttpResponse:
        dataset = self.get_object()
        name = request.query_params.get("format", "csv")
        if name not in EXPORTS:
            raise ValidationError({"format": [f"It is one of {', '.join(EXPORTS)}."]})
        record(request, "dataset.download", dataset, format=name)
        return download(dataset, name)


def _by_place(error: BadFile) -> dict[str, list[str]]:
    """{"row 7, column examples": ["what is wrong. The cure."]}; the count of further problems under no place."""
    found: dict[str, list[str]] = {}
    for problem in error.problems:
        found.setdefault(problem.where, []).append(f"{problem.message} {problem.cure}")
    if error.rest:
        found["non_field_errors"] = [error.rest]
    return found


router = DefaultRouter()
router.register("datasets", DatasetViewSet, basename="api-dataset")
