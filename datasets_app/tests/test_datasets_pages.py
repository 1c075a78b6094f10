"""The pages of datasets: upload in two steps, look around, and who may."""

import json
from datetime import timedelta
from html import unescape

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import timezone

from datasets_app import pending
from datasets_app.ingest import ingest
from datasets_app.models import Dataset
from evaluations.models import Experiment
from evaluations.tests.engine import work_off
from lumigator.models import AuditEvent

pytestmark = pytest.mark.django_db

UPLOAD, CHECK = "/datasets/upload/", "/datasets/upload/check/"
CSV = b"id,examples,ground_truth,kind\n1,one two three,one,mail\n2,four five,,chat\n"


@pytest.fixture
def mails(atlas, bob):
    return ingest(team=atlas, user=bob, name="Mails", file=ContentFile(CSV, name="mails.csv"))


def choose(client, data=CSV, file_name="mails.csv", **fields):
    fields = {"privacy": "any", "name": ""} | fields
    return client.post(UPLOAD, {"file": SimpleUploadedFile(file_name, data), **fields})


def text_of(answer):
    return unescape(answer.content.decode())


def waiting_files():
    folders = default_storage.listdir("pending")[0] if default_storage.exists("pending") else []
    return [name for folder in folders for name in default_storage.listdir(f"pending/{folder}")[1]]


def test_a_file_is_looked_at_and_then_stored(as_user, bob):
    client = as_user(bob)
    answer = choose(client, privacy="local_only")
    assert (answer.status_code, answer["Location"]) == (302, CHECK)
    assert not Dataset.objects.exists()

    page = client.get(CHECK)
    assert page.status_code == 200
    uses = {one.name: one.use for one in page.context["uses"]}
    assert uses == {"id": "id", "examples": "source", "ground_truth": "reference", "kind": ""}
    assert "one two three" in text_of(page)

    answer = client.post(
        CHECK, {"action": "store", "use-0": "id", "use-1": "source", "use-2": "reference", "use-3": "tag"}
    )
    dataset = Dataset.objects.get()
    assert answer["Location"] == f"/datasets/{dataset.pk}/"
    assert (dataset.name, dataset.file_name, dataset.privacy) == ("mails", "mails.csv", "local_only")
    assert dataset.examples.first().tags == {"kind": "mail"}
    assert waiting_files() == []
    assert AuditEvent.objects.get(action="dataset.upload").object_id == str(dataset.pk)


def test_unknown_columns_are_asked_about(as_user, bob):
    client = as_user(bob)
    choose(client, b"nr,words,short\n1,hello there,hi\n")
    page = client.get(CHECK)
    assert "No column is known to hold the documents" in text_of(page)
    page = client.post(CHECK, {"action": "look", "use-1": "source", "use-2": "reference"})
    assert page.context["problems"] == []
    assert {one.name: one.use for one in page.context["uses"]} == {"nr": "", "words": "source", "short": "reference"}
    assert not Dataset.objects.exists()
    client.post(CHECK, {"action": "store", "use-1": "source", "use-2": "reference"})
    assert Dataset.objects.get().examples.get().references == ["hi"]


def test_two_documents_are_one_too_many(as_user, bob):
    client = as_user(bob)
    choose(client)
    page = client.post(CHECK, {"action": "store", "use-1": "source", "use-2": "source"})
    assert page.status_code == 422
    assert "2 columns are chosen as the document: examples, ground_truth." in text_of(page)
    assert not Dataset.objects.exists()


def test_problems_of_the_first_rows_are_shown_before_anything_is_stored(as_user, bob):
    client = as_user(bob)
    choose(client, b"examples,b\ngood,1\n,2\n")
    page = text_of(client.get(CHECK))
    assert "row 3, column examples" in page
    assert "Fill it in, or remove the row." in page


def test_problems_further_down_are_found_when_storing(as_user, bob):
    client = as_user(bob)
    choose(client, b"examples,b\n" + b"good,1\n" * 500 + b"bad\n" * 120)
    assert client.get(CHECK).context["problems"] == []
    page = client.post(CHECK, {"action": "store", "use-0": "source"})
    assert page.status_code == 422
    assert "row 502" in text_of(page)
    assert "… and 20 more problems." in text_of(page)
    assert not Dataset.objects.exists()


@pytest.mark.parametrize(
    "data", [b"\xff\xfea\0", b"PK\x03\x04", b"examples\ncaf\xe9", b'{"examples": "\\ud800"}', b" \n"]
)
def test_a_file_that_cannot_be_read_gives_a_page(as_user, bob, data):
    client = as_user(bob)
    choose(client, data)
    page = client.get(CHECK)
    assert page.status_code == 200
    assert page.context["problems"]


def test_an_empty_file_is_refused_at_once(as_user, bob):
    page = choose(as_user(bob), b"")
    assert page.status_code == 422
    assert "This file is empty" in text_of(page)


def test_a_file_beyond_the_limit_is_refused_at_once(as_user, bob, settings):
    settings.UPLOAD_LIMIT_BYTES = 10
    page = choose(as_user(bob))
    assert page.status_code == 422
    assert "larger than" in text_of(page)
    assert waiting_files() == []


def test_one_file_waits_per_person_and_dropping_it_leaves_nothing(as_user, bob):
    client = as_user(bob)
    choose(client)
    choose(client, b"examples\nother\n")
    assert len(waiting_files()) == 1
    assert client.post(CHECK, {"action": "drop"})["Location"] == UPLOAD
    assert waiting_files() == []
    assert client.get(CHECK)["Location"] == UPLOAD


def test_what_nobody_confirmed_is_swept_after_a_day(as_user, bob, monkeypatch):
    choose(as_user(bob))
    assert pending.sweep() == 0
    later = timezone.now() + timedelta(hours=25)
    monkeypatch.setattr(pending.timezone, "now", lambda: later)
    assert pending.sweep() == 1
    assert waiting_files() == []


CHOSEN = {"use-0": "id", "use-1": "source", "use-2": "reference", "use-3": "tag"}


@pytest.fixture
def large(settings):
    """Everything counts as large: a worker imports it."""
    settings.IMPORT_AT_ONCE_BYTES = 10


def test_a_large_file_is_imported_by_a_worker_while_a_page_shows_how_far_it_is(as_user, bob, large):
    client = as_user(bob)
    choose(client, privacy="local_only")
    assert "a worker imports it" in text_of(client.get(CHECK))
    answer = client.post(CHECK, {"action": "store", **CHOSEN})
    dataset = Dataset.objects.get()
    assert answer["Location"] == f"/datasets/{dataset.pk}/"
    assert (dataset.state, dataset.privacy, dataset.name) == ("importing", "local_only", "mails")
    assert client.get(CHECK)["Location"] == UPLOAD, "the import has the file now"

    page = text_of(client.get(answer["Location"]))
    assert "It is being imported." in page
    assert "It waits for a worker of the queue cpu" in page
    assert f'hx-get="/datasets/{dataset.pk}/progress/"' in page
    assert "Cancel the import" in page
    fragment = client.get(f"/datasets/{dataset.pk}/progress/")
    assert "HX-Refresh" not in fragment
    assert b"<html" not in fragment.content
    assert "Importing" in text_of(client.get("/datasets/"))

    work_off()
    assert client.get(f"/datasets/{dataset.pk}/progress/")["HX-Refresh"] == "true"
    assert "2 documents, 1 of them with a reference summary" in text_of(client.get(answer["Location"]))
    assert dataset.examples.first().tags == {"kind": "mail"}
    assert waiting_files() == []


def test_what_a_worker_finds_wrong_is_on_the_page_and_in_a_file(as_user, bob, vera, large):
    client = as_user(bob)
    choose(client, b"examples,=kind\n" + b"good,x\n" * 300 + b" ,x\n" * 150)
    client.post(CHECK, {"action": "store", "use-0": "source", "use-1": "tag"})
    work_off()
    dataset = Dataset.objects.get()
    page = text_of(client.get(f"/datasets/{dataset.pk}/"))
    assert "It was not stored." in page
    assert "The first 100 of 150 problems" in page
    report = as_user(vera).get(f"/datasets/{dataset.pk}/problems.csv")
    assert report["Content-Disposition"] == 'attachment; filename="problems of mails.csv.csv"'
    lines = report.content.decode("utf-8-sig").splitlines()
    assert lines[:2] == [
        "row,column,problem,cure",
        '302,examples,The document is blank.,"Fill it in, or remove the row."',
    ]
    assert len(lines) == 151


def test_the_report_of_a_file_that_waits_names_every_problem_and_runs_no_formula(as_user, bob):
    client = as_user(bob)
    choose(client, b"examples,=cmd\n" + b"good,x\n" * 300 + b"good," + b"x" * 300 + b"\n")
    client.post(CHECK, {"action": "store", "use-0": "source", "use-1": "tag"})
    report = client.get("/datasets/upload/check/problems.csv").content.decode("utf-8-sig").splitlines()
    assert len(report) == 2
    assert report[1].startswith("302,'=cmd,A tag has at most 200 characters")
    client.post(CHECK, {"action": "drop"})
    assert client.get("/datasets/upload/check/problems.csv").status_code == 302


def test_a_large_file_whose_first_rows_are_bad_is_refused_at_once(as_user, bob, large):
    client = as_user(bob)
    choose(client, b"examples,b\ngood,1\n,2\n")
    page = client.post(CHECK, {"action": "store", "use-0": "source"})
    assert page.status_code == 422
    assert "row 3, column examples" in text_of(page)
    assert not Dataset.objects.exists()


def test_the_same_file_is_offered_as_what_it_is_already(as_user, bob, alice):
    client = as_user(bob)
    choose(client)
    client.post(CHECK, {"action": "store", **CHOSEN})
    known = Dataset.objects.get()
    other = as_user(alice)
    choose(other)
    assert "You already have this." not in text_of(other.get(CHECK)), "with these columns it is another"
    page = other.post(CHECK, {"action": "store", **CHOSEN})
    assert page.status_code == 409
    assert "You already have this." in text_of(page)
    assert f'href="/datasets/{known.pk}/"' in text_of(page)
    assert Dataset.objects.count() == 1
    assert other.post(CHECK, {"action": "again", **CHOSEN}).status_code == 302
    assert Dataset.objects.count() == 2


def test_an_import_is_cancelled_by_a_button(as_user, bob, large, django_capture_on_commit_callbacks):
    client = as_user(bob)
    choose(client)
    where = client.post(CHECK, {"action": "store", **CHOSEN})["Location"]
    with django_capture_on_commit_callbacks(execute=True):
        page = client.post(f"{where}delete/", follow=True)
    assert "the import is cancelled and nothing of it is kept" in text_of(page)
    assert not Dataset.objects.exists()
    assert waiting_files() == []


def test_a_file_beyond_the_quota_is_refused_with_words(as_user, bob, mails, settings):
    settings.TEAM_QUOTA_BYTES = mails.file_bytes + 5
    client = as_user(bob)
    choose(client, CSV + b"3,six,,chat\n")
    page = client.post(CHECK, {"action": "store", **CHOSEN})
    assert page.status_code == 422
    assert "would take more than its quota" in text_of(page)


def test_names_and_cells_are_never_markup(as_user, bob):
    client = as_user(bob)
    evil = "<script>alert(1)</script>"
    choose(
        client, json.dumps({"examples": evil, evil: evil, "kind": evil}).encode(), name=evil, file_name=f"{evil}.jsonl"
    )
    pages = [client.get(CHECK)]
    client.post(CHECK, {"action": "store", "use-0": "source", "use-1": "reference", "use-2": "tag"})
    pk = Dataset.objects.get().pk
    pages += [client.get(f"/datasets/{path}") for path in ("", f"{pk}/", f"{pk}/examples/", f"{pk}/examples/0/")]
    for page in pages:
        assert page.status_code == 200
        assert b"<script>alert" not in page.content
        assert b"&lt;script&gt;" in page.content


def test_the_page_of_a_dataset_answers_what_one_asks(as_user, vera, mails):
    page = text_of(as_user(vera).get(f"/datasets/{mails.pk}/"))
    assert "2 documents, 1 of them with a reference summary" in page
    assert "Words, split at spaces" in page
    assert "four five" in page
    assert f"/api/v1/datasets/{mails.pk}/download/?format=jsonl" in page
    assert "/experiments/new/" not in page


def test_an_editor_is_led_on_to_an_experiment(as_user, bob, mails):
    assert f"/experiments/new/?dataset={mails.pk}" in text_of(as_user(bob).get(f"/datasets/{mails.pk}/"))


def test_examples_page_by_page_and_one_whole(as_user, vera, atlas):
    long = "word " * 2000
    data = b"examples,id\n" + b"".join(b"%s %d,k%d\n" % (long.encode(), n, n) for n in range(120))
    dataset = ingest(team=atlas, user=None, name="x", file=ContentFile(data, name="x.csv"))
    client = as_user(vera)
    first = client.get(f"/datasets/{dataset.pk}/examples/")
    assert [one["index"] for one in first.context["examples"]] == list(range(50))
    assert len(first.content) < 60_000
    last = client.get(f"/datasets/{dataset.pk}/examples/?from=100")
    assert [one["label"] for one in last.context["examples"]] == [f"k{n}" for n in range(100, 120)]
    assert "?before=100" in text_of(last)
    assert (last.context["later"], last.context["earlier"]) == (None, "100")
    one = text_of(client.get(f"/datasets/{dataset.pk}/examples/119/"))
    assert f"{long} 119" in one
    assert "120 of 120" in one
    assert client.get(f"/datasets/{dataset.pk}/examples/120/").status_code == 404


@pytest.mark.parametrize("start", ["x", "-1", "9" * 30, "²", "1e3"])
def test_a_strange_place_is_the_beginning(as_user, vera, mails, start):
    page = as_user(vera).get(f"/datasets/{mails.pk}/examples/", {"from": start})
    assert len(page.context["examples"]) == 2


def test_the_list_goes_on_by_key(as_user, vera, atlas):
    Dataset.objects.bulk_create(Dataset(team=atlas, name=f"d{n}", sha256="") for n in range(70))
    client = as_user(vera)
    first = client.get("/datasets/")
    second = client.get("/datasets/", {"before": first.context["older"]})
    names = [one.name for page in (first, second) for one in page.context["datasets"]]
    assert names == [f"d{n}" for n in reversed(range(70))]
    assert second.context["older"] is None


def test_the_sample_is_one_click_away(as_user, bob):
    client = as_user(bob)
    first, second = (client.post("/datasets/sample/") for _ in range(2))
    assert first["Location"] == second["Location"] == f"/datasets/{Dataset.objects.get().pk}/"
    assert "The first examples" in text_of(client.get(first["Location"]))


def test_a_dataset_is_deleted_unless_it_is_used(as_user, bob, mails, atlas):
    client = as_user(bob)
    experiment = Experiment.objects.create(team=atlas, name="Which?", dataset=mails)
    page = client.post(f"/datasets/{mails.pk}/delete/", follow=True)
    assert "An experiment uses this dataset" in text_of(page)
    experiment.delete()
    assert client.post(f"/datasets/{mails.pk}/delete/")["Location"] == "/datasets/"
    assert not Dataset.objects.exists()


def addresses(pk):
    return [reverse("datasets"), f"/datasets/{pk}/", f"/datasets/{pk}/examples/", f"/datasets/{pk}/examples/0/"]


def test_a_viewer_sees_everything_and_uploads_nothing(as_user, vera, mails):
    client = as_user(vera)
    assert [client.get(address).status_code for address in addresses(mails.pk)] == [200] * 4
    assert [client.get(address).status_code for address in (UPLOAD, CHECK)] == [403, 403]
    assert choose(client).status_code == 403
    assert client.post("/datasets/sample/").status_code == 403
    assert client.post(f"/datasets/{mails.pk}/delete/").status_code == 403
    assert "Upload a dataset" not in text_of(client.get("/datasets/"))


def test_another_team_finds_nothing(as_user, charlie, mails):
    client = as_user(charlie)
    assert [client.get(address).status_code for address in addresses(mails.pk)] == [200, 404, 404, 404]
    assert "Mails" not in text_of(client.get("/datasets/"))
    assert client.post(f"/datasets/{mails.pk}/delete/").status_code == 404
    assert Dataset.objects.exists()


def test_the_anonymous_are_asked_to_sign_in(client, mails):
    for address in [*addresses(mails.pk), UPLOAD, CHECK]:
        assert client.get(address)["Location"].startswith("/sign-in/")


def test_looking_at_a_page_changes_nothing(as_user, vera, mails):
    before = AuditEvent.objects.count(), list(Dataset.objects.values())
    client = as_user(vera)
    for address in addresses(mails.pk):
        client.get(address)
    assert (AuditEvent.objects.count(), list(Dataset.objects.values())) == before


@pytest.mark.parametrize(("which", "n"), [(0, 4), (1, 6), (2, 5), (3, 5)])
def test_each_page_takes_its_number_of_queries(as_user, vera, mails, django_assert_num_queries, which, n):
    client = as_user(vera)  # session, user, membership, and: the datasets; or the dataset, its examples and children
    with django_assert_num_queries(n):
        client.get(addresses(mails.pk)[which])


@pytest.mark.parametrize("name", ["dataset", "example"])
def test_the_admin_shows_facts_and_no_texts(client, admin_user, mails, name):
    client.force_login(admin_user)
    page = client.get(f"/admin/datasets/{name}/")
    assert page.status_code == 200
    assert b"Mails" in page.content
    assert b"one two three" not in page.content
    one = mails if name == "dataset" else mails.examples.first()
    assert client.get(f"/admin/datasets/{name}/{one.pk}/change/").status_code == 200
    assert client.get(f"/admin/datasets/{name}/add/").status_code == 403
    assert client.get(f"/admin/datasets/example/?dataset__id__exact={mails.pk}").status_code == 200
    assert client.get(f"/admin/datasets/{name}/?q=x").status_code == 200
