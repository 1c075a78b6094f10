"""What every benchmark shares: its rows, its table, its command line.

A benchmark is `if __name__ == "__main__": run("scoring", measure)`, where `measure(quick)` yields rows as they are
measured. `--quick` ends within 45 s on two cores; `--json FILE` writes what the table shows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One work, done by a peer and by us in the same run.

    `ours` and `theirs` are in `unit`; where more is better (documents per second) say so with `more_is_better`.
    `equal` tells whether both gave the same results, as compared by the benchmark itself; None where the peer has no
    results to compare (a limit, say). `target` is the ratio that DESIGN promises, 0 where none is.
    """

    work: str
    peer: str
    ours: float
    theirs: float
    unit: str = "s"
    target: float = 0.0
    equal: bool | None = None
    more_is_better: bool = False
    note: str = ""

    @property
    def ratio(self) -> float:
        """Above 1 we are better."""
        return self.ours / self.theirs if self.more_is_better else self.theirs / self.ours

    @property
    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


def interleaved(ours: Callable[[], object], theirs: Callable[[], object], times: int) -> tuple[float, float]:
    """Median seconds of both, measured in turn, so that a busy minute of the machine hits both alike."""
    mine, other = in_turn([ours, theirs], times)
    return mine, other


def in_turn(works: Sequence[Callable[[], object]], times: int) -> list[float]:
    """Median seconds of each work, all of them measured in turn."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(times):
        for work, kept in zip(works, seconds, strict=True):
            began = time.perf_counter()
            work()
            kept.append(time.perf_counter() - began)
    return [statistics.median(kept) for kept in seconds]


def run(name: str, measure: Callable[[bool], Iterable[Row]]) -> None:
    """The command line of a benchmark: measure, print, and exit with 1 when results were not equal."""
    parser = argparse.ArgumentParser(description=f"Benchmark: {name}")
    parser.add_argument("--quick", action="store_true", help="a smaller measurement, within 45 s on two cores")
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON, too")
    asked = parser.parse_args()
    print(f"{name} · Python {platform.python_version()} · {os.cpu_count()} cores · {platform.machine()}\n")
    print(f"{'work':<58} {'ours':>10} {'peer':>10} {'unit':<8} {'ratio':>7} {'target':>7}  equal  peer")
    rows = []
    for row in measure(asked.quick):
        rows.append(row)
        target = f"{row.target:.1f}×" if row.target else "–"
        equal = {True: "yes", False: "NO", None: "–"}[row.equal]
        figures = f"{row.ours:>10.4g} {row.theirs:>10.4g} {row.unit:<8} {row.ratio:>6.1f}× {target:>7}"
        print(
            f"{row.work:<58} {figures}  {equal:<5}  {row.peer}{'  (' + row.note + ')' if row.note else ''}", flush=True
        )
    if asked.json:
        Path(asked.json).write_text(json.dumps({"benchmark": name, "rows": [row.as_json for row in rows]}, indent=1))
    if any(row.equal is False for row in rows):
        raise SystemExit("results differ: the speed is worth nothing")
