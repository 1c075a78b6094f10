"""Words and sentences are what people count, in every script, and a text is cut once."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations.metrics import _words
from evaluations.metrics._words import ngrams, remembered, sentences, words

MIXED = st.text(st.sampled_from("aZ09'’.,-_ \n!é\u0301ß\u00adнÀ한हिन्\u200d市カー｡ไทย่ا۳𝒳𠀀😀"), max_size=40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop!", "don't stop"),
        ("Don’t stop!", "don't stop"),
        ("'Quoted' rock 'n' roll", "quoted rock n roll"),
        ("It rose 3.5 % to 1,000, then fell.", "it rose 3.5 to 1,000 then fell"),
        ("well-known snake_case a.b", "well known snake case a b"),
        ("STRASSE Straße", "strasse strasse"),
        ("\u00c9t\u00e9 E\u0301te\u0301", "\u00e9t\u00e9 \u00e9t\u00e9"),
        ("Haus\u00adhalt", "haushalt"),
        ("हिन्दी में लिखा है।", "हिन्दी में लिखा है"),
        ("می\u200cخواهم بروم", "می\u200cخواهم بروم"),
        ("한국어 문장입니다.", "한국어 문장입니다"),
        ("Бюджет принят", "бюджет принят"),
        ("市议会批准了。", "市 议 会 批 准 了"),
        ("東京タワー A2B", "東 京 タ ワ ー a2b"),
        ("ง่าย", "ง่ า ย"),
        ("2024年", "2024 年"),
        ("?! — …", ""),
        ("", ""),
    ],
)
def test_words_are_what_people_count(text: str, expected: str) -> None:
    assert list(words(text)) == expected.split(" ") * bool(expected)


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_the_short_way_for_ascii_cuts_like_the_general_one(text: str) -> None:
    general = tuple(_words._pattern().findall(text.casefold()))
    assert words(text) == general


@settings(deadline=None, max_examples=200)
@given(MIXED | st.text(max_size=40))
def test_every_letter_and_digit_is_in_exactly_one_word(text: str) -> None:
    folded = unicodedata.normalize("NFC", text.casefold()).replace("ʼ", "'")
    assert [mark for mark in "".join(words(text)) if mark.isalnum()] == [mark for mark in folded if mark.isalnum()]


@settings(deadline=None, max_examples=200)
@given(MIXED)
def test_neither_case_nor_composition_changes_the_words(text: str) -> None:
    expected = words(text)
    assert words(unicodedata.normalize("NFC", text)) == expected
    assert words(unicodedata.normalize("NFD", text)) == expected
    assert words(text.casefold()) == expected


@settings(deadline=None, max_examples=100)
@given(MIXED, MIXED)
def test_a_blank_between_two_texts_parts_their_words(one: str, other: str) -> None:
    assert words(f"{one} {other}") == words(one) + words(other)


def test_a_text_is_cut_once_and_then_remembered() -> None:
    text = "A source that nobody else cuts: 7,341 words, more or less."
    first = remembered(text)
    assert first == words(text)
    assert remembered("".join(list(text))) is first


def test_what_is_remembered_is_charged_at_least_its_words() -> None:
    before = _words._cut.size
    found = remembered("charged " * 500)
    assert _words._cut.size - before >= 8 * len(found)
    assert _words._cut.limit == _words.REMEMBERED_BYTES


def test_half_a_surrogate_pair_can_be_remembered() -> None:
    assert remembered("broken \ud800 text") == ("broken", "text")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. Grey spoke. Fees rise!", 2),
        ("市议会批准了预算。停车费上涨。", 2),
        ("परिषद ने बजट पारित किया। शुल्क बढ़ेगा।", 2),
        ("A heading\n\nand a text", 2),
        ("- one point\n- another point\n- a third", 3),
        ("1. one point\n2. another point", 2),
        ("a line\nthat goes on", 1),
        ("One. ?! --- Two.", 2),
        ("", 0),
        ("!!!", 0),
    ],
)
def test_sentences_are_what_people_count(text: str, count: int) -> None:
    assert len(sentences(text)) == count


@settings(deadline=None, max_examples=100)
@given(st.text(st.sampled_from("aB1 .!?\n-।。,"), max_size=60))
def test_sentences_hold_all_words_in_order(text: str) -> None:
    apart = re.sub(r"(?<=\d)[.,](?=\d)", " ", text)  # a stop may end a sentence where a word would have gone on
    assert tuple(word for sentence in sentences(apart) for word in sentence) == words(apart)


def test_ngrams_are_the_runs_of_neighbours() -> None:
    text = ("a", "b", "a", "b")
    assert ngrams(text, 1) == [("a",), ("b",), ("a",), ("b",)]
    assert ngrams(text, 3) == [("a", "b", "a"), ("b", "a", "b")]
    assert ngrams(text, 5) == []
