"""Shapes of the API of ground truth: what it takes (strictly) and what it gives. A test compares."""

# mypy: disable-error-code="assignment"
# Fields may be called like attributes of DRF's own classes (label, source): its metaclass takes them out.

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from datasets_app.models import Dataset
from evaluations import annotating, states
from evaluations.models import Draft, Generation, Publication
from evaluations.shapes import (
    LONGEST_PROMPT,
    ModelWishField,
    ProgressSerializer,
    SampleSerializer,
    Strict,
    TeamDatasetField,
)

DECISIONS = tuple(Draft.Decision.values)

# --- what it takes --------------------------------------------------------------------------------------------------


class NewGroundTruthSerializer(Strict):
    name = serializers.CharField(max_length=200, required=False, help_text="Default: named after the dataset.")
    dataset = TeamDatasetField(queryset=Dataset.objects.none())
    model = ModelWishField(help_text="The model that drafts.")
    prompt = serializers.CharField(
        max_length=LONGEST_PROMPT, required=False, allow_blank=True, trim_whitespace=False,
        help_text="Template with {document} once. Default: the task's own.",
    )  # fmt: skip
    sample = SampleSerializer(required=False)
    budget_usd = serializers.DecimalField(
        max_digits=12, decimal_places=6, min_value=0, required=False, allow_null=True, help_text="Never exceeded."
    )
    start = serializers.BooleanField(default=False, help_text="Start at once.")


class DecisionSerializer(Strict):
    decision = serializers.ChoiceField(choices=DECISIONS, help_text="unreviewed takes a decision back.")
    text = serializers.CharField(
        required=False, allow_blank=True, trim_whitespace=False, max_length=annotating.LONGEST_REFERENCE,
        help_text="The reference, for edited.",
    )  # fmt: skip
    version = serializers.IntegerField(min_value=0, max_value=2**31 - 1, help_text="The version that you looked at.")
    reading = serializers.ChoiceField(choices=[1, 2], required=False, help_text="Default: yours, else 1.")


class AssignmentSerializer(Strict):
    reviewers = serializers.ListField(
        child=serializers.CharField(max_length=150), max_length=200, help_text="User names; empty: anybody takes any."
    )
    overlap = serializers.IntegerField(
        min_value=0, max_value=100, default=0, help_text="Per cent of the documents that a second person reads too."
    )


class PublishSerializer(Strict):
    rows = serializers.ChoiceField(
        choices=Publication.Rows.values, default="approved",
        help_text="approved: only documents with an approved reference; all: every document of the dataset.",
    )  # fmt: skip
    name = serializers.CharField(max_length=200, required=False, help_text="Default: named after dataset and model.")


# --- what it gives --------------------------------------------------------------------------------------------------


class CountsSerializer(serializers.Serializer[Any]):
    documents = serializers.IntegerField(help_text="How many take part; 0 before it is planned.")
    drafted = serializers.IntegerField()
    failed = serializers.IntegerField(help_text="The model gave no draft: write one, or reject.")
    to_review = serializers.IntegerField()
    mine = serializers.IntegerField(help_text="Those of them that you may decide next.")
    accepted = serializers.IntegerField()
    in_bulk = serializers.IntegerField(help_text="Those of the accepted that nobody read one by one.")
    edited = serializers.IntegerField()
    written = serializers.IntegerField(help_text="Written by a person where there was no draft.")
    rejected = serializers.IntegerField()
    decided = serializers.IntegerField()
    second = serializers.IntegerField(help_text="Documents with a second reading.")
    second_decided = serializers.IntegerField()


class PublicationSerializer(serializers.ModelSerializer[Publication]):
    dataset_name = serializers.CharField(source="dataset.name")
    counts = serializers.DictField(
        child=serializers.IntegerField(), help_text="rows, and how many references of each kind (references_by)."
    )
    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True)

    class Meta:
        model = Publication
        fields = ["dataset", "dataset_name", "rows", "counts", "created_at", "created_by"]
        read_only_fields = fields


class GroundTruthSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    dataset = serializers.IntegerField()
    dataset_name = serializers.CharField()
    model = serializers.CharField(help_text="Its URI.")
    label = serializers.CharField(help_text="What the model is called.")
    revision = serializers.CharField()
    prompt = serializers.CharField(help_text="The template it is sent; empty for models that take none.")
    prompt_version = serializers.CharField()
    sample = SampleSerializer()
    budget_usd = serializers.FloatField(allow_null=True)
    spent_usd = serializers.FloatField()
    state = serializers.CharField(help_text=f"Of the drafting: one of {', '.join(states.EXPERIMENT)}.")
    is_final = serializers.BooleanField(help_text="Whether the drafting has ended.")
    stage = serializers.CharField(help_text="How far it is as a whole: the state, then review, then reviewed.")
    problem = serializers.CharField()
    counts = CountsSerializer()
    created_by = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()


class AgreementSerializer(serializers.Serializer[Any]):
    n = serializers.IntegerField(help_text="Documents decided in both readings.")
    share = serializers.FloatField(allow_null=True, help_text="Of equal decisions.")
    kappa = serializers.FloatField(allow_null=True, help_text="Cohen's: 0 is what chance would give.")
    reason = serializers.CharField(help_text="Why a number is missing.")


class PublishableSerializer(serializers.Serializer[Any]):
    approved = serializers.IntegerField(help_text="Rows of a publication of approved ones.")
    all = serializers.IntegerField(help_text="Rows of a publication of all.")
    with_reference = serializers.IntegerField(help_text="Those of all that would have a reference.")
    accepted = serializers.IntegerField()
    in_bulk = serializers.IntegerField()
    edited = serializers.IntegerField()
    written = serializers.IntegerField()
    rejected = serializers.IntegerField()
    unreviewed = serializers.IntegerField()


class GroundTruthDetailSerializer(GroundTruthSerializer):
    progress = ProgressSerializer()
    agreement = AgreementSerializer()
    publishable = PublishableSerializer()
    published = PublicationSerializer(many=True)


class DraftPlanSerializer(serializers.Serializer[Any]):
    documents = serializers.IntegerField()
    calls = serializers.IntegerField()
    input_tokens = serializers.IntegerField()
    output_tokens_at_most = serializers.IntegerField()
    estimate = serializers.CharField()
    worst_case_cost_usd = serializers.FloatField(allow_null=True)
    cost_reason = serializers.CharField()
    budget_usd = serializers.FloatField(allow_null=True)
    fits_budget = serializers.BooleanField(allow_null=True)
    window = serializers.IntegerField(allow_null=True)
    documents_beyond_window = serializers.IntegerField(allow_null=True)
    can_run = serializers.BooleanField()
    why = serializers.CharField()


class DraftOutputSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(choices=["waiting", *Generation.Status.values])
    text = serializers.CharField()
    error = serializers.CharField()
    finish_reason = serializers.CharField()
    was_truncated = serializers.BooleanField(help_text="The model did not read the whole document.")


class ItemSerializer(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    id = serializers.CharField(allow_null=True, help_text="Of the document, in its file.")
    reading = serializers.IntegerField(help_text="1 is published; 2 only measures agreement.")
    begins = serializers.CharField()
    draft = DraftOutputSerializer()
    decision = serializers.ChoiceField(choices=DECISIONS)
    text = serializers.CharField(help_text="The approved reference; empty where there is none.")
    is_written = serializers.BooleanField()
    in_bulk = serializers.BooleanField()
    assigned_to = serializers.CharField(allow_null=True)
    reviewer = serializers.CharField(allow_null=True)
    decided_at = serializers.DateTimeField(allow_null=True)
    version = serializers.IntegerField()


class ReferenceSerializer(serializers.Serializer[Any]):
    text = serializers.CharField()
    by = serializers.CharField(help_text="human, model-accepted, model-bulk, model-edited, reviewer or unknown.")


class ItemDetailSerializer(ItemSerializer):
    source = serializers.CharField()
    references = ReferenceSerializer(many=True, help_text="Those that the document came with.")
