"""The pages in a real Chromium: nothing is blocked or complains, and they work by key, on a phone and in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from evaluations.tests.test_pages import finish, go, make_dataset, make_experiment, pages_of

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def visit(chromium: Any, live_server: Any, as_user: Any, bob: Any) -> Iterator[Any]:
    """visit(path, **context options) → the page, signed in as Bob; any message on its console fails the test."""
    from django.conf import settings

    contexts: list[Any] = []
    said: list[str] = []

    def go_there(path: str, **options: Any) -> Any:
        context = chromium.new_context(**options)
        contexts.append(context)
        session = as_user(bob).cookies[settings.SESSION_COOKIE_NAME].value
        context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{page.url}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"{page.url}: {error}"))
        page.on("dialog", lambda dialog: said.append(f"{page.url}: a dialog said {dialog.message}"))
        page.goto(live_server.url + path)
        return page

    yield go_there
    for context in contexts:
        context.close()
    assert not said


@pytest.fixture
def finished(atlas: Any) -> Any:
    experiment = make_experiment(atlas, make_dataset(atlas), "good", "a-model-with-a-rather-long-name")
    finish(
        experiment, {"good": "Budget {} approved.", "a-model-with-a-rather-long-name": "<b>It</b> rained on {} dogs."}
    )
    return experiment


def test_no_page_complains_or_is_wider_than_a_phone(finished: Any, visit: Any, live_server: Any) -> None:
    page = visit("/", viewport={"width": 360, "height": 740}, color_scheme="dark")
    paths = ["/experiments/", "/experiments/new/", "/guide/", "/components/", *pages_of(finished)]
    for path in [path for path in paths if "progress" not in path]:
        page.goto(live_server.url + path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_keys_walk_through_the_documents(finished: Any, visit: Any) -> None:
    page = visit(f"/experiments/{finished.pk}/examples/4/")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/examples/5/**")
    page.keyboard.press("k")
    page.wait_for_url("**/examples/4/**")


def test_a_choice_sends_its_form(finished: Any, visit: Any) -> None:
    page = visit(f"/experiments/{finished.pk}/examples/4/")
    assert page.locator("ins").count() > 1
    page.select_option("[name=against]", "none")
    page.wait_for_url("**against=none**")
    assert page.locator("ins").count() == 0


def test_the_theme_is_shared_with_the_admin_and_kept(finished: Any, visit: Any) -> None:
    page = visit("/", color_scheme="light")
    page.click("[data-theme-toggle]")
    page.click("[data-theme-toggle]")
    page.reload()
    assert page.evaluate("[document.documentElement.dataset.theme, localStorage.getItem('theme')]") == ["dark", "dark"]
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(18, 22, 27)"


def test_progress_moves_by_itself_and_the_page_notices_the_end(atlas: Any, visit: Any) -> None:
    experiment = make_experiment(atlas, make_dataset(atlas), "good")
    go(experiment, "planning", "running")
    page = visit(f"/experiments/{experiment.pk}/")
    assert page.locator("#progress .state").inner_text().endswith("Running")
    go(experiment, "cancelling", "cancelled")
    page.get_by_text("This experiment was cancelled").wait_for(timeout=8000)
    assert page.locator("[hx-trigger]").count() == 0


def test_the_pages_work_without_script(finished: Any, visit: Any, live_server: Any) -> None:
    page = visit(f"/experiments/{finished.pk}/comparison/", java_script_enabled=False)
    page.select_option("[name=metric]", "rouge1")
    page.click("form.filters button")
    assert "metric=rouge1" in page.url
    assert page.locator("svg.pareto").count() == 1


def test_the_comparison_prints_on_two_light_pages(finished: Any, visit: Any) -> None:
    page = visit(f"/experiments/{finished.pk}/comparison/", color_scheme="dark")
    assert page.pdf(prefer_css_page_size=True).count(b"/Type /Page\n") <= 2
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
