"""Datasets in the admin: facts to look at, links to what is large; texts are never listed."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html

from datasets_app.models import Dataset, Example, Import
from lumigator.admin import OfATeam


@admin.register(Dataset)
class DatasetAdmin(OfATeam):
    list_display = [
        "name",
        "team",
        "state",
        "origin",
        "n_examples",
        "n_with_reference",
        "privacy",
        "size",
        "created_at",
    ]
    list_filter = ["state", "origin", "privacy", ("team", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["team"]
    search_fields = ["name", "file_name", "=sha256"]
    search_help_text = "Name, name of the file, or the whole SHA-256"
    date_hierarchy = "created_at"
    ordering = ["-id"]
    list_per_page = 50
    show_full_result_count = False
    fieldsets = [
        (None, {"fields": ["name", "team", "privacy", "state", "problem"]}),
        ("Content", {"fields": ["n_examples", "n_with_reference", "columns", "pages"]}),
        ("Origin", {"fields": ["origin", "parent", "created_by", "created_at"]}),
        ("File", {"fields": ["file_name", "size", "sha256", "key", "progress"]}),
    ]
    readonly_fields = [
        "team", "state", "problem", "n_examples", "n_with_reference", "columns", "pages", "origin", "parent",
        "created_by", "created_at", "file_name", "size", "sha256", "key", "progress",
    ]  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dataset]:
        return super().get_queryset(request).defer("profile")

    @admin.display(description="size of the file", ordering="file_bytes")
    def size(self, dataset: Dataset) -> str:
        return filesizeformat(dataset.file_bytes) if dataset.file_bytes else "–"

    @admin.display(description="key in storage")
    def key(self, dataset: Dataset) -> str:
        return dataset.file.name or "–"  # without a link: downloads go through the dataset's page, and are audited

    @admin.display(description="import")
    def progress(self, dataset: Dataset) -> str:
        intake = Import.objects.filter(dataset=dataset).first()
        if intake is None:
            return "–"
        problems = f", {intake.n_problems:,} problems" if intake.n_problems else ""
        worker = f", by {intake.owner}" if intake.owner else ""
        return f"{intake.rows_done:,} rows, {filesizeformat(intake.bytes_read)} read{problems}{worker}"

    @admin.display(description="examples")
    def pages(self, dataset: Dataset) -> str:
        here = reverse("admin:datasets_example_changelist")
        there = reverse("dataset", args=[dataset.pk])
        return format_html(
            '<a href="{}?dataset__id__exact={}">rows</a> · <a href="{}">page</a>', here, dataset.pk, there
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # datasets come from files: the upload page reads and checks them

    def has_delete_permission(self, request: HttpRequest, obj: Dataset | None = None) -> bool:
        return False  # the dataset's own page removes its file too, and says why it cannot where it cannot


@admin.register(Example)
class ExampleAdmin(OfATeam):
    """One example at a time. The list shows places only: neither texts nor a filter over millions of rows."""

    team_path = "dataset__team"
    list_display = ["dataset_name", "index", "key", "group"]
    list_display_links = ["index"]
    list_select_related = ["dataset"]
    list_per_page = 50
    show_full_result_count = False
    ordering = ["dataset", "index"]
    search_fields = ["=key"]
    search_help_text = "The whole id"
    raw_id_fields = ["dataset"]
    readonly_fields = ["dataset", "index", "key", "source", "references", "group", "tags"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Example]:
        examples = super().get_queryset(request)
        is_list = (
            request.resolver_match is not None and request.resolver_match.url_name == "datasets_example_changelist"
        )
        return examples.defer("source", "references", "tags") if is_list else examples

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup == "dataset__id__exact"

    @admin.display(description="dataset")
    def dataset_name(self, example: Example) -> str:
        return example.dataset.name

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Example | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Example | None = None) -> bool:
        return False
