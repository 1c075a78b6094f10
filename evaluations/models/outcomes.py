"""What candidates made of the documents, and what each attempt cost."""

from __future__ import annotations

import re
import uuid

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from datasets_app.models import Example
from evaluations.models.experiments import Candidate, Experiment
from models_registry.providers import Output

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Generation(models.Model):
    """The outcome of one candidate on one example: exactly one, whatever crashes."""

    class Status(models.TextChoices):
        OK = "ok", "Answered"
        ERROR = "error", "Error"
        REFUSED = "refused", "Refused"
        EMPTY = "empty", "Empty"

    candidate = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="generations")
    example = models.ForeignKey(Example, on_delete=models.CASCADE, related_name="generations")
    status = models.CharField(max_length=8, choices=Status.choices)
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
    cost_micro = models.BigIntegerField(null=True)
    cache_key = models.CharField(max_length=64, blank=True)
    reused = models.BooleanField(default=False)
    unit_id = models.BigIntegerField(null=True)
    epoch = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["candidate", "example"], name="one_generation_per_example")]
        indexes = [
            models.Index(fields=["cache_key"], name="generation_cache", condition=~Q(cache_key="")),
            models.Index(fields=["candidate"], name="generation_errors", condition=Q(status="error")),
        ]

    def __str__(self) -> str:
        return f"{self.candidate} on example {self.example_id}: {self.status}"

    @classmethod
    def of(cls, candidate: Candidate, output: Output, cost: int | None = None, *, cache_key: str = "") -> Generation:
        """What a provider's output is as a row, unsaved; `cost` in micro-dollars, `cache_key` as `reusing` makes it."""
        return cls(
            candidate=candidate,
            example_id=output.key,
            status=output.status,
            text=_storable(output.text),
            reasoning=_storable(output.reasoning),
            error_code=output.error_code,
            error=_storable(output.error)[:2000],
            finish_reason=output.finish_reason[:40],
            input_tokens=output.input_tokens,
            input_tokens_read=output.input_tokens_read,
            cached_tokens=output.cached_tokens,
            output_tokens=output.output_tokens,
            latency_ms=output.latency_ms,
            cost_micro=cost,
            cache_key=cache_key,
        )

    @property
    def was_truncated(self) -> bool:
        """Whether the model read less than the document (token counts permitting)."""
        return bool(self.input_tokens and self.input_tokens_read and self.input_tokens_read < self.input_tokens)


def _storable(text: str) -> str:
    """PostgreSQL keeps neither NUL nor half a surrogate pair, and a model may write either: they become U+FFFD."""
    return UNSTORABLE.sub("\ufffd", text)


class Call(models.Model):
    """The billing ledger: every attempt at a paid call, written before it is made.

    reserved ──► settled   (the provider answered; `cost_micro` is what it cost, null when unpriced)
        └──────► unknown   (it may have been billed: counted at `reserved_micro` until somebody reconciles)
    """

    class State(models.TextChoices):
        RESERVED = "reserved", "Reserved"
        SETTLED = "settled", "Settled"
        UNKNOWN = "unknown", "Unknown"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="calls")
    candidate = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="calls")
    example = models.ForeignKey(Example, on_delete=models.CASCADE, related_name="+")
    unit_id = models.BigIntegerField(null=True)
    epoch = models.BigIntegerField(default=0)
    state = models.CharField(max_length=10, choices=State.choices, default=State.RESERVED)
    reserved_micro = models.BigIntegerField(default=0)
    cost_micro = models.BigIntegerField(null=True)
    input_tokens = models.PositiveIntegerField(null=True)
    cached_tokens = models.PositiveIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)
    latency_ms = models.PositiveIntegerField(null=True)
    outcome = models.CharField(max_length=40, blank=True, help_text="ok, or the error code.")
    started_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["unit_id", "state"], name="open_calls", condition=Q(state="reserved"))]

    def __str__(self) -> str:
        return f"call {self.id} ({self.state})"
