"""Datasets and their examples. A dataset that is ready never changes: an edit makes a child."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Length, Now

from lumigator.models import OwnedQuerySet, Team


class Dataset(models.Model):
    """Documents that belong together, with zero or more reference summaries each.

        importing ──► ready       (immutable; a trigger refuses changes to its examples)
            └───────► failed      (`problem` says why)

    `columns` says which column of the file became what: {source, references[], id, group, tags[], predictions[]}.
    """

    class State(models.TextChoices):
        IMPORTING = "importing", "Importing"
        READY = "ready", "Ready"
        FAILED = "failed", "Failed"

    class Origin(models.TextChoices):
        UPLOAD = "upload", "Uploaded"
        GENERATED = "generated", "References generated"
        EDITED = "edited", "Edited"
        SAMPLE = "sample", "Sample shipped with Lumigator"

    class Privacy(models.TextChoices):
        ANY = "any", "May be sent to any enabled model"
        LOCAL_ONLY = "local_only", "Never leaves this installation"

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="datasets")
    name = models.CharField(max_length=200)
    state = models.CharField(max_length=10, choices=State.choices, default=State.IMPORTING, editable=False)
    problem = models.TextField(blank=True, editable=False)
    origin = models.CharField(max_length=10, choices=Origin.choices, default=Origin.UPLOAD, editable=False)
    parent = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="children", editable=False
    )
    privacy = models.CharField(max_length=10, choices=Privacy.choices, default=Privacy.ANY)
    sha256 = models.CharField("SHA-256 of the file", max_length=64, editable=False)
    file = models.FileField(upload_to="uploads", max_length=300, blank=True, editable=False)
    file_name = models.CharField(max_length=200, blank=True, editable=False)
    file_bytes = models.BigIntegerField(default=0, editable=False)
    columns = models.JSONField(default=dict, editable=False)
    n_examples = models.PositiveIntegerField(default=0, editable=False)
    n_with_reference = models.PositiveIntegerField(default=0, editable=False)
    profile = models.JSONField(default=dict, editable=False)
    edit = models.JSONField(
        default=dict, editable=False, help_text="What made it of its parent (`datasets_app.editing`)."
    )
    sealed = models.BooleanField(
        default=False,
        editable=False,
        help_text="Kept back: only the final confirmation may use it, never a comparison.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", editable=False
    )

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["team", "-id"]), models.Index(fields=["team", "sha256"])]

    def __str__(self) -> str:
        return self.name

    @property
    def is_ready(self) -> bool:
        return self.state == self.State.READY

    @property
    def is_importing(self) -> bool:
        return self.state == self.State.IMPORTING

    @property
    def has_references(self) -> bool:
        return self.n_with_reference > 0

    @property
    def may_leave(self) -> bool:
        """Whether its text may be sent to a model outside this installation."""
        return self.privacy == self.Privacy.ANY


class Import(models.Model):
    """The work of turning a file into a dataset, claimed by one worker at a time (`datasets_app.ingesting`).

    It can be claimed while its dataset is importing (or cancelled and not yet removed), `next_at` has come, and no
    lease runs. Each claim raises `epoch`, and every write demands it, so a worker that lost its lease writes nothing.
    """

    dataset = models.OneToOneField(Dataset, on_delete=models.CASCADE, related_name="intake")
    columns = models.JSONField(default=dict, help_text="The columns that were asked for; what is missing is guessed.")
    upload = models.CharField(max_length=300, blank=True, help_text="Key of the uploaded file until it is stored.")
    owner = models.CharField(max_length=120, blank=True)
    epoch = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    next_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Claims since rows were last written.")
    is_cancelled = models.BooleanField(default=False)
    rows_done = models.PositiveIntegerField(default=0)
    bytes_read = models.BigIntegerField(default=0)
    bytes_total = models.BigIntegerField(default=0)
    place = models.PositiveIntegerField(
        default=0, help_text="Of an edit: examples of the parent that were gone through."
    )
    problems = models.JSONField(default=list, help_text="The first of them: [{row, column, message, cure}].")
    n_problems = models.PositiveIntegerField(default=0)
    asked_at = models.DateTimeField(db_default=Now())
    began_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["id"], condition=models.Q(ended_at=None), name="open_imports")]

    def __str__(self) -> str:
        return f"import of {self.dataset}"

    @property
    def share(self) -> float | None:
        """How much of the file has been read, from 0 to 1; None where its size says nothing."""
        return min(1.0, self.bytes_read / self.bytes_total) if self.bytes_total else None


class Example(models.Model):
    """One document: its text, its reference summaries (possibly none), its group and its tags."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="examples")
    index = models.PositiveIntegerField(help_text="Position in the file, from 0.")
    key = models.CharField("id in the file", max_length=200, blank=True)
    source = models.TextField()
    references = ArrayField(models.TextField(), default=list, blank=True)
    group = models.CharField(max_length=200, blank=True)
    tags = models.JSONField(default=dict, blank=True)
    n_characters = models.GeneratedField(
        expression=Length("source"), output_field=models.PositiveIntegerField(), db_persist=True
    )

    class Meta:
        ordering = ["dataset", "index"]
        constraints = [models.UniqueConstraint(fields=["dataset", "index"], name="one_example_per_index")]
        indexes = [
            models.Index(fields=["dataset", "key"], condition=~models.Q(key=""), name="example_key"),
            models.Index(fields=["dataset", "n_characters", "index"], name="example_by_length"),
        ]

    def __str__(self) -> str:
        return f"{self.dataset} #{self.index}"

    @property
    def label(self) -> str:
        """What to call it on a page: the id from the file where there is one, else its position from 1."""
        return self.key or f"#{self.index + 1}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "id": self.key or None,
            "source": self.source,
            "references": self.references,
            "group": self.group or None,
            "tags": self.tags,
        }
