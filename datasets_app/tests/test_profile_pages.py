"""The profile on its page and in the API: whole, old, and not yet there."""

import json

import pytest
from django.core.files.base import ContentFile
from django.db import connection
from django.urls import reverse

from datasets_app.ingest import ingest, ingest_sample
from datasets_app.models import Dataset
from datasets_app.tests.test_profiling import LONG

pytestmark = pytest.mark.django_db

OLD = {
    "n_examples": 2, "n_with_reference": 1, "n_with_several_references": 0, "max_references": 1,
    "source_words": {"n": 2, "min": 2, "median": 2.5, "mean": 2.5, "p95": 3.0, "max": 3}, "reference_words": None,
    "groups": {"n": 0, "is_capped": False, "largest": []}, "tags": {},
}  # fmt: skip


@pytest.fixture
def messy(atlas):
    lines = [
        {"examples": f"{LONG} Write to mara.lind@example.org.", "ground_truth": LONG[:60]},
        {"examples": f"{LONG} Write to mara.lind@example.org.", "ground_truth": "340 boats, 17 of them <red>"},
        {"examples": "Der Ausschuss sperrt die Straße bis zum Frühjahr, weil es taut.", "ground_truth": "--"},
    ]
    file = ContentFile("\n".join(map(json.dumps, lines)).encode(), name="mess.jsonl")
    return ingest(team=atlas, user=None, name="Mess", file=file)


def page(client, dataset):
    answer = client.get(reverse("dataset", args=[dataset.pk]))
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_page_tells_what_was_found_and_links_to_it(as_user, vera, messy):
    html = page(as_user(vera), messy)
    for words in (
        "What to know before comparing on it", "too few to compare models", "may hold personal data", "m…@e…",
        "The same text as an earlier one", "German", "E-mail address", "How small a difference it can show",
        'class="chart histogram"',
    ):  # fmt: skip
        assert words in html
    assert f'href="{reverse("dataset-example", args=[messy.pk, 1])}">#2</a>' in html
    assert "mara.lind" not in html.split("The first examples")[0]


def test_the_sample_has_a_calm_page(as_user, vera, atlas):
    html = page(as_user(vera), ingest_sample(atlas, None))
    assert "No e-mail address, telephone" in html
    assert "✕" not in html
    assert html.count("▲") == 1, "it is small, and that is all"


def test_the_api_gives_the_stored_profile_and_its_cautions(as_user, vera, messy):
    body = as_user(vera, api=True).get(f"/api/v1/datasets/{messy.pk}/profile/").json()
    assert {**messy.profile, "cautions": body["cautions"]} == body | {"version": messy.profile["version"]}
    assert body["cautions"][0]["tone"] == "bad"
    assert body["duplicates"]["exact"]["first"] == [{"index": 1, "of": 0}]


def stored_before(atlas, profile):
    return Dataset.objects.create(team=atlas, name="Old", sha256="0" * 64, n_examples=2, state="ready", profile=profile)


def test_a_profile_from_before_has_its_page(as_user, vera, atlas):
    html = page(as_user(vera), stored_before(atlas, OLD))
    assert "How long the texts are" in html
    assert "histogram" not in html
    assert "How small a difference" not in html


def test_a_profile_from_before_says_null_in_the_api(as_user, vera, atlas):
    body = as_user(vera, api=True).get(f"/api/v1/datasets/{stored_before(atlas, OLD).pk}/profile/").json()
    assert body["source_words"] == OLD["source_words"]
    assert [body[name] for name in ("languages", "duplicates", "windows", "detectable")] == [None] * 4


def test_a_dataset_without_a_profile_has_its_page(as_user, vera, atlas):
    assert "Lengths are known once" in page(as_user(vera), stored_before(atlas, {}))


def test_reading_the_page_reads_no_more_of_a_larger_dataset(as_user, vera, atlas, messy, django_assert_max_num_queries):
    assert len(json.dumps(messy.profile)) < 20_000
    client = as_user(vera)
    with django_assert_max_num_queries(12, connection=connection):
        page(client, messy)
