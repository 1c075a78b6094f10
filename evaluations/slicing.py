"""Slicing cuts the documents by tag, group, length and truncation, and compares the candidates inside each slice.

Everything here is exploratory: nobody declared these questions beforehand, so the p-values of all slices together
are adjusted by Benjamini and Hochberg, and the words say so (STATISTICS §2). PURE: numpy only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evaluations.resampling import BOOTSTRAP_FROM, Floats, bootstrap_means, by_group, interval_of, sign_flip_many
from evaluations.significance import benjamini_hochberg

LEAST = 10  # documents; a slice of fewer shows examples, not a mean
CLEAR_FROM = 30  # units; fewer give an interval and no verdict
MOST_VALUES = 20
LONGEST = 80  # characters of a value in its label
Q = 0.05
RESAMPLES = 20_000
QUARTERS = ("shortest", "second", "third", "longest")


@dataclass(frozen=True)
class Documents:
    """What is known of each document, in order: its tags, its group, its size in bytes, whether any model cut it.

    `groups` is None where no document has one, and `cut` where nobody counted what was read.
    """

    tags: Sequence[Mapping[str, Any]]
    groups: Sequence[str | None] | None
    sizes: Sequence[int]
    cut: Sequence[bool] | None = None


@dataclass(frozen=True)
class Slice:
    """Some of the documents. `key` is its name in addresses and `where` what `filtering` finds its documents by."""

    key: str
    kind: str
    label: str
    rows: list[int]
    where: dict[str, Any] = field(default_factory=dict)


def slices_of(documents: Documents) -> tuple[list[Slice], list[str]]:
    """(the slices, what was left out in sentences). A slice holds at least LEAST documents, and never all of them."""
    found: list[Slice] = []
    left_out: list[str] = []
    names = dict.fromkeys(name for tags in documents.tags for name in tags)
    for name in sorted(names):
        found += _by_value("tag", name, [tags.get(name) for tags in documents.tags], left_out)
    if documents.groups is not None:
        found += _by_value("group", "group", documents.groups, left_out)
    found += _by_size(documents.sizes)
    if documents.cut is not None:
        found += [
            Slice("cut:yes", "cut", "cut by at least one model", [row for row, cut in enumerate(documents.cut) if cut]),
            Slice("cut:no", "cut", "read to its end by all", [row for row, cut in enumerate(documents.cut) if not cut]),
        ]
    return [each for each in found if LEAST <= len(each.rows) < len(documents.sizes)], left_out


def _by_value(kind: str, name: str, values: Sequence[Any], left_out: list[str]) -> list[Slice]:
    """A slice for each of the most frequent values. A tag may hold a list: the document counts for each."""
    counted: Counter[str] = Counter()
    places: dict[str, list[int]] = {}
    originals: dict[str, Any] = {}
    for row, value in enumerate(values):
        several = isinstance(value, list)
        for text, original in {str(each): each for each in (value if several else [value]) if _says(each)}.items():
            counted[text] += 1
            places.setdefault(text, []).append(row)
            originals.setdefault(text, [original] if several else original)
    large = sorted((text for text, n in counted.items() if n >= LEAST), key=lambda text: (-counted[text], text))
    if len(large) > MOST_VALUES:
        left_out.append(f"{name} has {len(large)} values with {LEAST} documents or more: the {MOST_VALUES} largest.")
    elif counted and not large:
        left_out.append(f"{name}: no value has {LEAST} documents.")
    made = []
    for text in large[:MOST_VALUES]:
        key = f"group:{text}" if kind == "group" else f"tag:{name}={text}"
        where = {"name": name, "value": originals[text]}
        shown = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
        made.append(Slice(key, kind, f"{name}: {shown}", places[text], where))
    return made


def _says(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) and str(value).strip() != ""


def _by_size(sizes: Sequence[int]) -> list[Slice]:
    """Quarters by size; where many documents are equally large there are fewer than four."""
    if len(sizes) < 2 * LEAST:
        return []
    table = np.asarray(sizes, dtype=np.int64)
    edges = [int(edge) for edge in np.quantile(table, [0.25, 0.5, 0.75], method="inverted_cdf")]
    bounds = [(None, edges[0]), (edges[0], edges[1]), (edges[1], edges[2]), (edges[2], None)]
    made = []
    for number, (above, to) in enumerate(bounds, 1):
        inside = np.ones(len(table), bool)
        if above is not None:
            inside &= table > above
        if to is not None:
            inside &= table <= to
        label = f"{QUARTERS[number - 1]} quarter ({_span(above, to)})"
        rows = [int(row) for row in np.flatnonzero(inside)]
        made.append(Slice(f"length:{number}", "length", label, rows, {"above": above, "to": to}))
    return made


def _span(above: int | None, to: int | None) -> str:
    if above is None:
        return f"up to {_kilobytes(to or 0)}"
    return f"over {_kilobytes(above)}" if to is None else f"{_kilobytes(above)} to {_kilobytes(to)}"


def _kilobytes(size: int) -> str:
    return f"{size / 1000:.1f} kB"


def compared(
    slices: Sequence[Slice],
    matrix: Floats,
    *,
    reference: int | None,
    rivals: Sequence[int],
    groups: Sequence[str | None] | None = None,
    higher_is_better: bool = True,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[dict[str, Any]]:
    """For each slice {n, groups, cells}: a cell for each column of (documents, columns) scores, nan for absent.

    A cell is {mean, n} and, for the `rivals` of the column `reference`, the paired {difference, low, high, p, q,
    verdict} told about the rival; absent numbers are None. `q` is p adjusted over all slices and rivals.
    """
    told = [_inside(each, matrix, reference, rivals, groups, seed, resamples) for each in slices]
    tested = [cell for one in told for cell in one["cells"] if cell.get("p") is not None]
    for cell, q in zip(tested, benjamini_hochberg([cell["p"] for cell in tested]) if tested else [], strict=True):
        cell["q"] = q
    for one in told:
        for cell in one["cells"]:
            if "difference" in cell:
                cell["verdict"] = _verdict(cell, higher_is_better)
                del cell["units"]
    return told


def _inside(
    cut: Slice,
    matrix: Floats,
    reference: int | None,
    rivals: Sequence[int],
    groups: Sequence[str | None] | None,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    scores = matrix[cut.rows]
    labels = None if groups is None else [groups[row] for row in cut.rows]
    cells: list[dict[str, Any]] = []
    for column in scores.T:
        present = column[~np.isnan(column)]
        cells.append({"mean": float(present.mean()) if len(present) else None, "n": len(present)})
    units = by_group(scores, labels).sizes
    told = {"n": int((~np.isnan(scores)).any(axis=1).sum()), "groups": int((units > 0).any(axis=1).sum())}
    if reference is None or not rivals:
        return {**told, "cells": cells}
    gaps = by_group(scores[:, list(rivals)] - scores[:, [reference]], labels)
    present_units = gaps.present
    tests = sign_flip_many(gaps.means, gaps.sizes, resamples=resamples, seed=seed) if len(gaps.sums) else []
    boot = bootstrap_means(gaps.sums, gaps.sizes, seed=seed) if (present_units >= BOOTSTRAP_FROM).any() else None
    for position, rival in enumerate(rivals):
        n_units = int(present_units[position])
        enough = n_units >= LEAST
        drawn = None if boot is None else boot[:, position]
        span = interval_of(gaps.sums[:, position], gaps.sizes[:, position], drawn)
        test = tests[position] if tests and enough else None
        cells[rival] |= {
            "difference": span.mean,
            "low": span.low if enough else None,
            "high": span.high if enough else None,
            "p": None if test is None else test.p,
            "q": None,
            "units": n_units,
        }
    return {**told, "cells": cells}


def _verdict(cell: Mapping[str, Any], higher_is_better: bool) -> str:
    if cell["units"] < CLEAR_FROM or cell["q"] is None or cell["difference"] is None:
        return "too little data"
    if cell["q"] > Q:
        return "no clear difference"
    return "better" if (cell["difference"] > 0) == higher_is_better else "worse"
