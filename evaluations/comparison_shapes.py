"""Comparison shapes describe the document that `comparing.comparison` makes, for the OpenAPI document."""

# mypy: disable-error-code="assignment"
# Fields may be called like attributes of DRF's own classes (label, source, errors): its metaclass takes them out.

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class PartSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    label = serializers.CharField()
    metric = serializers.CharField()
    languages = serializers.ListField(child=serializers.CharField(), help_text="What it is made for; empty: any.")
    higher_is_better = serializers.BooleanField(allow_null=True)
    low = serializers.FloatField()
    high = serializers.FloatField(allow_null=True)
    about = serializers.CharField()


class ComparedExperimentSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    state = serializers.CharField()
    task = serializers.CharField()
    primary_metric = serializers.CharField()
    margin = serializers.FloatField(allow_null=True)
    gates = serializers.DictField()
    n = serializers.IntegerField()
    sample_n = serializers.IntegerField(allow_null=True)
    seed = serializers.IntegerField()
    budget_usd = serializers.FloatField(allow_null=True)
    spent_usd = serializers.FloatField()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class ComparedDatasetSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    sha256 = serializers.CharField()
    n_examples = serializers.IntegerField()
    n_with_reference = serializers.IntegerField()
    language = serializers.CharField(help_text="Of most documents, ISO 639-1; empty: mixed or not known.")


class MeasuredSerializer(serializers.Serializer[Any]):
    """A mean with its interval; null where it was not computed, and `states` counts why."""

    mean = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    sd = serializers.FloatField(allow_null=True)
    n = serializers.IntegerField()
    method = serializers.CharField()
    states = serializers.DictField(child=serializers.IntegerField())
    signature = serializers.CharField()


class ContrastSerializer(serializers.Serializer[Any]):
    difference = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    p = serializers.FloatField(allow_null=True)
    p_error = serializers.FloatField(allow_null=True)
    p_holm = serializers.FloatField(allow_null=True)
    verdict = serializers.CharField()
    win = serializers.IntegerField()
    tie = serializers.IntegerField()
    loss = serializers.IntegerField()
    n = serializers.IntegerField()
    detectable = serializers.FloatField(allow_null=True)


class VersusLeaderSerializer(ContrastSerializer):
    against = serializers.IntegerField()


class PairSerializer(ContrastSerializer):
    a = serializers.IntegerField()
    b = serializers.IntegerField()
    metric = serializers.CharField()


class LatencySerializer(serializers.Serializer[Any]):
    p50 = serializers.FloatField(allow_null=True)
    p95 = serializers.FloatField(allow_null=True)


class ShareOfFrontSerializer(serializers.Serializer[Any]):
    """In which share of the bootstrap resamples nothing is both cheaper (or faster) and better; null: unknown."""

    cost = serializers.FloatField(allow_null=True)
    latency = serializers.FloatField(allow_null=True)


class NonInferioritySerializer(serializers.Serializer[Any]):
    """May it replace the reference candidate at the experiment's margin? `verdict` is non-inferior, worse (by more
    than the margin) or inconclusive; `bound` the one-sided 95 % limit of how much worse (negative) it may be."""

    margin = serializers.FloatField()
    against = serializers.IntegerField()
    bound = serializers.FloatField(allow_null=True)
    verdict = serializers.CharField()
    n_needed = serializers.IntegerField(allow_null=True, help_text="Units that would probably prove it.")
    reason = serializers.CharField()


class ComparisonRowSerializer(serializers.Serializer[Any]):
    candidate = serializers.IntegerField()
    label = serializers.CharField()
    model = serializers.CharField()
    is_baseline = serializers.BooleanField()
    uses_references = serializers.BooleanField()
    is_local = serializers.BooleanField()
    problem = serializers.CharField()
    n = serializers.IntegerField()
    states = serializers.DictField(child=serializers.IntegerField())
    metrics = serializers.DictField(child=MeasuredSerializer())
    answer_rate = serializers.FloatField(allow_null=True)
    answer_rate_interval = serializers.ListField(
        child=serializers.FloatField(allow_null=True), allow_null=True, help_text="95 %, after Wilson."
    )
    alike = serializers.ListField(
        child=serializers.IntegerField(), help_text="Candidates that gave the same text on nearly every document."
    )
    reused = serializers.IntegerField(help_text="Outputs that an earlier experiment had made; at what they cost then.")
    truncated = serializers.IntegerField(allow_null=True)
    truncated_rate = serializers.FloatField(allow_null=True)
    latency_ms = LatencySerializer()
    tokens_per_second = serializers.FloatField(allow_null=True)
    cost_usd = serializers.FloatField(allow_null=True)
    cost_per_1000_usd = serializers.FloatField(allow_null=True)
    best_group = serializers.BooleanField()
    p_best = serializers.FloatField(allow_null=True)
    rank = serializers.ListField(child=serializers.IntegerField(allow_null=True), allow_null=True)
    front = ShareOfFrontSerializer()
    versus_leader = serializers.DictField(child=VersusLeaderSerializer())
    versus_reference = VersusLeaderSerializer(allow_null=True, help_text="On the part that is shown.")
    non_inferiority = NonInferioritySerializer(
        allow_null=True, help_text="On the part that decides; null where no margin was set."
    )


class ChangedSettingSerializer(serializers.Serializer[Any]):
    what = serializers.CharField()
    was = serializers.CharField()
    now = serializers.CharField()


class MovedMeanSerializer(serializers.Serializer[Any]):
    part = serializers.CharField()
    candidate = serializers.IntegerField()
    label = serializers.CharField()
    was = serializers.FloatField()
    now = serializers.FloatField()
    difference = serializers.FloatField()


class RescoredSerializer(serializers.Serializer[Any]):
    """What a changed signature of a metric did to the means. Scores of both stay, and are never averaged."""

    metric = serializers.CharField()
    was = serializers.CharField(help_text="The earlier signature's digest.")
    now = serializers.CharField()
    changed = ChangedSettingSerializer(many=True)
    means = MovedMeanSerializer(many=True)


class RecommendationSerializer(serializers.Serializer[Any]):
    sentence = serializers.CharField()
    candidate = serializers.IntegerField(allow_null=True)
    label = serializers.CharField(allow_null=True)
    reasons = serializers.ListField(child=serializers.CharField())
    caveats = serializers.ListField(child=serializers.CharField())


class BoundSerializer(serializers.Serializer[Any]):
    """The one-sided 95 % bounds of b - a on the part that decides: all that non-inferiority needs, at any margin."""

    a = serializers.IntegerField()
    b = serializers.IntegerField()
    difference = serializers.FloatField()
    lower = serializers.FloatField()
    upper = serializers.FloatField()
    sd = serializers.FloatField(help_text="Of the difference, from unit to unit.")
    n = serializers.IntegerField()
    groups = serializers.IntegerField()


class GateResultSerializer(serializers.Serializer[Any]):
    candidate = serializers.IntegerField()
    value = serializers.JSONField(allow_null=True)
    passes = serializers.BooleanField()


class GateSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    label = serializers.CharField()
    unit = serializers.CharField()
    wanted = serializers.JSONField()
    is_default = serializers.BooleanField(help_text="Always asked for, not set for this experiment.")
    results = GateResultSerializer(many=True)


class BaselineRowSerializer(serializers.Serializer[Any]):
    candidate = serializers.IntegerField()
    verdict = serializers.CharField()
    difference = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    n = serializers.IntegerField()


class BaselineCheckSerializer(serializers.Serializer[Any]):
    """Every model against the best baseline that does not see the references."""

    baseline = serializers.IntegerField(allow_null=True)
    rows = BaselineRowSerializer(many=True)


class ReadingSerializer(serializers.Serializer[Any]):
    part = serializers.CharField()
    label = serializers.CharField()
    leader = serializers.IntegerField(allow_null=True)
    best_group = serializers.ListField(child=serializers.IntegerField())
    choice = serializers.IntegerField(allow_null=True)
    same = serializers.BooleanField(help_text="Whether its best group is that of the part that decides.")


class ReadingsSerializer(serializers.Serializer[Any]):
    """Would another metric have chosen otherwise?"""

    sentence = serializers.CharField()
    same = serializers.IntegerField()
    of = serializers.IntegerField()
    rows = ReadingSerializer(many=True)
    not_ranked = serializers.ListField(child=serializers.CharField())
    not_made = serializers.ListField(child=serializers.CharField(), help_text="Readings that were not scored.")


class SliceCellSerializer(serializers.Serializer[Any]):
    candidate = serializers.IntegerField()
    mean = serializers.FloatField(allow_null=True)
    n = serializers.IntegerField()
    difference = serializers.FloatField(allow_null=True, help_text="To the leader.")
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    p = serializers.FloatField(allow_null=True)
    q = serializers.FloatField(allow_null=True, help_text="p after Benjamini and Hochberg, over all slices.")
    verdict = serializers.CharField(allow_null=True)


class SliceSerializer(serializers.Serializer[Any]):
    key = serializers.CharField(help_text="For ?slice= of the examples.")
    kind = serializers.CharField(help_text="tag, group, length or cut.")
    label = serializers.CharField()
    n = serializers.IntegerField()
    groups = serializers.IntegerField()
    cells = SliceCellSerializer(many=True)


class SlicesSerializer(serializers.Serializer[Any]):
    """Exploratory: nobody declared these questions beforehand. On the part that decides."""

    left_out = serializers.ListField(child=serializers.CharField())
    rows = SliceSerializer(many=True)


class DistributionSerializer(serializers.Serializer[Any]):
    edges = serializers.ListField(child=serializers.FloatField())
    counts = serializers.DictField(
        child=serializers.ListField(child=serializers.IntegerField()), help_text="By candidate."
    )


class ComparisonSerializer(serializers.Serializer[Any]):
    experiment = ComparedExperimentSerializer()
    dataset = ComparedDatasetSerializer()
    primary_metric = serializers.CharField()
    parts = PartSerializer(many=True)
    leader = serializers.IntegerField(allow_null=True)
    reference_candidate = serializers.IntegerField(allow_null=True, help_text="The leader, or the one of ?against=.")
    ranked = serializers.BooleanField(help_text="Whether there are enough documents to rank.")
    detectable = serializers.FloatField(
        allow_null=True, help_text="The smallest difference between the leader and the runner-up that would be seen."
    )
    candidates = ComparisonRowSerializer(many=True, help_text="Best first.")
    pairs = PairSerializer(many=True)
    warnings = serializers.ListField(child=serializers.CharField())
    alarms = serializers.ListField(child=serializers.CharField())
    recommendation = RecommendationSerializer()
    bounds = BoundSerializer(many=True)
    gates = GateSerializer(many=True)
    baseline_check = BaselineCheckSerializer()
    readings = ReadingsSerializer()
    slices = SlicesSerializer()
    distribution = DistributionSerializer(allow_null=True)
    rescored = RescoredSerializer(many=True)
    signature = serializers.DictField(help_text="Seed, resamples, bootstrap, alpha, correction, versions, metrics.")
