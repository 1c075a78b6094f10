"""Synonyms from WordNet 3.0: what METEOR asks of it, from the table that `data/make_wordnet.py` made.

Equal to the one-word lemma names of `nltk.corpus.wordnet.synsets(word)`, including Morphy: the form itself, and
either its exceptional bases ("geese" → "goose") or those that the detachment rules yield ("dogs" → "dog").
WordNet is © Princeton University; its licence is in `data/WORDNET-LICENSE`.
"""

from __future__ import annotations

import gzip
import json
from functools import cache, lru_cache
from pathlib import Path

TABLE = Path(__file__).parent / "data" / "wordnet.json.gz"
REMEMBERED = 16_384  # words, each at most LONGEST characters: about 600 bytes each, 10 MB when full
LONGEST = 80  # the longest form in WordNet has 71

RULES = {
    "n": (
        *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")),
        *(("men", "man"), ("ies", "y")),
    ),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}
"""Morphy's rules of detachment by part of speech (manual page morphy(7WN), as NLTK applies them)."""

LAST_LETTERS = {pos: frozenset(ending[-1] for ending, _ in rules) for pos, rules in RULES.items()}

NONE: frozenset[str] = frozenset()


def synonyms(word: str) -> frozenset[str]:
    """The one-word names of every synset of `word` (any case), as spelled in WordNet; empty when it is unknown."""
    return _synonyms(word) if len(word) <= LONGEST else NONE


@lru_cache(maxsize=REMEMBERED)
def _synonyms(word: str) -> frozenset[str]:
    form = word.lower()
    found: set[str] = set()
    for pos, names, exceptions in _table():
        for base in (form, *_bases(form, pos, exceptions)):
            found.update(names.get(base, "").split())
    return frozenset(found) if found else NONE


def _bases(form: str, pos: str, exceptions: dict[str, str]) -> list[str]:
    """The forms that `form` may be an inflection of; an exception leaves the rules out."""
    if form in exceptions:
        return exceptions[form].split()
    if form[-1:] not in LAST_LETTERS[pos]:
        return []
    return [form[: -len(ending)] + base for ending, base in RULES[pos] if form.endswith(ending)]


@cache
def _table() -> list[tuple[str, dict[str, str], dict[str, str]]]:
    """[(pos, {form: names}, {inflected: forms})], read once: 0.13 s and about 35 MB."""
    table = json.loads(gzip.decompress(TABLE.read_bytes()))
    return [(pos, table["synonyms"][pos], table["exceptions"][pos]) for pos in "nvar"]
