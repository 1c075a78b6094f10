"""Task types: what a candidate is asked, and that a document lands in its prompt unharmed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluations import metrics, tasks

every_task = pytest.mark.parametrize("task", list(tasks.available().values()), ids=lambda task: task.name)


def test_summarization_is_decided_by_the_summary_level_rouge() -> None:
    assert tasks.available()["summarization"].primary == "rougeLsum"


@every_task
def test_a_task_names_metrics_that_exist_and_a_primary_part_among_them(task: tasks.Task) -> None:
    known = metrics.available()
    assert set(task.metrics) <= set(known)
    assert task.primary in {part.name for name in task.metrics for part in known[name].parts}


@every_task
def test_the_prompt_of_a_task_has_one_place_for_the_document(task: tasks.Task) -> None:
    assert tasks.problems_of(task.prompt) == []


@pytest.mark.parametrize(("prompt", "count"), [("Summarize.", 0), ("{document} {document}", 2), ("{Document}", 0)])
def test_a_prompt_without_exactly_one_place_is_refused_with_the_count(prompt: str, count: int) -> None:
    [problem] = tasks.problems_of(prompt)
    assert problem.endswith(f"it holds it {count} times")


@settings(deadline=None, max_examples=50)
@given(st.text())
def test_a_document_is_never_read_as_a_template(document: str) -> None:
    assert tasks.render("Before {document} {after}", document) == f"Before {document} {{after}}"


def test_a_changed_prompt_has_another_version() -> None:
    assert tasks.version_of("Summarize: {document}") != tasks.version_of("Summarise: {document}")
    assert len(tasks.version_of("{document}")) == 12
