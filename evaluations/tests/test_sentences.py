"""Sentences and words are cut exactly as NLTK cuts them, without its downloads."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evaluations.metrics import _sentences as cutting
from evaluations.tests.oracles import PLAIN_PROSE, TEXTS, stock_punkt, stock_words

# Every kind of chunk beside every other: initials, abbreviations, quotes that close or open, marks alone, dashes.
CHUNKS = st.sampled_from(
    """word. Word. word? word! J. Mr. U.S. p.m. 3. 3.5 1,000. ... .. . ? !? ?! "so" so." so.' so.) so.") "so (so) so).
    ' " ) '-- )-- a.-- a-- -- a.b a.b. (a. [1]. [1.] e.g. e.g., etc.: x.; “so” so.” so.’ so.» ». so?" so!) so?' so."x
    St. Louis No. 5. Co. Inc. a.m. However The he""".split()  # noqa: SIM905
)
STRINGS_OF_CHUNKS = st.lists(CHUNKS, min_size=1, max_size=12)
BLANKS = st.sampled_from([" ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\x1c", "\u2028"])


@settings(deadline=None, max_examples=300)
@given(text=TEXTS)
@example(text=" leading blank. Next one.")
@example(text='"Really?" he asked. (It was.) Next')
@example(text="He met Mr. J. Quill. Then p.m. came. 3. Point? Yes! No.")
def test_sentences_equal_nltk(text: str) -> None:
    assert cutting.sentences(text) == stock_punkt().tokenize(text)


@settings(deadline=None, max_examples=500)
@given(chunks=STRINGS_OF_CHUNKS)
def test_every_kind_of_chunk_beside_every_other(chunks: list[str]) -> None:
    text = " ".join(chunks)
    assert cutting.sentences(text) == stock_punkt().tokenize(text)
    assert cutting.words(text) == stock_words(text)


@settings(deadline=None, max_examples=500)
@given(parts=st.lists(st.tuples(CHUNKS, BLANKS), min_size=1, max_size=12), before=st.sampled_from(["", " ", "\n "]))
def test_the_kind_of_blank_does_not_matter_to_the_chunks_of_a_sentence(
    parts: list[tuple[str, str]], before: str
) -> None:
    text = before + "".join(chunk + blank for chunk, blank in parts)
    expected = [sentence.split() for sentence in stock_punkt().tokenize(text)]
    assert cutting.sentences_of_chunks(text) == expected


@settings(deadline=None, max_examples=300)
@given(text=TEXTS)
@example(text="I can't. It's Mr. O'Neil's, isn't it? 'Tis gonna be 3.5.")
def test_words_equal_nltk(text: str) -> None:
    assert cutting.words(text) == stock_words(text)


PLAIN_WORDS = "it's O'Neil's cannot gonna. more'n Wanna, 3.5 end. p.m. e-mail. o'clock? d'ye".split()  # noqa: SIM905
USUAL_BLANKS = st.text(" \n\t\r\x0b\x0c", min_size=1, max_size=2)


@settings(deadline=None, max_examples=300)
@given(parts=st.lists(st.tuples(st.sampled_from(PLAIN_WORDS), USUAL_BLANKS)))
def test_usual_blanks_of_any_kind_leave_the_cut_of_plain_words_as_it_is(parts: list[tuple[str, str]]) -> None:
    text = "".join(chunk + blank for chunk, blank in parts)
    assert not cutting.has_odd_blanks(text)
    cuts = [
        cutting.cut(chunk, last=place == len(chunks) - 1)
        for chunks in cutting.sentences_of_chunks(text)
        for place, chunk in enumerate(chunks)
    ]
    assert [word for cut in cuts for word in cut] == stock_words(text)


@settings(deadline=None, max_examples=300)
@given(text=PLAIN_PROSE)
def test_the_short_cut_for_plain_prose_equals_nltk(text: str) -> None:
    assert cutting.sentences(text) == stock_punkt().tokenize(text)
    assert cutting.words(text) == stock_words(text)


def test_ordinary_prose_with_quotes_takes_the_short_cut() -> None:
    text = 'Dr. Grey left at 5 p.m. on Monday. "Nobody paid," she said. "It rained (a lot)." Then it stopped.'
    assert len(cutting._by_chunks(text) or ()) == 4


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


def test_a_text_of_one_endless_word_is_cut() -> None:
    text = "y" * 1_000_000 + ". Next."
    assert cutting.sentences(text) == ["y" * 1_000_000 + ".", "Next."]
    assert len(cutting.words(text)) == 4


def test_asking_about_unseen_words_leaves_the_model_as_it_was() -> None:
    model = cutting._punkt()._params.ortho_context
    before = len(model)
    cutting.sentences("Zyx. Qrstuv? Wvu. 17. Abcxyz Mr. Qqq.")
    assert len(model) == before
