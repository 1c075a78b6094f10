"""Sentences: what is kept together, what is cut, and that nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.sentences import sentences, spans

TABLE = [
    ("", []),
    (" \n\t ", []),
    ("One. Two! Three?", ["One.", "Two!", "Three?"]),
    ("No mark at the end", ["No mark at the end"]),
    ("It rose by 3.5 percent. Then it fell.", ["It rose by 3.5 percent.", "Then it fell."]),
    ("Dr. Moss met Mrs. Vale. They spoke.", ["Dr. Moss met Mrs. Vale.", "They spoke."]),
    ("J. R. Vale wrote it. It sold well.", ["J. R. Vale wrote it.", "It sold well."]),
    ("See Fig. 3 and p. 5. Good.", ["See Fig. 3 and p. 5.", "Good."]),
    ("Use tools, e.g. hammers. Or i.e. nails.", ["Use tools, e.g. hammers.", "Or i.e. nails."]),
    ("She left the U.S. The firm stayed.", ["She left the U.S.", "The firm stayed."]),
    ("The U.S. Treasury agreed.", ["The U.S. Treasury agreed."]),
    ("Apples, pears, etc. They were sold.", ["Apples, pears, etc.", "They were sold."]),
    ('"Is it late?" she asked. Nobody knew.', ['"Is it late?" she asked.', "Nobody knew."]),
    ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
    ("Wait... what? Yes!! Go.", ["Wait... what?", "Yes!!", "Go."]),
    ("So am I. Then we go.", ["So am I.", "Then we go."]),
    ("1. Open the lid. 2 turns.\n2. Close it.", ["1. Open the lid.", "2 turns.", "2. Close it."]),
    ("- red\n* green\n• blue", ["- red", "* green", "• blue"]),
    ("Bo: hi there\nAda: hello! how are you?", ["Bo: hi there", "Ada: hello! how are you?"]),
    ("#Person1#: Hi. Any news?\n#Person2#: No.", ["#Person1#: Hi. Any news?", "#Person2#: No."]),
    ("#Person1#: Hi. Any news? #Person2#: No. None.", ["#Person1#: Hi. Any news?", "#Person2#: No. None."]),
    ("[10:02] b: hi. you\n[10:03] ada k: yes. no", ["[10:02] b: hi. you", "[10:03] ada k: yes. no"]),
    (
        "1/3/24, 10:02 - Bo: ok. Go.\n1/3/24, 10:03 - Ada: so.",
        ["1/3/24, 10:02 - Bo: ok. Go.", "1/3/24, 10:03 - Ada: so."],
    ),
    ("Warning: it rained. Then it stopped.", ["Warning: it rained.", "Then it stopped."]),
    (f"Bo: hi\nAda: {'Well so. ' * 13}", ["Bo: hi", "Ada: Well so.", *["Well so."] * 12]),
    ("今日は晴れ。明日は雨！", ["今日は晴れ。", "明日は雨！"]),
    (
        "The council closed the old bridge on Monday after the\nengineers found cracks. Repairs follow.",
        ["The council closed the old bridge on Monday after the engineers found cracks.", "Repairs follow."],
    ),
    (
        "ada: I was wondering whether we could perhaps meet later\nbo: sure",
        ["ada: I was wondering whether we could perhaps meet later", "bo: sure"],
    ),
]


@pytest.mark.parametrize(("text", "pieces"), TABLE)
def test_a_text_is_cut_where_a_reader_would(text, pieces):
    assert sentences(text) == pieces


@settings(deadline=None, max_examples=200)
@given(
    st.text()
    | st.text(alphabet="aB1. !?\n\"'…。-:)")
    | st.lists(st.sampled_from(["Dr.", "U.S.", "The", "a", "3.5", "etc.", "\n", "?", "- x", "Bo:"])).map(" ".join)
)
def test_pieces_come_in_order_and_lose_only_whitespace(text):
    pieces = sentences(text)
    assert "".join("".join(piece.split()) for piece in pieces) == "".join(text.split())
    assert all(piece.strip() == piece and piece for piece in pieces)


@settings(deadline=None, max_examples=200)
@given(
    st.text()
    | st.lists(st.sampled_from(["Dr.", "The", "a", "\n", "\r\n", "?", "Bo: hi.", "\u2028", "\x1c", "。"])).map(" ".join)
)
def test_spans_say_where_each_piece_stands(text):
    assert [" ".join(text[start:end].split()) for start, end in spans(text)] == sentences(text)


def test_a_long_line_takes_no_more_than_linear_time():
    assert len(sentences("Word one two. " * 20_000)) == 20_000
