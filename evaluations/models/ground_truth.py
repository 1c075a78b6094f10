"""References that a model drafts and people approve."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q
from django.utils.functional import cached_property

from datasets_app.models import Dataset, Example
from evaluations.models.experiments import Candidate, Experiment
from lumigator.models import OwnedQuerySet, Team


class GroundTruth(models.Model):
    """References that a model drafts and people approve, document by document.

    The drafts are made by `experiment`: a run of the engine with one candidate and no metric. Its state is that of the
    run until it has ended; from then on `annotating.stage` says how far the review is.
    """

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="ground_truths")
    experiment = models.OneToOneField(Experiment, on_delete=models.CASCADE, related_name="ground_truth")

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["team", "-id"])]
        verbose_name_plural = "ground truth"

    def __str__(self) -> str:
        return self.experiment.name

    @cached_property
    def candidate(self) -> Candidate:
        """The model that drafts."""
        return self.experiment.candidates.all()[0]  # those that a list fetched beforehand are not asked for again


class Draft(models.Model):
    """One reading of one document: what a person decided about the model's draft, or that nobody did yet.

    unreviewed ◄──► accepted | edited | rejected      (every change raises `version`, and must know the one before)

    `reading` 1 is the one that is published. `reading` 2 is a second person's, made independently on some documents:
    it only tells how far reviewers agree. `text` is the approved text of an edited one; the text of an accepted one is
    the model's. `is_written`: there was no draft to edit, a person wrote it. `in_bulk`: accepted with all others, not
    read one by one.
    """

    class Decision(models.TextChoices):
        UNREVIEWED = "unreviewed", "Not reviewed"
        ACCEPTED = "accepted", "Accepted"
        EDITED = "edited", "Edited"
        REJECTED = "rejected", "Rejected"

    ground_truth = models.ForeignKey(GroundTruth, on_delete=models.CASCADE, related_name="drafts")
    example = models.ForeignKey(Example, on_delete=models.CASCADE, related_name="+")
    index = models.PositiveIntegerField(help_text="The document's place in its dataset, from 0.")
    reading = models.PositiveSmallIntegerField(default=1)
    decision = models.CharField(max_length=10, choices=Decision.choices, default=Decision.UNREVIEWED)
    text = models.TextField(blank=True)
    is_written = models.BooleanField(default=False)
    in_bulk = models.BooleanField(default=False)
    assigned_to = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    reviewer = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    decided_at = models.DateTimeField(null=True, blank=True)
    version = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["ground_truth", "index", "reading"]
        constraints = [models.UniqueConstraint(fields=["ground_truth", "index", "reading"], name="one_draft_a_reading")]
        indexes = [
            models.Index(fields=["ground_truth", "reading", "decision", "index"], name="drafts_by_decision"),
            models.Index(
                fields=["ground_truth", "assigned_to", "index"], name="drafts_to_do", condition=Q(decision="unreviewed")
            ),
        ]

    def __str__(self) -> str:
        return f"document {self.index} of ground truth {self.ground_truth_id}: {self.decision}"

    @property
    def is_decided(self) -> bool:
        return self.decision != self.Decision.UNREVIEWED


class Publication(models.Model):
    """A dataset that was made of approved references: which rows, how many of each kind, by whom. `counts` is
    {"rows": n, word of `publishing.references_by`: how many references}."""

    class Rows(models.TextChoices):
        APPROVED = "approved", "Only documents with an approved reference"
        ALL = "all", "Every document, with a reference where one was approved"

    ground_truth = models.ForeignKey(GroundTruth, on_delete=models.CASCADE, related_name="publications")
    dataset = models.OneToOneField(Dataset, on_delete=models.CASCADE, related_name="publication")
    rows = models.CharField(max_length=8, choices=Rows.choices)
    counts = models.JSONField(default=dict)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.dataset} of ground truth {self.ground_truth_id}"
