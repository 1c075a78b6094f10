"""The API of browsing: the examples of a dataset, filtered and in pages by key."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter

from datasets_app import browsing, editing, filtering
from datasets_app.browsing import SORTS, Place, Sort
from datasets_app.models import Dataset, Example
from lumigator.api import only

PAGE, MOST = 50, 200
SECONDS = 2.0
"""A script waits longer than a reader, rather than ask ten times."""


class ExampleSerializer(serializers.ModelSerializer[Example]):
    id = serializers.CharField(source="key", help_text="The id in the file; empty where it has none.")

    class Meta:
        model = Example
        fields = ["index", "id", "source", "references", "group", "tags"]
        read_only_fields = fields


class DatasetExamplePageSerializer(serializers.Serializer[Any]):
    results = ExampleSerializer(many=True)
    next = serializers.URLField(allow_null=True, help_text="null: there are no more.")
    previous = serializers.URLField(allow_null=True)


class ExampleFilterSerializer(serializers.Serializer[Any]):
    """Which examples are meant: all that is said must be true of one. Limits include themselves."""

    search = serializers.CharField(
        required=False, help_text="A part of the document, of a reference or of the id, whatever the case."
    )
    tags = serializers.DictField(child=serializers.CharField(), required=False, help_text="{name: value}.")
    group = serializers.CharField(required=False)
    has_reference = serializers.BooleanField(required=False, allow_null=True, default=None)
    min_words = serializers.IntegerField(required=False, min_value=0, max_value=999_999_999)
    max_words = serializers.IntegerField(required=False, min_value=0, max_value=999_999_999)
    min_characters = serializers.IntegerField(required=False, min_value=0, max_value=999_999_999)
    max_characters = serializers.IntegerField(required=False, min_value=0, max_value=999_999_999)


def _named(name: str, description: str, kind: Any = OpenApiTypes.STR, **more: Any) -> OpenApiParameter:
    return OpenApiParameter(name, kind, description=description, **more)


PARAMETERS = [
    _named("search", "A part of the document, of a reference or of the id, whatever the case."),
    _named("tag", "`name:value`; repeated: all of them.", many=True),
    _named("group", "The group."),
    _named("has_reference", "yes or no.", enum=["yes", "no"]),
    *(_named(name, "Of the document; the limit included.", OpenApiTypes.INT) for name in filtering.LIMITS),
    _named("sort", "By its place in the file, or by its length in characters.", enum=list(SORTS), default="index"),
    _named("cursor", "Taken from `next` and `previous`."),
    _named("page_size", f"From 1 to {MOST}.", OpenApiTypes.INT, default=PAGE),
]


class ExamplesViewSet(viewsets.GenericViewSet[Any]):
    """The examples of a dataset."""

    queryset = Dataset.objects.none()
    lookup_value_regex = r"\d{1,18}"

    def get_queryset(self) -> QuerySet[Dataset]:
        return Dataset.objects.for_user(self.request.user)

    @extend_schema(
        summary="Its examples, filtered and sorted",
        description="A search that takes too long answers with what it has found, possibly nothing, and a `next` "
        "that goes on from there: follow it until it is null.",
        parameters=PARAMETERS,
        responses=DatasetExamplePageSerializer,
    )
    @action(detail=True, pagination_class=None, filter_backends=[])
    def examples(self, request: Request, pk: str) -> Response:
        dataset = self.get_object()
        only(request, *filtering.PARAMETERS, "sort", "cursor", "page_size")
        chosen, wrong = filtering.read(request.query_params, editing.tags_of(dataset))
        sort: Any = request.query_params.get("sort", "index")
        if sort not in SORTS:
            wrong["sort"] = f"it is one of {', '.join(SORTS)}"
        size = request.query_params.get("page_size", str(PAGE))
        if not (size.isascii() and size.isdigit() and len(size) < 10 and int(size)):
            wrong["page_size"] = f"it is a whole number from 1 to {MOST}"
        if wrong:
            raise ValidationError({name: [message] for name, message in wrong.items()})
        after, backwards = _place(request, sort)
        n = min(int(size), MOST)
        asked: dict[str, Any] = {"sort": sort, "seconds": SECONDS, "shape": lambda rows: rows.defer("dataset")}
        found = browsing.find(dataset, chosen, after=after, backwards=backwards, n=n, **asked)
        rows = found.rows[::-1] if backwards else found.rows
        before = found.reached if backwards else _first(rows, sort) or after if after is not None else None
        behind = (_last(rows, sort) or after) if backwards else found.reached
        return Response(
            {
                "results": ExampleSerializer(rows, many=True).data,
                "next": _address(request, "after", behind),
                "previous": _address(request, "before", before),
            }
        )


def _first(rows: list[Any], sort: Sort) -> Place | None:
    return browsing.place_of(rows[0], sort) if rows else None


def _last(rows: list[Any], sort: Sort) -> Place | None:
    return browsing.place_of(rows[-1], sort) if rows else None


def _place(request: Request, sort: Sort) -> tuple[Place | None, bool]:
    """(where to go on, whether backwards). Raises NotFound for a cursor of somebody's making."""
    cursor = request.query_params.get("cursor", "")
    if not cursor:
        return None, False
    way, _, text = cursor.partition(".")
    place = browsing.place_from(text, sort)
    if way not in ("after", "before") or place is None:
        raise NotFound("This cursor is not one of ours: begin without one.")
    return place, way == "before"


def _address(request: Request, way: str, place: Place | None) -> str | None:
    if place is None:
        return None
    kept = [(name, value) for name in request.query_params for value in request.query_params.getlist(name)]
    kept = [pair for pair in kept if pair[0] != "cursor"]
    query = urlencode([*kept, ("cursor", f"{way}.{browsing.as_text(place)}")])
    return request.build_absolute_uri(f"{request.path}?{query}")


router = DefaultRouter()
router.register("datasets", ExamplesViewSet, basename="api-dataset")
