"""A JSON list: read an object at a time, whatever the pieces that it comes in; broken objects are named and passed."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_app import formats
from datasets_app.formats import MAX_RECORD_CHARACTERS, Problem, Record, Unreadable
from datasets_app.reading import Row, Table, read


class Dripping(io.BytesIO):
    """Gives `size` bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self.size = size

    def read(self, size=-1):
        return super().read(self.size)


def found_in(data: bytes, size: int = 1 << 16):
    """What the format yields, and the problem that ended it."""
    found = []
    try:
        found.extend(formats.available()["json"].records(Dripping(data, size)))
    except Unreadable as error:
        found.append(error.problem)
    return found


def cells_in(data: bytes, size: int = 1 << 16):
    found = found_in(data, size)
    assert all(isinstance(one, Record) for one in found), found
    return [one.cells for one in found]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_list_of_objects_is_read_with_its_rows_counted_from_one(indent, mark):
    objects = [{"examples": 'a ] } \\ " b', "ground_truth": ["c", "d"]}, {"examples": "é", "ground_truth": None}]
    table = Table(io.BytesIO(mark + json.dumps(objects, indent=indent).encode()))
    assert table.format_name == "json"
    assert list(table.rows(table.guess())) == [Row(1, objects[0]["examples"], ["c", "d"]), Row(2, "é", [])]


def test_an_empty_list_is_empty():
    (problem,) = read(io.BytesIO(b" [ ]\n"))
    assert "empty" in problem.message


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
name = st.text(min_size=1, max_size=9).filter(str.strip)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.dictionaries(name, values, max_size=4), max_size=5), st.integers(1, 40), st.booleans())
def test_what_is_written_is_read_back_in_pieces_of_any_size(objects, size, ascii_only):
    written = json.dumps(objects, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    try:
        written.decode()
    except UnicodeDecodeError:
        return
    assert cells_in(written, size) == objects


def test_a_broken_object_is_named_and_the_next_one_is_read():
    found = found_in(b'[{"a": 1}, {"a" 2}, {"a": NaN}, {"a": 3, "a": 4}, 5, "x,]", {"a": 6}]', 7)
    assert [one.row for one in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [type(one) for one in found] == [Record, Problem, Problem, Problem, Problem, Problem, Record]
    said = [one.message for one in found if isinstance(one, Problem)]
    assert said == [
        "It is not JSON: Expecting ':' delimiter at character 6.",
        "It holds nan: no number, or one that is too large.",
        "It is there twice.",
        "It is a number, not an object.",
        "It is a text, not an object.",
    ]


@pytest.mark.parametrize(
    ("data", "row", "message"),
    [
        (b"[", 1, "ends in the middle"),
        (b'[{"a": 1}', 1, "ends in the middle"),
        (b'[{"a": 1},', 2, "ends in the middle"),
        (b'[{"a": "b', 1, "ends in the middle"),
        (b'[{"a": 1} {"a": 2}]', 1, "not “{”"),
        (b'[{"a": 1}]]', 1, "follows the end of the list"),
        (b'[{"a": "caf\xe9"}]', 1, "byte 0xE9 after"),
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 16])
def test_what_ends_the_reading_is_said_with_its_row(data, row, message, size):
    last = found_in(data, size)[-1]
    assert (last.row, message in last.message) == (row, True), last


@pytest.mark.parametrize("deep", ["[" * 40 + "]" * 40, '{"b":' * 40 + "1" + "}" * 40, "[" * 200_000 + "]" * 200_000])
def test_a_deep_object_is_refused_and_the_next_one_read(deep):
    problem, record = found_in(f'[{{"a": {deep}}}, {{"a": 1}}]'.encode())
    assert "deeper than 32 levels" in problem.message
    assert record.cells == {"a": 1}


def test_an_integer_of_many_digits_is_refused_by_its_row():
    problem, record = found_in(b'[{"a": ' + b"7" * 5000 + b'}, {"a": 1}]')
    assert "4,300 digits" in problem.message
    assert record.row == 2


class Endless:
    """A quote that is never closed; counts what was asked for."""

    def __init__(self, start: bytes, piece: bytes) -> None:
        self.start, self.piece, self.n = start, piece, 0

    def read(self, size, /):
        found, self.start = self.start or self.piece, b""
        self.n += len(found)
        return found


@pytest.mark.parametrize("start", [b'[{"a": "', b'{"a": "', b"examples,b\nc", b'examples\n"c', b"["])
def test_a_line_without_end_is_given_up_early(start):
    source = Endless(start, (b"x" if start != b"[" else b" 1") * (1 << 18))
    problem = Table(source).problems[-1]
    assert "longer than 16 million characters" in problem.message or "1 MiB" in problem.message
    assert source.n <= 4 * MAX_RECORD_CHARACTERS
