"""Who there is, and what they may do: teams, memberships, API tokens, the audit log."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db import models
from django.utils import timezone


class Role(models.TextChoices):
    """What a member may do. Each role may do everything that the ones before it may."""

    VIEWER = "viewer", "Viewer: reads"
    EDITOR = "editor", "Editor: adds data, models and experiments"
    ADMIN = "admin", "Admin: manages people, connections and settings"

    @property
    def rank(self) -> int:
        return list(Role).index(self)

    def covers(self, other: Role) -> bool:
        return self.rank >= other.rank


class Team(models.Model):
    """Everything in Lumigator belongs to one team; nobody outside it can tell that it exists."""

    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=60, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Membership", related_name="teams")

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "user"], name="one_membership_per_team")]

    def __str__(self) -> str:
        return f"{self.user} in {self.team} ({self.role})"


class OwnedQuerySet(models.QuerySet[Any]):
    """A queryset of things that belong to a team. Every page and endpoint starts from `for_user`."""

    def for_user(self, user: AbstractBaseUser | AnonymousUser) -> OwnedQuerySet:
        """What `user` may see: the things of the team they act for in this request (of all their teams where no
        request is at hand, on the command line); nothing for the anonymous or for people without a team."""
        if not user.is_authenticated or not user.is_active:
            return self.none()
        mine = self.filter(team__memberships__user=user)
        return mine.filter(team=user.acting_team) if hasattr(user, "acting_team") else mine


def digest(secret: str) -> str:
    """The stored form of a secret of 256 random bits: SHA-256, in hex. (No salt or stretching is needed: it cannot
    be guessed, unlike a password.)"""
    return sha256(secret.encode()).hexdigest()


class ApiToken(models.Model):
    """A key for scripts: shown once, stored as a digest, never more powerful than its owner."""

    PREFIX = "lumi_"

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="tokens")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=120)
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.EDITOR)
    start = models.CharField(max_length=12, help_text="The first characters, to tell tokens apart.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.start}… ({self.name})"

    @classmethod
    def issue(
        cls, *, user: User, team: Team, name: str, role: Role = Role.EDITOR, days: int | None = 90
    ) -> tuple[ApiToken, str]:
        """(the stored token, its secret). The secret exists only in this return value."""
        secret = cls.PREFIX + secrets.token_urlsafe(32)
        expires = timezone.now() + timedelta(days=days) if days else None
        token = cls.objects.create(
            user=user, team=team, name=name, role=role, start=secret[:12], digest=digest(secret), expires_at=expires
        )
        return token, secret

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class SignInLink(models.Model):
    """A link that signs one person in, once, within minutes: how the demo opens the browser without a password."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"sign-in link for {self.user}"

    @classmethod
    def issue(cls, user: User, *, minutes: int = 60) -> str:
        secret = secrets.token_urlsafe(32)
        cls.objects.create(user=user, digest=digest(secret), expires_at=timezone.now() + timedelta(minutes=minutes))
        return secret

    @classmethod
    def redeem(cls, secret: str) -> User | None:
        """The person of an unused, unexpired link, which is used up by this call; None for any other text."""
        now = timezone.now()
        links = cls.objects.filter(digest=digest(secret), used_at=None, expires_at__gt=now, user__is_active=True)
        if not links.update(used_at=now):
            return None
        return cls.objects.select_related("user").get(digest=digest(secret)).user


class IdempotencyKey(models.Model):
    """The answer to a POST that was sent with an `Idempotency-Key`, so that sending it again does nothing twice."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    route = models.CharField(max_length=200)
    key = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True)
    body = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "route", "key"], name="one_answer_per_key")]

    def __str__(self) -> str:
        return f"{self.route} {self.key}"


class AuditEvent(models.Model):
    """Who did what to which object, and when. A trigger refuses UPDATE and DELETE; it holds no content."""

    team = models.ForeignKey(Team, on_delete=models.DO_NOTHING, null=True, db_constraint=False, related_name="+")
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=60)
    object_type = models.CharField(max_length=60, blank=True)
    object_id = models.CharField(max_length=60, blank=True)
    detail = models.JSONField(default=dict)
    request_id = models.CharField(max_length=64, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["team", "-id"])]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.object_type} {self.object_id}"
