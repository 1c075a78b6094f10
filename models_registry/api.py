"""The API of the registry: models to compare, their life, and their checks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.db.models import Q, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field, extend_schema_view
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter

from evaluations import tasks
from lumigator.access import record, team_of
from lumigator.api import Conflict, Pages, idempotent
from models_registry import adding, choosing, trying
from models_registry.connections_api import ConnectionViewSet, Strict
from models_registry.models import ModelChange, ModelCheck, ModelEntry
from models_registry.providers import available


class ModelSerializer(serializers.ModelSerializer[ModelEntry]):
    """Prices are US dollars per million tokens; null means unpriced, which is never the same as free."""

    scheme = serializers.CharField(read_only=True)
    price_in = serializers.FloatField(read_only=True, allow_null=True)
    price_out = serializers.FloatField(read_only=True, allow_null=True)
    price_cached = serializers.FloatField(read_only=True, allow_null=True)
    is_free = serializers.BooleanField(read_only=True, help_text="It runs here, so calls cost no money.")
    enabled = serializers.BooleanField(
        source="is_usable", read_only=True, help_text="Whether new experiments may choose it: checked or enabled."
    )
    can_run = serializers.SerializerMethodField(help_text="Whether nothing is known to be in the way of a run.")
    why_not = serializers.SerializerMethodField(help_text="Why it cannot run here and now, with the cure; else empty.")

    class Meta:
        model = ModelEntry
        fields = [
            "slug",
            "name",
            "uri",
            "scheme",
            "revision",
            "about",
            "architecture",
            "privacy",
            "tasks",
            "generation",
            "options",
            "window",
            "parameters",
            "size_bytes",
            "licence",
            "website",
            "price_in",
            "price_out",
            "price_cached",
            "price_source",
            "price_date",
            "is_free",
            "is_baseline",
            "from_catalogue",
            "state",
            "enabled",
            "can_run",
            "why_not",
            "created_at",
        ]
        read_only_fields = fields

    def get_can_run(self, entry: ModelEntry) -> bool:
        return self._readiness(entry).can_run

    def get_why_not(self, entry: ModelEntry) -> str:
        found = self._readiness(entry)
        return "" if found.can_run else found.words

    def _readiness(self, entry: ModelEntry) -> choosing.Readiness:
        """From the view, which asked for all of the page at once."""
        known: dict[int, choosing.Readiness] = self.context.get("readiness", {})
        return known.get(entry.pk) or choosing.readiness(entry)


class StepSerializer(serializers.ModelSerializer[ModelChange]):
    """One step in the life of a model."""

    class Meta:
        model = ModelChange
        fields = ["at", "actor", "before", "after", "note"]
        read_only_fields = fields


class CheckSerializer(serializers.ModelSerializer[ModelCheck]):
    """A trial of a model by a worker. While it is open `can_run` is null."""

    can_run = serializers.SerializerMethodField(help_text="Whether it works; null until the check has ended.")
    problems = serializers.SerializerMethodField(help_text="What is in the way, each with its cure.")
    notes = serializers.SerializerMethodField(help_text="What is worth knowing.")
    report = serializers.SerializerMethodField(
        help_text="seconds_to_load, seconds_per_summary, tokens_per_second, peak_memory_bytes, window, dtype, engine, "
        "chat_template, summary, …; what was not found is absent."
    )

    class Meta:
        model = ModelCheck
        fields = [
            "id",
            "state",
            "can_run",
            "problems",
            "notes",
            "report",
            "queue",
            "host",
            "asked_by",
            "asked_at",
            "begun_at",
            "ended_at",
        ]
        read_only_fields = fields

    def get_can_run(self, check: ModelCheck) -> bool | None:
        return None if check.is_open else check.state == ModelCheck.State.DONE

    def get_problems(self, check: ModelCheck) -> list[str]:
        return list(check.report.get("problems") or ())

    def get_notes(self, check: ModelCheck) -> list[str]:
        return list(check.report.get("notes") or ())

    def get_report(self, check: ModelCheck) -> dict[str, Any]:
        return {name: value for name, value in check.report.items() if name not in ("problems", "notes")}


class ModelDetailSerializer(ModelSerializer):
    """One model, with the steps of its life (newest first) and its latest check."""

    history = serializers.SerializerMethodField()
    latest_check = serializers.SerializerMethodField()

    class Meta(ModelSerializer.Meta):
        fields = [*ModelSerializer.Meta.fields, "history", "latest_check"]
        read_only_fields = fields

    @extend_schema_field(StepSerializer(many=True))
    def get_history(self, entry: ModelEntry) -> Any:
        return StepSerializer(entry.changes.all()[:50], many=True).data

    @extend_schema_field(CheckSerializer(allow_null=True))
    def get_latest_check(self, entry: ModelEntry) -> Any:
        latest = entry.checks.first()
        return CheckSerializer(latest).data if latest else None


class Price(serializers.DecimalField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=12, decimal_places=6, min_value=0, allow_null=True, required=False, **kwargs)


class ModelFacts(Strict):
    """What an editor may say about a model."""

    name = serializers.CharField(max_length=160, required=False)
    about = serializers.CharField(max_length=2000, required=False, allow_blank=True)
    revision = serializers.CharField(max_length=64, required=False, allow_blank=True)
    tasks = serializers.ListField(child=serializers.CharField(max_length=40), max_length=20, required=False)
    generation = serializers.DictField(required=False, help_text="Generation defaults; they are really applied.")
    options = serializers.DictField(required=False)
    window = serializers.IntegerField(min_value=1, max_value=2**31 - 1, allow_null=True, required=False)
    parameters = serializers.IntegerField(min_value=1, max_value=2**63 - 1, allow_null=True, required=False)
    size_bytes = serializers.IntegerField(min_value=1, max_value=2**63 - 1, allow_null=True, required=False)
    licence = serializers.CharField(max_length=80, required=False, allow_blank=True)
    website = serializers.URLField(max_length=200, required=False, allow_blank=True)
    price_in = Price()
    price_out = Price()
    price_cached = Price()
    price_source = serializers.CharField(max_length=200, required=False, allow_blank=True)
    price_date = serializers.DateField(
        required=False, allow_null=True, help_text="The day on which the price was so; today when left out."
    )
    enabled = serializers.BooleanField(required=False, help_text="true enables the model, false retires it.")

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        if (enabled := data.pop("enabled", None)) is not None:
            data.setdefault("state", "enabled" if enabled else self.when_disabled)
        return data

    when_disabled = "retired"


class ChangeModel(ModelFacts):
    state = serializers.CharField(max_length=20, required=False, help_text="draft, enabled or retired.")
    note = serializers.CharField(
        max_length=300, required=False, allow_blank=True, help_text="Why; kept in its history."
    )


class AddModel(ModelFacts):
    when_disabled = "draft"
    state = serializers.CharField(
        max_length=20, required=False, help_text="Where it begins: draft (when left out) or enabled."
    )
    uri = serializers.CharField(
        max_length=400, help_text="hf://org/name, file://root/folder, openai://name, endpoint://connection/name, …"
    )
    slug = serializers.CharField(max_length=120, required=False, help_text="How to call it; guessed from the URI.")
    architecture = serializers.ChoiceField(
        choices=["seq2seq", "causal"], required=False, help_text="Needed for weights that are not on this machine yet."
    )


class BySlug(Pages):
    ordering = "slug"
    place = re.compile(r"[^\0]{1,120}")


def _one_of(name: str, value: str, known: list[str]) -> str:
    if value not in known:
        raise ValidationError({name: [f"there is no {name} {value[:60]!r}; there is {', '.join(known)}"]})
    return value


def _yes_or_no(name: str, value: str) -> bool:
    return _one_of(name, value.lower(), ["true", "false"]) == "true"


def _schemes() -> list[str]:
    return sorted(scheme for provider in available().values() for scheme in provider.schemes)


FILTERS: dict[str, Callable[[str], Q]] = {
    "task": lambda value: Q(tasks__contains=[_one_of("task", value, list(tasks.available()))]),
    "scheme": lambda value: Q(uri__startswith=f"{_one_of('scheme', value, _schemes())}://"),
    "privacy": lambda value: Q(privacy=_one_of("privacy", value, list(ModelEntry.Privacy.values))),
    "state": lambda value: Q(state=_one_of("state", value, list(ModelEntry.State.values))),
    "enabled": lambda value: Q(enabled=_yes_or_no("enabled", value)),
    "is_baseline": lambda value: Q(is_baseline=_yes_or_no("is_baseline", value)),
}
PAGING = {"cursor", "page_size", "format"}


def filtered(rows: QuerySet[ModelEntry], request: Request) -> QuerySet[ModelEntry]:
    """The rows that the query string asks for. Only names in FILTERS reach the database (SECURITY S6)."""
    for name in request.query_params:
        if name in PAGING:
            continue
        if name not in FILTERS:
            raise ValidationError({name[:60]: [f"there is no such filter; there is {', '.join(FILTERS)}"]})
        rows = rows.filter(FILTERS[name](request.query_params[name]))
    return rows


@extend_schema_view(
    list=extend_schema(
        summary="The models of the registry, by slug",
        parameters=[
            OpenApiParameter("task", description="A task type, for example summarization."),
            OpenApiParameter("scheme", description="Of the URI: hf, file, openai, mistral, endpoint, baseline, …"),
            OpenApiParameter("privacy", enum=list(ModelEntry.Privacy.values)),
            OpenApiParameter("state", enum=list(ModelEntry.State.values)),
            OpenApiParameter("enabled", type=bool),
            OpenApiParameter("is_baseline", type=bool),
        ],
    ),
    retrieve=extend_schema(summary="One model, with its history and its latest check", responses=ModelDetailSerializer),
    create=extend_schema(summary="Add a model by its address", request=AddModel, responses={201: ModelSerializer}),
    partial_update=extend_schema(
        summary="Change what the registry says about a model, or enable or retire it",
        request=ChangeModel,
        responses=ModelSerializer,
    ),
    destroy=extend_schema(summary="Remove a model that was added; a shipped one is retired instead"),
)
class ModelViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[ModelEntry]):
    """The models a team considers. Changing one never changes an experiment: candidates are frozen copies."""

    queryset = ModelEntry.objects.none()
    serializer_class = ModelSerializer
    pagination_class = BySlug
    lookup_field = "slug"
    # Slugs hold slashes (they are hub ids); a last part "check" belongs to the action.
    lookup_value_regex = r"[^/\x00]+(?:/(?!check/?$)[^/\x00]+)*"

    def get_queryset(self) -> QuerySet[ModelEntry]:
        rows = ModelEntry.objects.for_user(self.request.user)
        if getattr(self, "swagger_fake_view", False):
            return rows
        return rows.filter(team=team_of(self.request)).select_related("team")

    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(filtered(self.get_queryset(), request))
        entries = list(page or ())
        found = choosing.readiness_of_all(team_of(request), entries)
        context = {
            **self.get_serializer_context(),
            "readiness": {entry.pk: ready for entry, ready in zip(entries, found, strict=True)},
        }
        return self.get_paginated_response(ModelSerializer(entries, many=True, context=context).data)

    def retrieve(self, request: Request, slug: str) -> Response:
        entry = self.get_object()
        return Response(ModelDetailSerializer(entry, context=self.get_serializer_context()).data)

    @idempotent
    def create(self, request: Request) -> Response:
        asked = AddModel(data=request.data)
        asked.is_valid(raise_exception=True)
        entry = _or_400(lambda: adding.add(team_of(request), by=_who(request), **asked.validated_data))
        record(request, "model.add", entry, uri=entry.uri)
        return Response(self.get_serializer(entry).data, status=status.HTTP_201_CREATED)

    def partial_update(self, request: Request, slug: str) -> Response:
        entry = self.get_object()
        asked = ChangeModel(data=request.data)
        asked.is_valid(raise_exception=True)
        _or_400(lambda: adding.change(entry, by=_who(request), **asked.validated_data))
        record(request, "model.change", entry, fields=sorted(set(asked.validated_data) - {"note"}))
        return Response(self.get_serializer(entry).data)

    def destroy(self, request: Request, slug: str) -> Response:
        entry = self.get_object()
        if entry.from_catalogue:
            raise Conflict("This model ships with Lumigator: retire it instead (PATCH state to retired).")
        record(request, "model.delete", entry, uri=entry.uri)
        entry.delete()
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        summary="Have a worker load the model, or call its service once, and report",
        request=None,
        responses={202: CheckSerializer},
    )
    @action(detail=True, methods=["post"])
    @idempotent
    def check(self, request: Request, slug: str) -> Response:
        entry = self.get_object()
        asked = trying.ask(entry, by=_who(request))
        record(request, "model.check", entry, check=asked.pk, state=asked.state)
        return Response(CheckSerializer(asked).data, status=status.HTTP_202_ACCEPTED)

    @extend_schema(summary="The latest check of the model", responses=CheckSerializer)
    @check.mapping.get
    def latest_check(self, request: Request, slug: str) -> Response:
        latest = self.get_object().checks.first()
        if latest is None:
            raise NotFound("This model was never checked: POST to this address starts a check.")
        return Response(CheckSerializer(latest).data)


def _who(request: Request) -> str:
    return str(request.user.get_username())


def _or_400(do: Callable[[], ModelEntry]) -> ModelEntry:
    try:
        return do()
    except adding.Refused as exc:
        raise ValidationError(exc.errors) from None


router = DefaultRouter()
router.register("models", ModelViewSet, basename="api-model")
router.register("connections", ConnectionViewSet, basename="api-connection")
