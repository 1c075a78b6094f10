"""Parquet and Arrow: columns of text, numbers and lists of texts come as they were written, all else is named."""

import io
import json
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_app import formats
from datasets_app.formats import MAX_CELL_BYTES, Problem, Record
from datasets_app.mapping import Columns
from datasets_app.reading import Row, Table, read

BASIC = {"examples": ["a b", "é"], "ground_truth": [["c", "d"], None], "id": [7, 8], "score": [0.5, None]}


def parquet(columns, **options) -> bytes:
    out = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), out, **options)
    return out.getvalue()


def arrow(columns, is_file=False, rows=1000) -> bytes:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    out = io.BytesIO()
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


WRITERS = {
    "parquet": parquet,
    "arrow": arrow,
    "arrow file": lambda columns: arrow(columns, is_file=True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_columns_come_back_as_they_were_written(name):
    table = Table(io.BytesIO(WRITERS[name](BASIC)))
    assert table.format_name == name.split()[0]
    assert (table.header, table.header_row) == (("examples", "ground_truth", "id", "score"), None)
    columns = Columns("examples", ("ground_truth",), "id", "", ("score",))
    assert list(table.rows(columns)) == [Row(1, "a b", ["c", "d"], "7", "", {"score": 0.5}), Row(2, "é", [], "8")]


@pytest.mark.parametrize("name", WRITERS)
def test_a_stream_that_cannot_be_sought_reads_the_same(name):
    class Forward:
        def __init__(self, data):
            self.read = io.BytesIO(data).read

    assert [row.source for row in read(Forward(WRITERS[name](BASIC)))] == ["a b", "é"]


@pytest.mark.parametrize("name", WRITERS)
def test_other_columns_are_left_out_and_named_when_they_are_chosen(name):
    columns = {
        "examples": ["a"], "day": [date(2026, 1, 2)], "vector": [[0.5]], "raw": [b"\xff"], "pair": [{"x": 1}],
    }  # fmt: skip
    table = Table(io.BytesIO(WRITERS[name](columns)))
    assert table.header == ("examples",)
    assert table.left_out["day"] == "date32[day]"
    assert list(table.left_out) == ["day", "vector", "raw", "pair"]
    assert list(table.rows(Columns("examples"))) == [Row(1, "a", [])]
    table = Table(io.BytesIO(WRITERS[name](columns)))
    (problem,) = table.rows(Columns("examples", (), "", "", ("day",)))
    assert problem.message == "The column cannot be read: it is of the type date32[day]."


@pytest.mark.parametrize("name", WRITERS)
def test_an_extension_type_is_never_loaded(name):
    kind = pa.opaque(pa.string(), "secret", "vendor")
    column = pa.ExtensionArray.from_storage(kind, pa.array(["a"]))
    table = Table(io.BytesIO(WRITERS[name](pa.table({"examples": ["a"], "x": column}))))
    assert table.header == ("examples",)
    assert "extension" in table.left_out["x"]


def test_categories_and_large_texts_are_texts():
    columns = {
        "examples": pa.array(["a", "b", "a"]).dictionary_encode(),
        "ground_truth": pa.array([["x"], [], None], pa.large_list(pa.large_string())),
    }
    for write in WRITERS.values():
        assert [row[1:3] for row in read(io.BytesIO(write(columns)))] == [("a", ["x"]), ("b", []), ("a", [])]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("n", [0, 1, 999, 1000, 2500])
def test_every_row_comes_once_in_its_order(name, n):
    texts = pa.array([f"text {i % 3}" for i in range(n)], pa.string())
    found = list(read(io.BytesIO(WRITERS[name]({"examples": texts, "id": range(n)}))))
    if n:
        assert [(row.row, row.key) for row in found] == [(i + 1, str(i)) for i in range(n)]
    else:
        assert "no rows" in found[0].message


@pytest.mark.parametrize(
    ("columns", "where", "message"),
    [
        ({"examples": ["a", "b"], "x": [0.5, float("nan")]}, "row 2, column x", "holds nan"),
        ({"examples": ["a\0b"]}, "row 1, column examples", "NUL"),
        ({"examples": ["x" * (MAX_CELL_BYTES + 1)]}, "row 1, column examples", "1 MiB"),
        ({"examples": [1, 2]}, "row 1, column examples", "It is a number"),
        ({"vector": [[0.5]]}, "file", "No column holds text"),
        ({"examples": ["a"], "": ["b"], " ": ["c"]}, "file", "Columns 2, 3 have no name"),
        (pa.table([["a"], ["b"]], names=["examples", "examples"]), "file, column examples", "the same name"),
        ({f"c{n}": ["a"] for n in range(300)}, "file", "300 columns"),
        ({"examples": ["a", "b"], "ground_truth": [["x", None], ["y"]], "id": ["k", "k"]}, "row 2", "is on row 1 too"),
    ],
)
@pytest.mark.parametrize("name", WRITERS)
def test_a_bad_column_or_cell_is_named(name, columns, where, message):
    found = [one for one in read(io.BytesIO(WRITERS[name](columns))) if isinstance(one, Problem)]
    assert message in found[0].message
    assert where.startswith(found[0].where) or found[0].where.startswith(where)


def test_a_text_that_is_not_utf8_is_named_by_its_row():
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xff\xfe")]
    )
    found = list(read(io.BytesIO(parquet({"examples": bad}))))
    assert found[0] == Row(1, "ok", [])
    assert (found[1].where, "not UTF-8" in found[1].message) == ("row 2, column examples", True)


def test_what_one_text_a_thousand_times_over_becomes_counts():
    """A dictionary of one text of half a MiB and a million references to it: some kilobytes that claim 500 GiB."""
    n = 1_000_000
    texts = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), n), ["word " * 100_000])
    data = parquet({"examples": texts}, compression="zstd", store_schema=False)
    assert len(data) < 100_000
    *rows, problem = read(io.BytesIO(data))
    assert "Unpacked it is larger than 16 MiB" in problem.message
    assert len(rows) < 100


def test_what_the_file_declares_is_refused_before_it_is_unpacked():
    data = parquet(
        {"examples": ["x" * 1_000_000 + str(n) for n in range(40)]}, use_dictionary=False, compression="zstd"
    )
    (problem,) = Table(io.BytesIO(data)).problems
    assert "Unpacked it is larger than 16 MiB" in problem.message


def test_an_encrypted_file_is_refused_with_words():
    (problem,) = read(io.BytesIO(b"PARE" + bytes(100) + b"PARE"))
    assert "encrypted" in problem.message


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
some = st.lists(
    st.tuples(st.none() | cell, st.none() | st.lists(st.none() | cell, max_size=3), st.none() | st.integers(-9, 9)),
    max_size=8,
)


@settings(deadline=None, max_examples=60)
@given(some, st.sampled_from(list(WRITERS)))
def test_any_table_comes_back(rows, name):
    schema = pa.schema([("text", pa.string()), ("list", pa.list_(pa.string())), ("n", pa.int64())])
    table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
    found = formats.available()[name.split()[0]].records(io.BytesIO(WRITERS[name](table)))
    assert [tuple(one.cells.values()) for one in found if isinstance(one, Record)] == rows


# What `save_to_disk` of the library datasets leaves behind


@pytest.fixture
def saved(tmp_path):
    for number, text in enumerate(["a", "b"]):
        (tmp_path / f"data-{number}.arrow").write_bytes(arrow({"examples": [text]}))
    state = {"_data_files": [{"filename": "data-0.arrow"}, {"filename": "data-1.arrow"}]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    return tmp_path


def test_a_saved_folder_is_read_file_after_file(saved):
    table = Table(saved)
    assert (table.format_name, table.header) == ("arrow", ("examples",))
    assert list(table.rows(table.guess())) == [Row(1, "a", []), Row(2, "b", [])]


def test_a_folder_of_splits_asks_which_one(saved, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    (outer / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    saved.rename(outer / "test")
    (problem,) = Table(outer).problems
    assert problem.message == "The folder holds the splits train, test."
    assert [row.source for row in Table(outer, "test").rows(Columns("examples"))] == ["a", "b"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "holds no state.json"),
        ("nonsense", "no record of saved data"),
        ('{"_data_files": 5}', "no record of saved data"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "lacks its data: gone.arrow"),
        ('{"_data_files": [{"filename": "../data-0.arrow"}]}', "no file is named"),
    ],
)
def test_a_folder_without_its_parts_is_named(saved, state, message):
    (saved / "state.json").unlink()
    if state:
        (saved / "state.json").write_text(state)
    (problem,) = Table(saved).problems
    assert message in problem.message


def test_files_with_different_columns_are_no_dataset(saved):
    (saved / "data-1.arrow").write_bytes(arrow({"other": ["b"]}))
    *_, problem = Table(saved).rows(Columns("examples"))
    assert "same columns" in problem.message
