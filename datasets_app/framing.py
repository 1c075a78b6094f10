"""Framing puts what a child has read into frames for its parent, and takes it out again.

Frames are a 4-byte big-endian length and JSON:

    child   {"table": …}                          what a Table knows once it is open, or "died"
    parent  {"rows": columns}
    child   {"batch": […], "read": n}, …          rows as lists, problems as objects; bytes read so far
    child   {"done": n} or {"died": "memory"}

A row in a batch has the lengths of its source and references in their place; a second frame holds these texts behind
one another as UTF-8: JSON would look at each of their characters on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from datasets_app.building import Row
from datasets_app.formats import Problem

LARGEST_FRAME = 256 << 20
BATCH_ROWS = 1000
BATCH_CHARACTERS = 1 << 20


def packed(message: Mapping[str, Any]) -> bytes:
    """A frame of JSON."""
    return framed(json.dumps(message, ensure_ascii=False, separators=(",", ":")))


def framed(text: str) -> bytes:
    """A frame of text as it is."""
    content = text.encode(errors="replace")
    return len(content).to_bytes(4, "big") + content


def unpacked(batch: list[Any], text: str) -> Iterator[Row | Problem]:
    """The inverse of `batches`. Raises LookupError, TypeError or ValueError for what that did not make."""
    end = 0
    for one in batch:
        if isinstance(one, dict):
            yield Problem(**one)
            continue
        row, n, lengths, key, group, tags, predictions = one
        start, end = end, end + n
        source = text[start:end]
        references = []
        for n in lengths:
            start, end = end, end + n
            references.append(text[start:end])
        if (type(row), type(key), type(group), type(tags), type(predictions)) != (int, str, str, dict, dict):
            raise TypeError("this is no row")
        yield Row(row, source, references, key, group, tags, predictions)
    if end != len(text):
        raise ValueError("these are the texts of other rows")


def batches(found: Iterable[Row | Problem]) -> Iterator[tuple[list[Any], list[str]]]:
    """Rows and problems by the frame, and their texts: small enough to be held twice, large enough to cost little."""
    batch: list[Any] = []
    texts: list[str] = []
    size = 0
    for one in found:
        if isinstance(one, Problem):
            batch.append(asdict(one))
        else:
            row, source, references, *rest = one
            lengths = [len(text) for text in references]
            batch.append([row, len(source), lengths, *rest])
            texts += (source, *references)
            size += len(source) + sum(lengths)
        if len(batch) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
            yield batch, texts
            batch, texts, size = [], [], 0
    if batch:
        yield batch, texts
