"""What the OpenAPI document says beside the serializers: the bearer token, and the one shape of every error."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiResponse
from drf_spectacular.views import SpectacularAPIView
from rest_framework import serializers
from rest_framework.request import Request


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """drf-spectacular finds this class by itself once the module is imported."""

    target_class = "lumigator.access.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "An API token: `Authorization: Bearer lumi_…`."}


class Schema(SpectacularAPIView):
    """The document, whose version nobody chooses: `?version=` would go into a header of the answer as it is."""

    def _get_version_parameter(self, request: Request) -> None:
        return None


class FieldErrorSerializer(serializers.Serializer[Any]):
    loc = serializers.CharField(help_text="Where: `models.0.label`; empty for the request as a whole.")
    msg = serializers.CharField(help_text="What is wrong, and the cure.")


class ProblemSerializer(serializers.Serializer[Any]):
    """RFC 9457: what every answer from 400 on holds, as `application/problem+json`."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    errors = FieldErrorSerializer(many=True)  # type: ignore[assignment]
    request_id = serializers.CharField(help_text="The same id stands in the log and in the audit.")


def problem(description: str) -> OpenApiResponse:
    """The documentation of one kind of refusal."""
    return OpenApiResponse(ProblemSerializer, description=description)
