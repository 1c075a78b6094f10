"""The implementations that papers quote, fed offline: what our own must equal."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Any

from hypothesis import strategies as st

from evaluations.metrics._wordnet import synonyms


@cache
def stock_punkt() -> Any:
    """NLTK's own sentence tokenizer with the packaged English model: what `nltk.sent_tokenize` uses once downloaded."""
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from punkt.data import english

    model = PunktParameters()
    model.abbrev_types = set(english.ABBREV_TYPES)
    model.collocations = set(english.COLLOCATIONS)
    model.sent_starters = set(english.SENT_STARTERS)
    model.ortho_context = defaultdict(int, english.ORTHO_CONTEXT)
    return PunktSentenceTokenizer(model)


def stock_words(text: str) -> list[str]:
    """`nltk.word_tokenize(text)`, with its two lines of code and the packaged model."""
    from nltk.tokenize.destructive import NLTKWordTokenizer

    tokenizer = NLTKWordTokenizer()
    return [word for sentence in stock_punkt().tokenize(text) for word in tokenizer.tokenize(sentence)]


class WordNet:
    """Our synonyms in the shape that NLTK's METEOR asks for: synsets, their lemmas, their names."""

    def synsets(self, word: str) -> list[WordNet.Synset]:
        return [WordNet.Synset(word)]

    class Synset:
        def __init__(self, word: str) -> None:
            self.word = word

        def lemmas(self) -> list[WordNet.Lemma]:
            return [WordNet.Lemma(name) for name in synonyms(self.word)]

    class Lemma:
        def __init__(self, spelled: str) -> None:
            self.spelled = spelled

        def name(self) -> str:
            return self.spelled


WORDS = """the report said the company grew more than expected although analysts warned don't it's cannot gonna wanna
they're o'clock U.S. Mr. Dr. J. p.m. No. e.g. 3.5 1,000 5 e-mail well-known car automobile cars buy purchase begins
start large big happily quickly However The He London Monday lemme more'n a.b. S. Bach""".split()  # noqa: SIM905
ODD = """é ß 你好 “so” ‘x’ — ... ?! -- $5 50% (in) "hi" 's ’s '' ` « » İ K ſ 😀 x:y a,b [1] . ! ?""".split()  # noqa: SIM905
ODD += ["\u00a0", "\u2028", "\x1c", "\x85"]
MARKS = ["", "", "", "", ".", ".", "?", "!", ",", ";", ":", '."', ".)", "..."]
BLANKS = [" ", " ", " ", " ", "\n", "  ", "", "\n\n", "\t"]

PROSE = st.lists(
    st.tuples(st.sampled_from(WORDS) | st.sampled_from(ODD), st.sampled_from(MARKS), st.sampled_from(BLANKS)),
    min_size=1,
    max_size=40,
).map(lambda rows: "".join(word + mark + blank for word, mark, blank in rows))
PLAIN_PROSE = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(MARKS[:11])), min_size=1, max_size=40).map(
    lambda rows: " ".join(word + mark for word, mark in rows)
)
TEXTS = PLAIN_PROSE | PROSE | st.text(max_size=60)
"""English prose as metrics meet it, prose with every oddity, and any Unicode at all."""
