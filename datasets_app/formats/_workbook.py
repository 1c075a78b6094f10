"""The parts of an Excel workbook (ECMA-376, "Office Open XML"), read as they stream past (SECURITY S20).

openpyxl's read-only mode loads style sheets and shared strings as trees, resolves what a DTD declares unless a further
package is there, and cannot tell a formula without a value from an empty cell; expat can be told to refuse a DTD.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from posixpath import dirname, join, normpath
from typing import IO, Any
from xml.parsers import expat

from datasets_app.formats import MAX_CELL_BYTES, Problem, Unreadable, bomb, decoded_limit

CHUNK = 64 * 1024
MAX_PARTS = 10_000
MAX_SHARED_CHARACTERS = 256 << 20
MAX_COLUMN = 16_384  # what Excel has; a file may claim more
AGAIN = "Open it in Excel or LibreOffice, save it again as .xlsx, and upload that."
ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")  # ECMA-376 22.9.2.19: characters that XML cannot hold
CELL = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")
DATE_CODES = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]|_.|\*.')
DATES = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}  # numFmtId of built-in dates and times

Attributes = dict[str, str]


class Bad(Exception):
    """A cell that has no value: what it is, and how to mend it."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.message, self.cure = message, cure


def opened(file: IO[bytes]) -> zipfile.ZipFile:
    """The archive, once its directory says that nothing in it is too large. Raises Unreadable.

    What the directory says is kept: zipfile reads no more of a part than its declared size.
    """
    n_bytes = file.seek(0, 2)
    file.seek(0)
    try:
        archive = zipfile.ZipFile(file)
        parts = archive.infolist()
    except MemoryError:
        raise
    except Exception:  # zipfile raises BadZipFile, struct.error, NotImplementedError and others
        raise _damaged("it is no whole zip archive") from None
    if len(parts) > MAX_PARTS or sum(part.file_size for part in parts) > decoded_limit(n_bytes):
        raise bomb(n_bytes)
    names = set(archive.namelist())
    if any(name.endswith("workbook.bin") for name in names):
        raise _unsuited("It is a binary Excel workbook (.xlsb).", "Save it as .xlsx, or export the sheet as CSV.")
    if "[Content_Types].xml" not in names or "_rels/.rels" not in names:
        raise _unsuited("It is a zip archive and no Excel workbook.", "Unpack it, and upload the file in it.")
    return archive


class Workbook:
    """`sheets` are (name, path of its part, is it visible) in their order; `shared` its texts; `dates` the cell styles
    that show a number as a date."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        main = next((to for kind, to in self._links("", "").values() if kind == "officeDocument"), "xl/workbook.xml")
        links = self._links(main, f"{dirname(main)}/_rels/{main.rpartition('/')[2]}.rels")
        self.sheets: list[tuple[str, str, bool]] = []
        self.epoch = datetime(1899, 12, 30)
        self._sheets(main, links)
        by_kind = {kind: to for kind, to in links.values()}
        self.shared = list(self._shared(by_kind["sharedStrings"])) if "sharedStrings" in by_kind else []
        self.dates = self._dates(by_kind["styles"]) if "styles" in by_kind else set()

    def _links(self, main: str, path: str) -> dict[str, tuple[str, str]]:
        """{id: (kind, path of the part)} of a part's relationships; those of the package for an empty path."""
        found: dict[str, tuple[str, str]] = {}

        def start(name: str, given: Attributes) -> None:
            if name == "Relationship" and given.get("TargetMode") != "External":
                target = given.get("Target", "")
                whole = target if target.startswith("/") else join(dirname(main), target)
                found[given.get("Id", "")] = (given.get("Type", "").rpartition("/")[2], normpath(whole).lstrip("/"))

        for _ in parse(self.archive, path or "_rels/.rels", start):
            pass
        return found

    def _sheets(self, path: str, links: dict[str, tuple[str, str]]) -> None:
        def start(name: str, given: Attributes) -> None:
            if name == "workbookPr" and given.get("date1904") in ("1", "true"):
                self.epoch = datetime(1904, 1, 1)
            if name == "sheet":
                kind, target = links.get(next((given[key] for key in given if key.endswith(":id")), ""), ("", ""))
                if kind == "worksheet":
                    self.sheets.append((given.get("name", ""), target, given.get("state", "visible") == "visible"))

        for _ in parse(self.archive, path, start):
            pass

    def _shared(self, path: str) -> Iterator[str]:
        texts = _Texts("si")
        n_characters = 0
        for _ in parse(self.archive, path, texts.start, texts.end, texts.data):
            for text in texts.taken():
                n_characters += len(text)
                yield text
            if n_characters > MAX_SHARED_CHARACTERS:
                message = f"It holds more than {MAX_SHARED_CHARACTERS >> 20} million characters of text."
                raise _unsuited(message, "Export the sheet as CSV (UTF-8).")

    def _dates(self, path: str) -> set[str]:
        codes: dict[str, str] = {}
        styles: list[str] = []
        inside: list[str] = []

        def start(name: str, given: Attributes) -> None:
            if name == "numFmt":
                codes[given.get("numFmtId", "")] = given.get("formatCode", "")
            elif name == "xf" and "cellXfs" in inside:
                styles.append(given.get("numFmtId", ""))
            inside.append(name)

        for _ in parse(self.archive, path, start, lambda name: inside.pop()):
            pass
        shown = {code for code, text in codes.items() if re.search("[dmyhs]", DATE_CODES.sub("", text.lower()))}
        shown |= {str(number) for number in DATES}
        return {str(place) for place, code in enumerate(styles) if code in shown}

    def rows(self, path: str) -> Iterator[tuple[int, dict[int, Any]]]:
        """(number from 1, {column from 0: text, number, true or false, or Bad}) of a sheet's rows that hold a cell."""
        sheet = _Sheet(self)
        for _ in parse(self.archive, path, sheet.start, sheet.end, sheet.data):
            yield from sheet.taken()


class _Texts:
    """Collects the text of every `<t>` in an element, but for the pronunciation of East Asian texts (`<rPh>`)."""

    def __init__(self, element: str) -> None:
        self.element = element
        self.done: list[str] = []
        self.pieces: list[str] = []
        self.n_characters = 0
        self.takes = self.is_spoken = False

    def start(self, name: str, given: Attributes) -> None:
        if name == "t":
            self.takes = not self.is_spoken
        elif name == "rPh":
            self.is_spoken = True

    def end(self, name: str) -> None:
        if name == "t":
            self.takes = False
        elif name == "rPh":
            self.is_spoken = False
        elif name == self.element:
            self.done.append(unescaped("".join(self.pieces)))
            self.forget()

    def data(self, text: str) -> None:
        if self.takes:
            self.pieces.append(text)
            self.n_characters += len(text)
            if self.n_characters > 2 * MAX_CELL_BYTES:
                message = f"A cell is larger than {MAX_CELL_BYTES >> 20} MiB."
                raise _unsuited(message, "Shorten the document, or split it.")

    def forget(self) -> None:
        self.pieces, self.n_characters = [], 0

    def taken(self) -> list[str]:
        done, self.done = self.done, []
        return done


class _Sheet(_Texts):
    """Collects the rows of a sheet. In a cell, `<v>` is its value, `<is>` its own text, `<f>` its formula."""

    def __init__(self, book: Workbook) -> None:
        super().__init__("")
        self.book = book
        self.rows: list[tuple[int, dict[int, Any]]] = []
        self.row = 0
        self.column = -1
        self.cells: dict[int, Any] = {}
        self.kind = self.style = ""
        self.has_formula = self.has_value = False

    def start(self, name: str, given: Attributes) -> None:
        if name == "c":
            self.kind, self.style = given.get("t", "n"), given.get("s", "")
            self.has_formula = self.has_value = False
            self.forget()
            self.column = _column(given.get("r", ""), self.column + 1)
        elif name == "v":
            self.takes = self.has_value = True
        elif name == "f":
            self.has_formula = True
        elif name == "row":
            self.row = _number(given.get("r", ""), self.row + 1)
            self.column, self.cells = -1, {}
        else:
            super().start(name, given)

    def end(self, name: str) -> None:
        if name == "v":
            self.takes = False
        elif name == "c":
            value = self._value("".join(self.pieces))
            if value is not None:
                self.cells[self.column] = value
        elif name == "row":
            if self.cells:
                self.rows.append((self.row, self.cells))
            self.cells = {}
        else:
            super().end(name)

    def taken(self) -> list[Any]:
        rows, self.rows = self.rows, []
        return rows

    def _value(self, text: str) -> Any:
        if not text and self.has_formula and not (self.has_value and self.kind == "str"):
            cure = "Open the workbook in Excel or LibreOffice and save it, or paste the values in place of formulas."
            return Bad("It is a formula whose value is not stored in the file.", cure)
        if self.kind == "e":
            return Bad(f"It holds the error {text[:20]}.", "Mend the formula, or clear the cell.")
        if not text:
            return None
        if self.kind == "s":
            place = _number(text, -1)
            if 0 <= place < len(self.book.shared):
                return self.book.shared[place]
            return Bad("Its text is missing in the file.", AGAIN)
        if self.kind == "b":
            return text.strip() == "1"
        return self._of_number(text) if self.kind == "n" else unescaped(text)

    def _of_number(self, text: str) -> Any:
        try:
            number = float(text)
            if number in (float("inf"), float("-inf")) or number != number:
                raise ValueError
        except ValueError:
            return Bad(f"“{text[:20]}” is no number.", "Type it again, or format the cell as text.")
        if self.style in self.book.dates:
            return shown_date(number, self.book.epoch)
        return int(number) if number.is_integer() and abs(number) < 1e15 else number


def shown_date(number: float, epoch: datetime) -> str | float:
    """A date as ISO 8601 with its time if it has one; times of a day and what no calendar has stay numbers.

    Days before 1 March 1900 are one off, as Excel takes 1900 for a leap year.
    """
    if number < 1:
        return number
    if epoch.year == 1899 and number < 60:
        number += 1
    try:
        moment = epoch + timedelta(seconds=round(number * 86400))
    except OverflowError:
        return number
    return moment.date().isoformat() if moment.time() == datetime.min.time() else moment.isoformat()


def unescaped(text: str) -> str:
    return ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text


def _column(cell: str, otherwise: int) -> int:
    """The column from 0 of a cell such as "AB7"."""
    found = CELL.fullmatch(cell)
    if not found:
        return min(otherwise, MAX_COLUMN)
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - 64
    return min(column - 1, MAX_COLUMN)


def _number(text: str, otherwise: int) -> int:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else otherwise


def parse(
    archive: zipfile.ZipFile,
    path: str,
    start: Callable[[str, Attributes], None],
    end: Callable[[str], Any] = lambda name: None,
    data: Callable[[str], None] = lambda text: None,
) -> Iterator[None]:
    """Hand a part's elements (by their local names) and text to the callbacks, and pause behind each piece of it.

    A document type is refused where it begins: no entity is ever declared, inner or outer. Raises Unreadable.
    """
    parser = expat.ParserCreate(namespace_separator=None)
    parser.buffer_text = True
    parser.StartElementHandler = lambda name, given: start(name.rpartition(":")[2], given)
    parser.EndElementHandler = lambda name: end(name.rpartition(":")[2])
    parser.CharacterDataHandler = data

    def refuse(*declared: Any) -> None:
        message = "The workbook declares a document type in its XML, as no spreadsheet program does."
        raise Unreadable(Problem(None, "", message, AGAIN))

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        with archive.open(path) as part:
            while chunk := part.read(CHUNK):
                parser.Parse(chunk, False)
                yield
            parser.Parse(b"", True)
            yield
    except KeyError:
        raise _damaged(f"its part {path[:60]} is missing") from None
    except RuntimeError:
        raise _unsuited("The zip archive is protected by a password.", "Remove the password.") from None
    except (expat.ExpatError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError):
        raise _damaged(f"its part {path[:60]} cannot be read") from None


def _damaged(how: str) -> Unreadable:
    return _unsuited(f"The Excel workbook is damaged or cut off: {how}.", AGAIN)


def _unsuited(message: str, cure: str) -> Unreadable:
    return Unreadable(Problem(None, "", message, cure))
