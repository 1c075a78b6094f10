"""Languages: told where they can be told, and why not where they cannot."""

import pytest

from datasets_app.languages import MIXED, NAMES, SHORT, UNSURE, _identifier, language_of

ENGLISH = "The committee decided on Monday that the street stays closed until spring because the bridge is repaired. "
GERMAN = "Der Ausschuss hat am Montag entschieden, dass die Straße bis zum Frühjahr gesperrt bleibt. "


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        (ENGLISH * 20, "en"),
        (GERMAN, "de"),
        ("Le conseil municipal a décidé lundi que la rue resterait fermée jusqu'au printemps.", "fr"),
        ("В понедельник комиссия решила, что улица останется закрытой до весны.", "ru"),
        ("委員会は月曜日、川にかかる橋を改修することを決定しました。", "ja"),
        ("委员会星期一决定，由于需要翻修河上的桥梁，这条街道将一直关闭到春天。", "zh"),
    ],
)
def test_a_sentence_has_a_language(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize("text", ["", "   ", "ok", "12345 67890 2024-01-01 99.95 17:30", "ok thanks!"])
def test_a_few_letters_have_none(text):
    assert language_of(text) == SHORT


def test_what_begins_in_one_and_ends_in_another_is_mixed():
    assert language_of(ENGLISH * 5 + GERMAN * 5) == MIXED


def test_letters_without_words_are_not_sure():
    assert language_of("xq zzv kkj wq pqp vvx jjq xzx qqv zkz wvw") == UNSURE


def test_every_language_that_is_told_has_a_name():
    assert set(_identifier().labels) <= set(NAMES)
    assert len(set(_identifier().labels)) > 80
