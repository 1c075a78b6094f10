"""The API of datasets: what a script sends, what it gets, and what it is refused."""

import io

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from datasets_app import storing
from datasets_app.ingest import ingest
from datasets_app.models import Dataset
from evaluations.models import Experiment
from evaluations.tests.engine import work_off
from lumigator.models import ApiToken, AuditEvent, Role

pytestmark = pytest.mark.django_db

URL = "/api/v1/datasets/"
CSV = b"examples,ground_truth,kind\none two three,one,mail\nfour five,,chat\n"


def file(data=CSV, name="mails.csv"):
    upload = io.BytesIO(data)
    upload.name = name
    return upload


def post(client, data=CSV, **fields):
    headers = fields.pop("headers", None)
    return client.post(URL, {"file": file(data), "name": "Mails", **fields}, format="multipart", headers=headers)


@pytest.fixture
def mails(atlas, bob):
    return ingest(team=atlas, user=bob, name="Mails", file=ContentFile(CSV, name="mails.csv"))


def test_an_editor_uploads(as_user, bob, atlas):
    answer = post(as_user(bob, api=True))
    assert answer.status_code == 201
    body = answer.json()
    assert answer["Location"] == f"{URL}{body['id']}/"
    assert (body["name"], body["state"], body["n_examples"], body["n_with_reference"]) == ("Mails", "ready", 2, 1)
    assert body["columns"]["references"] == ["ground_truth"]
    assert body["created_by"] == "bob"
    assert Dataset.objects.get().team == atlas
    event = AuditEvent.objects.get(action="dataset.upload")
    assert (event.actor, event.object_id, event.detail["n_examples"]) == ("bob", str(body["id"]), 2)


def test_a_token_uploads(client, bob, atlas):
    _, secret = ApiToken.issue(user=bob, team=atlas, name="script")
    answer = client.post(URL, {"file": file(), "name": "x"}, headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "references", [["short", "gist"], "short,gist", "short, gist,"], ids=["repeated", "commas", "spaces"]
)
def test_columns_are_mapped(as_user, bob, references):
    data = b"nr,body,short,gist,kind\n7,a b,c,d,mail\n"
    answer = post(
        as_user(bob, api=True), data, source_column="body", reference_columns=references, id_column="nr",
        group_column="", tag_columns="kind", privacy="local_only",
    )  # fmt: skip
    assert answer.status_code == 201, answer.json()
    dataset = Dataset.objects.get()
    assert dataset.privacy == "local_only"
    assert dataset.examples.get().as_dict() == {
        "index": 0, "id": "7", "source": "a b", "references": ["c", "d"], "group": None, "tags": {"kind": "mail"},
    }  # fmt: skip


def test_an_empty_column_means_none(as_user, bob):
    post(as_user(bob, api=True), b"id,examples,ground_truth\n1,a,b\n1,c,d\n", id_column="", reference_columns="")
    assert list(Dataset.objects.get().examples.values_list("key", "references")) == [("", []), ("", [])]


def test_problems_are_named_by_row_and_column(as_user, bob):
    answer = post(as_user(bob, api=True), b"examples,ground_truth\ngood,one\n,two\nx,y,z\n")
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["errors"] == [
        {"loc": "row 3, column examples", "msg": "The document is blank. Fill it in, or remove the row."},
        {
            "loc": "row 4",
            "msg": "It has 3 cells, the header has 2. "
            "Put cells that hold the delimiter or a line break in double quotes.",
        },
    ]
    assert not Dataset.objects.exists()


def test_further_problems_are_counted(as_user, bob):
    errors = post(as_user(bob, api=True), b"examples,b\n" + b"x\n" * 130).json()["errors"]
    assert len(errors) == 101
    assert errors[-1] == {"loc": "", "msg": "… and 30 more problems."}


@pytest.mark.parametrize(
    ("fields", "loc"),
    [
        ({"file": ""}, "file"),
        ({"privacy": "public"}, "privacy"),
        ({"name": "a\0b"}, "name"),
        ({"name": "x" * 201}, "name"),
    ],
)
def test_a_wrong_field_is_named(as_user, bob, fields, loc):
    answer = as_user(bob, api=True).post(URL, {"file": file(), "name": "x"} | fields, format="multipart")
    assert answer.status_code == 400
    assert [error["loc"] for error in answer.json()["errors"]] == [loc]


def test_what_the_server_decides_cannot_be_sent(as_user, bob, basalt, atlas):
    post(as_user(bob, api=True), team=basalt.pk, state="failed", origin="sample", n_examples=99, created_by="")
    dataset = Dataset.objects.get()
    assert (dataset.team, dataset.state, dataset.origin, dataset.n_examples) == (atlas, "ready", "upload", 2)


def test_an_idempotency_key_uploads_once(as_user, bob):
    client = as_user(bob, api=True)
    first, second = (post(client, headers={"Idempotency-Key": "k1"}) for _ in range(2))
    assert first.status_code == second.status_code == 201
    assert first.json()["id"] == second.json()["id"]
    assert Dataset.objects.count() == 1


def test_the_same_file_gives_the_dataset_it_made_unless_asked_for_again(as_user, bob):
    client = as_user(bob, api=True)
    first, second, third = post(client), post(client, name="Other"), post(client, again=True)
    assert [one.status_code for one in (first, second, third)] == [201, 200, 201]
    assert [one.json()["existing"] for one in (first, second, third)] == [False, True, False]
    assert first.json()["id"] == second.json()["id"] != third.json()["id"]
    assert second["Location"] == first["Location"]
    others = post(client, privacy="local_only"), post(client, reference_columns="")
    assert [one.status_code for one in others] == [201, 201], "they are not the same"


@pytest.fixture
def large(settings):
    """Everything counts as large: a worker imports it."""
    settings.IMPORT_AT_ONCE_BYTES = 10


def test_a_large_file_is_imported_by_a_worker(as_user, bob, large):
    client = as_user(bob, api=True)
    answer = post(client, tag_columns="kind")
    body = answer.json()
    assert answer.status_code == 202
    assert answer["Location"] == f"{URL}{body['id']}/"
    assert (body["state"], body["n_examples"], body["columns"]["tags"]) == ("importing", 0, ["kind"])
    assert body["progress"]["bytes_total"] == len(CSV)
    assert (body["progress"]["rows_done"], body["progress"]["share"]) == (0, 0.0)
    assert client.get(f"{URL}{body['id']}/profile/").status_code == 409
    assert post(client, tag_columns="kind").json()["id"] == body["id"], "the same, while it is imported"
    work_off()
    body = client.get(answer["Location"]).json()
    assert (body["state"], body["n_examples"], body["progress"]["share"]) == ("ready", 2, 1.0)
    assert client.get(f"{answer['Location']}examples/").json()["results"][0]["tags"] == {"kind": "mail"}
    assert client.get(f"{answer['Location']}problems/").json() == []
    assert AuditEvent.objects.get(action="dataset.upload").object_id == str(body["id"])


def test_a_large_file_whose_first_rows_are_bad_is_refused_at_once(as_user, bob, large):
    answer = post(as_user(bob, api=True), b"examples,ground_truth\ngood,one\n,two\n")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["loc"] == "row 3, column examples"
    assert not Dataset.objects.exists()
    assert not any(default_storage.listdir(f"pending/u{bob.pk}"))


def test_what_a_worker_finds_wrong_is_told(as_user, bob, large):
    client = as_user(bob, api=True)
    where = post(client, b"examples,ground_truth\n" + b"good,one\n" * 300 + b" ,two\n")["Location"]
    work_off()
    body = client.get(where).json()
    assert (body["state"], body["n_examples"], body["progress"]["n_problems"]) == ("failed", 0, 1)
    assert body["problem"].startswith("row 302, column examples: The document is blank.")
    assert client.get(f"{where}problems/").json() == [
        {
            "row": 302, "column": "examples", "message": "The document is blank.",
            "cure": "Fill it in, or remove the row.",
        }
    ]  # fmt: skip


def test_deleting_cancels_an_import(as_user, bob, large, django_capture_on_commit_callbacks):
    client = as_user(bob, api=True)
    where = post(client)["Location"]
    with django_capture_on_commit_callbacks(execute=True):
        assert client.delete(where).status_code == 204
    work_off()
    assert not Dataset.objects.exists()
    assert not any(default_storage.listdir(f"pending/u{bob.pk}"))


def test_an_idempotency_key_uploads_a_large_file_once(as_user, bob, large):
    client = as_user(bob, api=True)
    first, second = (post(client, headers={"Idempotency-Key": "k1"}, again=True) for _ in range(2))
    assert first.status_code == second.status_code == 202
    assert first.json()["id"] == second.json()["id"]
    assert len(default_storage.listdir(f"pending/u{bob.pk}")[1]) == 1, "of the second nothing is kept"
    work_off()
    assert Dataset.objects.get().is_ready


def test_a_team_beyond_its_quota_is_told_what_to_do(as_user, bob, mails, settings):
    settings.TEAM_QUOTA_BYTES = mails.file_bytes + 5
    answer = post(as_user(bob, api=True), CSV + b"six,,chat\n")
    assert answer.status_code == 400
    assert "the files of your team would take more than its quota" in answer.json()["detail"]
    assert Dataset.objects.count() == 1


def test_a_body_beyond_the_limit_is_refused_before_it_is_kept(as_user, bob, settings, monkeypatch):
    settings.UPLOAD_LIMIT_BYTES = 1000
    monkeypatch.setattr(storing, "FORM_BYTES", 500)
    answer = post(as_user(bob, api=True), b"examples\n" + b"text\n" * 1000)
    assert answer.status_code == 413
    assert not Dataset.objects.exists()


def test_examples_come_in_pages_in_the_order_of_the_file(as_user, vera, atlas):
    data = b"examples,id\n" + b"".join(b"text %d,k%d\n" % (n, n) for n in range(130))
    dataset = ingest(team=atlas, user=None, name="x", file=ContentFile(data, name="x.csv"))
    client, url, found = as_user(vera, api=True), f"{URL}{dataset.pk}/examples/", []
    while url:
        page = client.get(url).json()
        found += page["results"]
        url = page["next"]
    assert [one["index"] for one in found] == list(range(130))
    assert found[7] == {"index": 7, "id": "k7", "source": "text 7", "references": [], "group": "", "tags": {}}


def test_the_profile(as_user, vera, mails):
    body = as_user(vera, api=True).get(f"{URL}{mails.pk}/profile/").json()
    assert body["source_words"] == {"n": 2, "min": 2, "median": 2.5, "mean": 2.5, "p95": 3.0, "max": 3}
    assert (body["n_examples"], body["n_with_reference"], body["n_with_several_references"]) == (2, 1, 0)
    assert body["groups"] == {"n": 0, "is_capped": False, "largest": []}


def test_a_profile_that_was_not_computed_is_absent_with_a_reason(as_user, vera, atlas):
    importing = Dataset.objects.create(team=atlas, name="x", sha256="")
    answer = as_user(vera, api=True).get(f"{URL}{importing.pk}/profile/")
    assert answer.status_code == 409
    assert "when a dataset becomes ready" in answer.json()["detail"]


@pytest.mark.parametrize(("name", "start"), [("csv", "\ufefflumigator_index,id,group,examples"), ("jsonl", "{")])
def test_a_download_is_streamed_as_an_attachment_and_recorded(as_user, vera, mails, name, start):
    answer = as_user(vera, api=True).get(f"{URL}{mails.pk}/download/?format={name}", headers={"Accept": "text/csv"})
    assert answer.status_code == 200
    assert answer.streaming
    assert b"".join(answer).decode().startswith(start)
    assert answer["Content-Disposition"] == f'attachment; filename="mails-{mails.pk}.{name}"'
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert AuditEvent.objects.get(action="dataset.download").detail == {"format": name}


def test_an_unknown_download_format_is_refused(as_user, vera, mails):
    answer = as_user(vera, api=True).get(f"{URL}{mails.pk}/download/?format=xlsx")
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"loc": "format", "msg": "It is one of csv, jsonl, parquet."}]


def test_an_editor_deletes(as_user, bob, mails):
    assert as_user(bob, api=True).delete(f"{URL}{mails.pk}/").status_code == 204
    assert not Dataset.objects.exists()
    assert AuditEvent.objects.filter(action="dataset.delete", object_id=str(mails.pk)).exists()


def test_a_dataset_in_use_is_kept_with_words(as_user, bob, mails, atlas):
    Experiment.objects.create(team=atlas, name="Which?", dataset=mails)
    answer = as_user(bob, api=True).delete(f"{URL}{mails.pk}/")
    assert answer.status_code == 409
    assert "An experiment uses this dataset" in answer.json()["detail"]
    assert Dataset.objects.exists()
    assert not AuditEvent.objects.filter(action="dataset.delete").exists()


def test_a_viewer_reads_and_does_nothing_else(as_user, vera, mails):
    client = as_user(vera, api=True)
    assert client.get(URL).json()["results"][0]["id"] == mails.pk
    assert client.get(f"{URL}{mails.pk}/").status_code == 200
    assert post(client).status_code == 403
    assert client.delete(f"{URL}{mails.pk}/").status_code == 403


def test_an_editors_token_with_the_role_of_a_viewer_only_reads(client, bob, atlas):
    _, secret = ApiToken.issue(user=bob, team=atlas, name="script", role=Role.VIEWER)
    answer = client.post(URL, {"file": file(), "name": "x"}, headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 403


@pytest.mark.parametrize("path", ["", "examples/", "profile/", "download/?format=csv"])
def test_another_team_learns_nothing(as_user, charlie, mails, path):
    client = as_user(charlie, api=True)
    assert client.get(URL).json()["results"] == []
    assert client.get(f"{URL}{mails.pk}/{path}").status_code == 404
    assert client.delete(f"{URL}{mails.pk}/").status_code == 404


def test_a_role_counts_only_in_its_own_team(as_user, charlie, atlas, mails):
    atlas.memberships.create(user=charlie, role="viewer")  # an administrator of Basalt, a viewer here
    client = as_user(charlie, api=True)
    assert client.delete(f"{URL}{mails.pk}/").status_code == 404, "acting for Basalt, Atlas is out of sight"
    client.post("/team/", {"team": atlas.slug}, format="multipart")
    assert client.get(f"{URL}{mails.pk}/").status_code == 200
    assert client.delete(f"{URL}{mails.pk}/").status_code == 403


def test_the_anonymous_are_refused(client, mails):
    assert client.get(f"{URL}{mails.pk}/").status_code in (401, 403)


@pytest.mark.parametrize("n", [3, 40])
def test_a_list_takes_as_many_queries_whatever_its_length(as_user, vera, atlas, n, django_assert_num_queries):
    Dataset.objects.bulk_create(Dataset(team=atlas, name=str(i), sha256="") for i in range(n))
    client = as_user(vera, api=True)
    with django_assert_num_queries(4):  # session, user, membership, datasets
        assert len(client.get(URL).json()["results"]) == n


def test_the_schema_knows_the_upload_and_the_download(as_user, vera):
    schema = (
        as_user(vera, api=True).get("/api/v1/schema/", headers={"Accept": "application/vnd.oai.openapi+json"}).json()
    )
    upload = schema["paths"][URL]["post"]
    (name,) = upload["requestBody"]["content"]
    assert name == "multipart/form-data"
    fields = schema["components"]["schemas"][
        "UploadRequest" if "UploadRequest" in schema["components"]["schemas"] else "Upload"
    ]
    assert {"file", "name", "source_column", "reference_columns", "privacy"} <= set(fields["properties"])
    assert fields["properties"]["file"]["format"] in ("uri", "binary")
    download = schema["paths"][f"{URL}{{id}}/download/"]["get"]
    kinds = {"text/csv", "application/x-ndjson", "application/vnd.apache.parquet"}
    assert set(download["responses"]["200"]["content"]) == kinds
    examples = schema["paths"][f"{URL}{{id}}/examples/"]["get"]["responses"]["200"]["content"]["application/json"][
        "schema"
    ]
    assert examples["$ref"].endswith("DatasetExamplePage")
