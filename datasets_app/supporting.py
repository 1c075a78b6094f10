"""Supporting asks whether a document holds the numbers and the names that its reference tells.

Pure. A number or a name that is missing there is no error by itself: it may be rounded, spelled out, or known from
elsewhere. But a model that reads only the document cannot know it, and a metric will expect it.
"""

from __future__ import annotations

import re

from datasets_app.copying import words

MOST_SEARCHED = 100  # numbers of a reference, and places of one, that are searched for before all are compared
NUMBER = re.compile(r"\d+(?:[.,:\u00a0\u202f']\d+)*")
THOUSANDS = re.compile(r"\d{1,3}(?:[.,\u00a0\u202f']\d{3})+")
SPELLED = {
    "0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven",
    "8": "eight", "9": "nine", "10": "ten", "11": "eleven", "12": "twelve", "13": "thirteen", "14": "fourteen",
    "15": "fifteen", "16": "sixteen", "17": "seventeen", "18": "eighteen", "19": "nineteen", "20": "twenty",
    "30": "thirty", "40": "forty", "50": "fifty", "60": "sixty", "70": "seventy", "80": "eighty", "90": "ninety",
    "100": "hundred",
}  # fmt: skip

CAPITALS_ARE_NAMES = frozenset({
    "af", "bg", "bs", "ca", "cs", "da", "en", "es", "et", "eu", "fi", "fr", "gl", "hr", "hu", "id", "is", "it", "lt",
    "lv", "mk", "ms", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sq", "sr", "sv", "sw", "tl", "tr", "uk", "vi",
})  # fmt: skip
"""Languages with capital letters that mark names; German writes every noun with one."""
CALENDAR = frozenset({
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
})  # fmt: skip
CAPITALISED = re.compile(r"[^\W\d_][\w'’]*(?:-[^\W\d_][\w'’]*)*")
SENTENCE_END = frozenset('.!?:;•\n"“”«»()[]—–-/|*#>')


def numbers(text: str) -> set[str]:
    """Every number in `text` in the forms that it may be compared by: as written, with one kind of decimal point, and
    without the marks between thousands where it can be read so."""
    found: set[str] = set()
    for written in NUMBER.findall(text):
        found.update(_forms(written))
    return found


def _forms(written: str) -> set[str]:
    if written.isdigit():
        return {written.lstrip("0") or "0"}
    forms = {re.sub(r"[,\u00a0\u202f']", ".", written)}
    if THOUSANDS.fullmatch(written):
        forms.add(re.sub(r"\D", "", written))
    return {_plain(form) for form in forms}


def _plain(form: str) -> str:
    """ "07" is "7", and "2.50" is "2.5"; other notations stay."""
    whole, point, part = form.partition(".")
    if not whole.isdigit() or (point and not part.isdigit()):
        return form
    part = part.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{part}" if part else "")


def has_unsupported_number(reference: str, source: str) -> bool:
    """Whether `reference` has a number that `source` lacks, also as an English word ("3" and "three")."""
    told = set(NUMBER.findall(reference))
    if len(told) <= MOST_SEARCHED:
        told = {written for written in told if not _stands_in(written, source)}
    if not told:
        return False
    known = numbers(source)
    missing = [forms for written in told if not (forms := _forms(written)) & known]
    if not missing:
        return False
    said = set(words(source))
    return not all(any(SPELLED.get(form) in said for form in forms) for forms in missing)


def _stands_in(written: str, source: str) -> bool:
    """Whether the number stands in `source` as it is written, and not as a part of a longer one: mostly it does, and
    this is 20 times faster than to compare all numbers."""
    place = source.find(written)
    for _ in range(MOST_SEARCHED):
        if place < 0:
            return False
        end = place + len(written)
        before, after = source[max(0, place - 2) : place], source[end : end + 2]
        if not (before[-1:].isdigit() or after[:1].isdigit() or _joins(before) or _joins(after[::-1])):
            return True
        place = source.find(written, place + 1)
    return False


def _joins(two: str) -> bool:
    """Whether two neighbouring characters, read towards a number, are a digit and a mark inside numbers."""
    return len(two) == 2 and two[0].isdigit() and two[1] in ".,:'\u00a0\u202f"


def has_unsupported_name(reference: str, known: frozenset[str], language: str) -> bool | None:
    """Whether `reference` has a capitalised word, inside a sentence, that is not among the casefolded words `known`
    of its document. None where capitals tell nothing: other scripts, German, headlines, text in capitals."""
    if language not in CAPITALS_ARE_NAMES:
        return None
    inside = [found for found in CAPITALISED.finditer(reference) if not _opens_sentence(reference, found.start())]
    names = [found[0] for found in inside if found[0][0].isupper() and len(found[0]) > 1]
    if 2 * len(names) > len(inside) > 3:
        return None
    return any(not _is_known(name, known) for name in names)


def _opens_sentence(text: str, start: int) -> bool:
    before = text[max(0, start - 16) : start].rstrip(" \t\u00a0'‘’")
    return not before or before[-1] in SENTENCE_END


def _is_known(name: str, known: frozenset[str]) -> bool:
    """The name itself, with or without a possessive or a plural, every part of a hyphenated one, a short "Sep"."""
    parts = [re.sub(r"['’]s?$", "", part) for part in name.casefold().split("-")]
    return all(_is_part_known(part, known) for part in parts if part)


def _is_part_known(part: str, known: frozenset[str]) -> bool:
    forms = {part, part.removesuffix("s"), f"{part}s", f"{part}'s", f"{part}’s"}
    if part in CALENDAR:
        forms |= {part[:3], part[:4]}
    return not forms.isdisjoint(known)
