"""The admin: who there is and what they did; and what every app's admin shares.

One door: /admin/ sends people to the sign-in page, so that its throttle covers the admin too (SECURITY S5, S35).
People, teams, keys and the audit log are for superusers. Nothing here shows a secret or its digest.
"""

from __future__ import annotations

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.contrib.auth.views import redirect_to_login
from django.core.paginator import Paginator
from django.db.models import Count
from django.urls import reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.functional import cached_property
from django.views.decorators.cache import never_cache

from lumigator.access import record
from lumigator.models import ApiToken, AuditEvent, IdempotencyKey, Membership, SignInLink, Team

admin.site.site_header = admin.site.site_title = "Lumigator"
admin.site.index_title = "Administration"
_own_login = admin.site.login


@method_decorator(never_cache)
def _one_door(self, request, extra_context=None):
    """Anonymous people sign in where everybody does; who is signed in but no staff is told so by Django's page."""
    if request.user.is_anonymous:
        return redirect_to_login(request.GET.get("next") or reverse("admin:index"))
    return _own_login(request, extra_context)


# `login_required = False` tells LoginRequiredMiddleware that this view sends anonymous people on by itself.
_one_door.login_required = False
admin.site.login = _one_door.__get__(admin.site)


# --- what every admin shares ----------------------------------------------------------------------------------------


class Capped(Paginator):
    """Counts at most 10,000 rows, so that the first page of a table of millions is as quick as that of a small one.
    What lies beyond is found by filters and search."""

    most = 10_000

    @cached_property
    def count(self):
        return self.object_list.order_by()[: self.most].count()


class Audited(admin.ModelAdmin):
    """Writes every change that is made here to the audit log."""

    list_per_page = 50
    show_full_result_count = False

    def log_addition(self, request, obj, message):
        record(request, f"admin.{self.opts.model_name}.add", obj)
        return super().log_addition(request, obj, message)

    def log_change(self, request, obj, message):
        record(request, f"admin.{self.opts.model_name}.change", obj)
        return super().log_change(request, obj, message)

    def log_deletions(self, request, queryset):
        for obj in queryset:
            record(request, f"admin.{self.opts.model_name}.delete", obj)
        return super().log_deletions(request, queryset)


class OfATeam(Audited):
    """Shows superusers everything and other staff what is their teams'; `team_path` leads from a row to its team."""

    team_path = "team"

    def get_queryset(self, request):
        rows = super().get_queryset(request)
        if request.user.is_superuser:
            return rows
        return rows.filter(**{f"{self.team_path}__in": Team.objects.filter(memberships__user=request.user)})


class ReadOnly(admin.ModelAdmin):
    """To look at, not to touch: what the engine and the audit wrote is evidence."""

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_delete_permission(self, request, obj=None):
        return False


class SuperusersOnly(admin.ModelAdmin):
    """Who may change people and keys could become anybody: superusers only, whatever permissions say."""

    def has_module_permission(self, request):
        return request.user.is_active and request.user.is_superuser

    def has_view_permission(self, request, obj=None):
        return self.has_module_permission(request)

    def has_add_permission(self, request):
        return self.has_module_permission(request)

    def has_change_permission(self, request, obj=None):
        return self.has_module_permission(request)

    def has_delete_permission(self, request, obj=None):
        return self.has_module_permission(request)


# --- people ---------------------------------------------------------------------------------------------------------


class MembershipInline(admin.TabularInline):
    model = Membership
    extra = 0
    raw_id_fields = ("user", "team")
    fields = ("team", "user", "role", "created_at")
    readonly_fields = ("created_at",)

    def get_queryset(self, request):
        return super().get_queryset(request).select_related("team", "user")


@admin.register(Team)
class TeamAdmin(SuperusersOnly, Audited):
    """A new team gets the shipped catalogue of models."""

    list_display = ("name", "slug", "members", "created_at")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    inlines = (MembershipInline,)

    def get_queryset(self, request):
        return super().get_queryset(request).annotate(n_members=Count("memberships"))

    @admin.display(description="members", ordering="n_members")
    def members(self, team):
        return team.n_members

    def has_delete_permission(self, request, obj=None):
        """Everything of a team would go with it, and in one click: empty it first."""
        is_empty = obj is not None and not (obj.datasets.exists() or obj.experiments.exists())
        return is_empty and super().has_delete_permission(request, obj)

    def save_model(self, request, obj, form, change):
        from models_registry import catalogue

        super().save_model(request, obj, form, change)
        if not change:
            catalogue.seed(obj)


@admin.register(Membership)
class MembershipAdmin(SuperusersOnly, Audited):
    list_display = ("user", "team", "role", "created_at")
    list_select_related = ("user", "team")
    list_filter = ("role", ("team", admin.RelatedOnlyFieldListFilter))
    search_fields = ("user__username", "team__name", "team__slug")
    raw_id_fields = ("user", "team")
    readonly_fields = ("created_at",)


# Importing Django's admin of people (above) registered it already.
admin.site.unregister(User)


@admin.register(User)
class PeopleAdmin(SuperusersOnly, Audited, UserAdmin):
    list_display = ("username", "email", "is_active", "is_staff", "is_superuser", "in_teams", "last_login")
    list_filter = ("is_active", "is_staff", "is_superuser", ("teams", admin.RelatedOnlyFieldListFilter))
    inlines = (MembershipInline,)

    def get_queryset(self, request):
        return super().get_queryset(request).prefetch_related("memberships__team")

    @admin.display(description="teams")
    def in_teams(self, user):
        return ", ".join(f"{each.team.name} ({each.role})" for each in user.memberships.all()) or "–"


# --- keys -----------------------------------------------------------------------------------------------------------


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnly, SuperusersOnly, Audited):
    """A token is made by its owner, who alone sees it, and once; here it can be revoked."""

    list_display = ("start", "name", "user", "team", "role", "validity", "expires_at", "last_used_at")
    list_select_related = ("user", "team")
    list_filter = ("role", ("revoked_at", admin.EmptyFieldListFilter), ("team", admin.RelatedOnlyFieldListFilter))
    search_fields = ("name", "start", "user__username")
    date_hierarchy = "created_at"
    fields = ("start", "name", "user", "team", "role", "created_at", "expires_at", "revoked_at", "last_used_at")
    actions = ("revoke",)

    def has_revoke_permission(self, request):
        return self.has_module_permission(request)

    @admin.display(description="valid", boolean=True)
    def validity(self, token):
        return token.is_valid(timezone.now())

    @admin.action(description="Revoke the chosen tokens", permissions=["revoke"])
    def revoke(self, request, queryset):
        tokens = list(queryset.filter(revoked_at=None))
        for token in tokens:
            record(request, "token.revoke", token)
        ApiToken.objects.filter(pk__in=[token.pk for token in tokens]).update(revoked_at=timezone.now())
        self.message_user(request, f"{len(tokens)} revoked.", messages.SUCCESS)


@admin.register(SignInLink)
class SignInLinkAdmin(ReadOnly, SuperusersOnly):
    list_display = ("id", "user", "expires_at", "used_at")
    list_select_related = ("user",)
    list_filter = (("used_at", admin.EmptyFieldListFilter),)
    search_fields = ("user__username",)
    fields = ("user", "expires_at", "used_at")
    show_full_result_count = False


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(ReadOnly, SuperusersOnly):
    """Neither the stored answer nor the fingerprint of the request: they are somebody's content."""

    list_display = ("route", "user", "status", "created_at")
    list_select_related = ("user",)
    search_fields = ("user__username", "=key")
    date_hierarchy = "created_at"
    fields = ("route", "user", "key", "status", "created_at")
    paginator = Capped
    ordering = ("-id",)
    show_full_result_count = False


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnly, SuperusersOnly):
    """Append-only, here as in the database."""

    list_display = ("at", "actor", "action", "object_type", "object_id", "team", "request_id")
    list_select_related = ("team",)
    list_filter = (("team", admin.RelatedOnlyFieldListFilter),)
    search_fields = ("=actor", "^action", "=object_id", "=request_id")
    search_help_text = "A whole actor, object id or request id, or how an action begins: dataset., experiment.start"
    date_hierarchy = "at"
    ordering = ("-id",)
    paginator = Capped
    show_full_result_count = False
