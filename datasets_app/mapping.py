"""Mapping says which column of a file is the document, which are references, id, group, tags; or guesses it.

Pure: it sees names of columns and the cells of the first rows, never a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets_app.formats import EXPORT_INDEX

SOURCES = (
    "examples", "example", "document", "documents", "text", "texts", "article", "dialogue", "dialog", "transcript",
    "source", "sources", "input", "content", "body", "context", "passage", "report", "email",
)  # fmt: skip
REFERENCES = (
    "ground_truth", "reference", "references", "summary", "summaries", "highlights", "abstract", "target", "tldr",
    "reference_summary", "gold",
)  # fmt: skip
IDS = ("id", "uid", "uuid", "example_id")
GROUPS = ("group", "groups", "category", "domain")
NUMBER = re.compile(r"\s*[-+]?[$€£]?\s*(\d[\d\s,.']*|\.\d+)([eE][-+]?\d+)?\s*%?\s*")


@dataclass(frozen=True)
class Columns:
    """Which column of the file is what. An empty name is none; columns that are not named are left out.

    `predictions` hold outputs of a model, each a candidate that can be compared; they are never guessed.
    """

    source: str = ""
    references: tuple[str, ...] = ()
    id: str = ""
    group: str = ""
    tags: tuple[str, ...] = ()
    predictions: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Columns:
        """From {source, references[], id, group, tags[], predictions[]}, any absent or None. A name counts once."""
        return cls(
            source=given.get("source") or "",
            references=tuple(dict.fromkeys(given.get("references") or ())),
            id=given.get("id") or "",
            group=given.get("group") or "",
            tags=tuple(dict.fromkeys(given.get("tags") or ())),
            predictions=tuple(dict.fromkeys(given.get("predictions") or ())),
        )

    def as_dict(self) -> dict[str, Any]:
        """The inverse of `from_dict`. `predictions` is there only if there are some: earlier datasets know no such."""
        return {
            "source": self.source,
            "references": list(self.references),
            "id": self.id,
            "group": self.group,
            "tags": list(self.tags),
            **({"predictions": list(self.predictions)} if self.predictions else {}),
        }

    @property
    def named(self) -> tuple[str, ...]:
        """Every column in use, in the order source, references, id, group, tags, predictions."""
        several = (self.source, *self.references, self.id, self.group, *self.tags, *self.predictions)
        return tuple(name for name in several if name)


def guess_columns(header: Sequence[str], first: Sequence[Mapping[str, Any]] = ()) -> Columns:
    """The mapping that the names suggest: `examples` and `ground_truth` (with `ground_truth_2` …) by default, common
    synonyms otherwise; `source` is empty where no name is known. In a file that we exported, what is left are tags.

    `first` holds the cells of the first rows: a column of numbers is taken for the document only if no other can be.
    """
    tidy = {name: re.sub(r"[\s\-.]+", "_", name.strip().lower()) for name in header}

    def numbers(name: str) -> bool:
        cells = [row[name] for row in first if row.get(name) not in (None, "")]
        return bool(cells) and all(is_number(cell) for cell in cells)

    def best(words: Sequence[str], taken: Iterable[str]) -> str:
        ranked = sorted((words.index(tidy[name]), name) for name in header if tidy[name] in words and name not in taken)
        return ranked[0][1] if ranked else ""

    if EXPORT_INDEX in header:
        return _our_own(header, tidy)
    source = best(SOURCES, [name for name in header if numbers(name)]) or best(SOURCES, ())
    references = _family(tidy, taken={source})
    key = best(IDS, {source, *references})
    return Columns(source, references, key, best(GROUPS, {source, *references, key}))


def _our_own(header: Sequence[str], tidy: Mapping[str, str]) -> Columns:
    """The columns of `exporting`, and everything else as tags."""
    source, key, group = (name if name in header else "" for name in ("examples", "id", "group"))
    references = _family(
        {name: plain for name, plain in tidy.items() if name == plain}, taken=set(), words=REFERENCES[:1]
    )
    used = {EXPORT_INDEX, source, key, group, *references}
    return Columns(source, references, key, group, tuple(name for name in header if name not in used))


def _family(tidy: Mapping[str, str], taken: set[str], words: Sequence[str] = REFERENCES) -> tuple[str, ...]:
    """The references of the first known word, with its numbered siblings in order: summary, summary_2, summary3."""
    for word in words:
        numbered = []
        for name, plain in tidy.items():
            match = re.fullmatch(rf"{word}_?(\d{{0,6}})", plain)
            if match and name not in taken:
                numbered.append((int(match[1] or 0), name))
        if numbered:
            return tuple(name for _, name in sorted(numbered))
    return ()


def is_number(cell: Any) -> bool:
    """Whether a cell is a number, or a text that is only one: with a currency, a percent sign, separators."""
    if isinstance(cell, str):
        return len(cell) < 100 and NUMBER.fullmatch(cell) is not None
    return isinstance(cell, int | float) and not isinstance(cell, bool)
