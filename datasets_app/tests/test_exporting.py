"""Exporting: what comes out goes in again as the same examples, and no spreadsheet runs any of it."""

import csv
import io
import json

import pyarrow.parquet as pq
import pytest
from django.core.files.base import ContentFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets_app import exporting
from datasets_app.formats import Problem
from datasets_app.formats.csv import guarded, unguarded
from datasets_app.ingest import ingest, ingest_rows
from datasets_app.mapping import Columns
from datasets_app.reading import Row, Table
from lumigator.models import Team

pytestmark = pytest.mark.django_db
STARTS = ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"]

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
cell = st.builds(lambda start, rest: start + rest, st.sampled_from(["", "'", "''=", *STARTS]), text).filter(str.strip)
label = text.map(str.strip).filter(bool)
value = label | st.integers(-(10**20), 10**20) | st.floats(-1e15, 1e15) | st.booleans()
rows = st.lists(
    st.builds(
        dict,
        source=cell.map(lambda text: f"{text}a"),  # a file whose documents are all numbers is refused
        references=st.lists(cell, max_size=3),
        group=st.just("") | label,
        tags=st.dictionaries(st.sampled_from(["kind", "=sum", "id", "＋n"]), value, max_size=3),
    ),
    min_size=1,
    max_size=5,
)


def stored(written):
    team, _ = Team.objects.get_or_create(name="Round", slug="round")
    tags = tuple(dict.fromkeys(tag for row in written for tag in row["tags"]))
    return ingest_rows(
        team=team, user=None, name="a", privacy="any", origin="edited", columns=Columns("examples", tags=tags),
        rows=[Row(n, row["source"], row["references"], f"={n}", row["group"], row["tags"])
              for n, row in enumerate(written)],
    )  # fmt: skip


def file_of(dataset, name):
    return b"".join(exporting.download(dataset, name).streaming_content)


def again(dataset, name):
    file = ContentFile(file_of(dataset, name), name="again")
    return ingest(team=dataset.team, user=None, name="b", file=file)


def rows_of(dataset, names=None, tag=lambda value: value):
    return [
        (one.key, one.source, one.references, one.group,
         {(names or {}).get(name, name): tag(value) for name, value in one.tags.items()})
        for one in dataset.examples.order_by("index")
    ]  # fmt: skip


def as_cell(value):
    return value if isinstance(value, str) else json.dumps(value)


def read_again(dataset, name):
    """What the reader makes of the file; a whole import would take a child process for each example of a test."""
    table = Table(io.BytesIO(file_of(dataset, name)))
    found = list(table.rows(table.guess()))
    assert not [one for one in found if isinstance(one, Problem)]
    return [(one.key, one.source, one.references, one.group, one.tags) for one in found]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows)
def test_jsonl_reads_back_with_the_types_of_tags(db, written):
    first = stored(written)
    assert read_again(first, "jsonl") == rows_of(first, exporting.tag_columns(first))


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows)
def test_csv_reads_back_with_tags_as_text(db, written):
    first = stored(written)
    assert read_again(first, "csv") == rows_of(first, exporting.tag_columns(first), as_cell)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows)
def test_parquet_reads_back_with_one_type_for_each_tag(db, written):
    first = stored(written)
    was = rows_of(first, exporting.tag_columns(first))
    for new, old in zip(read_again(first, "parquet"), was, strict=True):
        assert new[:4] == old[:4]
        assert new[4].keys() == old[4].keys()
        for name, one in new[4].items():
            assert one in (old[4][name], as_cell(old[4][name]))


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["a", "b"], "string"), ([1, 2], "int64"), ([1, 2.5], "double"), ([True, False], "bool"), ([1, "a"], "string"),
     ([10**19, 1], "string"), ([10**17, 0.5], "string")],
)  # fmt: skip
def test_a_tag_in_parquet_has_the_type_that_all_its_values_have(values, kind):
    first = stored([{"source": "x", "references": [], "group": "", "tags": {"kind": one}} for one in values])
    table = pq.read_table(io.BytesIO(file_of(first, "parquet")))
    assert str(table.schema.field("kind").type) == kind


def test_parquet_comes_in_pieces_that_do_not_grow_with_the_dataset(monkeypatch):
    monkeypatch.setattr(exporting, "GROUP_ROWS", 10)
    first = stored([{"source": f"text {n}", "references": [], "group": "", "tags": {}} for n in range(35)])
    assert len(list(exporting.as_parquet(first))) == 5  # four row groups, and the footer
    assert pq.ParquetFile(io.BytesIO(file_of(first, "parquet"))).num_row_groups == 4


def test_long_documents_are_fetched_a_few_at_a_time(monkeypatch, django_assert_num_queries):
    first = stored([{"source": "x" * 100, "references": [], "group": "", "tags": {}} for _ in range(9)])
    monkeypatch.setattr(exporting, "BATCH_CHARACTERS", 250)
    with django_assert_num_queries(7):  # three times the lengths and three documents, and that nothing follows
        assert len(list(exporting.examples_of(first))) == 9


@pytest.mark.parametrize("start", [*STARTS, "'=", "''＝"])
def test_no_cell_starts_a_formula_and_each_comes_back(start):
    first = stored([{"source": f"{start}cmd|' /C calc'!A0", "references": [], "group": "", "tags": {}}])
    lines = list(csv.reader(io.StringIO(file_of(first, "csv").decode("utf-8-sig"), newline="")))
    assert lines[1][3] == f"'{start}cmd|' /C calc'!A0"
    assert again(first, "csv").examples.get().source == f"{start}cmd|' /C calc'!A0"


@given(st.builds(lambda start, rest: start + rest, st.sampled_from(["", "'", *STARTS]), st.text(max_size=5)))
def test_guarding_has_an_inverse(cell):
    assert unguarded(guarded(cell)) == cell
    assert not guarded(cell).startswith(tuple(STARTS))


def test_a_download_is_an_attachment(as_user, vera, atlas):
    dataset = ingest(team=atlas, user=None, name="Ünïcode / x", file=ContentFile(b"examples\na\n", name="x.csv"))
    answer = as_user(vera, api=True).get(f"/api/v1/datasets/{dataset.pk}/download/?format=parquet")
    assert answer["Content-Disposition"] == f'attachment; filename="unicode-x-{dataset.pk}.parquet"'
    assert (answer["Content-Type"], answer["X-Content-Type-Options"]) == ("application/vnd.apache.parquet", "nosniff")
    assert b"".join(answer.streaming_content).startswith(b"PAR1")
