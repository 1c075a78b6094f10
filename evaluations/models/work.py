"""The work that an experiment is cut into, and the processes that do it."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth.models import User
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from evaluations import states
from evaluations.models.experiments import Candidate, Experiment
from evaluations.models.outcomes import Generation

ALIVE_SECONDS = 30
"""A worker that was not heard of for so long is gone: it says so every few seconds."""


class WorkUnit(models.Model):
    """A slice of work that one worker does at a time: RELIABILITY §2. States are in `states.UNIT`.

    `epoch` is the fence: it grows with every claim, and every write of a worker demands the epoch it claimed.
    `indexes` are the indexes of the examples it covers (empty for plan and finalize); `inflight` is the breadcrumb:
    the examples being worked on when a worker dies.
    """

    class Kind(models.TextChoices):
        PLAN = "plan", "Plan"
        GENERATE = "generate", "Generate"
        SCORE = "score", "Score"
        FINALIZE = "finalize", "Finalize"

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="units")
    candidate = models.ForeignKey(Candidate, on_delete=models.CASCADE, null=True, blank=True, related_name="units")
    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True, related_name="children")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    metric = models.CharField(max_length=40, blank=True)
    queue = models.CharField(max_length=10)
    round = models.PositiveIntegerField(default=1)
    lo = models.PositiveIntegerField(default=0)
    indexes = ArrayField(models.PositiveIntegerField(), default=list, blank=True)
    state = models.CharField(max_length=10, choices=states.unit_choices, default="ready")
    epoch = models.BigIntegerField(default=0)
    owner = models.CharField(max_length=120, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    next_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveIntegerField(default=0)
    crash_count = models.PositiveIntegerField(default=0)
    inflight = ArrayField(models.PositiveIntegerField(), default=list, blank=True)
    problem = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    done_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["experiment", "candidate", "kind", "metric", "round", "lo", "parent"],
                nulls_distinct=False,
                name="one_unit_per_slice",
            )
        ]
        indexes = [
            models.Index(fields=["queue", "kind", "candidate", "id"], name="units_ready", condition=Q(state="ready")),
            models.Index(fields=["lease_until"], name="units_leased", condition=Q(state="leased")),
            models.Index(fields=["experiment", "state"], name="units_of_experiment"),
        ]

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.experiment_id}/{self.candidate_id or '-'} {self.metric} [{self.lo}+{len(self.indexes)}]"
        )

    def outcomes(self) -> models.QuerySet[Generation]:
        """What its candidate has made of its examples so far."""
        return Generation.objects.filter(
            candidate=self.candidate_id,
            example__dataset=self.experiment.dataset_id,  # the index of examples is (dataset, index)
            example__index__in=self.indexes,
        )


class WorkerQuerySet(models.QuerySet["Worker"]):
    def alive(self) -> WorkerQuerySet:
        """Those heard of within ALIVE_SECONDS, by the database's clock."""
        since = Now() - timedelta(seconds=ALIVE_SECONDS)
        return self.filter(stopped_at=None, seen_at__gt=since)


class Worker(models.Model):
    """A worker process that is, or was, alive: one row each, its heartbeat renewed by the worker itself."""

    name = models.CharField(max_length=120, unique=True)
    queues = ArrayField(models.CharField(max_length=10))
    version = models.CharField(max_length=40, blank=True)
    has_gpu = models.BooleanField(default=False)
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())
    stopped_at = models.DateTimeField(null=True)

    objects = WorkerQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class SelfCheck(models.Model):
    """One run of the metrics' known values on the machine of a worker: asked for by a person, done by a worker.

    `report` is what `selfchecking.report()` tells. One that a worker began and never ended may be taken up again.
    """

    asked_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    asked_at = models.DateTimeField(auto_now_add=True)
    begun_at = models.DateTimeField(null=True)
    done_at = models.DateTimeField(null=True)
    host = models.CharField(max_length=120, blank=True)
    report = models.JSONField(default=dict)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"self-check {self.pk} ({'done on ' + self.host if self.done_at else 'waiting'})"
