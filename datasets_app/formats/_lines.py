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
    decoder = codecs.getincrementaldecoder("utf-8-sig")("strict")
    carry, number = "", 0  # the unfinished line, and how many lines were yielded
    while True:
        chunk = source.read(CHUNK)
        bad: UnicodeDecodeError | None = None
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            bad = error
            text = bytes(error.object[: error.start]).decode("utf-8-sig" if not (number or carry) else "utf-8")
        # StringIO splits at LF, CR LF and CR only, in C; str.splitlines would also split at U+2028 and form feeds.
        split = list(io.StringIO(carry + text, newline="")) if text else ([carry] if carry else [])
        carry = ""
        # The last piece is unfinished unless it ends in LF: a CR may be half of a CR LF.
        if split and (chunk or bad) and not split[-1].endswith("\n"):
            carry = split.pop()
        for line in split:
            number += 1
            yield line
        if bad is not None:
            raise Unreadable(_wrong_encoding(number + 1, carry, bad))
        if len(carry) > MAX_RECORD_CHARACTERS:
            raise Unreadable(too_long(number + 1))
        if not chunk:
            return


def too_long(row: int) -> Problem:
    return Problem(
        row,
        "",
        f"It is longer than {MAX_RECORD_CHARACTERS >> 20} million characters.",
        "Check that rows end with a line break and that quotes are closed; shorten the document otherwise.",
    )


def _wrong_encoding(line: int, before: str, error: UnicodeDecodeError) -> Problem:
    byte = error.object[error.start]
    after = f" after “{before[-20:].lstrip()}”" if before.strip() else ""
    return Problem(line, "", f"The byte 0x{byte:02X}{after} is not UTF-8. Reading stopped here.", AS_UTF8)
