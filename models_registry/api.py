"""The API of the registry: models to compare, and the connections that reach the services of some of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter

from evaluations import tasks
from lumigator.access import record, team_of
from lumigator.api import Conflict, Pages, idempotent
from lumigator.models import Role
from lumigator.parsing import StrictJSON
from models_registry import adding, checking, choosing, connecting
from models_registry.models import Connection, ModelEntry
from models_registry.providers import available

SENT_BY_BROWSERS = {"csrfmiddlewaretoken"}


class Strict(serializers.Serializer[Any]):
    """Refuses fields that it does not know: a misspelt one must not be dropped in silence."""

    def to_internal_value(self, data: Any) -> Any:
        if hasattr(data, "keys"):
            writable = {name for name, field in self.fields.items() if not field.read_only}
            if unknown := sorted(set(data.keys()) - writable - SENT_BY_BROWSERS):
                known = ", ".join(sorted(writable))
                raise ValidationError(
                    {str(name)[:60]: [f"this cannot be set; what can is {known}"] for name in unknown}
                )
        return super().to_internal_value(data)


class ModelSerializer(serializers.ModelSerializer[ModelEntry]):
    """Prices are US dollars per million tokens; null means unpriced, which is never the same as free."""

    scheme = serializers.CharField(read_only=True)
    price_in = serializers.FloatField(read_only=True, allow_null=True)
    price_out = serializers.FloatField(read_only=True, allow_null=True)
    price_cached = serializers.FloatField(read_only=True, allow_null=True)
    is_free = serializers.BooleanField(read_only=True, help_text="It runs here, so calls cost no money.")
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
            "is_free",
            "is_baseline",
            "from_catalogue",
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
    enabled = serializers.BooleanField(required=False)


class AddModel(ModelFacts):
    uri = serializers.CharField(
        max_length=400, help_text="hf://org/name, file://root/folder, openai://name, endpoint://connection/name, …"
    )
    slug = serializers.CharField(max_length=120, required=False, help_text="How to call it; guessed from the URI.")
    architecture = serializers.ChoiceField(
        choices=["seq2seq", "causal"], required=False, help_text="Needed for weights that are not on this machine yet."
    )


class CheckSerializer(serializers.Serializer[Any]):
    can_run = serializers.BooleanField()
    problems = serializers.ListField(child=serializers.CharField(), help_text="What is in the way, each with its cure.")
    notes = serializers.ListField(child=serializers.CharField())


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
            OpenApiParameter("enabled", type=bool),
            OpenApiParameter("is_baseline", type=bool),
        ],
    ),
    retrieve=extend_schema(summary="One model"),
    create=extend_schema(summary="Add a model by its address", request=AddModel, responses={201: ModelSerializer}),
    partial_update=extend_schema(
        summary="Change what the registry says about a model", request=ModelFacts, responses=ModelSerializer
    ),
    destroy=extend_schema(summary="Remove a model that was added; a shipped one is disabled instead"),
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

    @idempotent
    def create(self, request: Request) -> Response:
        asked = AddModel(data=request.data)
        asked.is_valid(raise_exception=True)
        entry = _or_400(lambda: adding.add(team_of(request), **asked.validated_data))
        record(request, "model.add", entry, uri=entry.uri)
        return Response(self.get_serializer(entry).data, status=status.HTTP_201_CREATED)

    def partial_update(self, request: Request, slug: str) -> Response:
        entry = self.get_object()
        asked = ModelFacts(data=request.data)
        asked.is_valid(raise_exception=True)
        _or_400(lambda: adding.change(entry, **asked.validated_data))
        record(request, "model.change", entry, fields=sorted(asked.validated_data))
        return Response(self.get_serializer(entry).data)

    def destroy(self, request: Request, slug: str) -> Response:
        entry = self.get_object()
        if entry.from_catalogue:
            raise Conflict("This model ships with Lumigator: disable it instead (PATCH enabled to false).")
        record(request, "model.delete", entry, uri=entry.uri)
        entry.delete()
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(summary="Whether it could run, in words; nothing is loaded", request=None, responses=CheckSerializer)
    @action(detail=True, methods=["post"])
    @idempotent
    def check(self, request: Request, slug: str) -> Response:
        entry = self.get_object()
        found = checking.check(entry)
        record(request, "model.check", entry, can_run=found.can_run)
        return Response({"can_run": found.can_run, "problems": found.problems, "notes": found.notes})


def _or_400(do: Callable[[], ModelEntry]) -> ModelEntry:
    try:
        return do()
    except adding.Refused as exc:
        raise ValidationError(exc.errors) from None


class ConnectionSerializer(serializers.ModelSerializer[Connection]):
    """The key is never given back; `key_hint` is its end."""

    has_key = serializers.BooleanField(read_only=True)

    class Meta:
        model = Connection
        fields = [
            "id",
            "name",
            "provider",
            "base_url",
            "has_key",
            "key_hint",
            "concurrency",
            "requests_per_minute",
            "tokens_per_minute",
            "connect_timeout",
            "read_timeout",
            "enabled",
            "created_at",
        ]
        read_only_fields = fields


class ChangedConnection(ConnectionSerializer):
    """With what became of the key."""

    key_cleared = serializers.BooleanField(read_only=True, default=False)
    message = serializers.CharField(read_only=True, default="")

    class Meta(ConnectionSerializer.Meta):
        fields = [*ConnectionSerializer.Meta.fields, "key_cleared", "message"]
        read_only_fields = fields


class ConnectionFacts(Strict):
    name = serializers.SlugField(max_length=60, required=False)
    base_url = serializers.CharField(max_length=300, required=False, allow_blank=True)
    key = serializers.CharField(
        max_length=connecting.LONGEST_KEY,
        required=False,
        allow_blank=True,
        write_only=True,
        style={"input_type": "password"},
        help_text="Stored encrypted and never shown again; an empty one forgets the key.",
    )
    concurrency = serializers.IntegerField(min_value=1, max_value=256, required=False)
    requests_per_minute = serializers.IntegerField(min_value=1, max_value=2**31 - 1, allow_null=True, required=False)
    tokens_per_minute = serializers.IntegerField(min_value=1, max_value=2**31 - 1, allow_null=True, required=False)
    connect_timeout = serializers.FloatField(min_value=0.1, max_value=60, required=False, help_text="Seconds.")
    read_timeout = serializers.FloatField(min_value=1, max_value=3600, required=False, help_text="Seconds.")
    enabled = serializers.BooleanField(required=False)

    def validate_key(self, key: str) -> str:
        if wrong := connecting.key_problem(key):
            raise ValidationError(wrong)
        return key

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        provider = data.get("provider") or self.context.get("provider", "")
        if "base_url" in data or "provider" in data:
            wrong = connecting.address_problem(provider, data.get("base_url", ""))
            if wrong:
                raise ValidationError({"base_url": [wrong]})
        return data


class AddConnection(ConnectionFacts):
    name = serializers.SlugField(max_length=60)
    provider = serializers.CharField(max_length=30, help_text="openai, mistral or endpoint; fixed once it is made.")

    def validate_provider(self, provider: str) -> str:
        if provider not in (known := connecting.services()):
            raise ValidationError(f"there is no service {provider!r}; there is {', '.join(sorted(known))}")
        return provider


@extend_schema_view(
    list=extend_schema(summary="The connections of your team"),
    retrieve=extend_schema(summary="One connection"),
    create=extend_schema(summary="Add a connection", request=AddConnection, responses={201: ChangedConnection}),
    partial_update=extend_schema(
        summary="Change a connection; another scheme, host or port clears its key",
        request=ConnectionFacts,
        responses=ChangedConnection,
    ),
    destroy=extend_schema(summary="Delete a connection and its key"),
)
class ConnectionViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Connection]):
    """How services are reached. Members read them without keys; administrators of the team write them."""

    queryset = Connection.objects.none()
    serializer_class = ConnectionSerializer
    parser_classes = [StrictJSON, FormParser, MultiPartParser]
    lookup_value_regex = r"\d{1,18}"
    roles = {"create": Role.ADMIN, "partial_update": Role.ADMIN, "destroy": Role.ADMIN}

    def get_queryset(self) -> QuerySet[Connection]:
        rows = Connection.objects.for_user(self.request.user)
        if getattr(self, "swagger_fake_view", False):
            return rows
        return rows.filter(team=team_of(self.request))

    @idempotent
    def create(self, request: Request) -> Response:
        asked = AddConnection(data=request.data)
        asked.is_valid(raise_exception=True)
        data = dict(asked.validated_data)
        key = data.pop("key", None)
        connection = Connection(team=team_of(request), **data)
        cleared = _store(connection, key)
        record(request, "connection.add", connection, provider=connection.provider, with_key=connection.has_key)
        return Response(_changed(connection, cleared), status=status.HTTP_201_CREATED)

    def partial_update(self, request: Request, pk: str) -> Response:
        connection = self.get_object()
        asked = ConnectionFacts(data=request.data, context={"provider": connection.provider})
        asked.is_valid(raise_exception=True)
        data = dict(asked.validated_data)
        key = data.pop("key", None)
        for name, value in data.items():
            setattr(connection, name, value)
        cleared = _store(connection, key)
        record(request, "connection.change", connection, fields=sorted(asked.validated_data), key_cleared=cleared)
        return Response(_changed(connection, cleared))

    def destroy(self, request: Request, pk: str) -> Response:
        connection = self.get_object()
        record(request, "connection.delete", connection, provider=connection.provider)
        connection.delete()
        return Response(status=status.HTTP_204_NO_CONTENT)


def _store(connection: Connection, key: str | None) -> bool:
    try:
        with transaction.atomic():
            return connecting.store(connection, key)
    except IntegrityError:
        raise ValidationError(
            {"name": [f"there is a connection {connection.name!r} for {connection.provider}: choose another name"]}
        ) from None


def _changed(connection: Connection, cleared: bool) -> dict[str, Any]:
    message = connecting.KEY_CLEARED if cleared else ""
    return {**ConnectionSerializer(connection).data, "key_cleared": cleared, "message": message}


router = DefaultRouter()
router.register("models", ModelViewSet, basename="api-model")
router.register("connections", ConnectionViewSet, basename="api-connection")
