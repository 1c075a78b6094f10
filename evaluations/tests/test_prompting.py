"""Prompts: what a template may hold, what is filled when, and what is shown before anything is sent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations import prompting, tasks

TEMPLATE = "In {language}, about {words} words:\n\n{document}\n\nSummary:"
PROFILE = {"reference_words": {"n": 9, "median": 41.5, "mean": 44.0}}
VALUES = {"words": "42", "language": "German"}


def test_a_profile_says_how_long_a_summary_usually_is() -> None:
    assert prompting.values_of(PROFILE, " German ") == VALUES
    assert prompting.values_of({"reference_words": None}) == {}


def test_a_template_is_settled_but_for_the_document() -> None:
    settled = prompting.settle(TEMPLATE, VALUES)
    assert settled == "In German, about 42 words:\n\n{document}\n\nSummary:"
    assert tasks.problems_of(settled) == []


def test_the_templates_of_tasks_are_settled_already() -> None:
    for task in tasks.available().values():
        assert prompting.settle(task.prompt, {}) == task.prompt
        assert prompting.remarks_on(task.prompt) == []


def test_a_placeholder_without_a_value_is_refused_with_the_cure() -> None:
    assert prompting.problems_of("{document} {words}", {}) == [
        "the prompt holds {words}, but this dataset has no reference summaries to take a length from: write a number "
        "instead"
    ]
    with pytest.raises(ValueError, match="no language is given"):
        prompting.settle("{document} in {language}", {"words": "3"})
    assert len(prompting.problems_of("{words} {language}", {})) == 3


def test_a_value_is_never_read_as_a_template() -> None:
    assert prompting.settle("{language}: {document}", {"language": "{words}", "words": "3"}) == "{words}: {document}"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("{text}", "{document}"),
        ("{Document}", "{document}"),
        ("{{document}}", "{document}"),
        ("{ words }", "{words}"),
        ("{word}", "{words}"),
        ("{langauge}", "{language}"),
    ],
)
def test_what_looks_like_a_placeholder_is_remarked_on(written: str, meant: str) -> None:
    [remark] = prompting.remarks_on(f"Sum up {written} and {written}: {{document}}")
    assert remark == f"{written} is sent as it stands; did you mean {meant}?"


def test_braces_that_resemble_nothing_are_told_what_there_is() -> None:
    [remark] = prompting.remarks_on('Answer {xyz} as {"summary": "…"}: {document}')
    assert remark.endswith("there is {document}, {words}, {language}")


def test_a_preview_is_what_the_model_reads() -> None:
    shown = prompting.preview(TEMPLATE, "A {words} text.", VALUES)
    assert shown.text == "In German, about 42 words:\n\nA {words} text.\n\nSummary:"
    assert (shown.tokens, shown.document_tokens) == (14, 4)
    assert shown.basis == "estimated as characters divided by 4"
    assert shown.version == tasks.version_of("In German, about 42 words:\n\n{document}\n\nSummary:")


def test_a_preview_counts_with_the_model_where_there_is_one() -> None:
    shown = prompting.preview("Sum up: {document}", "one two", {}, lambda text: len(text.split()))
    assert (shown.tokens, shown.document_tokens, shown.basis) == (4, 2, "counted by the model")


def test_another_length_is_another_version() -> None:
    versions = {prompting.preview(TEMPLATE, "", {**VALUES, "words": words}).version for words in ("42", "43")}
    assert len(versions) == 2


@settings(deadline=None, max_examples=60)
@given(st.text(), st.text())
def test_a_document_lands_unharmed_between_what_stands_around_it(before: str, document: str) -> None:
    if prompting.problems_of(f"{before}{{document}}", {}):
        return
    assert prompting.preview(f"{before}{{document}}", document, {}).text == before + document
