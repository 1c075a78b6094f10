"""Profiling describes a dataset in numbers while its rows stream by: counts, lengths in words, groups and tags.

Pure. Memory: 4 bytes per text measured, plus the groups and tag values seen.
"""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import numpy as np

from datasets_app.reading import Row

MAX_VALUES = 1_000  # distinct groups, or values of one tag, beyond which they are not counted any further
SHOWN_VALUES = 20


class Profile:
    """Add every row, then ask for `as_dict()`."""

    def __init__(self) -> None:
        self.n = self.n_with_reference = self.n_with_several_references = self.max_references = 0
        self.source_words = array("I")
        self.reference_words = array("I")
        self.groups: Counter[str] = Counter()
        self.tags: dict[str, Counter[str]] = {}

    def add(self, row: Row) -> None:
        self.n += 1
        n_references = len(row.references)
        self.n_with_reference += n_references > 0
        self.n_with_several_references += n_references > 1
        self.max_references = max(self.max_references, n_references)
        self.source_words.append(len(row.source.split()))
        self.reference_words.extend(len(one.split()) for one in row.references)
        if row.group:
            _count(self.groups, row.group)
        for name, value in row.tags.items():
            _count(self.tags.setdefault(name, Counter()), str(value))

    def as_dict(self) -> dict[str, Any]:
        """{n_examples, n_with_reference, n_with_several_references, max_references, source_words, reference_words,
        groups, tags{name}}. Word figures are {n, min, median, mean, p95, max}, or None where there is no text."""
        return {
            "n_examples": self.n,
            "n_with_reference": self.n_with_reference,
            "n_with_several_references": self.n_with_several_references,
            "max_references": self.max_references,
            "source_words": figures(self.source_words),
            "reference_words": figures(self.reference_words),
            "groups": _values(self.groups),
            "tags": {name: _values(counts) for name, counts in sorted(self.tags.items())},
        }


def figures(lengths: array[int]) -> dict[str, float] | None:
    """n, min, median, mean, 95th percentile (linear between neighbours) and max of some lengths."""
    if not lengths:
        return None
    values = np.frombuffer(lengths, dtype=np.uint32)
    median, p95 = np.percentile(values, [50, 95])
    return {
        "n": len(values),
        "min": int(values.min()),
        "median": round(float(median), 1),
        "mean": round(float(values.mean()), 1),
        "p95": round(float(p95), 1),
        "max": int(values.max()),
    }


def _count(counts: Counter[str], value: str) -> None:
    if value in counts or len(counts) < MAX_VALUES:
        counts[value] += 1


def _values(counts: Counter[str]) -> dict[str, Any]:
    """{n, is_capped, largest[{value, n}]}: how many distinct values there are (at least, when capped)."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:SHOWN_VALUES]
    return {
        "n": len(counts),
        "is_capped": len(counts) >= MAX_VALUES,
        "largest": [{"value": value, "n": n} for value, n in ranked],
    }
