"""Cautioning: the right caution for the right flaw, the worst first, and none where all is well."""

import pytest
from hypothesis import given, settings

from datasets_app.cautioning import cautions
from datasets_app.tests.test_profiling import LONG, ROWS, made, numbered, profiled


def told(rows, may_leave=True):
    return [f"{one.tone}: {one.what}" for one in cautions(profiled(rows), may_leave=may_leave)]


def good(n=200):
    """Documents of 40 different words with references in other words."""
    return [
        (" ".join(f"w{n}x{place}" for place in range(40)) + f" about {LONG}", f"w{n}x3 in other words.")
        for n in range(n)
    ]


def test_a_good_dataset_has_none():
    assert told(made(*good())) == []


def test_without_references():
    found = told(made(*((text,) for text, _ in good())))
    assert [one for one in found if "No document has a reference" in one and one.startswith("warn")]


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (1, "bad: 1 document is too few"),
        (9, "bad: 9 documents are too few to compare"),
        (29, "bad: 29 documents are too few to rank"),
        (30, "warn: With 30 documents only differences of about 5.1 ROUGE points"),
        (195, "warn: With 195 documents only differences of about 2.0"),
    ],
)
def test_few_documents(n, words):
    assert [one for one in told(made(*good(n))) if one.startswith(words)]


def test_personal_data_matters_where_texts_may_leave():
    rows = made(*good(), ("write to mara@example.org about the boats", "about boats"))
    assert told(rows)[0].startswith("bad: 1 document may hold personal data")
    assert told(rows, may_leave=False) == []


FLAWS = {
    "the reference is the document itself": [(f"{LONG} {n}", f"{LONG} {n}") for n in range(20)],
    "the reference is the beginning": [(f"{n} and {LONG}", f"{n} and {LONG[:60]}") for n in range(50)],
    "stands word for word in": [(f"{LONG} {n} boats came here", f"{n} boats came here") for n in range(20)],
    "stands on another document": [(f"{LONG} {n}", "It is about boats.") for n in range(2)],
    "the same as an earlier one": [(LONG, "It is about boats.")] * 2,
    "nearly the same as": [(f"{LONG} m{n}", f"m{n} about boats") for n in range(40)],
    "Most documents are in English": [
        (f"Der Ausschuss sperrt die Straße bis zum Frühjahr, weil es taut, Nummer {n}.", f"Nummer {n} gesperrt")
        for n in range(20)
    ],
    "without a letter or a digit": [(f"{LONG} {n}", "--" * n) for n in range(1, 3)],
    "longer than the document": [("Boats came.", "Boats came to the town in the bay.")],
    "much longer than the others": [(LONG * 9, "boats " * 60)],
    "a number in the reference": [(f"{LONG} x{n}", f"x{n} has 77 boats") for n in range(30)],
    "a name in the reference": [(f"{LONG} x{n}", f"x{n} is in Harrow") for n in range(30)],
    "too long for models that read 1,024 tokens": [(" ".join(numbered(60)) + f" w{n}", f"w{n}") for n in range(20)],
}


@pytest.mark.parametrize("words", FLAWS)
def test_a_flaw_is_cautioned_about(words):
    assert not [one for one in told(made(*good())) if words in one]
    assert [one for one in told(made(*good(), *FLAWS[words])) if words in one]


def test_a_text_in_two_groups():
    rows = [row._replace(group=str(n)) for n, row in enumerate(made(*good(), good()[0]))]
    assert [one for one in told(rows) if "in more than one group" in one]


@settings(deadline=None, max_examples=40)
@given(ROWS)
def test_what_misleads_comes_first_and_every_place_exists(rows):
    found = cautions(profiled(rows), may_leave=True)
    assert [one.tone for one in found] == sorted(one.tone for one in found)
    for one in found:
        assert one.what and one.cure
        assert all(0 <= index < len(rows) for index in one.first)


def test_an_old_profile_is_cautioned_about_by_what_it_has():
    old = {name: value for name, value in profiled(made((LONG,))).items() if name.startswith("n_")}
    assert [one.what[:33] for one in cautions(old, may_leave=True)] == ["No document has a reference summa"]
    assert cautions({}, may_leave=True) == []
