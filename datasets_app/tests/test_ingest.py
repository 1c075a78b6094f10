"""Ingest: a good file becomes a dataset that never changes; a bad one leaves nothing behind."""

import io
import json
from hashlib import sha256

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import DatabaseError, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets_app import deleting, exporting
from datasets_app.ingest import BadFile, ingest, ingest_rows, ingest_sample
from datasets_app.models import Dataset, Example
from datasets_app.reading import Columns, Row
from evaluations.models import Experiment
from lumigator.models import Team

pytestmark = pytest.mark.django_db

CSV = b"id,examples,ground_truth,kind\n1,one two three,one,mail\n2,four five,,chat\n"


def upload(atlas, data=CSV, **more):
    return ingest(team=atlas, user=None, name="Mails", file=ContentFile(data, name="mails.csv"), **more)


def stored_files():
    return default_storage.listdir("uploads")[0] if default_storage.exists("uploads") else []


def test_a_file_becomes_a_dataset_that_is_ready(atlas, bob):
    dataset = ingest(team=atlas, user=bob, name=" Mails ", file=io.BytesIO(CSV), file_name="C:\\tmp\\mails.csv")
    dataset.refresh_from_db()
    assert (dataset.name, dataset.team, dataset.created_by, dataset.state) == ("Mails", atlas, bob, "ready")
    assert (dataset.n_examples, dataset.n_with_reference) == (2, 1)
    assert (dataset.sha256, dataset.file_bytes) == (sha256(CSV).hexdigest(), len(CSV))
    assert dataset.file_name == "mails.csv"
    assert dataset.columns == {
        "source": "examples", "references": ["ground_truth"], "id": "id", "group": "", "tags": [],
    }  # fmt: skip
    assert [one.as_dict() for one in dataset.examples.all()] == [
        {"index": 0, "id": "1", "source": "one two three", "references": ["one"], "group": None, "tags": {}},
        {"index": 1, "id": "2", "source": "four five", "references": [], "group": None, "tags": {}},
    ]


def test_the_file_is_kept_once_under_a_key_made_of_its_content(atlas):
    first, second = upload(atlas), upload(atlas)
    assert first.pk != second.pk
    assert first.file.name == second.file.name == f"uploads/t{atlas.pk}/{sha256(CSV).hexdigest()}"
    assert first.file.read() == CSV


def test_a_path_and_given_columns(atlas, tmp_path):
    path = tmp_path / "news.jsonl"
    path.write_text('{"body": "a b", "short": ["c", "d"], "kind": "x"}\n')
    dataset = ingest(
        team=atlas, user=None, name="", file=path, columns={"source": "body", "references": ["short"], "tags": ["kind"]}
    )
    assert dataset.name == "news"
    assert dataset.examples.get().references == ["c", "d"]
    assert dataset.examples.get().tags == {"kind": "x"}


def test_lengths_and_groups_are_counted_while_reading(atlas):
    data = b"".join(
        json.dumps({"examples": "w " * n, "ground_truth": ["a b"] * (n % 3), "group": "even" if n % 2 == 0 else "odd"})
        .encode() + b"\n" for n in range(1, 101)
    )  # fmt: skip
    profile = upload(atlas, data).profile
    assert profile["source_words"] == {"n": 100, "min": 1, "median": 50.5, "mean": 50.5, "p95": 95.0, "max": 100}
    assert profile["reference_words"]["mean"] == 2
    assert (profile["n_with_reference"], profile["n_with_several_references"]) == (67, 33)
    assert profile["max_references"] == 2
    assert profile["groups"]["largest"] == [{"value": "even", "n": 50}, {"value": "odd", "n": 50}]


def test_lengths_of_references_that_are_not_there_are_absent(atlas):
    assert upload(atlas, b"examples\nfoo bar\n").profile["reference_words"] is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"examples,ground_truth\n" + b"good,one\n" * 3000 + b"bad\n",
        b"examples\ngood\nn\0ul\n",
        b'{"examples": "good"}\n{"examples": "\\ud800"}\n',
        b"examples\ngood\ncaf\xe9\n",
    ],
    ids=["empty", "late", "NUL", "surrogate", "encoding"],
)
def test_nothing_is_stored_of_a_bad_file(atlas, data):
    with pytest.raises(BadFile) as refused:
        upload(atlas, data)
    assert len(refused.value.problems) == 1
    assert not Dataset.objects.exists()
    assert not Example.objects.exists()
    assert not stored_files()


def test_a_bad_file_names_a_hundred_problems_and_counts_the_others(atlas):
    with pytest.raises(BadFile) as refused:
        upload(atlas, b"examples,b\n" + b"x\n" * 150)
    assert len(refused.value.problems) == 100
    assert refused.value.rest == "… and 50 more problems."


def test_a_file_beyond_the_limit_is_refused(atlas, settings):
    settings.UPLOAD_LIMIT_BYTES = 1000
    with pytest.raises(BadFile, match="larger than"):
        upload(atlas, b"examples\n" + b"some text\n" * 200)
    assert not Dataset.objects.exists()


def test_a_failure_inside_somebody_elses_transaction_leaves_it_usable(atlas):
    with transaction.atomic():
        with pytest.raises(BadFile):
            upload(atlas, b"examples\ngood\n\0\n")
        upload(atlas)
    assert Dataset.objects.count() == 1


def test_a_dataset_that_is_ready_never_changes(atlas):
    dataset = upload(atlas)
    for change in (
        lambda: dataset.examples.update(source="other"),
        lambda: Dataset.objects.filter(pk=dataset.pk).update(n_examples=3),
        lambda: Dataset.objects.filter(pk=dataset.pk).update(sha256="0" * 64),
        lambda: Dataset.objects.filter(pk=dataset.pk).update(state="importing"),
    ):
        with pytest.raises(DatabaseError, match=r"never becomes|cannot be changed"), transaction.atomic():
            change()
    assert list(dataset.examples.values_list("source", flat=True)) == ["one two three", "four five"]


def test_rows_made_here_become_a_child(atlas):
    parent = upload(atlas, privacy=Dataset.Privacy.LOCAL_ONLY)
    child = ingest_rows(
        team=atlas, user=None, name="With references", parent=parent, privacy=parent.privacy,
        origin=Dataset.Origin.GENERATED, columns=Columns("examples", ("ground_truth",)),
        rows=[Row(1, "one two three", ["one"], "1"), Row(2, "four five", ["four"], "2")],
    )  # fmt: skip
    assert (child.parent, child.state, child.n_with_reference, child.may_leave) == (parent, "ready", 2, False)
    assert len(child.sha256) == 64


def test_the_sample_is_there_once_per_team(atlas, basalt):
    mine = ingest_sample(atlas, None)
    assert ingest_sample(atlas, None) == mine
    assert ingest_sample(basalt, None) != mine
    assert mine.origin == "sample"
    assert mine.n_examples == mine.n_with_reference > 0
    assert set(mine.examples.first().tags) == {"kind", "length"}
    assert mine.examples.first().key
    assert mine.examples.filter(references__len=2).exists()


def test_deleting_removes_the_examples_and_the_last_users_file(atlas, django_capture_on_commit_callbacks):
    first, second = upload(atlas), upload(atlas)
    key = first.file.name
    with django_capture_on_commit_callbacks(execute=True):
        deleting.delete(first)
    assert default_storage.exists(key)
    with django_capture_on_commit_callbacks(execute=True):
        deleting.delete(second)
    assert not default_storage.exists(key)
    assert not Dataset.objects.exists()
    assert not Example.objects.exists()


def test_a_dataset_with_an_experiment_stays(atlas):
    dataset = upload(atlas)
    Experiment.objects.create(team=atlas, name="Which?", dataset=dataset)
    with pytest.raises(deleting.InUse, match="An experiment uses this dataset: delete it first"):
        deleting.delete(dataset)
    assert dataset.examples.count() == 2


text = st.text(
    st.one_of(st.sampled_from("\",;'=+-@\t\r\n a"), st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    max_size=20,
)
label = text.map(str.strip)
rows = st.lists(
    st.builds(
        dict,
        source=text.filter(lambda one: one.strip() and not any(c.isdigit() for c in one)),
        references=st.lists(text.filter(str.strip), max_size=3),
        group=label,
        tags=st.dictionaries(
            st.sampled_from(["kind", "=kind", "id", "text", "tag_id"]), label.filter(bool), max_size=3
        ),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("name", list(exporting.EXPORTS))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows)
def test_an_export_reads_back_to_the_same_examples(db, name, written):
    atlas, _ = Team.objects.get_or_create(name="Round", slug="round")
    tags = tuple(dict.fromkeys(tag for row in written for tag in row["tags"]))
    first = ingest_rows(
        team=atlas, user=None, name="a", privacy="any", origin="edited", columns=Columns("examples", tags=tags),
        rows=[Row(n, row["source"], row["references"], f"={n}", row["group"], row["tags"])
              for n, row in enumerate(written)],
    )  # fmt: skip
    second = upload(atlas, b"".join(exporting.download(first, name).streaming_content))
    renamed = exporting.tag_columns(first)
    assert [(one.key, one.source, one.references, one.group, one.tags) for one in second.examples.all()] == [
        (one.key, one.source, one.references, one.group, {renamed[tag]: value for tag, value in one.tags.items()})
        for one in first.examples.all()
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "'=", "''+"])
def test_no_cell_of_a_csv_starts_a_formula(atlas, start):
    dataset = upload(atlas, json.dumps({"examples": f"{start}cmd|' /C calc'!A0"}).encode())
    assert f"'{start}cmd" in "".join(exporting.as_csv(dataset))


def test_other_peoples_apostrophes_are_theirs(atlas):
    assert upload(atlas, b"examples\n'-tis so\n").examples.get().source == "'-tis so"


def test_an_export_that_would_end_early_is_broken_off(atlas):
    dataset = upload(atlas)
    lines = exporting.as_jsonl(dataset)
    deleting.delete(Dataset.objects.get(pk=dataset.pk))
    with pytest.raises(RuntimeError, match="0 examples instead of 2"):
        list(lines)


def test_a_ready_dataset_takes_and_loses_no_rows(atlas):
    dataset = upload(atlas)
    with pytest.raises(DatabaseError, match="cannot be changed"), transaction.atomic():
        Example.objects.create(dataset=dataset, index=99, source="One more.")
    with pytest.raises(DatabaseError, match="cannot be changed"), transaction.atomic():
        Example.objects.filter(dataset=dataset, index=1).delete()
    assert Example.objects.filter(dataset=dataset).count() == dataset.n_examples
