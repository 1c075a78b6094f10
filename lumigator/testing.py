"""The cast and the stage that every test shares; a pytest plug-in (`-p lumigator.testing` in pyproject.toml).

The stage is the real embedded PostgreSQL and Valkey in a temporary LUMIGATOR_HOME of this test run, or the services
that DATABASE_URL and REDIS_URL name. The cast: Alice administers the team Atlas, Bob edits in it, Vera only views;
Charlie administers another team, Basalt, and must never see anything of Atlas.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lumigator import embedded

_home = os.environ.get("LUMIGATOR_TEST_HOME") or tempfile.mkdtemp(prefix="lumigator-test-")
if "LUMIGATOR_TEST_HOME" not in os.environ:
    # xdist's workers inherit the stage of the process that started them.
    os.environ["LUMIGATOR_TEST_HOME"] = _home
    # mkdtemp closes the folder to others; run as root, PostgreSQL's account must be able to enter it.
    os.chmod(_home, 0o755)
    _owns_home = True
else:
    _owns_home = False
os.environ["LUMIGATOR_HOME"] = _home
os.environ["LUMIGATOR_FAKES"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # Playwright's synchronous API runs an event loop in this thread
_services = embedded.attach()
_services.__enter__()


NAMES_OF_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
QUIET_CHROMIUM = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


def pytest_unconfigure() -> None:
    _services.__exit__(None, None, None)
    if _owns_home:
        shutil.rmtree(_home, ignore_errors=True)


def make_team(name: str):  # type: ignore[no-untyped-def]
    from lumigator.models import Team

    return Team.objects.create(name=name, slug=name.lower())


def make_member(team, name: str, role: str):  # type: ignore[no-untyped-def]
    from django.contrib.auth.models import User

    from lumigator.models import Membership

    user = User.objects.create_user(name, password=f"{name}-correct-horse")
    Membership.objects.create(team=team, user=user, role=role)
    return user


@pytest.fixture
def atlas(db):  # type: ignore[no-untyped-def]
    return make_team("Atlas")


@pytest.fixture
def basalt(db):  # type: ignore[no-untyped-def]
    return make_team("Basalt")


@pytest.fixture
def alice(atlas):  # type: ignore[no-untyped-def]
    return make_member(atlas, "alice", "admin")


@pytest.fixture
def bob(atlas):  # type: ignore[no-untyped-def]
    return make_member(atlas, "bob", "editor")


@pytest.fixture
def vera(atlas):  # type: ignore[no-untyped-def]
    return make_member(atlas, "vera", "viewer")


@pytest.fixture
def charlie(basalt):  # type: ignore[no-untyped-def]
    return make_member(basalt, "charlie", "admin")


@pytest.fixture
def as_user():  # type: ignore[no-untyped-def]
    """as_user(alice) → a Django test client, signed in; as_user(alice, api=True) → DRF's."""
    from django.test import Client
    from rest_framework.test import APIClient

    def signed_in(user, *, api: bool = False):  # type: ignore[no-untyped-def]
        client = APIClient() if api else Client()
        client.force_login(user)
        return client

    return signed_in


@pytest.fixture(autouse=True)
def _quick_passwords(settings) -> None:  # type: ignore[no-untyped-def]
    """PBKDF2 takes 0.4 s of CPU by design; the tests' people need no such protection."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def _storage_in_a_temporary_folder(tmp_path: Path, settings) -> Iterator[None]:  # type: ignore[no-untyped-def]
    storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": tmp_path / "storage"}}
    settings.STORAGES = {**settings.STORAGES, "default": storage}
    yield


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium, shared by all tests that drive one: $LUMIGATOR_CHROMIUM, one on PATH or Playwright's own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        here = os.environ.get("LUMIGATOR_CHROMIUM") or next(filter(None, map(shutil.which, NAMES_OF_CHROMIUM)), None)
        here = here or playwright.chromium.executable_path
        if not Path(here).exists():
            pytest.skip("no Chromium: install one, set LUMIGATOR_CHROMIUM, or run `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=here, headless=True, args=list(QUIET_CHROMIUM))
        yield browser
        browser.close()
