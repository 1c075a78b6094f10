"""What METEOR reads: texts as rows of word numbers, and for every word its stem and the synonyms of that stem.

Words are those of NLTK's `word_tokenize` in lower case. Almost every chunk (what stands between blanks) is cut alike
wherever it stands inside a sentence, or at its end: each is cut once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluations.metrics import _sentences as cutting
from evaluations.metrics._chunks import Chunks, Numbers, joined, spread
from evaluations.metrics._remembering import Memory
from evaluations.metrics._wordnet import synonyms

Words = NDArray[np.int32]
"""A text: the number of every word."""

REMEMBERED_BYTES = 24 * 2**20  # of references
FULL = 40 * 2**20  # bytes of chunks, words and synonyms; then a new lexicon begins
OF_A_WORD, OF_A_STEM, OF_A_NAME = 250, 500, 60  # bytes
COMPILED_STEM = re.compile("[a-z0-9]{4,}")
NOTHING = np.zeros(0, np.int32)
UNKNOWN, UNSURE = -2, -1  # instead of a number of words: not looked at yet; its neighbours matter


class Lexicon(Chunks):
    """Chunks, their words, stems and synonyms, all by number. Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self.references: Memory[Words] = Memory(REMEMBERED_BYTES)
        self.stem_of: NDArray[np.int32] = np.zeros(0, np.int32)  # by word
        self._words: Numbers[str] = Numbers()
        self._stems: Numbers[str] = Numbers()
        self._names: list[str] = []  # of stems
        self._synonyms: dict[int, frozenset[str]] = {}
        self._starts, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int32)  # by code: where in `_cut`, how many
        self._cut = np.zeros(0, np.int32)

    @property
    def is_full(self) -> bool:
        return self.bytes > FULL

    def read(self, texts: Sequence[str]) -> list[Words]:
        """The words of every text."""
        with self._lock:
            easy = self.easily_coded(texts)
            codes, bounds = joined(NOTHING if one is None else one for one in easy)
            self._cut_chunks(codes)
            counts = self._counts[codes]
            sizes = np.zeros(len(codes) + 1, np.int64)
            np.cumsum(np.maximum(counts, 0), out=sizes[1:])
            words = self._cut[spread(self._starts[codes], np.maximum(counts, 0))]
            stops = sizes[bounds].tolist()
            found = [words[start:stop] for start, stop in pairwise(stops)]
            unsure = np.searchsorted(bounds, np.flatnonzero(counts == UNSURE), side="right") - 1
            hard = [place for place, one in enumerate(easy) if one is None]
            for place in {*unsure.tolist(), *hard}:
                found[place] = self._numbered_words(list(map(str.lower, cutting.words(texts[place]))))
            return found

    def _cut_chunks(self, codes: NDArray[np.int32]) -> None:
        """Cut what is met for the first time: a chunk inside a sentence, or at its end."""
        more = 2 * len(self.chunks) - len(self._counts)
        self._starts = np.concatenate([self._starts[: len(self._counts)], np.zeros(more, np.int64)])
        self._counts = np.concatenate([self._counts, np.full(more, UNKNOWN, np.int32)])
        fresh = np.unique(codes[self._counts[codes] == UNKNOWN])
        if not len(fresh):
            return
        chunks = map(self.chunks.__getitem__, (fresh >> 1).tolist())
        cuts = [cutting.cut(chunk, bool(last)) for chunk, last in zip(chunks, (fresh & 1).tolist(), strict=True)]
        counts = np.array([len(cut) if cut != cutting.NOT_PLAIN else UNSURE for cut in cuts], np.int32)
        words = [word.lower() for cut in cuts if cut != cutting.NOT_PLAIN for word in cut]
        starts = len(self._cut) + np.cumsum(np.maximum(counts, 0)) - np.maximum(counts, 0)
        self._cut = np.concatenate([self._cut, self._numbered_words(words)])
        self._starts[fresh] = starts
        self._counts[fresh] = counts  # last: whatever interrupts this, a count never comes before its words

    def _numbered_words(self, words: list[str]) -> Words:
        numbers = self._words.of(words)
        fresh = self._words.since(len(self.stem_of))
        if fresh:
            stems = self._stems.of(stemmed(fresh))
            self._names += self._stems.since(len(self._names))
            self.stem_of = np.concatenate([self.stem_of, stems])
            self.bytes += OF_A_WORD * len(fresh) + 2 * sum(map(len, fresh))
        return numbers

    def stem(self, number: int) -> str:
        """The stem of this number."""
        return self._names[number]

    def synonyms(self, number: int) -> frozenset[str]:
        """The synonyms of the stem of this number."""
        found = self._synonyms.get(number)
        if found is None:
            found = self._synonyms[number] = synonyms(self._names[number])
            self.bytes += OF_A_STEM + OF_A_NAME * len(found)
        return found


_current: list[Lexicon] = []


def lexicon() -> Lexicon:
    """The lexicon of this process. It is replaced, with the references read by it, once it is full."""
    if not _current or _current[-1].is_full:
        _current[:] = [Lexicon()]
    return _current[-1]


def stemmed(words: Sequence[str]) -> list[str]:
    """NLTK's Porter stems. For words of more than three letters a–z or digits a compiled stemmer gives the same."""
    tokenize = _compiled_tokenizer()
    usual = [word for word in words if COMPILED_STEM.fullmatch(word)] if tokenize else []
    stems = dict(zip(usual, tokenize(" ".join(usual)), strict=True)) if tokenize else {}
    return [stems[word] if word in stems else _porter().stem(word) for word in words]


@cache
def _compiled_tokenizer() -> Callable[[str], list[str]] | None:
    """The tokenizer of rouge-score-rs, which stems 20 times faster than NLTK; None where it has no wheel."""
    if not find_spec("rouge_score_rs"):
        return None
    from rouge_score_rs.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True).tokenize  # type: ignore[no-untyped-call]


@cache
def _porter() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()
