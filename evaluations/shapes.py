"""Shapes are what the API of experiments takes and gives.

What it takes is strict: a field that nobody reads is refused by name, at every level, and never dropped. What it
gives is made by `comparing` and `forecasting`; the shapes describe it for the OpenAPI document, and a test compares.
"""

# mypy: disable-error-code="assignment"
# Fields may be called like attributes of DRF's own classes (label, source, errors): its metaclass takes them out.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from datasets_app.models import Dataset
from evaluations import states
from evaluations.models import Candidate, Experiment
from models_registry import decoding, shortening

LONGEST_PROMPT = 20_000
NAMED = 20
LARGEST_SEED = 2**31 - 1


class Strict(serializers.Serializer[Any]):
    """A body in which every unknown field is an error of its own, beside the errors of the known ones."""

    def to_internal_value(self, data: Any) -> Any:
        names = list(data) if isinstance(data, Mapping) else []
        known = [name for name, field in self.fields.items() if not field.read_only]
        unknown = {
            str(name)[:60]: [f"there is no such field here; there is {', '.join(known)}"]
            for name in [name for name in names if name not in known][:NAMED]
        }
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as exc:
            detail = exc.detail if isinstance(exc.detail, dict) else {"non_field_errors": exc.detail}
            raise serializers.ValidationError({**detail, **unknown}) from None
        if unknown:
            raise serializers.ValidationError(unknown)
        return value


# --- what it takes --------------------------------------------------------------------------------------------------


class ModelWishSerializer(Strict):
    """A model with what is particular to it here."""

    model = serializers.CharField(max_length=400, help_text="A slug of the registry, or a URI.")
    label = serializers.CharField(max_length=160, required=False, help_text="Default: the slug.")
    prompt = serializers.CharField(
        max_length=LONGEST_PROMPT, required=False, trim_whitespace=False, help_text="Holds {document} once."
    )
    generation = serializers.DictField(required=False, help_text="Generation parameters; they are really applied.")
    engine = serializers.ChoiceField(choices=list(decoding.ENGINES), required=False, help_text="For models run here.")
    dtype = serializers.ChoiceField(
        choices=list(decoding.DTYPES), required=False, help_text="Precision; another one is another candidate."
    )
    language = serializers.CharField(max_length=40, required=False, help_text="For {language} in the prompt.")
    long_documents = serializers.ChoiceField(
        choices=list(shortening.STRATEGIES), required=False,
        help_text="What it does with a document beyond its window; another way is another candidate.",
    )  # fmt: skip


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "description": "A slug of the registry, or a URI."},
            {"$ref": "#/components/schemas/ModelWish"},
        ]
    }
)
class ModelWishField(serializers.Field[Any, Any, Any, Any]):
    """A slug or URI, or an object with `model` and what is particular to it."""

    def to_internal_value(self, data: Any) -> str | dict[str, Any]:
        wish = ModelWishSerializer(data={"model": data} if isinstance(data, str) else data)
        wish.is_valid(raise_exception=True)
        return data if isinstance(data, str) else dict(wish.validated_data)

    def to_representation(self, value: Any) -> Any:
        return value


class TeamDatasetField(serializers.PrimaryKeyRelatedField[Dataset]):
    """The id of a dataset of the team that the request acts for."""

    default_error_messages = {
        "does_not_exist": "there is no dataset {pk_value}",
        "incorrect_type": "give the id of a dataset, a number",
    }

    def get_queryset(self) -> QuerySet[Dataset]:
        return Dataset.objects.filter(team=self.context["team"]) if "team" in self.context else Dataset.objects.none()


class SampleSerializer(Strict):
    n = serializers.IntegerField(min_value=1, max_value=LARGEST_SEED, required=False, allow_null=True)
    seed = serializers.IntegerField(min_value=0, max_value=LARGEST_SEED, default=0)


class GatesSerializer(Strict):
    """What a model must hold to be recommended at all."""

    local_only = serializers.BooleanField(required=False)
    min_answer_rate = serializers.FloatField(min_value=0, max_value=1, required=False)
    max_truncated_rate = serializers.FloatField(min_value=0, max_value=1, required=False)
    max_latency_ms = serializers.FloatField(min_value=0, required=False, help_text="At the 95th percentile.")
    max_cost_per_1000_usd = serializers.FloatField(min_value=0, required=False)


class NewExperimentSerializer(Strict):
    name = serializers.CharField(max_length=200, required=False, help_text="Default: named after the dataset.")
    dataset = TeamDatasetField(queryset=Dataset.objects.none())
    task = serializers.CharField(max_length=40, default="summarization")
    prompt = serializers.CharField(
        max_length=LONGEST_PROMPT, required=False, allow_blank=True, trim_whitespace=False,
        help_text="Template with {document} once. Default: the task's own.",
    )  # fmt: skip
    models = serializers.ListField(
        child=ModelWishField(), required=False, help_text="May be empty for a draft that gets imported outputs later."
    )
    metrics = serializers.ListField(
        child=serializers.CharField(max_length=40), required=False, max_length=50,
        help_text="Names from metrics/. Default: those of the task.",
    )  # fmt: skip
    primary_metric = serializers.CharField(
        max_length=40, required=False, help_text="The metric part that decides. Default: the task's."
    )
    margin = serializers.FloatField(
        min_value=0, required=False, allow_null=True, help_text="The largest loss to accept for a cheaper model."
    )
    sample = SampleSerializer(required=False)
    budget_usd = serializers.DecimalField(
        max_digits=12, decimal_places=6, min_value=0, required=False, allow_null=True, help_text="Never exceeded."
    )
    baselines = serializers.BooleanField(default=True, help_text="Add lead-3, random sentences and the oracle.")
    gates = GatesSerializer(required=False)
    metric_options = serializers.DictField(
        child=serializers.DictField(), required=False,
        help_text="{metric: {option: value}}, options as in metrics/. They are part of the signature.",
    )  # fmt: skip
    reuse_outputs = serializers.BooleanField(
        default=True, help_text="Take outputs that your team already has: same model, prompt, document and seed."
    )
    start = serializers.BooleanField(default=False, help_text="Start at once.")

    def asked(self) -> dict[str, Any]:
        """For `planning.create`."""
        data = dict(self.validated_data)
        start = data.pop("start")
        return {**data, "may_be_empty": not start}


class ChangeSerializer(Strict):
    """What may change once it exists: its name, and its budget (raise it, then resume what it paused)."""

    name = serializers.CharField(max_length=200, required=False)
    budget_usd = serializers.DecimalField(
        max_digits=12, decimal_places=6, min_value=0, required=False, allow_null=True, help_text="Null: no budget."
    )


class OutputRowSerializer(Strict):
    """One output made elsewhere. Without `index` and `id` the rows are in the dataset's order."""

    index = serializers.IntegerField(min_value=0, max_value=LARGEST_SEED, required=False, allow_null=True)
    id = serializers.CharField(required=False, allow_null=True)
    output = serializers.CharField(allow_blank=True, trim_whitespace=False)


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {
                    "index": {"type": "integer", "minimum": 0},
                    "id": {"type": "string"},
                    "output": {"type": "string"},
                },
                "required": ["output"],
            },
        ]
    }
)
class OutputField(serializers.Field[Any, Any, Any, Any]):
    """One output: its text, or an object that also says which document it belongs to."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, str):
            return {"output": data}
        row = OutputRowSerializer(data=data)
        row.is_valid(raise_exception=True)
        return dict(row.validated_data)

    def to_representation(self, value: Any) -> Any:
        return value


class PredictionsSerializer(Strict):
    """Outputs made elsewhere, in the body."""

    label = serializers.CharField(max_length=160)
    predictions = serializers.ListField(child=OutputField(), allow_empty=False)


class PredictionsFileSerializer(Strict):
    """Outputs made elsewhere, as a file."""

    label = serializers.CharField(max_length=160)
    file = serializers.FileField(
        help_text="JSONL {index | id, output}, CSV with an id or index column, or plain lines."
    )


# --- what it gives --------------------------------------------------------------------------------------------------


class ChosenMetricSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    options = serializers.DictField()


class CandidateSerializer(serializers.ModelSerializer[Candidate]):
    model = serializers.CharField(source="spec.uri")
    slug = serializers.CharField(source="model.slug", default=None, allow_null=True)
    revision = serializers.CharField(source="spec.revision")
    privacy = serializers.CharField(source="spec.privacy")
    prompt = serializers.CharField(source="spec.prompt")
    generation = serializers.DictField(source="spec.generation")
    imported = serializers.DictField(
        source="spec.imported", child=serializers.IntegerField(), default=None, allow_null=True,
        help_text="{unmatched, missing}: rows and documents without a partner; null for models.",
    )  # fmt: skip

    class Meta:
        model = Candidate
        fields = [
            "id", "label", "model", "slug", "provider", "revision", "privacy", "is_baseline", "uses_references",
            "prompt", "generation", "imported", "problem", "problem_code",
        ]  # fmt: skip
        read_only_fields = fields


class ExperimentSerializer(serializers.ModelSerializer[Experiment]):
    state = serializers.CharField(help_text=f"One of {', '.join(states.EXPERIMENT)}.")
    label = serializers.CharField(source="look.label", help_text="The state in words.")
    is_final = serializers.BooleanField(source="has_ended")
    dataset_name = serializers.CharField(source="dataset.name")
    metrics = ChosenMetricSerializer(many=True)
    sample = serializers.SerializerMethodField()
    budget_usd = serializers.SerializerMethodField()
    spent_usd = serializers.SerializerMethodField()
    n_documents = serializers.IntegerField(source="n_examples", help_text="How many take part; 0 before the start.")
    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True)

    class Meta:
        model = Experiment
        fields = [
            "id", "name", "state", "label", "is_final", "pause_reason", "problem", "dataset", "dataset_name", "task",
            "metrics", "primary_metric", "margin", "sample", "budget_usd", "spent_usd", "gates", "reuse_outputs",
            "n_documents",
            "created_at", "created_by", "started_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(SampleSerializer)
    def get_sample(self, experiment: Experiment) -> dict[str, int | None]:
        return {"n": experiment.sample_n, "seed": experiment.seed}

    def get_budget_usd(self, experiment: Experiment) -> float | None:
        return None if experiment.budget_micro is None else experiment.budget_micro / 1_000_000

    def get_spent_usd(self, experiment: Experiment) -> float:
        return experiment.spent_micro / 1_000_000


class ExperimentDetailSerializer(ExperimentSerializer):
    candidates = CandidateSerializer(many=True)

    class Meta(ExperimentSerializer.Meta):
        fields = [*ExperimentSerializer.Meta.fields, "prompt", "candidates"]
        read_only_fields = fields


@extend_schema_serializer(many=False)
class CandidateListSerializer(serializers.Serializer[Any]):
    results = CandidateSerializer(many=True)
    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)


class ImportedSerializer(serializers.Serializer[Any]):
    """What came of an import; at most 100 names each, and the whole counts."""

    matched = serializers.IntegerField()
    n_unmatched = serializers.IntegerField()
    n_missing = serializers.IntegerField()
    unmatched = serializers.ListField(child=serializers.CharField(), help_text="Rows that match no document.")
    missing = serializers.ListField(child=serializers.CharField(), help_text="Documents without an output.")
    sentences = serializers.ListField(child=serializers.CharField())


class AddedSerializer(CandidateSerializer):
    """The new candidate; `import_report` is null for models."""

    import_report = ImportedSerializer(allow_null=True)

    class Meta(CandidateSerializer.Meta):
        fields = [*CandidateSerializer.Meta.fields, "import_report"]
        read_only_fields = fields


class CandidateProgressSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    label = serializers.CharField()
    done = serializers.IntegerField()
    total = serializers.IntegerField()
    errors = serializers.IntegerField()
    problem = serializers.CharField()


class ProgressSerializer(serializers.Serializer[Any]):
    state = serializers.CharField()
    label = serializers.CharField()
    tone = serializers.CharField()
    is_final = serializers.BooleanField()
    done = serializers.IntegerField()
    total = serializers.IntegerField()
    percent = serializers.FloatField()
    eta_seconds = serializers.FloatField(allow_null=True)
    elapsed_seconds = serializers.FloatField()
    spent_usd = serializers.FloatField()
    reserved_usd = serializers.FloatField()
    pause_reason = serializers.CharField()
    problem = serializers.CharField()
    candidates = CandidateProgressSerializer(many=True)
    workers_alive = serializers.IntegerField()


class PlannedCandidateSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    label = serializers.CharField()
    calls = serializers.IntegerField()
    input_tokens = serializers.IntegerField()
    output_tokens_at_most = serializers.IntegerField()
    worst_case_cost_usd = serializers.FloatField(allow_null=True)
    cost_reason = serializers.CharField()
    window = serializers.IntegerField(allow_null=True)
    documents_beyond_window = serializers.IntegerField(allow_null=True)
    can_run = serializers.BooleanField()
    why = serializers.CharField()


class PlannedMetricSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    can_run = serializers.BooleanField()
    why = serializers.CharField()
    documents = serializers.IntegerField()


class DetectableSerializer(serializers.Serializer[Any]):
    difference = serializers.FloatField(allow_null=True)
    n = serializers.IntegerField()
    sd = serializers.FloatField(allow_null=True)
    metric = serializers.CharField()
    assumption = serializers.CharField()


class PlanSerializer(serializers.Serializer[Any]):
    documents = serializers.IntegerField()
    documents_with_reference = serializers.IntegerField()
    units = serializers.IntegerField(help_text="Independent units: groups where there are any, else documents.")
    calls = serializers.IntegerField()
    input_tokens = serializers.IntegerField()
    estimate = serializers.CharField(help_text="What the estimates rest on.")
    worst_case_cost_usd = serializers.FloatField(allow_null=True, help_text="A bound; null where a model is unpriced.")
    unpriced = serializers.ListField(child=serializers.CharField())
    budget_usd = serializers.FloatField(allow_null=True)
    fits_budget = serializers.BooleanField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True)
    seconds_reason = serializers.CharField()
    detectable = DetectableSerializer(help_text="The smallest difference that so many documents usually show.")
    candidates = PlannedCandidateSerializer(many=True)
    metrics = PlannedMetricSerializer(many=True)
    cannot_run = serializers.ListField(child=serializers.CharField())
    caveats = serializers.ListField(child=serializers.CharField())


class ExampleRowSerializer(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    label = serializers.CharField()
    snippet = serializers.CharField()
    spread = serializers.FloatField(allow_null=True)
    scores = serializers.DictField(child=serializers.FloatField(allow_null=True), help_text="By candidate.")


@extend_schema_serializer(many=False)
class ExamplePageSerializer(serializers.Serializer[Any]):
    metric = serializers.CharField()
    sort = serializers.CharField()
    order = serializers.CharField()
    results = ExampleRowSerializer(many=True)
    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True, help_text="Always null: this list only goes forward.")


class SourceSerializer(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    id = serializers.CharField(allow_null=True)
    label = serializers.CharField()
    source = serializers.CharField()
    references = serializers.ListField(child=serializers.CharField())
    group = serializers.CharField(allow_null=True)
    tags = serializers.DictField()


class PartScoreSerializer(serializers.Serializer[Any]):
    value = serializers.FloatField(allow_null=True)
    state = serializers.CharField()
    reason = serializers.CharField()


class OutputSerializer(serializers.Serializer[Any]):
    """What a candidate made of the document; `status` is missing where there is no outcome yet, and then the facts
    about the call are missing too."""

    candidate = serializers.IntegerField()
    label = serializers.CharField()
    is_baseline = serializers.BooleanField()
    scores = serializers.DictField(child=PartScoreSerializer())
    status = serializers.CharField()
    text = serializers.CharField()
    error = serializers.CharField()
    reasoning = serializers.CharField(required=False)
    error_code = serializers.CharField(required=False)
    finish_reason = serializers.CharField(required=False)
    input_tokens = serializers.IntegerField(allow_null=True, required=False)
    input_tokens_read = serializers.IntegerField(allow_null=True, required=False)
    output_tokens = serializers.IntegerField(allow_null=True, required=False)
    latency_ms = serializers.IntegerField(allow_null=True, required=False)
    cost_usd = serializers.FloatField(allow_null=True, required=False)


class SideBySideSerializer(serializers.Serializer[Any]):
    example = SourceSerializer()
    outputs = OutputSerializer(many=True)
    previous = serializers.IntegerField(allow_null=True)
    next = serializers.IntegerField(allow_null=True)
