"""Who gets in: every address is closed unless it is named here, and a token is never more than its owner."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.test import Client
from django.urls import URLPattern, get_resolver, resolve
from django.urls.exceptions import Resolver404
from django.utils import timezone
from django.utils.regex_helper import normalize
from rest_framework.test import APIClient

from evaluations.tests.engine import make_dataset, make_experiment
from lumigator.models import ApiToken, AuditEvent, Membership, Role, SignInLink
from lumigator.testing import make_member

pytestmark = pytest.mark.django_db
HERE = "/api/v1/experiments/"
OPEN = {"/sign-in/", "/sign-in/x/", "/healthz", "/readyz", "/api/v1/health/"}
"""What the whole world may see. A new address that is open must be added here, by somebody who thought about it."""

METHODS = ("get", "post", "put", "patch", "delete")
SAMPLE = {"format": "json", "app_label": "lumigator", "secret": "x", "slug": "a", "url": "nowhere/"}
DOTTED = {"format": ".json"}


def addresses():
    """One concrete address for every route there is."""
    found = set()
    for regex in _routes(get_resolver().url_patterns, ""):
        for pattern, names in normalize(regex):
            samples = ({name: {**SAMPLE, **extra}.get(name, "1") for name in names} for extra in ({}, DOTTED))
            tried = ("/" + pattern % sample for sample in samples)
            found.add(next(address for address in tried if is_route(address)))
    return sorted(found)


def is_route(address):
    try:
        return bool(resolve(address))
    except Resolver404:
        return False


def _routes(patterns, prefix):
    for pattern in patterns:
        regex = prefix + pattern.pattern.regex.pattern.lstrip("^")
        if isinstance(pattern, URLPattern):
            yield regex
        else:
            yield from _routes(pattern.url_patterns, regex)


def test_the_walk_finds_the_routes_there_are():
    found = addresses()
    assert len(found) > 60
    expected = {
        "/", "/experiments/1/comparison/", "/api/v1/experiments/1/examples/1/", "/admin/lumigator/apitoken/",
        "/api/v1/schema/", "/datasets/upload/", "/api/v1/datasets/1/download/", *OPEN,
    }  # fmt: skip
    assert not expected - set(found)


def test_every_address_is_closed_to_strangers():
    stranger = Client()
    ajar = []
    for address in addresses():
        for method in METHODS if address not in OPEN else ():
            response = getattr(stranger, method)(address)
            if address.startswith("/api/"):
                is_closed = response.status_code in (401, 403)
            else:
                is_closed = response.status_code == 302 and response["Location"].startswith(
                    ("/sign-in/?next=", "/admin/login/?next=")
                )
            if not is_closed:
                ajar.append((method, address, response.status_code))
    assert ajar == []


def test_what_is_open_tells_nothing():
    stranger = Client()
    for address in OPEN:
        response = stranger.get(address)
        assert response.status_code == 200, address
        assert b"alice" not in response.content


def test_no_get_breaks_or_changes_anything(alice, atlas, as_user):
    """Every address, opened by an administrator in a team with an experiment, answers; only the audit log grows."""
    make_experiment(make_dataset(atlas, ["One. Two.", "Three. Four."]), "baseline://lead-1")
    User.objects.filter(pk=alice.pk).update(is_staff=True, is_superuser=True)
    visitor = as_user(User.objects.get(pk=alice.pk), api=True)
    visitor.raise_request_exception = False
    before = everything()
    answers = {address: visitor.get(address).status_code for address in addresses()}
    assert {address: status for address, status in answers.items() if status >= 500} == {}
    assert everything() == before


def everything():
    """{table: its rows} of our apps, but for the audit log."""
    models = [model for label in ("lumigator", "evaluations", "datasets", "registry", "auth")
              for model in apps.get_app_config(label).get_models() if model is not AuditEvent]  # fmt: skip
    return {model: list(model._default_manager.order_by("pk").values()) for model in models}


def test_a_stranger_who_posts_signs_nothing_out_and_in():
    stranger = Client()
    assert stranger.post("/sign-in/x/").status_code == 410
    assert "_auth_user_id" not in stranger.session


def test_a_link_signs_in_nobody_who_was_disabled_since(bob):
    secret = SignInLink.issue(bob)
    User.objects.filter(pk=bob.pk).update(is_active=False)
    visitor = Client()
    assert visitor.post(f"/sign-in/{secret}/").status_code == 410
    assert "_auth_user_id" not in visitor.session


def test_an_address_that_is_not_ours_is_refused_in_words(client):
    response = client.get("/", headers={"host": "elsewhere.example"})
    assert response.status_code == 400
    assert "LUMIGATOR_ALLOWED_HOSTS" in response.content.decode()


# --- tokens ---------------------------------------------------------------------------------------------------------


def with_token(secret):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


@pytest.fixture
def issued(bob, atlas):
    return ApiToken.issue(user=bob, team=atlas, name="script")


@pytest.fixture
def experiment(atlas):
    return make_experiment(make_dataset(atlas, ["One. Two.", "Three. Four."]), "baseline://lead-1")


def test_a_token_opens_what_its_owner_may(issued, experiment):
    client = with_token(issued[1])
    assert client.get(f"{HERE}{experiment.pk}/").status_code == 200
    assert client.patch(f"{HERE}{experiment.pk}/", {"name": "Mine"}).status_code == 200


def test_the_use_of_a_token_is_noted(issued, experiment):
    token, secret = issued
    with_token(secret).get(HERE)
    token.refresh_from_db()
    assert timezone.now() - token.last_used_at < timedelta(minutes=1)


@pytest.mark.parametrize(
    "change",
    [
        {"expires_at": timezone.now() - timedelta(seconds=1)},
        {"revoked_at": timezone.now() - timedelta(days=1)},
        {"digest": "0" * 64},
    ],
    ids=["expired", "revoked", "unknown"],
)
def test_a_token_that_does_not_count_any_more_opens_nothing(issued, change):
    token, secret = issued
    ApiToken.objects.filter(pk=token.pk).update(**change)
    response = with_token(secret).get(HERE)
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert secret not in response.content.decode()


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Bearer a b", "bearer \xff", "Basic YTpi", "lumi_x"])
def test_a_broken_header_opens_nothing(header, issued):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=header)
    assert client.get(HERE).status_code == 401


def test_a_token_dies_with_its_owner(issued, bob):
    User.objects.filter(pk=bob.pk).update(is_active=False)
    assert with_token(issued[1]).get(HERE).status_code == 401


def test_a_token_of_somebody_who_left_the_team_opens_nothing(issued, bob, experiment):
    Membership.objects.filter(user=bob).delete()
    assert with_token(issued[1]).get(HERE).status_code == 403


@pytest.mark.parametrize(
    ("of_member", "of_token", "may_read", "may_write"),
    [
        ("admin", Role.VIEWER, True, False),
        ("admin", Role.EDITOR, True, True),
        ("editor", Role.ADMIN, True, True),
        ("viewer", Role.ADMIN, True, False),
        ("viewer", Role.VIEWER, True, False),
    ],
)
def test_a_token_is_never_more_than_its_owner_nor_than_its_role(
    atlas, experiment, of_member, of_token, may_read, may_write
):
    user = make_member(atlas, "dana", of_member)
    _, secret = ApiToken.issue(user=user, team=atlas, name="script", role=of_token)
    client = with_token(secret)
    assert (client.get(f"{HERE}{experiment.pk}/").status_code == 200) is may_read
    assert (client.patch(f"{HERE}{experiment.pk}/", {"name": "New"}).status_code == 200) is may_write


def test_lowering_a_member_lowers_the_token_they_have(issued, bob, experiment):
    Membership.objects.filter(user=bob).update(role="viewer")
    assert with_token(issued[1]).patch(f"{HERE}{experiment.pk}/", {"name": "New"}).status_code == 403


def test_a_token_acts_for_its_own_team_only(bob, basalt, experiment):
    """Bob is in both teams; his token for Basalt shows nothing of Atlas."""
    Membership.objects.create(team=basalt, user=bob, role="editor")
    _, secret = ApiToken.issue(user=bob, team=basalt, name="for Basalt")
    client = with_token(secret)
    assert client.get(HERE).json()["results"] == []
    assert client.get(f"{HERE}{experiment.pk}/").status_code == 404
    assert client.get(f"/api/v1/datasets/{experiment.dataset_id}/").status_code == 404


def test_a_token_is_no_password_for_the_pages(issued):
    response = Client().get("/experiments/", headers={"Authorization": f"Bearer {issued[1]}"})
    assert response.status_code == 302
    assert response["Location"].startswith("/sign-in/")


def test_the_database_holds_no_secret_of_a_token(issued):
    token, secret = issued
    stored = ApiToken.objects.filter(pk=token.pk).values().get()
    assert secret not in map(str, stored.values())
    assert secret[len(ApiToken.PREFIX) + 8 :] not in str(stored)


# --- sessions -------------------------------------------------------------------------------------------------------


def test_a_session_cannot_be_ridden_from_another_site(bob, experiment):
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(bob)
    response = client.patch(f"{HERE}{experiment.pk}/", {"name": "Hijacked"})
    assert response.status_code == 403
    experiment.refresh_from_db()
    assert experiment.name == "Trial"


def test_a_sign_in_link_works_once_and_not_by_looking_at_it(bob):
    secret = SignInLink.issue(bob)
    visitor = Client()
    assert visitor.get(f"/sign-in/{secret}/").status_code == 200
    assert "_auth_user_id" not in visitor.session
    assert visitor.post(f"/sign-in/{secret}/").status_code == 302
    assert visitor.session["_auth_user_id"] == str(bob.pk)
    assert Client().post(f"/sign-in/{secret}/").status_code == 410


def test_somebody_without_a_team_gets_nothing(db):
    client = APIClient()
    client.force_login(User.objects.create_user("nobody"))
    response = client.get(HERE)
    assert response.status_code == 403
