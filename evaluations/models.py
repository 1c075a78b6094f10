"""Experiments, the work they are cut into, and everything that came of it. Postgres holds the truth."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.functional import cached_property

from datasets_app.models import Dataset, Example
from evaluations import states
from lumigator.models import OwnedQuerySet, Team
from models_registry.models import Connection, ModelEntry
from models_registry.providers import Output

ALIVE_SECONDS = 30
"""A worker that was not heard of for so long is gone: it says so every few seconds."""

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


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


class Preference(models.Model):
    """One person's choice between two outputs whose makers were hidden."""

    class Choice(models.TextChoices):
        LEFT = "left", "Left"
        TIE = "tie", "No difference"
        RIGHT = "right", "Right"

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="preferences")
    rater = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    example = models.ForeignKey(Example, on_delete=models.CASCADE, related_name="+")
    left = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="+")
    right = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="+")
    choice = models.CharField(max_length=5, choices=Choice.choices)
    seconds = models.FloatField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["rater", "example", "left", "right"], name="one_vote_per_pair")]

    def __str__(self) -> str:
        return f"{self.rater} on example {self.example_id}: {self.choice}"


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
