"""Browsing: whatever is asked for, the pages together give what a plain look at all rows gives."""

import json
from html import unescape

import pytest
from django.core.files.base import ContentFile
from django.http import QueryDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets_app import browsing, filtering
from datasets_app.filtering import Filter
from datasets_app.ingest import ingest
from datasets_app.models import Example
from lumigator.models import Team

pytestmark = pytest.mark.django_db
URL = "/api/v1/datasets/"


def rows_of(n):
    for at in range(n):
        yield {
            "examples": f"Note {at}: the Budget\twas 100% fine_{at}" + " more" * (at % 7),
            "ground_truth": [f"gist {at}"] if at % 3 else [],
            "id": f"k{at}",
            "group": f"g{at % 4}",
            "kind": "mail" if at % 5 else "chat",
            "7": at % 2,
        }


@pytest.fixture
def notes(atlas, bob):
    return notes_of(atlas)


def notes_of(team, n=130):
    data = "\n".join(json.dumps(row) for row in rows_of(n)).encode()
    columns = {"group": "group", "tags": ["kind", "7"]}
    return ingest(team=team, user=None, name="Notes", file=ContentFile(data, name="x.jsonl"), columns=columns)


def matches(row, chosen):
    words = len(row.source.split())
    texts = [row.source, row.key, *row.references]
    return (
        (not chosen.search or any(chosen.search.lower() in text.lower() for text in texts))
        and all(str(row.tags.get(name)) == value for name, value in chosen.tags)
        and (not chosen.group or row.group == chosen.group)
        and chosen.has_reference in (None, bool(row.references))
        and (chosen.min_words is None or words >= chosen.min_words)
        and (chosen.max_words is None or words <= chosen.max_words)
        and (chosen.min_characters is None or len(row.source) >= chosen.min_characters)
        and (chosen.max_characters is None or len(row.source) <= chosen.max_characters)
    )


def walk(dataset, chosen, sort, *, n, backwards=False, seconds=10.0):
    found, place = [], None
    while True:
        page = browsing.find(dataset, chosen, sort=sort, after=place, backwards=backwards, n=n, seconds=seconds)
        found += [row.index for row in page.rows]
        place = page.reached
        if place is None:
            return found


limit = st.none() | st.integers(0, 60)
filters = st.builds(
    Filter,
    search=st.sampled_from(["", "BUDGET", "note 1", "gist 7", "k12", "100%", "e_1", "\\", "absent"]),
    tags=st.sampled_from([(), (("kind", "chat"),), (("kind", "mail"), ("7", "1")), (("kind", "none"),)]),
    group=st.sampled_from(["", "", "g2"]),
    has_reference=st.sampled_from([None, None, True, False]),
    min_words=limit, max_words=limit, min_characters=limit, max_characters=limit,
)  # fmt: skip


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters, st.sampled_from(list(browsing.SORTS)), st.integers(1, 60), st.booleans(), st.sampled_from([0.0, 10.0]))
def test_the_pages_together_are_all_that_matches_in_order(db, chosen, sort, n, backwards, seconds):
    team, _ = Team.objects.get_or_create(name="Browse", slug="browse")
    dataset = team.datasets.first() or notes_of(team)
    expected = [row for row in Example.objects.filter(dataset=dataset) if matches(row, chosen)]
    key = (lambda row: row.index) if sort == "index" else (lambda row: (len(row.source), row.index))
    expected.sort(key=key, reverse=(sort == "-length") != backwards)
    assert walk(dataset, chosen, sort, n=n, backwards=backwards, seconds=seconds) == [row.index for row in expected]


def test_without_time_a_search_goes_on_where_it_was(notes, monkeypatch):
    monkeypatch.setattr(browsing, "_first_size", lambda dataset: 10)
    page = browsing.find(notes, Filter(search="fine_125"), seconds=0.0)
    assert (page.rows, page.reached) == ([], (9,))
    assert walk(notes, Filter(search="fine_125"), "index", n=5, seconds=0.0) == [125]


def test_counting_says_of_how_many(notes, monkeypatch):
    chat = Filter(tags=(("kind", "chat"),))
    exact = browsing.count(notes, chat, seconds=10)
    assert (exact.n, exact.is_exact, exact.estimate) == (26, True, 26)
    monkeypatch.setattr(browsing, "_first_size", lambda dataset: 10)
    part = browsing.count(notes, chat, seconds=0)
    assert (part.n, part.n_searched, part.is_exact, part.estimate) == (2, 10, False, 26)
    assert browsing.count(notes, Filter()).n == 130


def test_a_filter_is_the_same_after_an_address_and_after_json():
    chosen = Filter("a&b=c", (("kind:of", "x:y"),), "g", False, 1, 2, 0, 400)
    query = QueryDict(mutable=True)
    for name, value in chosen.as_query():
        query.appendlist(name, value)
    assert filtering.read(query, ["kind", "kind:of"]) == (chosen, {})
    assert Filter.from_dict(json.loads(json.dumps(chosen.as_dict()))) == chosen


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("search=" + "x" * 201, "search"),
        ("search=%00", "search"),
        ("tag=colour:red", "tag"),
        ("has_reference=perhaps", "has_reference"),
        ("min_words=-1", "min_words"),
        ("max_words=²", "max_words"),
        ("min_words=9&max_words=3", "max_words"),
        ("sort=name", "sort"),
        ("page_size=0", "page_size"),
        ("colour=red", "colour"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(as_user, vera, notes, query, field):
    answer = as_user(vera, api=True).get(f"{URL}{notes.pk}/examples/?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["loc"] == field


@pytest.mark.parametrize(
    "cursor", ["x", "after.", "after.x", "before.1-2", "after." + "9" * 12, "after.-1", "sideways.1"]
)
def test_a_cursor_of_ones_own_making_is_not_found(as_user, vera, notes, cursor):
    assert as_user(vera, api=True).get(f"{URL}{notes.pk}/examples/?cursor={cursor}").status_code == 404


def test_the_api_goes_forth_and_back(as_user, vera, notes):
    client = as_user(vera, api=True)
    url, seen = f"{URL}{notes.pk}/examples/?tag=kind:chat&sort=-length&page_size=10", []
    while url:
        page = client.get(url).json()
        seen.append([one["index"] for one in page["results"]])
        last, url = page, page["next"]
    assert [len(one) for one in seen] == [10, 10, 6]
    middle = client.get(last["previous"]).json()
    assert [one["index"] for one in middle["results"]] == seen[1]
    first = client.get(middle["previous"]).json()
    assert [one["index"] for one in first["results"]] == seen[0]
    assert first["previous"] is None
    assert [one["index"] for one in client.get(first["next"]).json()["results"]] == seen[1]


def test_other_teams_see_no_examples(as_user, charlie, notes):
    for client, base in ((as_user(charlie, api=True), URL), (as_user(charlie), "/datasets/")):
        for rest in ("examples/", "examples/?search=x"):
            assert client.get(f"{base}{notes.pk}/{rest}").status_code == 404


def test_the_page_keeps_the_filter_in_its_address(as_user, vera, notes):
    client = as_user(vera)
    page = client.get(f"/datasets/{notes.pk}/examples/?search=budget&tag=kind:mail&sort=length")
    html = unescape(page.content.decode())
    assert "104 examples of 130 that hold “budget” and are tagged kind = mail" in html
    assert len(page.context["examples"]) == 50
    assert f"?search=budget&tag=kind%3Amail&sort=length&after={page.context['later']}" in html
    behind = client.get(f"/datasets/{notes.pk}/examples/?{page.context['query']}after={page.context['later']}")
    assert behind.context["examples"][0]["index"] not in [one["index"] for one in page.context["examples"]]


def test_a_wrong_filter_is_told_and_the_rest_is_shown(as_user, vera, notes):
    page = as_user(vera).get(f"/datasets/{notes.pk}/examples/?min_words=x&tag=kind:chat")
    assert "min_words was left out" in page.content.decode()
    assert len(page.context["examples"]) == 26


def test_an_example_has_its_neighbours_within_the_filter(as_user, vera, notes):
    page = as_user(vera).get(f"/datasets/{notes.pk}/examples/10/?tag=kind:chat")
    assert (page.context["previous"], page.context["next"]) == ({"index": 5}, {"index": 15})
    page = as_user(vera).get(f"/datasets/{notes.pk}/examples/0/?tag=kind:chat")
    assert (page.context["previous"], page.context["next"]) == (None, {"index": 5})
    page = as_user(vera).get(f"/datasets/{notes.pk}/examples/129/")
    assert (page.context["previous"], page.context["next"]) == ({"index": 128}, None)


def test_a_neighbour_too_far_away_is_searched_for_from_there(as_user, vera, notes, monkeypatch):
    monkeypatch.setattr(browsing, "_first_size", lambda dataset: 10)
    monkeypatch.setattr(browsing, "SECONDS", 0.0)
    page = as_user(vera).get(f"/datasets/{notes.pk}/examples/50/?search=fine_125")
    assert page.context["next"] == {"place": "60"}
    found = as_user(vera).get(f"/datasets/{notes.pk}/examples/?search=fine_125&after=60")
    assert found.status_code == 200
