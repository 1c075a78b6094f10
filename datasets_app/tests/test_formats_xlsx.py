"""Excel workbooks: the values of the first sheet as a person sees them, and nothing that a hostile archive wants."""

import io
import zipfile
from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from datasets_app import formats
from datasets_app.formats import Problem, Record
from datasets_app.mapping import Columns
from datasets_app.reading import Row, Table, read

EXPAT = "<!DOCTYPE w [<!ENTITY a 'lol'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>]>"


def workbook(*rows, **sheets) -> bytes:
    book = Workbook()
    for row in rows:
        book.active.append(row)
    for name, more in sheets.items():
        sheet = book.create_sheet(name)
        for row in more:
            sheet.append(row)
    return saved(book)


def saved(book) -> bytes:
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def changed(data: bytes, part: str, change) -> bytes:
    """The workbook with one part changed by `change(bytes)`; dropped where that gives None."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = change(old.read(name)) if name == part else old.read(name)
            if content is not None:
                new.writestr(name, content)
    return out.getvalue()


SHEET, STRINGS, BOOK = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml", "xl/workbook.xml"
LINKS = "xl/_rels/workbook.xml.rels"


def with_cells(xml: str) -> bytes:
    """A workbook whose second row is this XML, under the header examples, b."""
    row = f'<row r="2">{xml}</row></sheetData>'.encode()
    return changed(workbook(["examples", "b"]), SHEET, lambda old: old.replace(b"</sheetData>", row))


def with_shared(strings: str, cells: str, start: str = "<sst>") -> bytes:
    """The same with a table of shared strings, as Excel writes texts."""
    link = (
        b'<Relationship Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/sharedStrings" '
        b'Target="sharedStrings.xml" Id="rId9"/></Relationships>'
    )
    data = changed(with_cells(cells), LINKS, lambda old: old.replace(b"</Relationships>", link))
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(STRINGS, f"{start}{strings}</sst>")
    return out.getvalue()


def cells_of(data: bytes):
    found = list(formats.available()["xlsx"].records(io.BytesIO(data)))
    assert not [one for one in found if isinstance(one, Problem)], found
    return [tuple(one.cells.values()) for one in found if isinstance(one, Record)]


def only_problem(data: bytes) -> Problem:
    (problem,) = read(io.BytesIO(data))
    return problem


def test_rows_are_read_and_counted_as_the_sheet_does():
    data = workbook([], ["examples", "ground_truth", "id"], ["a b", "c", 7], [], [None, ""], ["d", None, 8.5])
    table = Table(io.BytesIO(data))
    assert (table.format_name, table.header, table.header_row) == ("xlsx", ("examples", "ground_truth", "id"), 2)
    assert list(table.rows(table.guess())) == [Row(3, "a b", ["c"], "7"), Row(6, "d", [], "8.5")]


def test_the_first_visible_sheet_is_read_and_the_others_are_named():
    book = Workbook()
    book.active.title = "Hidden"
    book.active.sheet_state = "hidden"
    book.create_sheet("Data").append(["examples"])
    book["Data"].append(["text"])
    book.create_sheet("Notes")
    table = Table(io.BytesIO(saved(book)))
    assert [row.source for row in table.rows(table.guess())] == ["text"]
    (note,) = table.notes
    assert note.startswith("Only the sheet “Data” is read.")
    assert "“Hidden”, “Notes”" in note


def test_dates_are_iso_and_numbers_stay_numbers():
    row = [date(2026, 1, 31), datetime(2026, 1, 31, 8, 30), 3, 0.25, True]
    assert cells_of(workbook(["a", "b", "c", "d", "e"], row)) == [("2026-01-31", "2026-01-31T08:30:00", 3, 0.25, True)]


def test_the_calendar_of_1904_is_heeded():
    book = Workbook()
    book.epoch = datetime(1904, 1, 1)
    book.active.append(["a"])
    book.active.append([date(2026, 1, 31)])
    assert cells_of(saved(book)) == [("2026-01-31",)]


def test_a_formula_counts_as_its_stored_value():
    assert cells_of(
        with_cells('<c r="A2" t="str"><f>B2&amp;""</f><v>made</v></c><c r="B2"><f>1+1</f><v>2</v></c>')
    ) == [("made", 2)]
    assert cells_of(with_cells('<c r="A2" t="str"><f>""</f><v></v></c><c r="B2"><v>2</v></c>')) == [(None, 2)]


def test_a_formula_without_a_stored_value_is_named():
    problem = only_problem(workbook(["examples", "b"], ["=A1&B1", "x"]))
    assert (problem.where, "whose value is not stored" in problem.message) == ("row 2, column examples", True)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ('<c r="A2" t="e"><v>#REF!</v></c>', "It holds the error #REF!."),
        ('<c r="A2" t="s"><v>99</v></c>', "Its text is missing"),
        ('<c r="A2"><v>many</v></c>', "“many” is no number"),
        ('<c r="A2"><v>1e999</v></c>', "“1e999” is no number"),
        ('<c r="C2" t="str"><v>x</v></c>', "It has a cell in column 3"),
        ('<c r="A2" t="str"><v>a_x0000_b</v></c>', "NUL"),
        ('<c r="A2" t="str"><v>a_xD83D_b</v></c>', "U+D83D"),
    ],
)
def test_a_cell_without_a_value_is_named(xml, message):
    problem = only_problem(with_cells(xml))
    assert message in problem.message
    assert problem.row == 2


def test_texts_of_several_styles_are_joined_and_their_pronunciation_left_out():
    rich = (
        '<c r="A2" t="inlineStr"><is><r><t>one </t></r><r><rPr><b/></rPr><t>two</t></r>'
        '<rPh sb="0" eb="1"><t>wan</t></rPh></is></c>'
    )
    assert cells_of(with_cells(rich)) == [("one two", None)]


def test_shared_texts_are_looked_up():
    strings = "<si><t>zero</t></si><si><r><t>on</t></r><r><t>e</t></r></si><si/>"
    cells = '<c r="A2" t="s"><v>1</v></c><c r="B2" t="s"><v>0</v></c>'
    assert cells_of(with_shared(strings, cells)) == [("one", "zero")]
    assert cells_of(with_shared(strings, cells.replace(">0<", ">2<"))) == [("one", "")]


def test_characters_that_xml_cannot_hold_are_unescaped():
    assert cells_of(with_cells('<c r="A2" t="str"><v>a_x000D_b_x005F_x000D_</v></c>')) == [("a\rb_x000D_", None)]


@pytest.mark.parametrize("part", ["[Content_Types].xml", "_rels/.rels", BOOK, SHEET, LINKS])
def test_a_missing_part_is_named(part):
    data = changed(workbook(["examples"], ["a"]), part, lambda old: None)
    assert only_problem(data).message.startswith(("The Excel workbook", "It is a zip archive", "The workbook has no"))


@pytest.mark.parametrize("part", [BOOK, SHEET, "xl/styles.xml", "_rels/.rels"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_no_part_may_declare_entities(part, encoding):
    data = workbook(["examples"], ["a"])
    declare = EXPAT.encode() if encoding == "utf-8" else EXPAT
    bad = changed(
        data, part, lambda old: declare + old.partition(b"?>")[2] if encoding == "utf-8" and b"?>" in old else
        declare + old if encoding == "utf-8" else f"{declare}{old.decode().partition('?>')[2] or old.decode()}".encode(
            "utf-16"
        ),
    )  # fmt: skip
    assert "declares a document type" in only_problem(bad).message


def test_an_external_entity_is_never_opened(tmp_path):
    (tmp_path / "secret").write_text("secret")
    external = f'<!DOCTYPE sst [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]><sst>'
    data = with_shared("<si><t>&x;</t></si>", '<c r="A2" t="s"><v>0</v></c>', external)
    assert "declares a document type" in only_problem(data).message


def test_an_entity_that_nobody_declared_is_an_error():
    data = with_shared("<si><t>&x;</t></si>", '<c r="A2" t="s"><v>0</v></c>')
    assert "sharedStrings.xml cannot be read" in only_problem(data).message


def test_an_archive_that_unpacks_to_too_much_is_refused_unopened():
    blanks = b" " * (30 << 20)
    data = changed(
        workbook(["examples"], ["a"]), SHEET, lambda old: old.replace(b"<sheetData>", blanks + b"<sheetData>")
    )
    assert "Unpacked it is larger than 16 MiB" in only_problem(data).message


def test_what_lies_about_its_size_is_cut_where_it_said():
    blanks = b" " * (20 << 20)
    data = bytearray(
        changed(workbook(["examples"], ["a"]), SHEET, lambda old: old.replace(b"<sheetData>", blanks + b"<sheetData>"))
    )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = archive.getinfo(SHEET).file_size
    real, lie = size.to_bytes(4, "little"), (1000).to_bytes(4, "little")
    assert data.count(real) == 2  # in the directory, and before the part
    assert "cannot be read" in only_problem(bytes(data.replace(real, lie))).message


def test_an_archive_of_very_many_parts_is_refused():
    out = io.BytesIO(workbook(["examples"], ["a"]))
    with zipfile.ZipFile(out, "a") as archive:
        for number in range(10_001):
            archive.writestr(f"x/{number}", b"")
    assert "Unpacked it is larger" in only_problem(out.getvalue()).message


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["data.csv"], "a zip archive and no Excel workbook"),
        (["word/document.xml", "[Content_Types].xml"], "a zip archive and no Excel workbook"),
        (["xl/workbook.bin"], "a binary Excel workbook"),
        (["../../etc/passwd"], "a zip archive and no Excel workbook"),
    ],
)
def test_other_archives_are_told_apart(names, message):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    assert message in only_problem(out.getvalue()).message


def test_a_row_of_far_columns_and_a_row_far_down_cost_nothing():
    found = list(read(io.BytesIO(with_cells('<c r="A2" t="str"><v>a</v></c><c r="ZZZ2" t="str"><v>x</v></c>'))))
    assert "the header has 2 columns" in found[0].message
    row = '<row r="1048576"><c t="str"><v>far</v></c></row></sheetData>'
    data = changed(workbook(["examples"]), SHEET, lambda old: old.replace(b"</sheetData>", row.encode()))
    assert list(read(io.BytesIO(data))) == [Row(1_048_576, "far", [])]


# What openpyxl can write: no control characters but tab and line feed, and nothing that it takes for a formula.
text = st.text(
    st.one_of(st.sampled_from("=&<>\"'\n\t _x0"), st.characters(exclude_categories=["C"])), min_size=1, max_size=15
).filter(lambda one: not one.startswith("=") and one.strip() and "_x" not in one and not one.startswith("#"))
cell = (
    st.none()
    | text
    | st.integers(-(10**9), 10**9)
    | st.floats(-1e6, 1e6).map(lambda one: round(one, 3))
    | st.booleans()
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(cell, cell, text), max_size=6))
def test_any_sheet_comes_back(rows):
    assert cells_of(workbook(["a", "b", "c"], *rows)) == [tuple(row) for row in rows]


def test_columns_can_be_chosen_as_tags_and_groups():
    data = workbook(["text", "kind", "n", "ok"], ["a", "mail", 2, False])
    columns = Columns("text", (), "", "kind", ("n", "ok"))
    assert list(read(io.BytesIO(data), columns)) == [Row(2, "a", [], "", "mail", {"n": 2, "ok": False})]
