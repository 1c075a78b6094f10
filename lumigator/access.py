"""Who may see and do what: roles per team, default-deny for pages and API alike (SECURITY S1, S3, S8)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from lumigator.models import ApiToken, AuditEvent, Membership, Role, Team, digest

if TYPE_CHECKING:
    from rest_framework.views import APIView


def membership(request: HttpRequest | Request) -> Membership | None:
    """The membership that this request acts under: the token's team, else the team chosen in the session, else the
    user's first. None for people without a team. Kept on the user, who is made anew for every request."""
    user: Any = request.user
    if not user.is_authenticated:
        return None
    if not hasattr(user, "acting_membership"):
        user.acting_membership = _find_membership(request)
        # Querysets scope themselves by this: a role counts only in the team it was given in (SECURITY S3).
        user.acting_team = user.acting_membership.team_id if user.acting_membership else None
    return cast("Membership | None", user.acting_membership)


def _find_membership(request: HttpRequest | Request) -> Membership | None:
    user: Any = request.user
    user.memberships_now = list(Membership.objects.filter(user=user).select_related("team").order_by("id"))
    token = getattr(request, "auth", None)
    if isinstance(token, ApiToken):
        return next((each for each in user.memberships_now if each.team_id == token.team_id), None)
    session = getattr(request, "session", None)
    chosen = session.get("team") if session is not None else None
    mine: list[Membership] = user.memberships_now
    return next((each for each in mine if each.team_id == chosen), mine[0] if mine else None)


def teams_of(request: HttpRequest | Request) -> list[Team]:
    """Every team that the user is a member of, in the order they joined."""
    membership(request)
    return [each.team for each in getattr(request.user, "memberships_now", [])]


def team_of(request: HttpRequest | Request) -> Team:
    """The team this request acts for. Raises PermissionDenied for people without one."""
    if (found := membership(request)) is None:
        raise PermissionDenied("You are signed in but belong to no team. Ask an administrator to add you to one.")
    return found.team


def role_of(request: HttpRequest | Request) -> Role | None:
    """The role this request acts with: the member's, lowered to the token's where it came with one."""
    if (found := membership(request)) is None:
        return None
    role = Role(found.role)
    token = getattr(request, "auth", None)
    if isinstance(token, ApiToken) and role.covers(Role(token.role)):
        return Role(token.role)
    return role


def require(role: Role) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """For pages: refuse (403) whoever has less than `role` in their team."""

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            mine = role_of(request)
            if mine is None or not mine.covers(role):
                raise PermissionDenied(f"This needs the role {role.value} in your team.")
            return view(request, *args, **kwargs)

        guarded.required_role = role  # type: ignore[attr-defined]
        return guarded

    return decorate


class RolePermission(BasePermission):
    """Reading needs a viewer, everything else an editor; a viewset says otherwise with `roles = {action: Role}`."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        mine = role_of(request)
        if mine is None:
            self.message = "You are signed in but belong to no team. Ask an administrator to add you to one."
            return False
        default = Role.VIEWER if request.method in SAFE_METHODS else Role.EDITOR
        needed = getattr(view, "roles", {}).get(getattr(view, "action", None), default)
        self.message = f"This needs the role {needed.value} in your team."
        return mine.covers(needed)


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer lumi_…`."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        words = get_authorization_header(request).split()
        if not words or words[0].lower() != b"bearer":
            return None
        secret = words[1].decode("latin-1") if len(words) == 2 else ""
        token = ApiToken.objects.select_related("user", "team").filter(digest=digest(secret)).first()
        now = timezone.now()
        if token is None or not token.is_valid(now) or not token.user.is_active:
            raise AuthenticationFailed("This API token is unknown, expired or revoked. Make a new one and send it.")
        if token.last_used_at is None or (now - token.last_used_at).total_seconds() > 60:
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
        token.user.acting_team = token.team_id  # type: ignore[attr-defined]  # until `membership` says the same
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def record(request: HttpRequest | Request | None, action: str, thing: Any = None, **detail: Any) -> None:
    """Add one line to the audit log. `detail` holds small facts (a state, a count), never content or secrets."""
    found = membership(request) if request is not None else None
    team = found.team_id if found else getattr(thing, "team_id", None)
    AuditEvent.objects.create(
        team_id=team,
        actor=(request.user.get_username() or "anonymous") if request is not None else "system",
        action=action,
        object_type=thing._meta.label_lower if thing is not None else "",
        object_id=str(thing.pk) if thing is not None else "",
        detail=detail,
        request_id=getattr(request, "request_id", "") if request is not None else "",
    )


def team_context(request: HttpRequest) -> dict[str, Any]:
    """For templates: the team, the role and whether its holder may edit."""
    if not getattr(request, "user", None) or not request.user.is_authenticated:
        return {}
    role = role_of(request)
    found = membership(request)
    return {
        "team": found.team if found else None,
        "teams": teams_of(request),
        "role": role,
        "may_edit": bool(role and role.covers(Role.EDITOR)),
        "may_administer": bool(role and role.covers(Role.ADMIN)),
    }
