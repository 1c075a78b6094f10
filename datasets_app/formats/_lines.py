"""Lines of a UTF-8 text, strictly decoded, in constant memory (SECURITY S19, S21)."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from datasets_app.formats import MAX_RECORD_CHARACTERS, Problem, Source, Unreadable

CHUNK = 256 * 1024
AS_UTF8 = 'Save it as UTF-8 (in Excel: "CSV UTF-8"; in Python: open(…, "w", encoding="utf-8")) and upload it again.'


def lines(source: Source) -> Iterator[str]:
    """The lines of `source` with their ends as they are (LF, CR LF or CR); a byte order mark is dropped.

    Raises Unreadable, naming the line, at the first byte that is not UTF-8 and for a line longer than
    MAX_RECORD_CHARACTERS; every complete line before it is yielded first.
    """
    begun: list[str] = []  # the pieces of the unfinished line: joined once, as a line may come in a thousand of them
    number = length = 0
    chunks = texts(source)
    while True:
        bad: NotUtf8 | None = None
        try:
            text = next(chunks, "")
        except NotUtf8 as error:
            bad, text = error, error.before
        is_last = not text or bad is not None
        begun.append(text)
        length += len(text)
        # A CR at the end of what was begun may be half of a CR LF.
        if is_last or "\n" in text or "\r" in text or (len(begun) > 1 and begun[-2].endswith("\r")):
            # StringIO splits at LF, CR LF and CR only, in C; str.splitlines would also split at U+2028 and form feeds.
            split = list(io.StringIO("".join(begun), newline=""))
            begun = [split.pop()] if split and (text or bad) and not split[-1].endswith("\n") else []
            length = sum(map(len, begun))
            for line in split:
                number += 1
                yield line
        if bad is not None:
            raise Unreadable(bad.problem(number + 1, "".join(begun)))
        if length > MAX_RECORD_CHARACTERS:
            raise Unreadable(too_long(number + 1))
        if not text:
            return


class NotUtf8(Exception):
    """A byte that is not UTF-8; `before` is the good text between the last chunk and it."""

    def __init__(self, before: str, byte: int) -> None:
        super().__init__(before, byte)
        self.before, self.byte = before, byte

    def problem(self, row: int | None, before: str) -> Problem:
        """`before` is what the row holds up to the byte: its last characters help to find it."""
        after = f" after “{before[-20:].lstrip()}”" if before.strip() else ""
        return Problem(row, "", f"The byte 0x{self.byte:02X}{after} is not UTF-8. Reading stopped here.", AS_UTF8)


def texts(source: Source) -> Iterator[str]:
    """The text of `source` in pieces that are not empty, without a byte order mark. Raises NotUtf8."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("strict")
    is_first = True
    while True:
        chunk = source.read(CHUNK)
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            before = bytes(error.object[: error.start]).decode("utf-8-sig" if is_first else "utf-8")
            raise NotUtf8(before, error.object[error.start]) from None
        if text:
            is_first = False
            yield text
        if not chunk:
            return


def too_long(row: int) -> Problem:
    return Problem(
        row,
        "",
        f"It is longer than {MAX_RECORD_CHARACTERS >> 20} million characters.",
        "Check that rows end with a line break and that quotes are closed; shorten the document otherwise.",
    )
