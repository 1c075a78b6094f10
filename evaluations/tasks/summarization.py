"""Summarization: say in a few sentences what a reader of the document must know."""

from __future__ import annotations

from evaluations.tasks import Task

task = Task(
    name="summarization",
    label="Summarization",
    about=(
        "Each candidate shortens one document at a time. Models trained for summarization read the bare document; "
        "models that follow instructions get the prompt below, which you can replace."
    ),
    prompt=(
        "Summarize the following text in one to three plain sentences. Say only what the text says.\n\n"
        "{document}\n\nSummary:"
    ),
    metrics=("rouge", "meteor", "bertscore"),
    primary="rougeLsum",
)
