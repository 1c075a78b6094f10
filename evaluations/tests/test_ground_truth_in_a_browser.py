"""The review of drafted references in a real Chromium: by key, by hand without script, on a phone and in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from evaluations.models import Draft, GroundTruth
from evaluations.tests.test_ground_truth_pages import DOCUMENTS, drafted
from lumigator.tests.browsing import Visitor

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def run(atlas: Any) -> GroundTruth:
    return drafted(atlas)


@pytest.fixture
def visitor(chromium: Any, live_server: Any) -> Iterator[Any]:
    """visitor(user, **options) → somebody at a browser, who takes offence at anything its console says."""
    them: list[Visitor] = []

    def comes(user: Any, **options: Any) -> Visitor:
        them.append(Visitor(chromium, live_server.url, user, **options))
        return them[-1]

    yield comes
    for each in them:
        each.leaves()
    assert [offence for each in them for offence in each.offences] == []


def decisions() -> list[str]:
    return list(Draft.objects.order_by("index").values_list("decision", flat=True))


def test_a_person_reviews_by_key_and_publishes(run: GroundTruth, visitor: Any, bob: Any) -> None:
    bobs = visitor(bob)
    page = bobs.goes_to(f"/ground-truth/{run.pk}/")
    page.get_by_role("link", name="Review", exact=True).click()
    page.get_by_role("heading", name="document #1?").wait_for()
    page.keyboard.press("a")
    page.get_by_role("heading", name="document #2?").wait_for()
    page.keyboard.press("r")
    page.get_by_role("heading", name="document #3?").wait_for()
    page.keyboard.press("e")
    page.keyboard.press("Control+A")
    page.keyboard.type("A reference of ours: accept, reject.")  # letters in the box are words, not decisions
    page.keyboard.press("Control+Enter")
    page.get_by_role("heading", name="document #4?").wait_for()
    assert decisions() == ["accepted", "rejected", "edited", *["unreviewed"] * 3]
    page.keyboard.press("k")
    page.get_by_role("heading", name="document #3?").wait_for()
    assert page.locator("ins").count() >= 1
    bobs.goes_to(f"/ground-truth/{run.pk}/")
    page.get_by_label("Only what is approved: 2 documents").check()
    page.get_by_role("button", name="Publish").click()
    page.wait_for_url("**/datasets/*/")
    assert "references_by" in bobs.words


def test_the_review_works_without_script(run: GroundTruth, visitor: Any, bob: Any) -> None:
    bobs = visitor(bob, java_script_enabled=False)
    page = bobs.goes_to(f"/ground-truth/{run.pk}/review/")
    page.get_by_role("button", name="Accept").click()
    page.get_by_role("textbox").fill("Changed by hand.")
    page.get_by_role("button", name="Save as edited").click()
    page.get_by_role("button", name="Reject").click()
    assert bobs.path == f"/ground-truth/{run.pk}/items/3/"
    assert decisions()[:3] == ["accepted", "edited", "rejected"]


def test_two_presses_of_a_key_decide_one_document(run: GroundTruth, visitor: Any, bob: Any) -> None:
    page = visitor(bob).goes_to(f"/ground-truth/{run.pk}/items/0/")
    page.evaluate(
        """() => {
          document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "a", bubbles: true}));
          document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "r", bubbles: true}));
        }"""
    )
    page.get_by_role("heading", name="document #2?").wait_for()
    assert decisions() == ["accepted", *["unreviewed"] * 5]


def test_who_was_slower_is_told_and_keeps_the_words(run: GroundTruth, visitor: Any, bob: Any, alice: Any) -> None:
    bobs, alices = visitor(bob), visitor(alice)
    bobs.expected.add(409)
    mine = bobs.goes_to(f"/ground-truth/{run.pk}/items/0/")
    theirs = alices.goes_to(f"/ground-truth/{run.pk}/items/0/")
    theirs.get_by_role("button", name="Reject").click()
    theirs.get_by_role("heading", name="document #2?").wait_for()
    mine.get_by_role("textbox").fill("My careful words.")
    mine.get_by_role("button", name="Save as edited").click()
    mine.get_by_text("alice rejected it").wait_for()
    assert mine.get_by_role("textbox").input_value() == "My careful words."
    mine.get_by_role("button", name="Save as edited").click()
    mine.get_by_role("heading", name="document #2?").wait_for()
    assert Draft.objects.get(index=0).text == "My careful words."


def test_no_page_is_wider_than_a_phone(run: GroundTruth, visitor: Any, alice: Any) -> None:
    alices = visitor(alice, viewport={"width": 360, "height": 740}, color_scheme="dark")
    here = f"/ground-truth/{run.pk}/"
    for path in ("/ground-truth/", "/ground-truth/new/", here, f"{here}items/", f"{here}items/0/"):
        page = alices.goes_to(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    assert DOCUMENTS[0] in alices.words
