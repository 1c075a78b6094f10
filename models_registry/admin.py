"""The registry in the admin: models, connections (their keys write-only), and the folders local models lie below."""

from __future__ import annotations

from django import forms
from django.contrib import admin, messages
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.views.decorators.debug import sensitive_post_parameters

from lumigator.access import record
from lumigator.admin import Audited
from lumigator.models import Membership, Role, Team
from models_registry import adding, choosing, connecting, curating, trying
from models_registry.forms import Parameters
from models_registry.models import Connection, ModelEntry, ModelRoot

# Offers the teams of the rows that are shown: the names of all would tell staff of one team who else is here.
OWN_TEAMS = ("team", admin.RelatedOnlyFieldListFilter)


class OfATeam(Audited):
    """Shows staff the things of their own teams, superusers everything, and writes every change to the audit log."""

    def get_queryset(self, request):
        rows = super().get_queryset(request).select_related("team")
        if request.user.is_superuser:
            return rows
        return rows.filter(team__in=Team.objects.filter(memberships__user=request.user))

    def formfield_for_foreignkey(self, db_field, request, **kwargs):
        if db_field.name == "team" and not request.user.is_superuser:
            kwargs["queryset"] = Team.objects.filter(memberships__user=request.user)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class EntryForm(forms.ModelForm):
    class Meta:
        model = ModelEntry
        fields = (
            *("team", "slug", "name", "uri", "architecture", "privacy", "is_baseline"),
            *adding.CHANGEABLE,
        )
        widgets = {"about": forms.Textarea(attrs={"rows": 2, "cols": 90})}
        field_classes = {"generation": Parameters, "options": Parameters}

    def clean(self):
        data = super().clean()
        for name in ("generation", "options"):
            if name in data:
                data[name] = data[name] or {}  # an emptied field is None, which the column does not take
        if not self.errors:
            for name, sentences in adding.problems_of(ModelEntry(**data), any_option=True).items():
                self.add_error(name if name in self.fields else None, sentences)
        return data


class Scheme(admin.SimpleListFilter):
    title = "scheme"
    parameter_name = "scheme"

    def lookups(self, request, model_admin):
        uris = model_admin.get_queryset(request).values_list("uri", flat=True)
        return [(scheme, f"{scheme}://") for scheme in sorted({uri.partition("://")[0] for uri in uris})]

    def queryset(self, request, queryset):
        return queryset.filter(uri__startswith=f"{self.value()}://") if self.value() else queryset


@admin.register(ModelEntry)
class ModelEntryAdmin(OfATeam):
    form = EntryForm
    list_display = ("slug", "about", "architecture", "privacy", "price", "window", "licence", "state", "team")
    list_display_links = ("slug",)
    list_filter = ("state", "privacy", "architecture", "is_baseline", "from_catalogue", Scheme, OWN_TEAMS)
    search_fields = ("slug", "name", "uri", "about")
    list_per_page = 50
    actions = ("enable", "retire", "back_to_draft", "ask_for_a_check")
    readonly_fields = ("state", "can_run", "history", "latest_check", "from_catalogue", "created_at")
    fieldsets = (
        (None, {"fields": ("team", "slug", "name", "uri", "revision", "about", "state", "can_run")}),
        ("What it is", {"fields": ("architecture", "privacy", "tasks", "is_baseline", "licence", "website")}),
        ("How it generates", {"fields": ("generation", "options", "window")}),
        ("Size", {"fields": ("parameters", "size_bytes")}),
        (
            "Price",
            {
                "fields": ("price_in", "price_out", "price_cached", "price_source", "price_date"),
                "description": "US dollars per million tokens. Empty means unpriced, which is not the same as free.",
            },
        ),
        (
            "Record",
            {"fields": ("history", "latest_check", "from_catalogue", "created_at"), "classes": ("collapse",)},
        ),
    )

    def _move(self, request, queryset, to):
        moved, refused = curating.move_all(queryset, to, actor=request.user.get_username())
        for entry in moved:
            record(request, "admin.modelentry.change", entry, state=to)
        self.message_user(request, f"{len(moved)} {curating.STATES[to].label.lower()}.", messages.SUCCESS)
        for sentence in refused:
            self.message_user(request, f"{sentence}.", messages.WARNING)

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request, queryset):
        self._move(request, queryset, "enabled")

    @admin.action(description="Retire", permissions=["change"])
    def retire(self, request, queryset):
        self._move(request, queryset, "retired")

    @admin.action(description="Make a draft again", permissions=["change"])
    def back_to_draft(self, request, queryset):
        self._move(request, queryset, "draft")

    @admin.action(description="Have a worker check it", permissions=["change"])
    def ask_for_a_check(self, request, queryset):
        for entry in queryset.select_related("team"):
            check = trying.ask(entry, by=request.user.get_username())
            record(request, "model.check", entry, check=check.pk, state=check.state)
            self.message_user(request, f"{entry.slug}: {check.label}.", messages.INFO)

    @admin.display(description="$ / M tokens", ordering="price_in")
    def price(self, entry):
        if entry.is_free:
            return "free"
        return "unpriced" if entry.price_in is None else f"{entry.price_in:g} in, {entry.price_out or 0:g} out"

    @admin.display(description="Can it run here?")
    def can_run(self, entry):
        if not entry.pk:
            return "–"
        found = choosing.readiness(entry)
        return f"{found.label}: {found.words}" if found.words else found.label

    @admin.display(description="History")
    def history(self, entry):
        steps = entry.changes.all()[:20] if entry.pk else ()
        rows = ((f"{step.at:%Y-%m-%d %H:%M}", str(step), step.note) for step in steps)
        return format_html_join("", "<div>{} {} {}</div>", rows) or "nobody has moved it"

    @admin.display(description="Latest check")
    def latest_check(self, entry):
        check = entry.checks.first() if entry.pk else None
        if check is None:
            return "never checked"
        return format_html(
            "{}: {}", check.label, "; ".join(check.report.get("problems") or check.report.get("notes") or ())
        )

    def has_delete_permission(self, request, obj=None):
        """What ships is retired, not deleted: the next upgrade would bring it back."""
        if obj is not None and obj.from_catalogue:
            return False
        return super().has_delete_permission(request, obj)

    def get_deleted_objects(self, objs, request):
        deleted, count, perms, protected = super().get_deleted_objects(objs, request)
        shipped = [f"{obj.slug} ships with Lumigator: retire it instead" for obj in objs if obj.from_catalogue]
        return deleted, count, perms, [*protected, *shipped]


class ConnectionForm(forms.ModelForm):
    key = forms.CharField(
        required=False,
        max_length=connecting.LONGEST_KEY,
        label="API key",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Write-only. Empty: keep the stored key. Another scheme, host or port clears it.",
    )
    forget_key = forms.BooleanField(required=False, label="Forget the stored key")
    provider = forms.ChoiceField(choices=lambda: list(connecting.services().items()))
    base_url = forms.CharField(
        required=False,
        max_length=300,
        label="Base URL",
        widget=forms.TextInput(attrs={"size": 60}),
        help_text="Empty: the provider's own address. An endpoint's looks like http://10.1.0.5:8000/v1.",
    )

    class Meta:
        model = Connection
        fields = (
            "team",
            "provider",
            "name",
            "base_url",
            "concurrency",
            "requests_per_minute",
            "tokens_per_minute",
            "connect_timeout",
            "read_timeout",
            "enabled",
        )

    def _get_validation_exclusions(self):
        """Not the model's check of the URL: it knows no host names without a dot, which Compose and clusters use.
        `connecting.address_problem` judges it instead."""
        return {*super()._get_validation_exclusions(), "base_url"}

    def clean_key(self):
        if wrong := connecting.key_problem(self.cleaned_data["key"]):
            raise forms.ValidationError(wrong)
        return self.cleaned_data["key"]

    def clean(self):
        data = super().clean()
        provider = data.get("provider") or self.instance.provider
        if wrong := connecting.address_problem(provider, data.get("base_url", "")):
            self.add_error("base_url", wrong)
        return data


@admin.register(Connection)
class ConnectionAdmin(OfATeam):
    form = ConnectionForm
    list_display = ("__str__", "base_url", "stored_key", "concurrency", "enabled", "team")
    list_filter = ("provider", "enabled", OWN_TEAMS)
    search_fields = ("name", "provider", "base_url")
    actions = ("enable", "disable")
    readonly_fields = ("stored_key", "created_at")
    fieldsets = (
        (None, {"fields": ("team", "provider", "name", "base_url", "enabled")}),
        ("Key", {"fields": ("stored_key", "key", "forget_key")}),
        (
            "Limits",
            {
                "fields": (
                    "concurrency",
                    "requests_per_minute",
                    "tokens_per_minute",
                    "connect_timeout",
                    "read_timeout",
                )
            },
        ),
        ("Record", {"fields": ("created_at",), "classes": ("collapse",)}),
    )

    def _switch(self, request, queryset, enabled):
        changed = queryset.exclude(enabled=enabled)
        for obj in changed:
            record(request, "admin.connection.change", obj, enabled=enabled)
        count = changed.update(enabled=enabled)
        self.message_user(request, f"{count} {'enabled' if enabled else 'disabled'}.", messages.SUCCESS)

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request, queryset):
        self._switch(request, queryset, True)

    @admin.action(description="Disable", permissions=["change"])
    def disable(self, request, queryset):
        self._switch(request, queryset, False)

    @admin.display(description="Stored key")
    def stored_key(self, connection):
        if not connection.pk or not connection.has_key:
            return "none"
        return f"ends in {connection.key_hint}" if connection.key_hint else "stored"

    def get_readonly_fields(self, request, obj=None):
        """A key belongs to its provider and team as much as to its address."""
        return (*self.readonly_fields, "team", "provider") if obj else self.readonly_fields

    def save_model(self, request, obj, form, change):
        key = form.cleaned_data["key"] or ("" if form.cleaned_data.get("forget_key") else None)
        if connecting.store(obj, key):
            self.message_user(request, connecting.KEY_CLEARED, messages.WARNING)

    def _administers(self, request, obj=None):
        if request.user.is_superuser:
            return True
        mine = Membership.objects.filter(user=request.user, role=Role.ADMIN)
        return (mine.filter(team=obj.team_id) if obj else mine).exists()

    def formfield_for_foreignkey(self, db_field, request, **kwargs):
        if db_field.name == "team" and not request.user.is_superuser:
            mine = Membership.objects.filter(user=request.user, role=Role.ADMIN)
            kwargs["queryset"] = Team.objects.filter(memberships__in=mine)
            return admin.ModelAdmin.formfield_for_foreignkey(self, db_field, request, **kwargs)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_add_permission(self, request):
        return super().has_add_permission(request) and self._administers(request)

    def has_change_permission(self, request, obj=None):
        return super().has_change_permission(request, obj) and self._administers(request, obj)

    def has_delete_permission(self, request, obj=None):
        return super().has_delete_permission(request, obj) and self._administers(request, obj)

    @method_decorator(sensitive_post_parameters("key"))
    def changeform_view(self, request, *args, **kwargs):
        return super().changeform_view(request, *args, **kwargs)


@admin.register(ModelRoot)
class ModelRootAdmin(Audited):
    """Superusers only: a root opens a folder of this machine to every team (SECURITY S24)."""

    list_display = ("name", "path", "created_at")
    search_fields = ("name", "path")

    def has_module_permission(self, request):
        return request.user.is_superuser

    def has_view_permission(self, request, obj=None):
        return request.user.is_superuser

    def has_add_permission(self, request):
        return request.user.is_superuser

    def has_change_permission(self, request, obj=None):
        return request.user.is_superuser

    def has_delete_permission(self, request, obj=None):
        return request.user.is_superuser
