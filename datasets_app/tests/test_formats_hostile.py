"""Any bytes give rows or problems in every format: cut off, damaged in the middle, or never a file at all.

What pyarrow does with damaged files is its own; the examples are therefore the same in every run.
"""

import gzip
import io
import json
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from datasets_app import formats
from datasets_app.confining import confined
from datasets_app.formats import Header, Problem, Record, Unreadable
from datasets_app.reading import Row, Table, read

ROWS = [{"examples": f"A text of number {n}.", "ground_truth": f"Text {n}", "id": f"k{n}"} for n in range(30)]
BEGINNINGS = {
    "csv": b"examples,b\n", "json": b'[{"examples": ', "jsonl": b'{"examples": ', "parquet": b"PAR1",
    "arrow": b"ARROW1\0\0", "xlsx": b"PK\x03\x04", "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
    "stream": b"\xff\xff\xff\xff",
}  # fmt: skip


@cache
def good(name: str) -> bytes:
    """Thirty rows as a file of this kind."""
    out = io.BytesIO()
    table = pa.Table.from_pylist(ROWS)
    if name == "parquet":
        pq.write_table(table, out)
    elif name == "arrow":
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
    elif name == "xlsx":
        book = Workbook()
        for row in [list(ROWS[0]), *(list(row.values()) for row in ROWS)]:
            book.active.append(row)
        book.save(out)
    elif name == "json":
        return json.dumps(ROWS).encode()
    elif name == "csv":
        return "\n".join([",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS)]).encode()
    elif name == "gzip":
        return gzip.compress(good("csv"), mtime=0)
    else:
        return "\n".join(map(json.dumps, ROWS)).encode()
    return out.getvalue()


KINDS = ("csv", "json", "jsonl", "parquet", "arrow", "xlsx", "gzip")


def check(found) -> None:
    assert found, "neither a row nor a problem"
    for one in found:
        if isinstance(one, Problem):
            assert one.message
            assert one.cure
            str(one).encode()
        else:
            for value in (one.source, *one.references, one.key, one.group):
                assert "\0" not in value
                value.encode()


def test_every_format_is_among_the_kinds():
    assert set(formats.available()) <= {*KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_thirty_rows_are_thirty_rows(kind):
    assert [row.key for row in read(io.BytesIO(good(kind)))] == [row["id"] for row in ROWS]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_off_anywhere_is_no_more_than_its_beginning(kind):
    data = good(kind)
    for n in {1, 3, 5, 9, 20, *range(0, len(data), max(1, len(data) // 60)), len(data) - 1}:
        found = list(read(io.BytesIO(data[:n])))
        check(found)
        keys = [one.key for one in found if isinstance(one, Row)][:-1]  # the last one may be cut, too
        assert keys == [row["id"] for row in ROWS[: len(keys)]]
        if kind not in ("csv", "jsonl"):
            assert isinstance(found[-1], Problem) or n == len(data) - 1, "a part is missing, and nobody says so"


@settings(deadline=None, max_examples=120, derandomize=True)
@given(st.sampled_from(KINDS), st.data())
def test_a_file_damaged_in_the_middle_gives_rows_or_problems(kind, data):
    bytes_ = bytearray(good(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(bytes_) - 1))
        bytes_[start : start + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    check(list(read(io.BytesIO(bytes(bytes_)))))


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.sampled_from(sorted(BEGINNINGS.values())), st.binary(max_size=300), st.sampled_from([b"", b"PAR1", b"PARE"]))
def test_random_bytes_behind_a_known_beginning_give_rows_or_problems(beginning, rest, end):
    check(list(read(io.BytesIO(beginning + rest + end))))


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.sampled_from(sorted(formats.available())), st.binary(max_size=200))
def test_a_format_raises_nothing_but_that_it_cannot_go_on(name, data):
    """Each keeps its promise also for bytes that are not its own."""
    items = formats.available()[name].records(io.BytesIO(data))
    try:
        for item in items:
            assert isinstance(item, Header | Record | Problem)
    except Unreadable as error:
        assert error.problem.message


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.binary(max_size=200))
def test_a_likeness_is_zero_one_or_two(head):
    assert {one.likeness(head) for one in formats.available().values()} <= {0, 1, 2}


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_says_nothing_about_a_file(kind, tmp_path):
    """Every file here is called .csv, and read by a child as what it is."""
    path = tmp_path / "data.csv"
    path.write_bytes(good(kind))
    with confined(path) as table:
        assert table.format_name == {"gzip": "csv"}.get(kind, kind)
        assert table.is_packed == (kind == "gzip")
        assert len(list(table.rows(table.guess()))) == 30


def test_a_problem_in_the_middle_does_not_hide_the_rows_behind_it():
    lines = good("jsonl").split(b"\n")
    table = Table(io.BytesIO(b"\n".join([*lines[:10], b"nonsense", *lines[10:]])))
    assert len(list(table.rows(table.guess()))) == 31
