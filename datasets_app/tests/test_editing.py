"""Editing: a child has what was asked for, the parent what it had."""

import json

import pytest
from django.core.files.base import ContentFile
from django.db import DatabaseError, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets_app import deriving, editing, ingesting
from datasets_app.deriving import quotas
from datasets_app.editing import Part, Refused
from datasets_app.filtering import Filter
from datasets_app.ingest import ingest
from datasets_app.models import Dataset, Example, Import
from lumigator.models import AuditEvent, Team

pytestmark = pytest.mark.django_db
URL = "/api/v1/datasets/"
CHAT = Filter(tags=(("kind", "chat"),))


def notes_of(team, n=60, privacy="any"):
    rows = [
        {
            "examples": f"Note {at} is about the budget of {at} meetings.",
            "ground_truth": [f"gist {at}"] if at % 3 else [],
            "id": f"k{at}",
            "group": f"g{at % 7}" if at % 2 else "",
            **({"kind": "chat" if at % 5 == 0 else "mail", "n": at} if at % 4 else {}),
        }
        for at in range(n)
    ]
    data = "\n".join(map(json.dumps, rows)).encode()
    columns = {"group": "group", "tags": ["kind", "n"]}
    return ingest(
        team=team, user=None, name="Notes", file=ContentFile(data, name="x.jsonl"), columns=columns, privacy=privacy
    )


@pytest.fixture
def notes(atlas):
    return notes_of(atlas)


def rows_of(dataset):
    return [
        (one.key, one.source, one.references, one.group, one.tags)
        for one in Example.objects.filter(dataset=dataset).order_by("index")
    ]


def tagged(row, value="chat"):
    return row[4].get("kind") == value


def test_one_example_is_mended_and_the_parent_stays(notes, bob):
    before = rows_of(notes)
    child = editing.fix(
        notes, user=bob, index=5,
        changes={"source": "New text.", "references": ["a", "", "b"], "id": "new", "group": "", "tags": {"kind": "x"}},
    )  # fmt: skip
    after = rows_of(child)
    assert after[5] == ("new", "New text.", ["a", "b"], "", {"kind": "x"})
    assert after[:5] + after[6:] == before[:5] + before[6:]
    assert rows_of(notes) == before
    assert (child.origin, child.parent, child.state, child.created_by) == ("edited", notes, "ready", bob)
    assert editing.in_words(child) == "Example 6: document, references, id, group and tags changed."
    assert editing.told(child)["set"] == ["source", "references", "id", "group", "tags"]


def test_the_figures_of_a_child_are_its_own(notes, bob):
    child = editing.drop(notes, user=bob, chosen=Filter(has_reference=False))
    assert (child.n_examples, child.n_with_reference) == (40, 40)
    assert child.profile["n_examples"] == 40
    assert child.profile["source_words"]["n"] == 40
    assert [one.index for one in child.examples.order_by("index")] == list(range(40))
    same = editing.drop(notes, user=bob, chosen=Filter(has_reference=False))
    assert same.sha256 == child.sha256 != notes.sha256


@pytest.mark.parametrize("keep", [False, True])
def test_dropping_by_a_filter_leaves_what_lacks_the_tag(notes, bob, keep):
    child = editing.drop(notes, user=bob, chosen=CHAT, keep=keep)
    assert rows_of(child) == [row for row in rows_of(notes) if tagged(row) == keep]


def test_dropping_by_index(notes, bob):
    child = editing.drop(notes, user=bob, indexes=[3, 0, 3])
    assert rows_of(child) == [row for at, row in enumerate(rows_of(notes)) if at not in (0, 3)]
    assert editing.in_words(child) == "Dropped 2 examples (#1, #4)."


def test_relabelling_sets_and_removes(notes, bob):
    before = rows_of(notes)
    child = editing.relabel(notes, user=bob, chosen=CHAT, tag="tone", value="warm")
    assert rows_of(child) == [(*row[:4], {**row[4], "tone": "warm"} if tagged(row) else row[4]) for row in before]
    assert child.columns["tags"] == ["kind", "n", "tone"]
    child = editing.relabel(notes, user=bob, tag="kind")
    assert rows_of(child) == [(*row[:4], {k: v for k, v in row[4].items() if k != "kind"}) for row in before]
    child = editing.relabel(notes, user=bob, indexes=[1], group="else")
    assert [row[3] for row in rows_of(child)] == [before[0][3], "else", *[row[3] for row in before[2:]]]


def test_a_sample_is_seeded_and_in_order(notes, bob):
    before = rows_of(notes)
    first, same = (editing.sample(notes, user=bob, n=12, seed=3) for _ in range(2))
    other = editing.sample(notes, user=bob, n=12, seed=4)
    assert rows_of(first) == rows_of(same) != rows_of(other)
    places = [before.index(row) for row in rows_of(first)]
    assert len(places) == 12
    assert places == sorted(places)


def test_a_sample_of_a_filter_takes_only_from_it(notes, bob):
    child = editing.sample(notes, user=bob, n=50, chosen=CHAT)
    assert rows_of(child) == [row for row in rows_of(notes) if tagged(row)]


def test_a_stratified_sample_is_in_proportion(notes, bob):
    child = editing.sample(notes, user=bob, n=20, by="tag:kind")
    kinds = [row[4].get("kind", "") for row in rows_of(child)]
    of = [row[4].get("kind", "") for row in rows_of(notes)]
    sizes = {kind: of.count(kind) for kind in of}
    assert {kind: kinds.count(kind) for kind in sizes} == quotas(sizes, 20)


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 500))
def test_quotas_are_whole_and_nearly_proportional(sizes, n):
    total = sum(sizes.values())
    given_ = quotas(sizes, n)
    assert sum(given_.values()) == min(n, total)
    for name, size in sizes.items():
        assert given_[name] <= size
        assert abs(given_[name] - min(n, total) * size / total) < 1


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31 - 1), st.booleans(), st.lists(st.integers(1, 20), min_size=1, max_size=2))
def test_the_parts_of_a_split_are_all_of_it(db, seed, by_group, sizes):
    team, _ = Team.objects.get_or_create(name="Split", slug="split")
    notes = team.datasets.filter(parent=None).first() or notes_of(team)
    parts = [Part(f"p{at}", n=n) for at, n in enumerate(sizes)] + [Part("rest", sealed=True)]
    try:
        children = editing.split(notes, user=None, parts=parts, seed=seed, by_group=by_group)
    except Refused as error:  # a part smaller than any group
        assert by_group
        assert "No example is left" in str(error)
        return
    found = [row for child in children for row in rows_of(child)]
    assert sorted(found, key=str) == sorted(rows_of(notes), key=str)
    if by_group:
        groups = [{row[3] for row in rows_of(child)} - {""} for child in children]
        assert sum(map(len, groups)) == len(set().union(*groups))
    else:
        assert [child.n_examples for child in children] == [*sizes, 60 - sum(sizes)]
    assert [child.sealed for child in children] == [False] * len(sizes) + [True]


def test_a_sealed_dataset_stays_sealed_and_so_do_its_children(notes, bob):
    _, sealed = editing.split(notes, user=bob, parts=[Part("a", share=0.8), Part("b", share=0.2, sealed=True)])
    assert editing.sample(sealed, user=bob, n=2).sealed
    with pytest.raises(DatabaseError, match="cannot be changed"), transaction.atomic():
        Dataset.objects.filter(pk=sealed.pk).update(sealed=False)


def test_shares_that_do_not_divide_leave_nobody_out(atlas, bob):
    notes = notes_of(atlas, n=10)
    parts = [Part(name, share=1 / 3) for name in "abc"]
    assert sum(one.n_examples for one in editing.split(notes, user=bob, parts=parts, by_group=False)) == 10


def test_one_more_example(notes, bob):
    child = editing.append(notes, user=bob, example={"source": "More.", "references": ["m"], "tags": {"tone": 1}})
    assert rows_of(child) == [*rows_of(notes), ("", "More.", ["m"], "", {"tone": 1})]
    assert child.columns["tags"] == ["kind", "n", "tone"]


def test_privacy_is_kept_and_never_loosened(atlas, bob):
    notes = notes_of(atlas, n=5, privacy="local_only")
    assert editing.sample(notes, user=bob, n=2).privacy == "local_only"
    with pytest.raises(Refused, match="never leaves"):
        editing.sample(notes, user=bob, n=2, privacy="any")


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("set", lambda it: editing.fix(it, user=None, index=1, changes={})),
        ("index", lambda it: editing.fix(it, user=None, index=99, changes={"id": "x"})),
        ("id", lambda it: editing.fix(it, user=None, index=1, changes={"id": "k2"})),
        ("source", lambda it: editing.fix(it, user=None, index=1, changes={"source": " "})),
        ("source", lambda it: editing.append(it, user=None, example={"source": "a\0b"})),
        ("references", lambda it: editing.append(it, user=None, example={"source": "a", "references": [7]})),
        ("tags", lambda it: editing.append(it, user=None, example={"source": "a", "tags": {"x": [1]}})),
        ("tags", lambda it: editing.relabel(it, user=None, tag=" ", value="x")),
        ("tag", lambda it: editing.relabel(it, user=None)),
        ("group", lambda it: editing.relabel(it, user=None, group="g" * 201)),
        ("filter", lambda it: editing.drop(it, user=None)),
        ("indexes", lambda it: editing.drop(it, user=None, indexes=[60])),
        ("non_field_errors", lambda it: editing.drop(it, user=None, chosen=Filter(search="note"))),
        ("non_field_errors", lambda it: editing.drop(it, user=None, chosen=Filter(search="absent"), keep=True)),
        ("n", lambda it: editing.sample(it, user=None, n=61)),
        ("by", lambda it: editing.sample(it, user=None, n=6, by="tag:colour")),
        ("parts", lambda it: editing.split(it, user=None, parts=[Part("a", n=60)])),
        ("parts", lambda it: editing.split(it, user=None, parts=[Part("a", n=60), Part("b")])),
        ("parts", lambda it: editing.split(it, user=None, parts=[Part("a"), Part("b")])),
        ("parts", lambda it: editing.split(it, user=None, parts=[Part("a", n=1), Part("a")])),
        ("parts", lambda it: editing.split(it, user=None, parts=[Part("a", share=0.5), Part("b", share=0.4)])),
        ("parts", lambda it: editing.split(it, user=None, parts=[Part("a", 1, None, True), Part("b", sealed=True)])),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_and_leaves_nothing(notes, field, make):
    with pytest.raises(Refused) as refused, transaction.atomic():
        make(notes)
    assert list(refused.value.errors) == [field]
    assert Dataset.objects.count() == 1


def large(monkeypatch):
    monkeypatch.setattr(editing, "ROWS_AT_ONCE", 10)
    monkeypatch.setattr(deriving, "_batch_rows", lambda parent: 7)


def test_a_large_child_is_made_by_a_worker_and_resumed(notes, bob, monkeypatch):
    expected = [row for row in rows_of(notes) if not tagged(row)]
    large(monkeypatch)
    child = editing.drop(notes, user=bob, chosen=CHAT)
    assert child.state == "importing"
    stops = iter([False, False, True])
    ingesting.run(child.pk, "one", lambda: next(stops))
    intake = Import.objects.get(dataset=child)
    assert (intake.place, intake.owner) == (21, "")
    ingesting.run(child.pk, "two")
    child.refresh_from_db()
    assert (child.state, child.n_examples) == ("ready", len(expected))
    assert rows_of(child) == expected
    whole = Dataset.objects.get(pk=child.pk)
    monkeypatch.undo()
    assert editing.drop(notes, user=bob, chosen=CHAT).sha256 == whole.sha256


@pytest.mark.parametrize("what", ["append", "split"])
def test_a_worker_makes_the_others_too(notes, bob, monkeypatch, what):
    before = rows_of(notes)
    large(monkeypatch)
    if what == "append":
        children = [editing.append(notes, user=bob, example={"source": "More."})]
        before.append(("", "More.", [], "", {}))
    else:
        children = editing.split(notes, user=bob, parts=[Part("a", n=20), Part("b")])
    for child in children:
        ingesting.run(child.pk, "one")
    assert sorted((row for child in children for row in rows_of(child)), key=str) == sorted(before, key=str)


def test_a_parent_that_vanishes_fails_its_child_with_words(notes, bob, monkeypatch):
    large(monkeypatch)
    child = editing.sample(notes, user=bob, n=30)
    from datasets_app import deleting

    deleting.delete(Dataset.objects.get(pk=notes.pk))
    ingesting.run(child.pk, "one")
    child.refresh_from_db()
    assert child.state == "failed"
    assert "is deleted" in child.problem
    assert not child.examples.exists()


# The API and the pages


def post(client, dataset, **body):
    return client.post(f"{URL}{dataset.pk}/edit/", body, format="json")


def test_the_api_makes_a_child_and_tells_what_it_is(as_user, bob, notes):
    answer = post(as_user(bob, api=True), notes, action="drop", filter={"tags": {"kind": "chat"}}, name="Calm")
    body = answer.json()
    assert answer.status_code == 201
    assert answer["Location"] == f"{URL}{body['id']}/"
    assert (body["name"], body["origin"], body["parent"], body["state"]) == ("Calm", "edited", notes.pk, "ready")
    assert body["edit"]["filter"] == {"tags": {"kind": "chat"}}
    assert body["edit"]["words"] == "Dropped the examples that are tagged kind = chat."
    assert AuditEvent.objects.get(action="dataset.edit").detail == {"parent": notes.pk, "edit": "drop"}


@pytest.mark.parametrize(
    "body",
    [
        {"action": "fix", "index": 0, "set": {"source": " kept blanks "}},
        {"action": "keep", "indexes": [1, 2]},
        {"action": "relabel", "tag": "n", "value": None},
        {"action": "relabel", "group": "all"},
        {"action": "sample", "n": 3, "by": "group", "filter": {"min_words": 2}},
        {"action": "append", "example": {"source": "One more.", "references": ["x"]}},
    ],
    ids=lambda body: body["action"],
)
def test_every_action_has_its_way_through_the_api(as_user, bob, notes, body):
    answer = post(as_user(bob, api=True), notes, **body)
    assert answer.status_code == 201, answer.json()
    assert answer.json()["edit"]["action"] == body["action"]


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"action": "burn"}, "action"),
        ({"action": "fix"}, "index"),
        ({"action": "drop", "filter": {}}, "filter"),
        ({"action": "sample"}, "n"),
        ({"action": "relabel", "tag": "x"}, "value"),
        ({"action": "append", "example": {}}, "source"),
    ],
)
def test_a_wrong_edit_is_refused_by_field(as_user, bob, notes, body, loc):
    answer = post(as_user(bob, api=True), notes, **body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["loc"] == loc


def test_the_api_splits(as_user, bob, notes):
    parts = [{"name": "a", "share": 0.8}, {"name": "b", "sealed": True}]
    answer = as_user(bob, api=True).post(f"{URL}{notes.pk}/split/", {"parts": parts, "seed": 1}, format="json")
    assert answer.status_code == 201
    assert [one["sealed"] for one in answer.json()] == [False, True]
    assert sum(one["n_examples"] for one in answer.json()) == 60


def test_viewers_may_not_edit_and_others_find_nothing(as_user, vera, charlie, notes):
    for rest in ("edit/", "split/"):
        assert as_user(vera, api=True).post(f"{URL}{notes.pk}/{rest}", {}, format="json").status_code == 403
        assert as_user(charlie, api=True).post(f"{URL}{notes.pk}/{rest}", {}, format="json").status_code == 404
    for rest in ("edit/", "split/", "examples/0/edit/"):
        assert as_user(vera).get(f"/datasets/{notes.pk}/{rest}").status_code == 403
        assert as_user(charlie).get(f"/datasets/{notes.pk}/{rest}").status_code == 404


def test_the_page_mends_one_example(as_user, bob, notes):
    client, url = as_user(bob), f"/datasets/{notes.pk}/examples/5/edit/"
    assert client.get(url).status_code == 200
    one = notes.examples.get(index=5)
    form = {"source": one.source, "reference": [*one.references, "second\r\nline"], "id": one.key, "group": one.group,
            "tag-0": "mail", "tag-1": "5"}  # fmt: skip
    answer = client.post(url, form)
    child = Dataset.objects.exclude(pk=notes.pk).get()
    assert answer["Location"] == f"/datasets/{child.pk}/examples/5/"
    mended = child.examples.get(index=5)
    assert mended.references == [*one.references, "second\nline"]
    assert mended.tags == {"kind": "mail", "n": 5}
    page = client.get(f"/datasets/{child.pk}/").content.decode()
    assert "references and tags changed." in page
    assert f'href="/datasets/{child.pk}/"' in client.get(f"/datasets/{notes.pk}/").content.decode()


def test_the_page_that_changes_nothing_says_so(as_user, bob, notes):
    url, one = f"/datasets/{notes.pk}/examples/5/edit/", notes.examples.get(index=5)
    form = {"source": one.source, "reference": [*one.references, ""], "id": one.key, "group": one.group,
            "tag-0": one.tags["kind"], "tag-1": "5"}  # fmt: skip
    page = as_user(bob).post(url, form)
    assert page.status_code == 422
    assert "nothing is different" in page.content.decode()


@pytest.mark.parametrize(
    ("query", "form", "n"),
    [
        ("?tag=kind:chat", {"action": "drop"}, 51),
        ("?tag=kind:chat", {"action": "keep"}, 9),
        ("?search=budget", {"action": "relabel", "tag": "", "value": "one"}, 60),
        ("", {"action": "sample", "n": "7", "seed": "1", "by": "group"}, 7),
        ("", {"action": "append", "source": "More.", "reference": ""}, 61),
    ],
)
def test_the_page_of_changes(as_user, bob, notes, query, form, n):
    client, url = as_user(bob), f"/datasets/{notes.pk}/edit/{query}"
    assert client.get(url).status_code == 200
    client.post(url, form)
    assert Dataset.objects.exclude(pk=notes.pk).get().n_examples == n


@pytest.mark.parametrize("form", [{}, {"action": "drop"}, {"action": "sample", "n": "x"}, {"action": "append"}])
def test_a_page_that_cannot_do_it_says_why(as_user, bob, notes, form):
    page = as_user(bob).post(f"/datasets/{notes.pk}/edit/", form)
    assert page.status_code == 422
    assert "Nothing was made." in page.content.decode()


def test_the_page_splits(as_user, bob, notes):
    client, url = as_user(bob), f"/datasets/{notes.pk}/split/"
    assert client.get(url).status_code == 200
    form = {"name-0": "a", "share-0": "75", "name-1": "b", "share-1": "", "sealed-1": "on", "seed": "2"}
    assert client.post(url, form)["Location"] == f"/datasets/{notes.pk}/"
    children = Dataset.objects.filter(parent=notes).order_by("pk")
    assert [(one.n_examples, one.sealed) for one in children] == [(45, False), (15, True)]
    assert client.post(url, {**form, "share-0": "300"}).status_code == 422
