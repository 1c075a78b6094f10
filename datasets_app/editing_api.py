"""The API of editing: each edit of a dataset makes a child of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter

from datasets_app import editing
from datasets_app.api import DatasetSerializer
from datasets_app.browsing_api import ExampleFilterSerializer
from datasets_app.filtering import Filter
from datasets_app.models import Dataset
from lumigator.access import record
from lumigator.api import idempotent
from lumigator.schema import problem

TAG = "Text or a number."


class ExampleSetSerializer(serializers.Serializer[Any]):
    """The fields of an example; what is not sent stays as it is."""

    source = serializers.CharField(required=False, trim_whitespace=False)  # type: ignore[assignment]
    references = serializers.ListField(
        child=serializers.CharField(allow_blank=True, trim_whitespace=False), required=False, help_text="All of them."
    )
    id = serializers.CharField(required=False, allow_blank=True)
    group = serializers.CharField(required=False, allow_blank=True)
    tags = serializers.DictField(required=False, help_text="All of them: {name: text or number}.")


class DatasetEditSerializer(serializers.Serializer[Any]):
    action = serializers.ChoiceField(
        choices=editing.ACTIONS,
        help_text="fix: `index`, `set`. drop, keep: `indexes` or `filter`. relabel: the same, or neither for all, with "
        "`group` or with `tag` and `value`. sample: `n`, `seed`, `by`, `filter`. append: `example`.",
    )
    name = serializers.CharField(
        max_length=200, required=False, allow_blank=True, default="", help_text="Of the child."
    )
    privacy = serializers.ChoiceField(
        choices=Dataset.Privacy.choices, required=False, help_text="As the parent's where it is not sent; never less."
    )
    index = serializers.IntegerField(required=False, min_value=0, max_value=2**31 - 1)
    set = ExampleSetSerializer(required=False)
    indexes = serializers.ListField(
        child=serializers.IntegerField(min_value=0, max_value=2**31 - 1),
        max_length=editing.MOST_INDEXES,
        required=False,
    )
    filter = ExampleFilterSerializer(required=False)
    group = serializers.CharField(required=False, allow_blank=True, help_text="Empty: taken out of its group.")
    tag = serializers.CharField(required=False, help_text="The name of one.")
    value = serializers.JSONField(required=False, allow_null=True, help_text=f"{TAG} null: the tag is removed.")
    n = serializers.IntegerField(required=False)
    seed = serializers.IntegerField(required=False, default=0)
    by = serializers.CharField(
        required=False, allow_blank=True, default="", help_text="group, or tag:name: each in proportion to its size."
    )
    example = ExampleSetSerializer(required=False)


class SplitPartSerializer(serializers.Serializer[Any]):
    """One part of a split. `n` or `share`; neither: what the others leave."""

    name = serializers.CharField(max_length=60)
    n = serializers.IntegerField(required=False, min_value=1)
    share = serializers.FloatField(required=False, min_value=0, max_value=1)
    sealed = serializers.BooleanField(default=False, help_text="For the final confirmation only.")


class DatasetSplitSerializer(serializers.Serializer[Any]):
    parts = SplitPartSerializer(many=True)
    seed = serializers.IntegerField(default=0)
    by_group = serializers.BooleanField(default=True, help_text="No group is in two parts.")
    privacy = serializers.ChoiceField(choices=Dataset.Privacy.choices, required=False)


Data = dict[str, Any]


def _fix(parent: Dataset, data: Data, **more: Any) -> Dataset:
    return editing.fix(parent, index=_needed(data, "index"), changes=_needed(data, "set"), **more)


def _drop(parent: Dataset, data: Data, **more: Any) -> Dataset:
    return editing.drop(parent, **_which(data), keep=data["action"] == "keep", **more)


def _relabel(parent: Dataset, data: Data, **more: Any) -> Dataset:
    if "tag" in data:
        _needed(data, "value")
    labels = {"group": data.get("group"), "tag": data.get("tag", ""), "value": data.get("value")}
    return editing.relabel(parent, **_which(data), **labels, **more)


def _sample(parent: Dataset, data: Data, **more: Any) -> Dataset:
    asked = {"n": _needed(data, "n"), "seed": data["seed"], "by": data["by"]}
    return editing.sample(parent, **asked, chosen=_which(data)["chosen"], **more)


def _append(parent: Dataset, data: Data, **more: Any) -> Dataset:
    return editing.append(parent, example=_needed(data, "example"), **more)


EDITS: dict[str, Callable[..., Dataset]] = {
    "fix": _fix, "drop": _drop, "keep": _drop, "relabel": _relabel, "sample": _sample, "append": _append,
}  # fmt: skip


def _which(data: Data) -> Data:
    chosen = Filter.from_dict({name: one for name, one in data["filter"].items()}) if "filter" in data else None
    return {"indexes": data.get("indexes"), "chosen": chosen}


def _needed(data: Data, name: str) -> Any:
    if name not in data:
        raise ValidationError({name: [f"the action {data['action']} needs it"]})
    return data[name]


class EditingViewSet(viewsets.GenericViewSet[Any]):
    """Edits of a dataset that is ready: each makes a child, and the dataset itself stays as it is."""

    queryset = Dataset.objects.none()
    serializer_class = DatasetEditSerializer
    lookup_value_regex = r"\d{1,18}"

    def get_queryset(self) -> QuerySet[Dataset]:
        return Dataset.objects.for_user(self.request.user)

    @extend_schema(
        summary="Make an edited child of a dataset",
        description="A small child is ready with the answer; a large one is `importing`: ask for it until it is "
        "`ready` or `failed`. What the child is of its parent stands in its `edit`.",
        request=DatasetEditSerializer,
        responses={201: DatasetSerializer, 400: problem("What is wrong, by field.")},
    )
    @action(detail=True, methods=["post"], filter_backends=[])
    @idempotent
    def edit(self, request: Request, pk: str) -> Response:
        parent = self.get_object()
        form = DatasetEditSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        data = form.validated_data
        more = {"user": cast(User, request.user), "name": data["name"], "privacy": data.get("privacy", "")}
        try:
            child = EDITS[data["action"]](parent, data, **more)
        except editing.Refused as error:
            raise ValidationError(error.errors) from None
        record(request, "dataset.edit", child, parent=parent.pk, edit=data["action"])
        headers = {"Location": reverse("api-dataset-detail", args=[child.pk])}
        return Response(self._shown(child), status=status.HTTP_201_CREATED, headers=headers)

    @extend_schema(
        summary="Split a dataset into parts, each a child",
        description="Every example is in exactly one part. A sealed part takes part in no comparison: it is kept for "
        "the final confirmation.",
        request=DatasetSplitSerializer,
        responses={201: DatasetSerializer(many=True), 400: problem("What is wrong, by field.")},
    )
    @action(detail=True, methods=["post"], filter_backends=[], pagination_class=None)
    @idempotent
    def split(self, request: Request, pk: str) -> Response:
        parent = self.get_object()
        form = DatasetSplitSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        data = form.validated_data
        parts = [editing.Part(**one) for one in data.pop("parts")]
        try:
            children = editing.split(parent, user=cast(User, request.user), parts=parts, **data)
        except editing.Refused as error:
            raise ValidationError(error.errors) from None
        for child in children:
            record(request, "dataset.edit", child, parent=parent.pk, edit="split")
        return Response([self._shown(child) for child in children], status=status.HTTP_201_CREATED)

    def _shown(self, child: Dataset) -> Any:
        found = self.get_queryset().select_related("created_by", "intake").get(pk=child.pk)
        return DatasetSerializer(found, context=self.get_serializer_context()).data


router = DefaultRouter()
router.register("datasets", EditingViewSet, basename="api-dataset")
