"""Reading: every bad input is named by its place and its cure; every good one comes back as it was written."""

import csv
import io
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datasets_app import formats, mapping, reading
from datasets_app.formats import MAX_CELL_BYTES, Problem
from datasets_app.reading import Columns, Gathered, Row, Table, guess_columns, read


def rows_of(data: bytes, columns: Columns | None = None) -> list[Row]:
    found = list(read(io.BytesIO(data), columns))
    assert all(isinstance(one, Row) for one in found), found
    return found


def problems_of(data: bytes, columns: Columns | None = None) -> list[Problem]:
    return [one for one in read(io.BytesIO(data), columns) if isinstance(one, Problem)]


BIG = "x" * (MAX_CELL_BYTES + 1)
WIDE = ",".join(f"c{n}" for n in range(300))

# what it is: (bytes, where, a part of the message, a part of the cure)
BAD = {
    "empty": (b"", "file", "empty", "Upload a CSV"),
    "only a byte order mark": (b"\xef\xbb\xbf", "file", "empty", "Upload a CSV"),
    "only blank lines": (b"\r\n\n  \n", "file", "empty", "Upload a CSV"),
    "only a header": (b"examples,ground_truth\n", "row 1", "column names but no rows", "Add one row per document"),
    "unknown columns": (b"a,b\n1,2\n", "row 1", "The columns are a, b", "call it examples"),
    "latin-1": (b"examples\ngood\ncaf\xe9\n", "row 3", "byte 0xE9 after “caf” is not UTF-8", "CSV UTF-8"),
    "latin-1 in JSONL": (b'{"examples": "caf\xe9"}\n', "row 1", "byte 0xE9", "CSV UTF-8"),
    "cut in the middle of a character": (b"examples\ncaf\xc3", "row 2", "byte 0xC3", "CSV UTF-8"),
    "UTF-16 with a mark": ("examples\nfoo\n".encode("utf-16"), "file", "UTF-16", "Save it as UTF-8"),
    "UTF-16 without": ("examples\nfoo\n".encode("utf-16-le"), "file", "UTF-16", "Save it as UTF-8"),
    "half a workbook": (b"PK\x03\x04....", "file", "damaged or cut off", "save it again as .xlsx"),
    "an old workbook": (b"\xd0\xcf\x11\xe0....", "file", "old Excel", "Save it as .xlsx"),
    "zstd": (b"(\xb5/\xfd....", "file", "compressed", "Unpack it"),
    "PDF": (b"%PDF-1.7 ...", "file", "PDF", "one document a row"),
    "too many cells": (b"examples,ground_truth\na,b,c\n", "row 2", "3 cells, the header has 2", "in double quotes"),
    "too few cells": (b"examples,ground_truth\na\n", "row 2", "1 cell, the header has 2", "Add the missing cells"),
    "ragged behind a cell of two lines": (b'examples,b\n"a\nb",c\nd\n', "row 3", "1 cell", "missing cells"),
    "duplicate header": (b"examples,examples\na,b\n", "row 1, column examples", "Columns 1 and 2", "its own name"),
    "two nameless columns": (b"examples,,\na,b,c\n", "row 1", "Columns 2, 3 have no name", "Name every column"),
    "a document as the header": (b"y" * 300 + b"\nz\n", "row 1", "300 characters", "short column names"),
    "too many columns": (f"{WIDE}\n{WIDE}\n".encode(), "row 1", "300 columns", "Keep the columns"),
    "blank document": (b"examples,b\na,1\n   ,2\n", "row 3, column examples", "blank", "remove the row"),
    "numbers in CSV": (b"examples\n12\n3.5\n", "row 2, column examples", "number; a document is text", "Choose the"),
    "a number in JSONL": (b'{"examples": 12}', "row 1, column examples", "a number", "documents as text"),
    "NUL in CSV": (b"examples,b\nab\0c,d\n", "row 2, column examples", "NUL", "Remove it"),
    "NUL in a column not used": (b"examples,b\nabc,d\0\n", "row 2, column b", "NUL", "Remove it"),
    "NUL in JSONL": (b'{"examples": "a\\u0000"}', "row 1, column examples", "NUL", "Remove it"),
    "lone surrogate": (b'{"examples": "a\\ud83d"}', "row 1, column examples", "U+D83D", "Remove it"),
    "lone surrogate in a name": (b'{"examples": "a", "\\ud83d": 1}', "row 1, column ?", "U+D83D", "Remove it"),
    "lone surrogate, nested": (b'{"examples": "a", "b": [{"c": "\\udc00"}]}', "row 1, column b", "U+DC00", "Remove"),
    "huge cell in CSV": (f'examples\n"{BIG}"\n'.encode(), "row 2", "larger than 1 MiB", "double quotes"),
    "huge cell by its bytes": (f"examples\n{'é' * 600_000}\n".encode(), "row 2, column examples", "1,200,000", "Split"),
    "huge cell in JSONL": (json.dumps({"examples": BIG}).encode(), "row 1, column examples", "1,048,577", "Split"),
    "quote never closed": (b'examples\n"abc\ndef\n', "row 2", "never closed", "double every quote"),
    "text behind a quote": (b'examples\n"abc" def\n', "row 2", "Text follows", "double every quote"),
    "not JSON": (b'{"examples": "a"}\n{"examples": "b"\n', "row 2", "not JSON", "one object a line"),
    "a list behind objects": (b'{"examples": "a"}\n[1]', "row 2", "a list, not an object", "without the list"),
    "one JSON object over lines": (b'{\n  "examples": "a"\n}\n', "row 1", "over many lines", "one object a line"),
    "NaN": (b'{"examples": "a", "x": NaN}', "row 1, column x", "nan", "Write null"),
    "infinity": (b'{"examples": "a", "x": [-Infinity]}', "row 1, column x", "-inf", "Write null"),
    "a number too large": (b'{"examples": "a", "x": 1e999}', "row 1, column x", "too large", "Write null"),
    "an integer too long": (b'{"examples": "a", "x": ' + b"9" * 5000 + b"}", "row 1", "4,300 digits", "as text"),
    "duplicate key": (b'{"examples": "a", "examples": "b"}', "row 1, column examples", "twice", "Keep one"),
    "too deep": (b'{"examples": "a", "x": ' + b"[" * 32 + b"]" * 32 + b"}", "row 1, column x", "32 levels", "Keep"),
    "far too deep": (b'{"x": ' + b"[" * 100_000, "row 1", "32 levels", "Keep text"),
    "a document in parts": (b'{"examples": ["a", "b"]}', "row 1, column examples", "a list", "Join its parts"),
    "document missing": (b'{"examples": "a"}\n{"id": 7}', "row 2, column examples", "missing", "every row has"),
    "a reference that is a number": (
        b'{"examples": "a", "ground_truth": ["b", 7]}',
        "row 1, column ground_truth",
        "this is a number",
        "Write it as text",
    ),
    "an id twice": (b"examples,id\na,1\nb,2\nc,1\n", "row 4, column id", "“1” is on row 2 too", "its own id"),
    "an id too long": (b"examples,id\na," + b"i" * 201, "row 2, column id", "at most 200", "Shorten it"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_named_by_place_and_cure(name):
    data, where, message, cure = BAD[name]
    (problem,) = problems_of(data)
    assert problem.where == where
    assert message in problem.message
    assert cure in problem.cure
    assert problem.message.endswith(".")
    assert problem.cure.endswith(".")


def test_a_missing_column_is_said_once_with_those_there_are():
    (problem,) = problems_of(b"examples,truth\na,b\nc,d\n", Columns("examples", ("ground_truth",)))
    assert problem.where == "row 1, column ground_truth"
    assert problem.message == "There is no such column. The columns are examples, truth."


def test_a_column_has_one_use():
    (problem,) = problems_of(b"examples,b\na,b\n", Columns("examples", ("examples",)))
    assert "chosen for two things" in problem.message


def test_every_problem_of_a_file_is_found_in_order():
    data = b'{"examples": "a"}\n{"examples": 1}\n\n{"examples": "", "ground_truth": 2}\nnonsense\n'
    places = [problem.where for problem in problems_of(data)]
    assert places == ["row 2, column examples", "row 4, column examples", "row 4, column ground_truth", "row 5"]


def test_a_problem_never_shows_another_row():
    problems = problems_of(b"examples,b\nsecret,1\nx,y,z\n")
    assert problems
    assert not any("secret" in str(problem) for problem in problems)


def test_at_most_a_hundred_problems_are_kept_and_the_others_counted():
    gathered = Gathered()
    for problem in problems_of(b"examples,b\n" + b"x\n" * 142):
        gathered.add(problem)
    assert len(gathered.problems) == 100
    assert gathered.rest == "… and 42 more problems."


def test_references_are_optional():
    assert rows_of(b"examples\nhello there\n") == [Row(2, "hello there", [])]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiter_line_end_and_byte_order_mark_are_found(delimiter, end, mark):
    lines = [delimiter.join(cells) for cells in (["examples", "ground_truth"], ["a, b; c".replace(delimiter, ""), "d"])]
    (row,) = rows_of((mark + end.join(lines) + end).encode())
    assert row == Row(2, "a, b; c".replace(delimiter, ""), ["d"])


def test_the_index_column_that_pandas_writes_without_a_name_is_no_obstacle():
    assert [row.source for row in rows_of(b",examples\n0,a\n1,b\n")] == ["a", "b"]


def test_rows_are_counted_as_the_spreadsheet_does():
    found = rows_of(b'\nexamples,b\n"two\nlines",1\n\n,\nlast,2\n')
    assert [row.row for row in found] == [3, 6]


def test_a_cell_longer_than_the_csv_module_allows_by_default_is_read():
    (row,) = rows_of(b"examples\n" + b"x" * 500_000 + b"\n")
    assert len(row.source) == 500_000


def test_references_come_from_lists_and_numbered_columns_and_blanks_are_none():
    data = b'{"examples": "a", "ground_truth": ["b", "", "c"], "ground_truth_10": "e", "ground_truth_2": "d"}\n'
    data += b'{"examples": "f", "ground_truth": null}\n'
    assert [row.references for row in rows_of(data)] == [["b", "c", "d", "e"], []]


def test_id_group_and_tags():
    columns = Columns("text", (), "nr", "team", ("kind", "n", "ok"))
    (row,) = rows_of(b'{"text": "a", "nr": 7, "team": " blue ", "kind": "mail", "n": 2.5, "ok": true}', columns)
    assert row == Row(1, "a", [], "7", "blue", {"kind": "mail", "n": 2.5, "ok": True})


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (["examples", "ground_truth"], Columns("examples", ("ground_truth",))),
        (["id", "text", "examples"], Columns("examples", (), "id")),
        (["Document", "Reference Summary", "Group"], Columns("Document", ("Reference Summary",), "", "Group")),
        (["id", "dialogue", "summary", "topic"], Columns("dialogue", ("summary",), "id")),
        (["article", "highlights", "id"], Columns("article", ("highlights",), "id")),
        (["summary1", "text", "summary3", "summary2"], Columns("text", ("summary1", "summary2", "summary3"))),
        (["ground_truth", "ground_truth_3", "ground_truth_2", "examples"],
         Columns("examples", ("ground_truth", "ground_truth_2", "ground_truth_3"))),
        (["foo", "bar"], Columns()),
    ],
)  # fmt: skip
def test_columns_are_guessed_from_their_names(header, expected):
    assert guess_columns(header) == expected


def test_a_column_of_numbers_is_not_guessed_as_the_document():
    assert guess_columns(["text", "document"], [{"text": "3", "document": "a"}]).source == "document"


def test_what_was_given_stands_and_the_rest_is_guessed():
    table = Table(io.BytesIO(b"id,text,summary,group\n1,a,b,c\n"))
    assert table.columns({"id": "", "references": []}) == Columns("text", (), "", "group")
    assert table.columns({"source": "summary"}) == Columns("summary", (), "id", "group")


def test_the_preview_reads_only_the_beginning_and_may_be_repeated():
    stream = io.BytesIO(b"examples,b\n" + b"some text,\n" * 200_000)
    table = Table(stream)
    columns = table.guess()
    assert len(list(table.preview(columns))) == len(list(table.preview(columns))) == reading.PREVIEW_ROWS
    assert stream.tell() < 600_000
    assert len(list(table.rows(columns))) == 200_000


def test_a_stream_that_gives_one_byte_at_a_time_reads_the_same():
    class Dripping(io.BytesIO):
        def read(self, size=-1):
            return super().read(1)

    data = '\ufeffexamples,ground_truth\r\n"ä\r\nö",€\r\n𝄞,\r\n'.encode()
    assert list(read(Dripping(data))) == list(read(io.BytesIO(data))) == [Row(2, "ä\r\nö", ["€"]), Row(3, "𝄞", [])]


def test_predictions_come_beside_the_row_and_are_never_guessed():
    data = b"examples,ground_truth,model_a,model_b\none,a,x,\ntwo,b,y,z\n"
    assert Table(io.BytesIO(data)).guess().predictions == ()
    columns = Columns("examples", ("ground_truth",), predictions=("model_a", "model_b"))
    assert [row.predictions for row in rows_of(data, columns)] == [
        {"model_a": "x", "model_b": ""}, {"model_a": "y", "model_b": "z"},
    ]  # fmt: skip


def test_a_missing_prediction_is_none_and_a_wrong_one_is_named():
    columns = Columns("examples", predictions=("out",))
    assert rows_of(b'{"examples": "a"}\n{"examples": "b", "out": null}', columns) == [Row(1, "a", []), Row(2, "b", [])]
    (problem,) = problems_of(b'{"examples": "a", "out": 7}', columns)
    assert (problem.where, problem.message) == ("row 1, column out", "An output is text; this is a number.")


def test_columns_are_remembered_with_their_predictions():
    columns = Columns("a", ("b",), "c", "d", ("e",), ("f", "g"))
    assert Columns.from_dict(columns.as_dict()) == columns
    assert columns.named == ("a", "b", "c", "d", "e", "f", "g")
    assert "predictions" not in Columns("a").as_dict()
    table = Table(io.BytesIO(b"examples,summary\na,b\n"))
    assert table.columns({"predictions": ["summary"]}) == Columns("examples", (), predictions=("summary",))


def test_an_id_is_found_again_among_thousands():
    data = "examples,id\n" + "".join(f"text,k{n}\n" for n in range(5000)) + "text,k0\ntext,k4999\n"
    found = list(read(io.BytesIO(data.encode())))
    assert [one.message for one in found if isinstance(one, Problem)] == [
        "The id “k0” is on row 2 too.", "The id “k4999” is on row 5001 too.",
    ]  # fmt: skip
    assert len(found) == 5002


@pytest.mark.parametrize("line", [b"text\n", b"a,b\n"])
def test_reading_stops_behind_the_last_row_that_is_allowed(monkeypatch, line):
    monkeypatch.setattr(reading, "MAX_ROWS", 150)
    found = list(read(io.BytesIO(b"examples\n" + line * 1000)))
    assert len(found) == 151
    assert (found[-1].row, found[-1].message) == (152, "The file has more than 150 rows.")


def test_the_preview_of_long_rows_is_short():
    data = b"examples\n" + (b"x" * 1_000_000 + b"\n") * 20
    table = Table(io.BytesIO(data))
    assert 1 < len(table.first) < 10
    assert len(list(table.rows(table.guess()))) == 20


def test_every_format_says_what_it_is():
    assert {"arrow", "csv", "json", "jsonl", "parquet", "xlsx"} <= set(formats.available())
    for one in formats.available().values():
        assert one.about.endswith(".")
        assert all(extension.startswith(".") for extension in one.extensions)


# Text that PostgreSQL can hold, with what trips parsers up well represented.
text = st.text(
    st.one_of(
        st.sampled_from("\",;\t|'=+-@\r\n {}[]\\"), st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    ),
    max_size=30,
)
document = text.filter(lambda one: one.strip() and mapping.NUMBER.fullmatch(one) is None)
records = st.lists(st.tuples(document, st.lists(text, max_size=3)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=150)
@given(records, st.sampled_from(",;\t|"))
def test_what_is_written_as_csv_is_read_back(written, delimiter):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["examples", "ground_truth", "ground_truth_2", "ground_truth_3"])
    for source, references in written:
        writer.writerow([source, *references, *[""] * (3 - len(references))])
    found = rows_of(out.getvalue().encode())
    assert [(row.source, row.references) for row in found] == [
        (source, [one for one in references if one.strip()]) for source, references in written
    ]


@settings(deadline=None, max_examples=150)
@given(records, st.booleans())
def test_what_is_written_as_jsonl_is_read_back(written, ascii_only):
    lines = [json.dumps({"examples": s, "ground_truth": r}, ensure_ascii=ascii_only) for s, r in written]
    found = rows_of("\n".join(lines).encode())
    assert [(row.source, row.references) for row in found] == [
        (source, [one for one in references if one.strip()]) for source, references in written
    ]


@settings(deadline=None, max_examples=400)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=200).map(lambda data: b"examples,ground_truth\n" + data),
        st.binary(max_size=200).map(lambda data: b'{"examples": "' + data),
        st.text("{}[]\",:\\u0dE9truefalsnNaI- \n\r\t;'", max_size=200).map(str.encode),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner)
            | st.dictionaries(st.text(), inner), max_leaves=20,
        ).map(lambda value: json.dumps({"examples": value, "id": value, "ground_truth": value}).encode()),
    )
)  # fmt: skip
@example(b'{"examples": "\\ud800", "\\udfff": 1}')
def test_no_bytes_raise_anything_and_all_that_comes_out_can_be_stored(data):
    found = list(read(io.BytesIO(data)))
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
