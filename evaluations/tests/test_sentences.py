"""Sentences and words are cut exactly as NLTK cuts them, without its downloads."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings

from evaluations.metrics import _sentences as cutting
from evaluations.tests.oracles import PLAIN_PROSE, TEXTS, stock_punkt, stock_words


@settings(deadline=None, max_examples=300)
@given(text=TEXTS)
@example(text=" leading blank. Next one.")
@example(text="He met Mr. J. Smith. Then p.m. came. 3. Point? Yes! No.")
@example(text='"Really?" he asked. (It was.) Next')
def test_sentences_equal_nltk(text: str) -> None:
    assert cutting.sentences(text) == stock_punkt().tokenize(text)


@settings(deadline=None, max_examples=300)
@given(text=TEXTS)
@example(text="I can't. It's Mr. O'Neil's, isn't it? 'Tis gonna be 3.5.")
def test_words_equal_nltk(text: str) -> None:
    assert cutting.words(text) == stock_words(text)


@settings(deadline=None, max_examples=300)
@given(text=PLAIN_PROSE)
def test_the_short_cut_for_plain_prose_equals_nltk(text: str) -> None:
    plain = cutting._plain_sentences(text)
    if plain is not None:
        assert [" ".join(words) for words in plain] == stock_punkt().tokenize(text)
    assert cutting.words(text) == stock_words(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Grey left. He was tired.", 2),
        ("It cost 3.5 dollars at 5 p.m. on Monday. Nobody paid.", 2),
        ("No full stop at all", 1),
        ("Who? Me! Yes.", 3),
        ("(It rained.) It stopped.", 2),
    ],
)
def test_counts_of_sentences(text: str, count: int) -> None:
    assert len(cutting.sentences(text)) == count


def test_asking_about_unseen_words_leaves_the_model_as_it_was() -> None:
    model = cutting._punkt()._params.ortho_context
    before = len(model)
    cutting.sentences("Zyx. Qrstuv? Wvu. 17. Abcxyz Mr. Qqq.")
    assert len(model) == before
