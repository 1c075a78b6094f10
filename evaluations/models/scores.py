"""Numbers: one for each output, their means, and the contrasts between candidates."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from datasets_app.models import Example
from evaluations.models.experiments import Candidate, Experiment


class Signature(models.Model):
    """Everything that decides a score's number. Scores of different signatures are never compared."""

    digest = models.CharField(max_length=16, primary_key=True)
    metric = models.CharField(max_length=40)
    detail = models.JSONField()

    def __str__(self) -> str:
        return f"{self.metric} {self.digest}"


class Score(models.Model):
    """One number of one metric for one output; or its absence, with the state and the reason."""

    candidate = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="scores")
    example = models.ForeignKey(Example, on_delete=models.CASCADE, related_name="scores")
    part = models.CharField(max_length=40)
    value = models.FloatField(null=True)
    state = models.CharField(max_length=16, blank=True, help_text="failed, not_applicable or not_computed.")
    reason = models.CharField(max_length=200, blank=True)
    counts = ArrayField(
        models.IntegerField(), null=True, blank=True, help_text="What it was counted from, for the corpus' value."
    )
    signature = models.ForeignKey(Signature, on_delete=models.PROTECT, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["candidate", "part", "example", "signature"], name="one_score_per_part_and_signature"
            ),
            models.CheckConstraint(
                condition=Q(value__isnull=False, state="") | (Q(value__isnull=True) & ~Q(state="")),
                name="a_missing_score_has_a_reason",
            ),
        ]
        indexes = [models.Index(fields=["candidate", "part", "value", "example"], name="scores_sorted")]

    def __str__(self) -> str:
        return f"{self.part} = {self.value if self.value is not None else self.reason}"


class Aggregate(models.Model):
    """The mean of one metric part for one candidate, with its interval; all that a leaderboard reads."""

    candidate = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="aggregates")
    part = models.CharField(max_length=40)
    signature = models.ForeignKey(Signature, on_delete=models.PROTECT, related_name="+")
    mean = models.FloatField(null=True)
    low = models.FloatField(null=True)
    high = models.FloatField(null=True)
    sd = models.FloatField(null=True)
    method = models.CharField(max_length=20, blank=True)
    n = models.PositiveIntegerField()
    n_groups = models.PositiveIntegerField(default=0)
    states = models.JSONField(default=dict)
    digest = models.CharField(max_length=64, help_text="SHA-256 of the values it was computed from.")
    computed_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["candidate", "part", "signature"], name="one_aggregate_per_part")
        ]

    def __str__(self) -> str:
        return f"{self.candidate} {self.part}: {self.mean}"


class Contrast(models.Model):
    """Candidate `b` against candidate `a` on one metric part, paired by document: `difference` is mean(b - a).

    `p_holm` is `p` after Holm's correction over the `family`: every candidate against the leader, or all pairs.
    `verdict` is about `b`: better, worse, no clear difference, borderline, too little data. `win`, `tie` and `loss`
    count documents on which `b` is better, equal, worse.
    """

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="contrasts")
    a = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="+")
    b = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="+")
    part = models.CharField(max_length=40)
    signature = models.ForeignKey(Signature, on_delete=models.PROTECT, related_name="+")
    family = models.CharField(max_length=10, help_text="leader or pairs: what Holm's correction covers.")
    difference = models.FloatField(null=True)
    low = models.FloatField(null=True)
    high = models.FloatField(null=True)
    p = models.FloatField(null=True)
    p_error = models.FloatField(null=True)
    p_holm = models.FloatField(null=True)
    verdict = models.CharField(max_length=30)
    n = models.PositiveIntegerField(default=0)
    win = models.PositiveIntegerField(default=0)
    tie = models.PositiveIntegerField(default=0)
    loss = models.PositiveIntegerField(default=0)
    detectable = models.FloatField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["experiment", "part", "family", "a", "b", "signature"], name="one_contrast_per_pair"
            )
        ]

    def __str__(self) -> str:
        return f"{self.b} against {self.a} on {self.part}: {self.verdict}"
