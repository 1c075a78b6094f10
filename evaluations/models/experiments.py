"""What is compared: an experiment and the candidates that compete in it."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db import models
from django.db.models import Q

from datasets_app.models import Dataset
from evaluations import states
from lumigator.models import OwnedQuerySet, Team
from models_registry.models import Connection, ModelEntry


class ExperimentQuerySet(OwnedQuerySet):
    def for_user(self, user: AbstractBaseUser | AnonymousUser) -> ExperimentQuerySet:
        """The comparisons that `user` may see. Runs that draft references are reached by their `GroundTruth`."""
        return super().for_user(user).filter(purpose=Experiment.Purpose.COMPARE)  # type: ignore[return-value]


class Experiment(models.Model):
    """Many candidates on one dataset. What was asked is frozen when it starts; the states are in `states.EXPERIMENT`.

    `metrics` is [{name, options, signature, earlier}]: `signature` is the digest that counts, set by planning on the
    machine that scores; `earlier` are those it replaced, whose scores stay to be compared. `margin` is the largest
    loss on the primary metric that the user would accept for a cheaper model. Money is in micro-dollars. `round` grows
    each time work is planned again (resume, a candidate or metric added): new units never collide with old ones.
    """

    class Purpose(models.TextChoices):
        COMPARE = "compare", "Compare models"
        GROUND_TRUTH = "ground_truth", "Draft references"

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="experiments")
    purpose = models.CharField(max_length=12, choices=Purpose.choices, default=Purpose.COMPARE, editable=False)
    name = models.CharField(max_length=200)
    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="experiments")
    task = models.CharField(max_length=40, default="summarization")
    prompt = models.TextField(blank=True, help_text="Template; {document} is replaced. Empty: the task's own.")
    prompt_version = models.CharField(max_length=64, blank=True, editable=False)
    metrics = models.JSONField(default=list)
    primary_metric = models.CharField(max_length=40, default="rougeLsum")
    margin = models.FloatField(null=True, blank=True)
    sample_n = models.PositiveIntegerField("sample size", null=True, blank=True)
    seed = models.PositiveIntegerField(default=0)
    budget_micro = models.BigIntegerField("budget", null=True, blank=True)
    reserved_micro = models.BigIntegerField("reserved", default=0, editable=False)
    spent_micro = models.BigIntegerField("spent", default=0, editable=False)
    gates = models.JSONField(default=dict, blank=True)
    reuse_outputs = models.BooleanField(
        default=True, help_text="Take outputs that the team already has: same model, prompt, document and seed."
    )
    state = models.CharField(max_length=24, choices=states.experiment_choices, default="draft", editable=False)
    pause_reason = models.CharField(max_length=30, blank=True, editable=False)
    problem = models.TextField(blank=True, editable=False)
    round = models.PositiveIntegerField(default=0, editable=False)
    n_examples = models.PositiveIntegerField("documents", default=0, editable=False)
    statistics = models.JSONField(default=dict, editable=False)
    request_id = models.CharField(max_length=64, blank=True, editable=False)
    created_by = models.ForeignKey(
        User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", editable=False
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = ExperimentQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["team", "-id"]),
            models.Index(fields=["state"], name="active_experiments", condition=Q(state__in=states.ACTIVE)),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def has_ended(self) -> bool:
        return self.state in states.ENDED

    @property
    def look(self) -> states.State:
        """The state with its label and tone."""
        return states.EXPERIMENT[self.state]

    def move(self, to: str, *, since: tuple[str, ...] | None = None, **changes: Any) -> bool:
        """Change the state in one conditional UPDATE. False when it was not in one of `since` (by default: in any
        state that may go to `to`); then nothing was changed, here or in the database."""
        allowed = since or tuple(old for old, new in states.legal_pairs(states.EXPERIMENT) if new == to)
        if not Experiment.objects.filter(pk=self.pk, state__in=allowed).update(state=to, **changes):
            return False
        self.refresh_from_db()
        return True


class Candidate(models.Model):
    """One model with one prompt and one set of generation parameters, competing in one experiment.

    `spec` is frozen (registry edits never rewrite history); `summary` is written by finalize.
    `problem` says why the candidate was stopped, in words; its finished outputs stay.
    """

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="candidates")
    model = models.ForeignKey(ModelEntry, on_delete=models.SET_NULL, null=True, blank=True, related_name="candidates")
    connection = models.ForeignKey(Connection, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    label = models.CharField(max_length=160)
    position = models.PositiveSmallIntegerField(default=0)
    provider = models.CharField(max_length=30)
    queue = models.CharField(max_length=10)
    spec = models.JSONField(default=dict)
    is_baseline = models.BooleanField(default=False)
    uses_references = models.BooleanField(default=False)
    problem = models.TextField(blank=True, editable=False)
    problem_code = models.CharField(max_length=40, blank=True, editable=False)
    summary = models.JSONField(default=dict, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["experiment", "position", "id"]
        constraints = [models.UniqueConstraint(fields=["experiment", "label"], name="one_candidate_per_label")]

    def __str__(self) -> str:
        return self.label
