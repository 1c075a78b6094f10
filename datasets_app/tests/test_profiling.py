"""Profiling: what is told of rows that stream by, and that nothing else decides it."""

import io
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_app import profiling
from datasets_app.ingest import SAMPLE, SAMPLE_COLUMNS
from datasets_app.profiling import Profile, detectable
from datasets_app.reading import Row, Table, read

LONG = (
    "The harbour office of Velby counted 340 boats in June, forty more than in the year before. It blames a fee that "
    "the neighbours raised, and expects a quiet autumn. The pier stays open until the end of October."
)


def profiled(rows):
    profile = Profile()
    for row in rows:
        profile.add(row)
    return profile.as_dict()


def made(*pairs, **more):
    """Rows of (document, reference, …)."""
    return [Row(n, source, list(references), **more) for n, (source, *references) in enumerate(pairs, start=1)]


def numbered(
    n, of="Report {n}: the team in room {n} met about the roof, and {n} people came to see it done by spring."
):
    return [of.format(n=n) for n in range(n)]


def test_of_no_rows_nothing_is_claimed():
    told = profiled([])
    assert told["n_examples"] == 0
    assert [told[name] for name in ("source_words", "source_histogram", "extractiveness", "detectable")] == [None] * 4
    assert told["languages"]["found"] == []
    assert told["duplicates"]["near"] == {"n": 0, "n_examined": 0, "is_sample": False, "first": []}


def test_the_shipped_sample():
    with SAMPLE.open("rb") as file:
        told = profiled(read(file, SAMPLE_COLUMNS))
    assert (told["n_examples"], told["n_with_reference"], told["max_references"]) == (66, 66, 2)
    assert [(one["code"], one["n"]) for one in told["languages"]["found"]] == [("en", 66)]
    assert told["duplicates"]["exact"]["n"] == told["duplicates"]["near"]["n"] == told["personal_data"]["n"] == 0
    assert {name: tally["n"] for name, tally in told["copied"].items()} == {
        "whole": 0, "beginning": 0, "inside": 0, "shared": 0,
    }  # fmt: skip
    assert told["references"].pop("missing") == 0
    assert {name: tally["n"] for name, tally in told["references"].items()} == dict.fromkeys(told["references"], 0)
    assert told["references"]["names_not_in_document"]["n_examined"] == 66
    assert 0.5 < told["extractiveness"]["coverage"] < 0.8
    assert 4 < told["extractiveness"]["compression"] < 8
    assert told["detectable"]["points"] == 3.45
    assert [one["n"] for one in told["windows"][:2]] == [19, 0]


def test_copies_are_counted_and_named():
    one, other, third = numbered(3)
    rows = [Row(n, text, [], group=group) for n, (text, group) in enumerate([
        (one, "a"), (other, "a"), (f"  {one.replace(' ', '  ')}\n", "b"), (third, ""), (one, "a"), (third, "")
    ])]  # fmt: skip
    assert profiled(rows)["duplicates"]["exact"] == {
        "n": 3, "n_texts": 2, "n_across_groups": 1,
        "first": [{"index": 2, "of": 0}, {"index": 4, "of": 0}, {"index": 5, "of": 3}],
    }  # fmt: skip


def test_an_exact_copy_is_not_a_near_one():
    near = profiled(made((LONG,), (LONG,), (f"{LONG} So be it.",)))["duplicates"]["near"]
    assert [one["index"] for one in near["first"]] == [2]
    assert near["n"] == 1


def test_references_that_were_copied():
    told = profiled(
        made(
            (LONG, LONG),
            (LONG, "The harbour office of  Velby\ncounted 340 boats"),
            (LONG, "expects a quiet autumn"),
            (LONG, "Fewer boats are expected in autumn, after a busy June."),
            (LONG,),
        )
    )["copied"]
    assert {name: tally["first"] for name, tally in told.items()} == {
        "whole": [0], "beginning": [1], "inside": [2], "shared": [],
    }  # fmt: skip


def test_a_reference_on_documents_with_different_texts_is_shared():
    rows = made((LONG, "Boats."), ("Another text.", "Boats."), (LONG, "Ships."), (LONG, "Ships."), ("Text.", "Text!"))
    assert profiled(rows)["copied"]["shared"] == {"n": 2, "first": [0, 1]}


def test_references_to_look_at():
    usual = [
        (LONG, f"The office of Velby counted boats and expects a quiet autumn, case {word}.") for word in "abcdefgh"
    ]
    told = profiled(
        made(
            *usual,
            ("Short one.", "A reference that is longer than its document."),
            (LONG, "--"),
            (LONG, "Some 350 boats came in June."),
            (LONG, "Last June many boats came to Harrow."),
            (LONG, "word " * 300),
        )
    )["references"]
    assert {name: tally["first"] for name, tally in told.items() if name != "missing"} == {
        "blank": [9],
        "longer_than_document": [8, 12],
        "much_longer_than_others": [12],
        "numbers_not_in_document": [10],
        "names_not_in_document": [11],
    }


def test_languages_are_counted_with_what_could_not_be_told():
    told = profiled(
        made((LONG,), (LONG,), ("Der Ausschuss sperrt die Straße bis zum Frühjahr, weil es taut.",), ("ok",))
    )
    assert [(one["name"], one["n"], one["first"]) for one in told["languages"]["found"]] == [
        ("English", 2, [0, 1]), ("German", 1, [2]),
    ]  # fmt: skip
    assert told["languages"]["undetermined"] == {"short": 1, "unsure": 0, "mixed": 0}


def test_personal_data_is_stored_masked_only():
    told = profiled(made(("Write to mara.lind@example.org or +49 30 5550199.",), (LONG,), ("lind@example.org",)))
    kinds = told["personal_data"]["kinds"]
    assert told["personal_data"]["n"] == 2
    assert kinds["email"] == {"n": 2, "examples": [{"index": 0, "masked": "m…@e…"}, {"index": 2, "masked": "l…@e…"}]}
    assert kinds["phone"]["n"] == 1
    assert not any(secret in json.dumps(told, ensure_ascii=False) for secret in ("lind", "example.org", "5550199"))


def test_no_text_of_a_row_is_in_the_profile():
    told = profiled(made((LONG + " zebra", "Nobody saw the Okapi of 1777."), (LONG, "zebra crossing")))
    assert not any(word in json.dumps(told) for word in ("zebra", "Okapi", "1777", "Velby"))


@pytest.mark.parametrize(("n", "points"), [(30, 5.11), (100, 2.8), (196, 2.0), (784, 1.0)])
def test_the_detectable_difference(n, points):
    told = detectable(n)
    assert told["points"] == points
    assert (told["n_for_one_point"], told["n_for_two_points"]) == (784, 196)


def test_the_group_is_the_unit_where_there_is_one():
    rows = [
        Row(n, text, ["yes"] if n < 6 else [], group="ab"[n % 2] if n < 4 else "") for n, text in enumerate(numbered(8))
    ]
    told = profiled(rows)["detectable"]
    assert (told["n"], told["unit"]) == (4, "groups"), "two groups and two rows without one; two have no reference"
    assert profiled(made(("a b c",), ("d e f",)))["detectable"]["unit"] == "documents"


def test_what_is_slow_looks_at_a_sample_and_says_so(monkeypatch):
    monkeypatch.setattr(profiling, "SAMPLE", 20)
    told = profiled(made(*((text, "The team met.") for text in numbered(120))))
    assert told["languages"]["n_examined"] == told["extractiveness"]["n_references"] == 20
    assert told["references"]["names_not_in_document"]["is_sample"] is True
    assert told["source_words"]["n"] == 120


def test_a_sampled_row_that_is_too_long_to_be_held_is_looked_at_at_once(monkeypatch):
    rows = made(*((text, "The team met in room 7.") for text in numbered(60)))
    before = profiled(rows)
    monkeypatch.setattr(profiling, "HELD_BYTES", 0)
    assert profiled(rows) == before


class Dripping(io.BytesIO):
    """A stream that gives as much as a seed decides, whatever was asked for."""

    def __init__(self, data, seed):
        super().__init__(data)
        self.rng = random.Random(seed)

    def read(self, size=-1, /):
        return super().read(self.rng.randint(1, 5_000))


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6))
def test_in_whatever_pieces_a_file_comes_its_profile_is_the_same(seed):
    lines = [{"examples": f"{LONG} {n % 7}", "ground_truth": f"{n % 5} boats", "group": f"g{n % 3}"} for n in range(60)]
    data = "\n".join(map(json.dumps, lines)).encode()
    table = Table(Dripping(data, seed))
    assert profiled(table.rows(table.columns(None))) == profiled(read(io.BytesIO(data)))


TEXT = st.text(min_size=1, max_size=60).filter(lambda text: text.strip())
ROWS = st.lists(
    st.builds(
        Row, st.just(1), TEXT, st.lists(TEXT, max_size=3), st.just(""), st.sampled_from(["", "a", "b"]), st.just({})
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=40)
@given(ROWS)
def test_any_texts_have_a_profile_that_json_can_hold(rows):
    told = profiled(rows)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told == profiled(rows)
    assert told["n_examples"] == len(rows) == told["languages"]["n_examined"]
    assert told["references"]["missing"] == sum(not row.references for row in rows)
    for tally in (*told["copied"].values(), told["references"]["blank"], told["references"]["longer_than_document"]):
        assert len(tally["first"]) == min(tally["n"], profiling.FIRST)
        assert tally["first"] == sorted(set(tally["first"]))
        assert tally["n"] <= told["n_with_reference"]
