"""Online requests, answered by a warm worker within seconds."""

from __future__ import annotations

import uuid

from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from datasets_app.models import Example
from evaluations.models.outcomes import Generation
from lumigator.models import OwnedQuerySet, Team
from models_registry.models import Connection, ModelEntry


class Completion(models.Model):
    """One online request: a text, or a conversation, for one model, answered by a warm worker within seconds.

    asked ──► running ──► done      (`status` says answered, refused or empty)
      │          ├──────► failed    (`error` says why, in words)
      └──────────┘ (its worker vanished: once more for a model that runs here, never for a call that may be billed)

    It is its own line of the ledger: `reserved_micro` is written before a paid call, `cost_micro` after it.
    Those of one `batch` were asked together, side by side.
    """

    class State(models.TextChoices):
        ASKED = "asked", "Waiting"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="completions")
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    batch = models.UUIDField(default=uuid.uuid4)
    model = models.ForeignKey(ModelEntry, on_delete=models.SET_NULL, null=True, related_name="+")
    connection = models.ForeignKey(Connection, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    example = models.ForeignKey(Example, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    label = models.CharField(max_length=160)
    provider = models.CharField(max_length=30)
    queue = models.CharField(max_length=10)
    spec = models.JSONField(default=dict)
    model_key = models.CharField(max_length=64)
    source = models.TextField(blank=True)
    messages = models.JSONField(default=list, blank=True)
    seed = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=8, choices=State.choices, default=State.ASKED)
    owner = models.CharField(max_length=120, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    status = models.CharField(max_length=8, blank=True, choices=Generation.Status.choices)
    text = models.TextField(blank=True)
    reasoning = models.TextField(blank=True)
    error_code = models.CharField(max_length=40, blank=True)
    error = models.TextField(blank=True)
    finish_reason = models.CharField(max_length=40, blank=True)
    input_tokens = models.PositiveIntegerField(null=True)
    input_tokens_read = models.PositiveIntegerField(null=True)
    cached_tokens = models.PositiveIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)
    latency_ms = models.PositiveIntegerField(null=True)
    reserved_micro = models.BigIntegerField(null=True)
    cost_micro = models.BigIntegerField(null=True)
    asked_at = models.DateTimeField(db_default=Now())
    begun_at = models.DateTimeField(null=True)
    done_at = models.DateTimeField(null=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["queue", "id"], name="completions_open", condition=Q(state__in=("asked", "running"))),
            models.Index(fields=["batch"], name="completions_of_a_batch"),
        ]

    def __str__(self) -> str:
        return f"{self.label}: {self.get_state_display().lower()}"

    @property
    def has_ended(self) -> bool:
        return self.state in (self.State.DONE, self.State.FAILED)
