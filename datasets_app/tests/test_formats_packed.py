"""gzip around a text format: one member, unpacked as it is read, and never a bomb."""

import gzip
import io
import zlib

import pytest

from datasets_app.formats import FREE_DECODED_BYTES, MAX_DECODED_BYTES, MAX_RATIO, decoded_limit
from datasets_app.reading import Row, Table, read

TEXTS = {
    "csv": b"examples,ground_truth\nhello there,hi\n",
    "jsonl": b'{"examples": "hello there", "ground_truth": "hi"}\n',
    "json": b'[{"examples": "hello there", "ground_truth": "hi"}]',
}


def only_problem(data: bytes):
    found = list(read(io.BytesIO(data)))
    return found[-1]


@pytest.mark.parametrize("name", TEXTS)
def test_a_packed_text_is_read_as_if_it_were_not(name):
    table = Table(io.BytesIO(gzip.compress(TEXTS[name])))
    assert (table.format_name, table.is_packed) == (name, True)
    (row,) = table.rows(table.guess())
    assert row[1:3] == ("hello there", ["hi"])


def test_rows_count_in_the_packed_text_and_bytes_in_the_file():
    data = gzip.compress(b"examples,b\n" + b"some text,\n" * 100_000)
    table = Table(io.BytesIO(data))
    rows = list(table.rows(table.guess()))
    assert rows[-1].row == 100_001
    assert table.bytes_read == len(data)


def test_zeros_behind_the_member_are_padding():
    assert list(read(io.BytesIO(gzip.compress(TEXTS["csv"]) + bytes(1000)))) == [Row(2, "hello there", ["hi"])]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(TEXTS["csv"]) * 2, "joined behind one another"),
        (gzip.compress(TEXTS["csv"]) + b"rest", "joined behind one another"),
        (gzip.compress(TEXTS["csv"])[:-9], "ends too early"),
        (gzip.compress(TEXTS["csv"])[:-8] + bytes(8), "damaged"),
        (b"\x1f\x8b\x08....", "damaged"),
        (b"\x1f\x8b", "ends too early"),
        (gzip.compress(gzip.compress(TEXTS["csv"])), "not UTF-8"),
        (gzip.compress(b"PAR1...."), "Parquet and gzip around it"),
        (gzip.compress(b"PK\x03\x04...."), "Excel and gzip around it"),
        (gzip.compress(b"%PDF-1.7"), "a PDF"),
        (gzip.compress(b""), "empty"),
    ],
)
def test_what_is_wrong_with_it_is_said(data, message):
    problem = only_problem(data)
    assert message in problem.message
    assert problem.cure


def test_a_bomb_is_given_up_before_it_is_unpacked():
    """64 GiB of spaces in lines, made of one deflated MiB again and again; 1:1000 is the most that deflate can do."""
    deflate = zlib.compressobj(9, wbits=31)
    start = deflate.compress(b"examples\n" + b"word word\n" * 100) + deflate.flush(zlib.Z_FULL_FLUSH)
    piece = deflate.compress((b" " * 99 + b"\n") * 10_486) + deflate.flush(zlib.Z_FULL_FLUSH)

    class Bomb:
        def __init__(self) -> None:
            self.start, self.n = start, 0

        def read(self, size, /):
            found, self.start = self.start or piece * 16, b""
            self.n += len(found)
            return found if self.n < len(piece) * 65_536 else b""

    bomb = Bomb()
    found = list(read(bomb))
    assert "Unpacked it is larger than" in found[-1].message
    assert bomb.n < FREE_DECODED_BYTES / 100


def test_the_limit_follows_the_size_of_the_file_within_its_bounds():
    assert decoded_limit(10) == FREE_DECODED_BYTES
    assert decoded_limit(1 << 20) == MAX_RATIO << 20
    assert decoded_limit(1 << 30) == MAX_DECODED_BYTES
