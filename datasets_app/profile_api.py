"""The profile of a dataset as the API gives it, described field by field.

What a dataset stored before a figure existed lacks is null, never 0.
"""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from datasets_app.cautioning import cautions
from datasets_app.lengths import WINDOWS
from datasets_app.models import Dataset

OLD = "null in a dataset stored before this was computed"


class Described(serializers.Serializer[Any]):
    """One part of a profile."""


class Indexes(serializers.ListField):
    child = serializers.IntegerField()


class WordsSerializer(Described):
    n = serializers.IntegerField()
    min = serializers.IntegerField()
    median = serializers.FloatField()
    mean = serializers.FloatField()
    p95 = serializers.FloatField()
    max = serializers.IntegerField()


class HistogramSerializer(Described):
    edges = serializers.ListField(child=serializers.IntegerField(), help_text="One more than there are counts.")
    counts = serializers.ListField(child=serializers.IntegerField(), help_text="low <= words < high.")
    n_above = serializers.IntegerField(help_text="Longer than the last edge.")


class DatasetWindowSerializer(Described):
    window = serializers.IntegerField(help_text=f"Tokens; one of {', '.join(map(str, WINDOWS))}.")
    n = serializers.IntegerField(help_text="Documents with more estimated tokens.")


class ValueCountSerializer(Described):
    value = serializers.CharField()
    n = serializers.IntegerField()


class ValuesSerializer(Described):
    n = serializers.IntegerField(help_text="Distinct values.")
    is_capped = serializers.BooleanField(help_text="There are more than n.")
    largest = ValueCountSerializer(many=True)


class TallySerializer(Described):
    n = serializers.IntegerField(help_text="Documents.")
    first = Indexes(help_text="The first few, by index.")


class SampledTallySerializer(TallySerializer):
    n_examined = serializers.IntegerField(help_text="Documents that were looked at.")
    is_sample = serializers.BooleanField()


class DatasetLanguageSerializer(TallySerializer):
    code = serializers.CharField(help_text="ISO 639.")
    name = serializers.CharField()


class UndeterminedSerializer(Described):
    short = serializers.IntegerField(help_text="Too few letters.")
    unsure = serializers.IntegerField(help_text="No language is probable enough.")
    mixed = serializers.IntegerField(help_text="Its parts are in different languages.")


class LanguagesSerializer(Described):
    n_examined = serializers.IntegerField(help_text="Documents that were looked at: all, or a sample of 2,000.")
    found = DatasetLanguageSerializer(many=True)
    undetermined = UndeterminedSerializer()


class CopySerializer(Described):
    index = serializers.IntegerField()
    of = serializers.IntegerField(help_text="The index of the earlier document.")


class NearCopySerializer(CopySerializer):
    similarity = serializers.FloatField(help_text="Jaccard, of runs of five words: 0.8 to 1.")


class ExactDuplicatesSerializer(Described):
    n = serializers.IntegerField(help_text="Documents that are the same as an earlier one, but for white space.")
    n_texts = serializers.IntegerField(help_text="Different texts that occur more than once.")
    n_across_groups = serializers.IntegerField(help_text="Of these, the texts that stand in several groups.")
    first = CopySerializer(many=True)


class NearDuplicatesSerializer(Described):
    n = serializers.IntegerField(help_text="Documents that are nearly, not exactly, the same as an earlier one.")
    n_examined = serializers.IntegerField(help_text="Documents that were looked at, of those with five words or more.")
    is_sample = serializers.BooleanField()
    first = NearCopySerializer(many=True)


class DuplicatesSerializer(Described):
    exact = ExactDuplicatesSerializer()
    near = NearDuplicatesSerializer()


class CopiedSerializer(Described):
    whole = TallySerializer(help_text="The reference is the document.")
    beginning = TallySerializer(help_text="The document begins with the reference.")
    inside = TallySerializer(help_text="The reference stands elsewhere in the document, word for word.")
    shared = TallySerializer(help_text="The reference stands on a document with another text, too.")


class ReferencesSerializer(Described):
    missing = serializers.IntegerField(help_text="Documents without a reference.")
    blank = TallySerializer(help_text="No letter and no digit.")
    longer_than_document = TallySerializer()
    much_longer_than_others = TallySerializer()
    numbers_not_in_document = TallySerializer()
    names_not_in_document = SampledTallySerializer(help_text="Only in languages where capitals mark names.")


class ExtractivenessSerializer(Described):
    n_references = serializers.IntegerField()
    coverage = serializers.FloatField(help_text="Median share of the reference's words that were copied.")
    density = serializers.FloatField(help_text="Median of the mean length of the copied pieces, in words.")
    compression = serializers.FloatField(help_text="Median of words of the document for one of the reference.")


class MaskedSerializer(Described):
    index = serializers.IntegerField()
    masked = serializers.CharField(help_text="What was found, unrecognisable.")


class PersonalKindSerializer(Described):
    n = serializers.IntegerField(help_text="Documents.")
    examples = MaskedSerializer(many=True)


class PersonalDataSerializer(Described):
    n = serializers.IntegerField(help_text="Documents that may hold any of it.")
    kinds = serializers.DictField(child=PersonalKindSerializer())


class DatasetDetectableSerializer(Described):
    n = serializers.IntegerField(help_text="Units of a comparison: documents with a reference, or their groups.")
    unit = serializers.ChoiceField(choices=["documents", "groups"])
    assumed_sd = serializers.FloatField(help_text="Of the difference of two models on one document, 0 to 1.")
    points = serializers.FloatField(help_text="The least difference of means seen four times out of five, 0 to 100.")
    n_for_one_point = serializers.IntegerField()
    n_for_two_points = serializers.IntegerField()


class DatasetCautionSerializer(Described):
    tone = serializers.ChoiceField(choices=["bad", "warn"])
    what = serializers.CharField()
    cure = serializers.CharField()
    first = Indexes(help_text="Indexes of examples to look at.")


class ProfileSerializer(Described):
    n_examples = serializers.IntegerField()
    n_with_reference = serializers.IntegerField()
    n_with_several_references = serializers.IntegerField()
    max_references = serializers.IntegerField()
    cautions = DatasetCautionSerializer(many=True, help_text="What would mislead or weaken a comparison; worst first.")
    source_words = WordsSerializer(allow_null=True)
    reference_words = WordsSerializer(allow_null=True, help_text="null where there is no reference.")
    source_tokens = WordsSerializer(allow_null=True, help_text=f"Estimated, no model's own; {OLD}.")
    reference_tokens = WordsSerializer(allow_null=True, help_text=f"Estimated; {OLD}, or without references.")
    source_histogram = HistogramSerializer(allow_null=True, help_text=f"In words; {OLD}.")
    reference_histogram = HistogramSerializer(allow_null=True, help_text=f"In words; {OLD}, or without references.")
    windows = DatasetWindowSerializer(many=True, allow_null=True, help_text=f"{OLD}.")
    languages = LanguagesSerializer(allow_null=True, help_text=f"{OLD}.")
    duplicates = DuplicatesSerializer(allow_null=True, help_text=f"{OLD}.")
    copied = CopiedSerializer(allow_null=True, help_text=f"{OLD}.")
    references = ReferencesSerializer(allow_null=True, help_text=f"{OLD}.")
    extractiveness = ExtractivenessSerializer(allow_null=True, help_text=f"{OLD}, or without references.")
    personal_data = PersonalDataSerializer(allow_null=True, help_text=f"{OLD}.")
    detectable = DatasetDetectableSerializer(allow_null=True, help_text=f"{OLD}.")
    groups = ValuesSerializer()
    tags = serializers.DictField(child=ValuesSerializer())


def described(dataset: Dataset) -> Any:
    """The stored profile of a dataset that has one, with its cautions, ready to be sent."""
    told = [one.as_dict() for one in cautions(dataset.profile, may_leave=dataset.may_leave)]
    return ProfileSerializer({**dataset.profile, "cautions": told}).data
