"""JSONL, https://jsonlines.org: one JSON object a line, read strictly (RFC 8259; SECURITY S21)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from datasets_app.formats import Format, Header, Problem, Record, Source, Unreadable
from datasets_app.formats._lines import lines
from datasets_app.formats._values import ONE_A_LINE, Refused, whole_object

LOOKS_LIKE_JSONL = re.compile(rb"(\xef\xbb\xbf)?\s*\{")


def records(source: Source) -> Iterator[Header | Record | Problem]:
    is_first = True
    for number, line in enumerate(lines(source), start=1):
        if line.isspace():
            continue
        if is_first and line.strip() == "{":
            raise Unreadable(Problem(number, "", "The file is one JSON object over many lines.", ONE_A_LINE))
        is_first = False
        try:
            yield Record(number, whole_object(line, _cure(line)))
        except Refused as error:
            yield Problem(number, error.column, error.message, error.cure)


def _cure(line: str) -> str:
    if line[:20].lstrip().startswith("["):
        return "Write one object a line, without the list around them."
    return ONE_A_LINE


format = Format(
    name="jsonl",
    label="JSONL",
    extensions=(".jsonl", ".ndjson"),
    about=(
        'One JSON object a line: {"examples": "…", "ground_truth": "…"}. A list of texts as ground_truth gives a '
        "document several references; a missing or null one gives it none. UTF-8. It may be packed with gzip."
    ),
    likeness=lambda head: 2 if LOOKS_LIKE_JSONL.match(head) else 0,
    records=records,
)
