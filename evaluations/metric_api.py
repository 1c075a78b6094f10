"""The API of metrics: what there is to measure here, and whether this installation measures it right."""

# mypy: disable-error-code="assignment"
# Fields may be called like attributes of DRF's own classes (label, source): its metaclass takes them out.

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers, status, viewsets
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter

from evaluations import comparing, metrics, selfchecking
from evaluations.comparison_shapes import PartSerializer
from evaluations.models import SelfCheck
from lumigator.access import record
from lumigator.api import only


class MetricSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    label = serializers.CharField()
    about = serializers.CharField()
    cost = serializers.CharField()
    languages = serializers.ListField(child=serializers.CharField(), help_text="ISO 639-1; empty: any.")
    parts = PartSerializer(many=True)
    corpus_part = serializers.CharField(help_text="The part that is a value of all outputs together; may be empty.")
    options = serializers.DictField(help_text="Every option with its default.")
    needs_reference = serializers.BooleanField()
    needs_source = serializers.BooleanField()
    available = serializers.BooleanField()
    why_not = serializers.CharField(help_text="Why this installation cannot compute it; empty: it can.")


@extend_schema_serializer(many=False)
class MetricListSerializer(serializers.Serializer[Any]):
    results = MetricSerializer(many=True)
    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)


class MetricViewSet(viewsets.ViewSet):
    """What this installation can measure."""

    @extend_schema(
        summary="Every metric with its parts, its options and whether it can be computed here",
        responses=MetricListSerializer,
    )
    def list(self, request: Request) -> Response:
        only(request)
        found = [_metric(metric) for metric in metrics.available().values()]
        return Response({"results": found, "next": None, "previous": None})


def _metric(metric: metrics.Metric) -> dict[str, Any]:
    why_not = metric.available(metric.defaults)
    return {
        "name": metric.name,
        "label": metric.label,
        "about": metric.about,
        "cost": metric.cost,
        "languages": list(metric.languages),
        "parts": [comparing.described(part.name) for part in metric.all_parts],
        "corpus_part": metric.corpus.part.name if metric.corpus else "",
        "options": dict(metric.defaults),
        "needs_reference": metric.needs_reference,
        "needs_source": metric.needs_source,
        "available": not why_not,
        "why_not": why_not,
    }


class SelfCheckSerializer(serializers.ModelSerializer[SelfCheck]):
    state = serializers.SerializerMethodField(help_text="asked, running or done")
    report = serializers.DictField(help_text="passed, python, machine, metrics; empty until it is done.")

    class Meta:
        model = SelfCheck
        fields = ("id", "state", "asked_at", "done_at", "host", "report")

    def get_state(self, check: SelfCheck) -> str:
        return "done" if check.done_at else "running" if check.begun_at else "asked"


class SelfCheckViewSet(viewsets.ViewSet):
    """Each metric against its published or reference values, computed by a worker of this installation."""

    @extend_schema(summary="The newest report", responses={200: SelfCheckSerializer, 404: None})
    def list(self, request: Request) -> Response:
        only(request)
        newest = SelfCheck.objects.first()
        if newest is None:
            return Response(status=status.HTTP_404_NOT_FOUND)
        return Response(SelfCheckSerializer(newest).data)

    @extend_schema(summary="Ask for a new report", request=None, responses={202: SelfCheckSerializer})
    def create(self, request: Request) -> Response:
        asked = selfchecking.ask(request.user)  # type: ignore[arg-type]
        record(request, "selfcheck")
        return Response(SelfCheckSerializer(asked).data, status=status.HTTP_202_ACCEPTED)


router = DefaultRouter()
router.register("metrics", MetricViewSet, basename="api-metric")
router.register("selfcheck", SelfCheckViewSet, basename="api-selfcheck")
