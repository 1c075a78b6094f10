"""Browsing finds a page of examples among a million: by key, under a filter, within a time that does not grow.

A filter is checked on one window of examples after the other until a page is full or the time is up; then the reader
gets what was found and where to go on. No index helps a search for a part of a word but one of trigrams, and that makes
an import fifteen times slower (measured: 57 s instead of 3.7 s for 60,000 documents of 1 KB), more than the search is
worth: going through 1 MB of text takes some 4 ms.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from django.db import connection
from django.db.models import BooleanField, F, Func, Q, QuerySet, Value
from django.db.models.functions import Left

from datasets_app.filtering import Filter
from datasets_app.models import Dataset, Example

PAGE = 50
SECONDS = 0.09
"""After so long a page is given as it is. The last window may go over it, and counting and drawing come on top."""
COUNT_SECONDS = 0.04
COUNTED = 10_000
"""Matches are counted up to here; a larger number is an estimate (DESIGN §4)."""
FIRST_CHARACTERS = 400_000
"""The first window has about this much text; how long it took says how large the next may be."""
MOST_ROWS = 100_000

Sort = Literal["index", "length", "-length"]
SORTS: dict[Sort, str] = {"index": "As in the file", "length": "Shortest first", "-length": "Longest first"}
Place = tuple[int, ...]
"""Where an example stands in an order: (index,), or (characters, index). Written `7` and `120-7`."""


class Found(NamedTuple):
    """The matches in the order of reading. `reached`: go on behind this place; None when nothing is left there."""

    rows: list[Any]
    reached: Place | None


class Count(NamedTuple):
    """`n` matches among the first `n_searched` of `of` examples."""

    n: int
    n_searched: int
    of: int

    @property
    def is_exact(self) -> bool:
        return self.n_searched >= self.of

    def __str__(self) -> str:
        if not self.is_exact:
            told = f"At least {self.n:,} of {self.of:,} examples: so many are among the first {self.n_searched:,}"
            none = f"None of the first {self.n_searched:,} of {self.of:,} examples"
            return f"{told}; about {self.estimate:,} if the rest is like them" if self.n else none
        return f"{self.n:,} example{'s' * (self.n != 1)}{f' of {self.of:,}' if self.n != self.of else ''}"

    @property
    def estimate(self) -> int:
        """How many there are if the rest is like what was searched, to two digits."""
        if self.is_exact:
            return self.n
        guess = self.n * self.of / max(self.n_searched, 1)
        return max(self.n, int(float(f"{guess:.1e}")))


def place_of(row: Any, sort: Sort) -> Place:
    """Of an Example, or of a dict with `index` and `n_characters`."""
    index, length = (row["index"], row["n_characters"]) if isinstance(row, dict) else (row.index, row.n_characters)
    return (index,) if sort == "index" else (length, index)


def as_text(place: Place) -> str:
    return "-".join(map(str, place))


def place_from(text: str, sort: Sort) -> Place | None:
    """The inverse of `as_text`; None for anything else, and for what the database has no number for."""
    parts = text.split("-") if len(text) <= 22 else []
    if len(parts) != (1 if sort == "index" else 2) or not all(one.isascii() and one.isdigit() for one in parts):
        return None
    place = tuple(map(int, parts))
    return place if max(place) < 2**31 else None


def beginnings(rows: QuerySet[Example]) -> QuerySet[Any]:
    """What a table shows of examples: documents of a megabyte stay in the database."""
    starts = {"start": Left("source", 220), "reference": Left("references__0", 160)}
    return rows.values("index", "key", "group", "tags", "n_characters", n_references=F("references__len"), **starts)


def find(
    dataset: Dataset,
    chosen: Filter,
    *,
    sort: Sort = "index",
    after: Place | None = None,
    backwards: bool = False,
    n: int = PAGE,
    seconds: float = SECONDS,
    shape: Callable[[QuerySet[Example]], QuerySet[Any]] = lambda rows: rows,
) -> Found:
    """At most `n` matches behind the place `after` (None: from the first, or backwards from the last), in that
    direction. Fewer, with a place reached, when `seconds` were over first; at least one window is always read."""
    found: list[Any] = []
    condition = chosen.condition()
    down = (sort == "-length") != backwards
    for window, end in _windows(dataset, chosen, sort, after, down, seconds):
        matches = shape(Example.objects.filter(condition, *window, dataset=dataset).order_by(*_order(sort, down)))
        found += matches[: n + 1 - len(found)]
        if len(found) > n:
            return Found(found[:n], place_of(found[n - 1], sort))
        after = end
    return Found(found, after)


def _windows(
    dataset: Dataset, chosen: Filter, sort: Sort, after: Place | None, down: bool, seconds: float
) -> Iterator[tuple[list[Func], Place | None]]:
    """(conditions, where the window ends; None: at the end of the dataset), until the time is up."""
    began = time.monotonic()
    low, high = chosen.characters
    if sort != "index":  # begin where the lengths that are asked for begin, and end where they end
        if down and high is not None:
            after = min(after or (high, 2**31), (high, 2**31))
        elif not down and low is not None:
            after = max(after or (low, -1), (low, -1))
    size = MOST_ROWS if chosen.is_empty else _first_size(dataset)
    while True:
        end = None if chosen.is_empty else _end(dataset, sort, after, down, size)
        if end is not None and sort != "index":
            is_over = low is not None and end[0] < low if down else high is not None and end[0] > high
            end = None if is_over else end
        window = [_compare(sort, "<" if down else ">", after)] if after is not None else []
        window += [_compare(sort, ">=" if down else "<=", end)] if end is not None else []
        started = time.monotonic()
        yield window, end
        now = time.monotonic()
        left = seconds - (now - began)
        if end is None or left <= 0:
            return
        rate = size / max(now - started, 1e-4)
        size = max(10, min(4 * size, int(0.5 * rate * left), MOST_ROWS))
        after = end


def _first_size(dataset: Dataset) -> int:
    words = (dataset.profile.get("source_words") or {}).get("mean") or 200
    return max(10, min(20_000, int(FIRST_CHARACTERS / (6 * words + 20))))


def _end(dataset: Dataset, sort: Sort, after: Place | None, down: bool, size: int) -> Place | None:
    """The place of the last of `size` examples behind `after`; None when fewer are left."""
    if sort == "index":  # the indexes of a dataset have no gaps
        start = after[0] if after is not None else dataset.n_examples if down else -1
        end = start - size if down else start + size
        return (end,) if 0 < end < dataset.n_examples - 1 else None
    order = "DESC" if down else "ASC"
    back = "ASC" if down else "DESC"
    behind = f"AND (n_characters, index) {'<' if down else '>'} (%s, %s)" if after is not None else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT n_characters, index, count(*) OVER () FROM (SELECT n_characters, index FROM datasets_example"
            f" WHERE dataset_id = %s {behind} ORDER BY n_characters {order}, index {order} LIMIT %s) one"
            f" ORDER BY n_characters {back}, index {back} LIMIT 1",
            [dataset.pk, *(after or ()), size],
        )
        row = cursor.fetchone()
    return (row[0], row[1]) if row and row[2] == size else None


def _compare(sort: Sort, sign: str, place: Place) -> Func:
    """A comparison of rows, which the index on (dataset, n_characters, index) answers."""
    names = ("index",) if sort == "index" else ("n_characters", "index")
    mine = Func(*map(F, names), function="ROW", output_field=BooleanField())
    other = Func(*map(Value, place), function="ROW", output_field=BooleanField())
    return Func(mine, other, arg_joiner=f" {sign} ", template="%(expressions)s", output_field=BooleanField())


def _order(sort: Sort, down: bool) -> list[str]:
    names = ["index"] if sort == "index" else ["n_characters", "index"]
    return [f"-{name}" for name in names] if down else names


def count(dataset: Dataset, chosen: Filter, *, seconds: float = COUNT_SECONDS) -> Count:
    """How many match, counted from the first on until the time is up or COUNTED is passed."""
    of = dataset.n_examples
    if chosen.is_empty:
        return Count(of, of, of)
    n = n_searched = 0
    condition = chosen.condition()
    for window, end in _windows(dataset, chosen, "index", None, False, seconds):
        n += Example.objects.filter(condition, *window, dataset=dataset).count()
        n_searched = of if end is None else end[0] + 1
        if n > COUNTED:
            break
    return Count(n, n_searched, of)


def neighbours(dataset: Dataset, chosen: Filter, sort: Sort, example: Example) -> tuple[Found, Found]:
    """The matches just before and just behind an example: one each, or none with the place that was reached."""
    if chosen.is_empty and sort == "index":  # the indexes of a dataset have no gaps
        last = dataset.n_examples - 1
        near = [[{"index": one}] if 0 <= one <= last else [] for one in (example.index - 1, example.index + 1)]
        return Found(near[0], None), Found(near[1], None)
    here = place_of(example, sort)

    def shape(rows: QuerySet[Example]) -> QuerySet[Any]:
        return rows.values("index", "n_characters")

    asked: dict[str, Any] = {"sort": sort, "after": here, "n": 1, "seconds": SECONDS / 2, "shape": shape}
    return find(dataset, chosen, backwards=True, **asked), find(dataset, chosen, **asked)


def matching(dataset: Dataset, chosen: Filter) -> QuerySet[Example]:
    """All of them, for those who have the time: edits."""
    return Example.objects.filter(chosen.condition() if not chosen.is_empty else Q(), dataset=dataset)
