"""Experiments in the admin: their states to look at and to change; what the engine wrote only to look at.

Outcomes and scores come in millions: lists show facts and never texts, count at most 10,000, have no filter that
would read the whole table, and are narrowed from the page of an experiment or a candidate.
"""

from __future__ import annotations

from django.contrib import admin, messages
from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from evaluations import metrics, states, steering
from evaluations.models import (
    ALIVE_SECONDS,
    Aggregate,
    Call,
    Candidate,
    Completion,
    Contrast,
    Draft,
    Experiment,
    Generation,
    GroundTruth,
    Preference,
    Publication,
    Score,
    SelfCheck,
    Signature,
    Worker,
    WorkUnit,
)
from evaluations.templatetags.words import state as state_mark
from evaluations.templatetags.words import usd
from evaluations.templatetags.words import verdict as verdict_mark
from lumigator.access import record
from lumigator.admin import Capped, OfATeam, ReadOnly
from lumigator.doorbell import QUEUES

STATUS = {"ok": "good", "error": "bad", "refused": "warn", "empty": "warn"}
CALL = {"reserved": "busy", "settled": "good", "unknown": "warn"}


def number(value, digits=4):
    return "–" if value is None else f"{value:.{digits}f}"


def rows_link(model, words, **filters):
    """A link to the list of `model`, narrowed."""
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return format_html('<a href="{}?{}">{}</a>', reverse(f"admin:evaluations_{model}_changelist"), query, words)


def links(**models):
    """Links to several lists, each narrowed by the filters given for it."""
    made = ((rows_link(model, model.capitalize(), **filters),) for model, filters in models.items())
    return format_html_join(" · ", "{}", made)


class Written(ReadOnly, OfATeam):
    """What the engine wrote."""

    paginator = Capped
    ordering = ("-pk",)
    show_facets = admin.ShowFacets.NEVER
    team_path = "candidate__experiment__team"

    def lookup_allowed(self, lookup, value, request=None):
        narrowing = ("candidate__id__exact", "experiment__id__exact", "candidate__experiment__id__exact")
        return lookup in narrowing or super().lookup_allowed(lookup, value, request)


class OneOf(admin.SimpleListFilter):
    """A filter whose choices are known without asking the table."""

    def queryset(self, request, queryset):
        return queryset.filter(**{self.parameter_name: self.value()}) if self.value() is not None else queryset


class QueueFilter(OneOf):
    title = parameter_name = "queue"

    def lookups(self, request, model_admin):
        return [(name, name) for name in QUEUES]


class PartFilter(OneOf):
    title = parameter_name = "part"

    def lookups(self, request, model_admin):
        return [(name, name) for name in metrics.part_owner()]


class PauseFilter(OneOf):
    title = "why it is paused"
    parameter_name = "pause_reason"

    def lookups(self, request, model_admin):
        return [(name, name.replace("_", " ")) for name in ("operator", "budget", "provider_down", "auth", "storage")]


class ScoreState(OneOf):
    title = parameter_name = "state"

    def lookups(self, request, model_admin):
        return [
            ("", "value"),
            *((name, name.replace("_", " ")) for name in ("failed", "not_applicable", "not_computed")),
        ]


# --- experiments and candidates -------------------------------------------------------------------------------------


class CandidateInline(admin.TabularInline):
    model = Candidate
    extra = 0
    can_delete = False
    show_change_link = True
    fields = readonly_fields = ("label", "uri", "provider", "is_baseline", "problem")

    @admin.display(description="model")
    def uri(self, candidate):
        return candidate.spec.get("uri", "")

    def has_add_permission(self, request, obj=None):
        return False

    def has_change_permission(self, request, obj=None):
        return False


@admin.register(Experiment)
class ExperimentAdmin(OfATeam):
    """Its name can be changed and its state moved; everything else was frozen when it was asked for."""

    list_display = ("name", "mark", "team", "dataset", "n_examples", "spent", "created_by", "created_at", "finished_at")
    list_select_related = ("team", "dataset", "created_by")
    list_filter = ("state", "purpose", ("team", admin.RelatedOnlyFieldListFilter), PauseFilter)
    search_fields = ("name", "dataset__name", "=request_id")
    date_hierarchy = "created_at"
    ordering = ("-id",)
    actions = ("pause", "resume", "cancel")
    inlines = (CandidateInline,)
    fieldsets = (
        (None, {"fields": ("name", "mark", "pause_reason", "problem", "pages")}),
        ("What was asked", {"fields": ("team", "dataset", "task", "prompt", "metrics", "primary_metric", "margin")}),
        ("Sample and gates", {"fields": ("sample_n", "seed", "n_examples", "gates")}),
        ("Money", {"fields": ("budget", "reserved", "spent")}),
        ("Record", {"fields": ("round", "request_id", "created_by", "created_at", "started_at", "finished_at")}),
    )

    def get_queryset(self, request):
        return super().get_queryset(request).defer("statistics", "dataset__profile", "dataset__columns")

    def get_readonly_fields(self, request, obj=None):
        return [name for _, block in self.fieldsets for name in block["fields"] if name != "name"]

    def has_add_permission(self, request):
        return False  # the page and the API check what is asked, and freeze it

    def has_delete_permission(self, request, obj=None):
        return False  # millions of outcomes may go with it: DELETE in the API does that without loading them

    @admin.display(description="state", ordering="state")
    def mark(self, experiment):
        return state_mark(experiment.look)

    @admin.display(description="spent", ordering="spent_micro")
    def spent(self, experiment):
        return usd(experiment.spent_micro)

    @admin.display(description="reserved")
    def reserved(self, experiment):
        return usd(experiment.reserved_micro)

    @admin.display(description="budget")
    def budget(self, experiment):
        return "none" if experiment.budget_micro is None else usd(experiment.budget_micro)

    @admin.display(description="see also")
    def pages(self, experiment):
        mine = {"experiment__id__exact": experiment.pk}
        theirs = {"candidate__experiment__id__exact": experiment.pk}
        lists = links(workunit=mine, call=mine, generation=theirs, aggregate=theirs, contrast=mine)
        return format_html('<a href="{}">Its page</a> · {}', reverse("experiment", args=[experiment.pk]), lists)

    @admin.action(description="Pause", permissions=["change"])
    def pause(self, request, queryset):
        self._move(request, queryset, "pause", steering.pause)

    @admin.action(description="Resume", permissions=["change"])
    def resume(self, request, queryset):
        self._move(request, queryset, "resume", steering.resume)

    @admin.action(description="Cancel: what is finished stays", permissions=["change"])
    def cancel(self, request, queryset):
        self._move(request, queryset, "cancel", steering.cancel)

    def _move(self, request, queryset, verb, change):
        """One transaction each: one experiment that cannot move does not hold up the others."""
        moved, stuck = 0, []
        for experiment in queryset.order_by("id"):
            before = experiment.look.label.lower()
            with transaction.atomic():
                done = change(experiment)
                if done:
                    record(request, f"experiment.{verb}", experiment)
            moved += done
            if not done:
                stuck.append(f"{experiment.name} is {before}")
        if moved:
            self.message_user(request, f"{verb.capitalize()}: {moved} done.", messages.SUCCESS)
        if stuck:
            self.message_user(request, f"Could not {verb}: {'; '.join(stuck)}.", messages.WARNING)


@admin.register(Candidate)
class CandidateAdmin(Written):
    list_display = ("label", "experiment", "uri", "provider", "queue", "is_baseline", "problem_code", "created_at")
    list_select_related = ("experiment",)
    list_filter = ("is_baseline", QueueFilter)
    search_fields = ("label", "=experiment__name")
    team_path = "experiment__team"
    fields = (
        "experiment", "label", "position", "model", "connection", "provider", "queue", "is_baseline",
        "uses_references", "asked", "problem", "problem_code", "summary", "rows", "created_at",
    )  # fmt: skip
    readonly_fields = ("asked", "rows")

    @admin.display(description="model")
    def uri(self, candidate):
        return candidate.spec.get("uri", "")

    @admin.display(description="spec")
    def asked(self, candidate):
        """The frozen spec without its free-form options, which may hold what somebody typed there."""
        return {name: value for name, value in candidate.spec.items() if name != "options"}

    @admin.display(description="see also")
    def rows(self, candidate):
        mine = {"candidate__id__exact": candidate.pk}
        return links(generation=mine, score=mine, aggregate=mine, call=mine, workunit=mine)


# --- work -----------------------------------------------------------------------------------------------------------


@admin.register(WorkUnit)
class WorkUnitAdmin(Written):
    list_display = (
        "id", "kind", "mark", "experiment", "candidate", "metric", "queue", "attempts", "crash_count", "owner",
        "lease_until", "done_at",
    )  # fmt: skip
    list_select_related = ("experiment", "candidate")
    list_filter = ("state", "kind", QueueFilter)
    search_fields = ("=owner", "=experiment__name")
    search_help_text = "A whole worker or experiment name"
    team_path = "experiment__team"

    def get_queryset(self, request):
        rows = super().get_queryset(request)
        match = request.resolver_match
        is_list = match is not None and match.url_name == "evaluations_workunit_changelist"
        return (
            rows.defer("indexes", "inflight", "problem", "experiment__statistics", "candidate__spec")
            if is_list
            else rows
        )

    @admin.display(description="state", ordering="state")
    def mark(self, unit):
        return state_mark(states.UNIT[unit.state])


@admin.register(Call)
class CallAdmin(Written):
    list_display = (
        "id",
        "candidate",
        "mark",
        "outcome",
        "cost",
        "reserved",
        "input_tokens",
        "output_tokens",
        "started_at",
    )
    list_select_related = ("candidate",)
    list_filter = ("state",)
    search_fields = ("=candidate__label",)
    search_help_text = "A whole label of a candidate"
    ordering = ("-started_at",)
    team_path = "experiment__team"
    fields = (
        "id", "experiment", "candidate", "document", "state", "outcome", "reserved", "cost", "input_tokens",
        "cached_tokens", "output_tokens", "latency_ms", "unit_id", "epoch", "started_at", "ended_at",
    )  # fmt: skip
    readonly_fields = ("document", "reserved", "cost")

    @admin.display(description="state", ordering="state")
    def mark(self, call):
        return state_mark({"tone": CALL[call.state], "label": call.get_state_display()})

    @admin.display(description="cost", ordering="cost_micro")
    def cost(self, call):
        return usd(call.cost_micro)

    @admin.display(description="reserved")
    def reserved(self, call):
        return usd(call.reserved_micro)

    @admin.display(description="document")
    def document(self, call):
        return call.example_id


# --- outcomes -------------------------------------------------------------------------------------------------------


@admin.register(Generation)
class GenerationAdmin(Written):
    list_display = (
        "id", "candidate", "document", "mark", "error_code", "finish_reason", "input_tokens", "output_tokens",
        "latency_ms", "cost", "reused",
    )  # fmt: skip
    list_filter = ("status", "reused")
    search_fields = ("=candidate__label",)
    search_help_text = "A whole label of a candidate"
    fields = (
        "candidate", "document", "status", "text", "reasoning", "error_code", "error", "finish_reason", "input_tokens",
        "input_tokens_read", "cached_tokens", "output_tokens", "latency_ms", "cost", "reused", "unit_id", "epoch",
        "created_at",
    )  # fmt: skip
    readonly_fields = ("document", "cost")

    def get_queryset(self, request):
        rows = (
            super()
            .get_queryset(request)
            .select_related("candidate", "example")
            .defer("example__source", "candidate__spec")
        )
        match = request.resolver_match
        is_list = match is not None and match.url_name == "evaluations_generation_changelist"
        bulk = ("text", "reasoning", "error", "example__references", "example__tags", "candidate__summary")
        return rows.defer(*bulk, "example__source", "candidate__spec") if is_list else rows

    @admin.display(description="document")
    def document(self, generation):
        return generation.example.label

    @admin.display(description="status", ordering="status")
    def mark(self, generation):
        return state_mark({"tone": STATUS[generation.status], "label": generation.get_status_display()})

    @admin.display(description="cost")
    def cost(self, generation):
        return "–" if generation.cost_micro is None else usd(generation.cost_micro)


@admin.register(Score)
class ScoreAdmin(Written):
    list_display = ("id", "candidate", "document", "part", "shown", "state", "reason", "signature_id")
    list_filter = (PartFilter, ScoreState)
    search_fields = ("=candidate__label",)
    search_help_text = "A whole label of a candidate"
    fields = ("candidate", "document", "part", "value", "state", "reason", "signature")
    readonly_fields = ("document",)

    def get_queryset(self, request):
        rows = super().get_queryset(request).select_related("candidate", "example")
        return rows.defer("example__source", "example__references", "example__tags", "candidate__spec")

    @admin.display(description="document")
    def document(self, score):
        return score.example.label

    @admin.display(description="value", ordering="value")
    def shown(self, score):
        return number(score.value)


# --- results --------------------------------------------------------------------------------------------------------


@admin.register(Signature)
class SignatureAdmin(ReadOnly):
    list_display = ("digest", "metric")
    search_fields = ("=digest", "metric")
    show_full_result_count = False


@admin.register(Aggregate)
class AggregateAdmin(Written):
    list_display = ("candidate", "part", "average", "interval", "n", "n_groups", "signature_id", "computed_at")
    list_display_links = ("candidate", "part")
    list_select_related = ("candidate",)
    list_filter = (PartFilter,)
    search_fields = ("=candidate__label",)

    @admin.display(description="mean", ordering="mean")
    def average(self, aggregate):
        return number(aggregate.mean)

    @admin.display(description="95 % interval")
    def interval(self, aggregate):
        return "–" if aggregate.low is None else f"{number(aggregate.low)} to {number(aggregate.high)}"


@admin.register(Contrast)
class ContrastAdmin(Written):
    list_display = ("experiment", "part", "b", "a", "gap", "mark", "p_after_holm", "counts", "family")
    list_display_links = ("experiment", "part")
    list_select_related = ("experiment", "a", "b")
    list_filter = (PartFilter,)
    search_fields = ("=experiment__name", "=a__label", "=b__label")
    team_path = "experiment__team"

    @admin.display(description="difference", ordering="difference")
    def gap(self, contrast):
        return "–" if contrast.difference is None else f"{contrast.difference:+.4f}"

    @admin.display(description="verdict on b", ordering="verdict")
    def mark(self, contrast):
        return verdict_mark(contrast.verdict)

    @admin.display(description="p (Holm)", ordering="p_holm")
    def p_after_holm(self, contrast):
        return number(contrast.p_holm)

    @admin.display(description="win / tie / loss")
    def counts(self, contrast):
        return f"{contrast.win} / {contrast.tie} / {contrast.loss}"


@admin.register(Preference)
class PreferenceAdmin(Written):
    list_display = ("experiment", "rater", "example_id", "left", "choice", "right", "seconds", "created_at")
    list_select_related = ("experiment", "rater", "left", "right")
    list_filter = ("choice",)
    search_fields = ("=rater__username", "=experiment__name")
    team_path = "experiment__team"


@admin.register(SelfCheck)
class SelfCheckAdmin(ReadOnly):
    list_display = ("id", "asked_by", "asked_at", "host", "done_at", "outcome")
    list_select_related = ("asked_by",)
    show_full_result_count = False

    @admin.display(description="outcome")
    def outcome(self, check):
        if check.done_at is None:
            return state_mark({"tone": "busy", "label": "Waiting"})
        met = check.report["passed"]
        return state_mark({"tone": "good", "label": "Met"} if met else {"tone": "bad", "label": "Differs"})


@admin.register(Completion)
class CompletionAdmin(Written):
    list_display = ("id", "label", "created_by", "look", "latency_ms", "cost_micro", "asked_at", "done_at")
    list_select_related = ("created_by",)
    list_filter = ("state", "queue")
    search_fields = ("=label", "=created_by__username")
    team_path = "team"

    @admin.display(description="state")
    def look(self, completion):
        tones = {"asked": "calm", "running": "busy", "done": "good", "failed": "bad"}
        return state_mark({"tone": tones[completion.state], "label": completion.get_state_display()})


@admin.register(Worker)
class WorkerAdmin(ReadOnly):
    list_display = ("name", "life", "queues", "version", "started_at", "seen_at", "stopped_at")
    list_filter = (("stopped_at", admin.EmptyFieldListFilter),)
    search_fields = ("name",)
    ordering = ("-seen_at",)
    show_full_result_count = False

    @admin.display(description="state")
    def life(self, worker):
        if worker.stopped_at:
            return state_mark({"tone": "calm", "label": "Stopped"})
        silent = (timezone.now() - worker.seen_at).total_seconds() > ALIVE_SECONDS
        return state_mark({"tone": "warn", "label": "Silent"} if silent else {"tone": "good", "label": "Alive"})


# --- ground truth ---------------------------------------------------------------------------------------------------


@admin.register(GroundTruth)
class GroundTruthAdmin(ReadOnly, OfATeam):
    """References that a model drafts: its page has the review, and what changes it."""

    list_display = ("id", "name", "mark", "team", "dataset", "created_by")
    list_display_links = ("id", "name")
    list_select_related = ("team", "experiment__dataset", "experiment__created_by")
    list_filter = (("team", admin.RelatedOnlyFieldListFilter),)
    search_fields = ("experiment__name", "experiment__dataset__name")
    fields = ("name", "mark", "team", "dataset", "created_by", "pages")
    ordering = ("-id",)
    show_full_result_count = False

    def get_queryset(self, request):
        rows = super().get_queryset(request).select_related("experiment__dataset", "experiment__created_by")
        return rows.defer("experiment__statistics", "experiment__dataset__profile", "experiment__dataset__columns")

    @admin.display(description="name", ordering="experiment__name")
    def name(self, ground_truth):
        return ground_truth.experiment.name

    @admin.display(description="drafting", ordering="experiment__state")
    def mark(self, ground_truth):
        return state_mark(ground_truth.experiment.look)

    @admin.display(description="dataset")
    def dataset(self, ground_truth):
        return ground_truth.experiment.dataset

    @admin.display(description="asked by")
    def created_by(self, ground_truth):
        return ground_truth.experiment.created_by or "–"

    @admin.display(description="see also")
    def pages(self, ground_truth):
        lists = links(draft={"ground_truth__id__exact": ground_truth.pk})
        return format_html('<a href="{}">Its page</a> · {}', reverse("ground-truth", args=[ground_truth.pk]), lists)


@admin.register(Draft)
class DraftAdmin(Written):
    """What was decided, by whom; the texts are on the page of the review."""

    list_display = ("id", "ground_truth_id", "index", "reading", "decision", "is_written", "in_bulk", "reviewer")
    list_select_related = ("reviewer",)
    list_filter = ("decision", "reading", "in_bulk")
    search_fields = ("=reviewer__username",)
    search_help_text = "A whole user name of a reviewer"
    fields = (
        "ground_truth", "index", "reading", "decision", "is_written", "in_bulk", "assigned_to", "reviewer",
        "decided_at", "version",
    )  # fmt: skip
    team_path = "ground_truth__team"

    def get_queryset(self, request):
        return super().get_queryset(request).defer("text")

    def lookup_allowed(self, lookup, value, request=None):
        return lookup == "ground_truth__id__exact" or super().lookup_allowed(lookup, value, request)


@admin.register(Publication)
class PublicationAdmin(ReadOnly, OfATeam):
    list_display = ("dataset", "ground_truth_id", "rows", "created_by", "created_at")
    list_select_related = ("dataset", "created_by")
    search_fields = ("dataset__name",)
    fields = ("dataset", "ground_truth", "rows", "counts", "created_by", "created_at")
    team_path = "ground_truth__team"
    show_full_result_count = False
