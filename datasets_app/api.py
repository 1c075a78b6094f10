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

from datasets_app import deleting, pending
from datasets_app.editing import told
from datasets_app.exporting import EXPORTS, download
from datasets_app.ingest import BadFile, accept, ingest, look, measured, twin
from datasets_app.models import Dataset, Import
from datasets_app.profile_api import ProfileSerializer, described
from datasets_app.reading import Columns
from datasets_app.storing import Digest
from lumigator.access import record, team_of
from lumigator.api import Conflict, idempotent


class ColumnsSerializer(serializers.Serializer[Any]):
    source = serializers.CharField()  # type: ignore[assignment]  # Field has a `source` of its own, for other things
    references = serializers.ListField(child=serializers.CharField())
    id = serializers.CharField()
    group = serializers.CharField()
    tags = serializers.ListField(child=serializers.CharField())


class FileProblemSerializer(serializers.Serializer[Any]):
    row = serializers.IntegerField(
        allow_null=True, help_text="As an editor counts: a CSV's header is row 1. null: the file as a whole."
    )
    column = serializers.CharField(allow_blank=True)
    message = serializers.CharField()
    cure = serializers.CharField()


class ImportSerializer(serializers.ModelSerializer[Import]):
    share = serializers.FloatField(
        allow_null=True, read_only=True, help_text="Of the file that has been read, 0 to 1; null where unknown."
    )

    class Meta:
        model = Import
        fields = ["rows_done", "bytes_read", "bytes_total", "share", "n_problems", "asked_at", "began_at", "ended_at"]
        read_only_fields = fields


class DatasetSerializer(serializers.ModelSerializer[Dataset]):
    progress = ImportSerializer(
        source="intake", default=None, allow_null=True, read_only=True, help_text="Of its import; null where none was."
    )
    columns = serializers.SerializerMethodField(help_text="Which column of the file became what.")
    edit = serializers.SerializerMethodField(
        help_text="What made it of its `parent`; `words` says it in a sentence. null where no edit made it."
    )
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
            "edit",
            "sealed",
            "privacy",
            "n_examples",
            "n_with_reference",
            "columns",
            "sha256",
            "file_name",
            "file_bytes",
            "created_at",
            "created_by",
            "progress",
        ]
        read_only_fields = fields

    @extend_schema_field({"type": "object", "additionalProperties": {}, "nullable": True})
    def get_edit(self, dataset: Dataset) -> dict[str, Any] | None:
        return told(dataset)

    @extend_schema_field(ColumnsSerializer)
    def get_columns(self, dataset: Dataset) -> dict[str, Any]:
        return Columns.from_dict(dataset.columns).as_dict()


class UploadedSerializer(DatasetSerializer):
    existing = serializers.SerializerMethodField(
        help_text="true: the same bytes, columns and privacy were uploaded before, and this is what they made."
    )

    class Meta(DatasetSerializer.Meta):
        fields = [*DatasetSerializer.Meta.fields, "existing"]
        read_only_fields = fields

    def get_existing(self, dataset: Dataset) -> bool:
        return bool(self.context.get("existing"))


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
    again = serializers.BooleanField(
        default=False, help_text="Make another dataset even though the same file made one before."
    )

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
        return Dataset.objects.for_user(self.request.user).select_related("created_by", "intake")

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        # A download is no rendering of DRF's: `Accept: text/csv` must not end in 406.
        return super().perform_content_negotiation(request, force or getattr(self, "action", "") == "download")

    @extend_schema(
        summary="Upload a dataset",
        description="A file of up to 5 MiB (256 KiB where it is packed) is ready with the answer (201). A larger one "
        "is imported by a worker (202): ask for the dataset at Location until its state is `ready` or `failed`. A file "
        "that was uploaded before gives the dataset that it made (200, `existing`), unless you send `again`.",
        request={"multipart/form-data": UploadSerializer},
        responses={200: UploadedSerializer, 201: UploadedSerializer, 202: UploadedSerializer, 400: REFUSED},
    )
    def create(self, request: Request) -> Response:
        form = UploadSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        file = form.validated_data["file"]
        try:
            found = measured(file)
            if found.is_small:
                return self._create(request, form, found, None)
            with pending.received(cast(User, request.user), file, found) as upload:  # before the transaction begins
                return self._create(request, form, found, upload)
        except BadFile as error:
            raise ValidationError(_by_place(error)) from None

    @idempotent
    def _create(
        self, request: Request, form: UploadSerializer, found: Digest, upload: pending.Received | None
    ) -> Response:
        data, team = form.validated_data, team_of(request)
        file, columns = data["file"], form.columns()
        same = {"team": team, "sha256": found.sha256, "privacy": data["privacy"]}
        known = None if data["again"] else twin(**same, columns=lambda: look(file, columns))
        if known:
            return self._uploaded(known, status.HTTP_200_OK, existing=True)
        asked: dict[str, Any] = {
            "team": team,
            "user": cast(User, request.user),  # RolePermission lets members in only
            "name": data["name"],
            "privacy": data["privacy"],
            "file_name": file.name,
        }
        with transaction.atomic():
            if upload:
                chosen = look(file, columns)
                dataset = accept(upload=upload.key, digest=found, columns=chosen, **asked)
                record(request, "dataset.upload", dataset, bytes=dataset.file_bytes)
                upload.is_taken = True
                return self._uploaded(dataset, status.HTTP_202_ACCEPTED)
            dataset = ingest(file=file, columns=columns, **asked)
            record(request, "dataset.upload", dataset, n_examples=dataset.n_examples, bytes=dataset.file_bytes)
        return self._uploaded(dataset, status.HTTP_201_CREATED)

    def _uploaded(self, dataset: Dataset, code: int, *, existing: bool = False) -> Response:
        context = {**self.get_serializer_context(), "existing": existing}
        headers = {"Location": reverse("api-dataset-detail", args=[dataset.pk])}
        found = self.get_queryset().get(pk=dataset.pk)
        return Response(UploadedSerializer(found, context=context).data, status=code, headers=headers)

    @extend_schema(
        summary="Delete a dataset that no experiment uses, or cancel its import",
        responses={204: None, 202: None, 409: REFUSED},
        description="202: a large part of it was imported already, and a worker removes that.",
    )
    def destroy(self, request: Request, pk: str) -> Response:
        dataset = self.get_object()
        try:
            with transaction.atomic():
                record(request, "dataset.delete", dataset, n_examples=dataset.n_examples)
                is_gone = deleting.delete(dataset)
        except deleting.InUse as error:
            raise Conflict(str(error)) from None
        return Response(status=status.HTTP_204_NO_CONTENT if is_gone else status.HTTP_202_ACCEPTED)

    @extend_schema(
        summary="What is wrong with the file of a dataset that failed",
        description="The first 1,000 problems; `n_problems` of the dataset's `progress` counts all.",
        responses=FileProblemSerializer(many=True),
    )
    @action(detail=True, pagination_class=None, filter_backends=[])
    def problems(self, request: Request, pk: str) -> Response:
        intake = Import.objects.filter(dataset=self.get_object()).first()
        return Response(FileProblemSerializer(intake.problems if intake else [], many=True).data)

    @extend_schema(summary="What it is made of, and what to know before comparing on it", responses=ProfileSerializer)
    @action(detail=True)
    def profile(self, request: Request, pk: str) -> Response:
        dataset = self.get_object()
        if not dataset.profile:
            raise Conflict("Its figures are not known: they are computed when a dataset becomes ready.")
        return Response(described(dataset))

    @extend_schema(
        summary="Its examples as a file",
        description="CSV cells that a spreadsheet would run as a formula begin with an apostrophe; uploading the file "
        "again gives the same examples.",
        parameters=[FORMAT],
        responses={
            (200, "text/csv"): OpenApiTypes.STR,
            (200, "application/x-ndjson"): OpenApiTypes.STR,
            (200, "application/vnd.apache.parquet"): OpenApiTypes.BINARY,
        },
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
