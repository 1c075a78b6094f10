"""Words and sentences as people count them, in any script: for the metrics that count instead of comparing meanings.

Words follow the default word boundaries of Unicode (UAX #29) in the cases that matter for counting: letters, digits
and their marks make a word, with apostrophes between letters or digits ("don't") and points or commas between digits
("3.5"). Hyphens, underscores and all other marks part words and are no words. Scripts that put no blanks between words
(Han, kana, Thai, Lao, Khmer, Burmese and neighbours) are cut into characters, each with its marks.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache
from hashlib import blake2b

from evaluations.metrics import _sentences as cutting
from evaluations.metrics._remembering import Memory

Words = tuple[str, ...]

REMEMBERED_BYTES = 64 * 2**20  # about 3,000 sources of 600 words

UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x3005, 0x3007),  # iteration mark, closing mark, zero
    (0x3021, 0x312F),  # Hangzhou numerals, kana, Bopomofo
    (0x31A0, 0x31FF),  # Bopomofo and kana extensions
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0xA4CF),  # Han, Yi
    (0xA980, 0xA9FF),  # Javanese, Burmese extension
    (0xAA60, 0xAADF),  # Burmese extension, Tai Viet
    (0xF900, 0xFAFF),  # Han, compatibility
    (0xFF66, 0xFF9F),  # half-width kana
    (0x16FE0, 0x18DFF),  # Tangut, Khitan
    (0x1AFF0, 0x1B2FF),  # kana extensions, Nüshu
    (0x20000, 0x3FFFF),  # Han, further extensions
)
"""First and last code points of the scripts that are cut into characters."""

JOINERS = (0x200C, 0x200D)  # zero-width, inside words of Persian and of Indic scripts
LAST_MARKS = range(0xE0100, 0xE01F0)  # variation selectors, far above all other marks
SAME = (("\u2019", "'"), ("\u02bc", "'"), ("\uff07", "'"), ("\u00ad", ""))  # one apostrophe; soft hyphens are not seen

ASCII_WORD = re.compile(r"[a-z0-9]++(?:(?:'|(?<=[0-9])[.,](?=[0-9]))[a-z0-9]++)*+")  # 3 times faster, equal
SENTENCE_END = re.compile(
    r"(?<=[。！？｡।॥؟۔።])"  # ends that Punkt does not know
    r"|\n[ \t]*\n"  # an empty line
    r"|\n(?=[ \t]*(?:[-*•‣–]|[0-9]{1,3}[.)])[ \t])"  # an item of a list
)

_cut: Memory[Words] = Memory(REMEMBERED_BYTES)


def words(text: str) -> Words:
    """The words of `text` in order, casefolded and in Unicode's normal form C, so that "É" and "é" are one word."""
    folded = text.casefold()
    if folded.isascii():
        return tuple(ASCII_WORD.findall(folded))
    folded = unicodedata.normalize("NFC", folded)
    for written, meant in SAME:
        folded = folded.replace(written, meant)
    return tuple(_pattern().findall(folded))


def remembered(text: str) -> Words:
    """`words(text)` of a source or a reference, cut once for all candidates and all metrics of this process."""
    key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    found = _cut.get(key)
    if found is None:
        once: dict[str, str] = {}
        found = tuple(once.setdefault(word, word) for word in words(text))  # equal words share their memory
        _cut.keep(key, found, sum(map(sys.getsizeof, once)) + 8 * len(found) + 300)
    return found


def sentences(text: str) -> list[Words]:
    """The sentences of `text`, each as its words; what has no word (a rule, a lone "!") is none.

    Sentences end where NLTK's Punkt ends them, at the full stops of other scripts, at empty lines and before the
    items of a list. Needs `_sentences.missing()` to be empty.
    """
    pieces = (piece for part in SENTENCE_END.split(text) for piece in cutting.sentences(part))
    return [found for piece in pieces if (found := words(piece))]


def ngrams(found: Words, n: int) -> list[Words]:
    """All runs of `n` neighbouring words, in order; one for every occurrence, none when there are too few words."""
    return list(zip(*(found[start:] for start in range(n)), strict=False))


def signature() -> str:
    """What decides the words: our rules, and the edition of Unicode that Python carries."""
    return f"letters and digits, casefold, NFC, characters of unspaced scripts, unicode {unicodedata.unidata_version}"


def sentence_signature() -> str:
    """What decides the sentences: our additions, and Punkt with its versions."""
    return f"lists, empty lines, stops of other scripts, {cutting.signature()}"


@cache
def _pattern() -> re.Pattern[str]:
    """One word. Possessive repeats: no text can make it go back, so that the time is linear."""
    alone = "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED)
    letter, marks = rf"[^\W_{alone}]", f"[{_marks()}]"
    run = rf"{letter}++(?:{marks}++{letter}*+)*+"
    return re.compile(
        rf"{run}(?:(?:'|(?<=\d)[.,](?=\d)){run})*+"
        rf"|(?!_)\w(?:{marks}++)?+"  # a character of an unspaced script: all others are taken above
    )


@cache
def _marks() -> str:
    """All combining marks and joiners, as the inside of a character class. Looked up once: 15 ms."""
    codes = [code for code in range(0x300, 0x1F000) if unicodedata.category(chr(code))[0] == "M"]
    ranges: list[list[int]] = []
    for code in sorted([*codes, *JOINERS, *LAST_MARKS]):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
