"""The API of connections: how services are reached, and which models they offer. Keys go in and never come out."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, serializers, status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from lumigator.access import record, team_of
from lumigator.api import idempotent
from lumigator.models import Role
from lumigator.parsing import StrictJSON
from models_registry import connecting
from models_registry.models import MOST_AT_ONCE, Connection
from models_registry.providers import ProviderError

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
    concurrency = serializers.IntegerField(min_value=1, max_value=MOST_AT_ONCE, required=False)
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


class OfferedSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(help_text="As the service calls it.")
    uri = serializers.CharField(help_text="POST it to models/ to add the model.")
    slug = serializers.CharField(help_text="How the registry calls it; empty when it is not in the registry.")


class Unanswered(APIException):
    """The service behind a connection did not answer as an API does; the detail says what and what to do."""

    status_code = status.HTTP_502_BAD_GATEWAY
    default_code = "unanswered"


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
    roles = {
        "create": Role.ADMIN,
        "partial_update": Role.ADMIN,
        "destroy": Role.ADMIN,
        "offered": Role.EDITOR,
    }

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

    @extend_schema(summary="The models that its service offers now", responses=OfferedSerializer(many=True))
    @action(detail=True, methods=["get"], url_path="models", pagination_class=None)
    def offered(self, request: Request, pk: str) -> Response:
        try:
            found = connecting.offered(self.get_object())
        except ProviderError as exc:
            raise Unanswered(str(exc)) from None
        return Response(OfferedSerializer(found, many=True).data)


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
