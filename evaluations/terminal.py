"""The terminal's face of an experiment: a progress bar with the time left and the money spent, then the comparison."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from evaluations import comparing, steering
from evaluations.exporting import write_rows
from evaluations.models import Experiment

Document = dict[str, Any]
HEADLINES = ("rougeLsum", "rouge1", "rouge2", "meteor", "bertscore_f1")
GLYPHS = {"better": "▲", "worse": "▼", "no clear difference": "≈", "borderline": "~", "too little data": "?"}
NAME_WIDTH = 12
WIDTH = 140
"""Columns of the table when nobody looks at it: a pipe or a log has no width of its own."""

LINE_EVERY = 15.0
"""Seconds between lines of progress where the output is no terminal, and a bar would not be seen."""


def run(
    experiment: Experiment,
    workers_running: Callable[[], AbstractContextManager[None]],
    *,
    json_to: Path | None = None,
    export_to: Path | None = None,
) -> int:
    """Start, watch, print, write. Returns the exit status: 0, 3 when some examples have errors or a model stopped, 1
    when it did not come to its end.

    `workers_running` keeps worker processes going while its block runs; it is used when others are missing, or vanish.
    """
    steering.start(experiment)
    if not watch(experiment, as_long_as=lambda: comparing.is_served(experiment)):
        with workers_running():
            watch(experiment)
    document = comparing.comparison(experiment)
    show(document)
    if json_to:
        json_to.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    if export_to:
        write_rows(experiment, export_to)
    return {"completed": 0, "completed_with_errors": 3}.get(experiment.state, 1)


def watch(experiment: Experiment, *, every: float = 0.5, as_long_as: Callable[[], bool] | None = None) -> bool:
    """Draw the progress until the experiment has ended or is paused: True; or False once `as_long_as` is."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, transient=not console.is_terminal) as bar:
        task = bar.add_task("planning", total=None, left="")
        next_line = time.monotonic() + LINE_EVERY
        while True:
            now = comparing.progress(experiment)
            if not console.is_terminal and time.monotonic() > next_line:
                next_line += LINE_EVERY
                console.print(f"{_doing(now)}: {now['done']} of {now['total']} {_left(now)}", highlight=False)
            bar.update(
                task, description=_doing(now), completed=now["done"], total=now["total"] or None, left=_left(now)
            )
            if now["state"] in ("paused", "failed"):
                console.print(f"[yellow]{now['label']}: {escape(now['problem'] or now['pause_reason'])}[/]")
            if now["is_final"] or now["state"] == "paused":
                return True
            if as_long_as and not as_long_as():
                return False
            time.sleep(every)


def _doing(now: Document) -> str:
    busy = next((each for each in now["candidates"] if each["done"] < each["total"] and not each["problem"]), None)
    return escape(busy["label"][:36]) if busy else now["label"].lower()


def _left(now: Document) -> str:
    words = []
    if now["eta_seconds"] is not None:
        minutes, seconds = divmod(int(now["eta_seconds"]), 60)
        words.append(f"about {minutes}:{seconds:02d} left")
    if now["spent_usd"]:
        words.append(f"{now['spent_usd']:.4f} USD")
    return ", ".join(words)


def show(document: Document, *, width: int | None = None) -> None:
    """Print the comparison: the sentence, the table, the reasons and the caveats. `width` in characters; by default
    the terminal's, or WIDTH where the output is no terminal, and then sentences are not broken into lines."""
    is_seen = sys.stdout.isatty()
    console = Console(width=width or (None if is_seen else WIDTH), emoji=False, highlight=False, soft_wrap=not is_seen)
    console.print(f"\n[bold]{escape(document['recommendation']['sentence'])}[/]\n")
    for alarm in document["alarms"]:
        console.print(f"[red]! {escape(alarm)}[/]")
    for row in document["candidates"]:
        if row["problem"]:
            console.print(f"[red]! {escape(row['label'])}: {escape(row['problem'])}[/]")
    console.print(_fitting_table(document, console), "", soft_wrap=False, crop=True)
    if any(row["versus_leader"].get(document["primary_metric"]) for row in document["candidates"]):
        console.print("  * the best group; ▲ better, ▼ worse, ≈ no clear difference, ~ borderline, ? too little data\n")
    if sentence := (document.get("readings") or {}).get("sentence"):
        console.print(f"  {escape(sentence)}")
    for reason in document["recommendation"]["reasons"]:
        console.print(f"  {escape(reason)}")
    for caveat in document["recommendation"]["caveats"]:
        console.print(f"  [yellow]·[/] {escape(caveat)}")


def _fitting_table(document: Document, console: Console) -> Table:
    """The table with as many metrics as fit beside each other, the primary one always; no header is ever cut. Long
    names are folded into the width that is left for them."""
    primary = document["primary_metric"]
    shown = list(dict.fromkeys([primary, *(part for part in HEADLINES if _has(document, part))]))[:5]
    unbounded = console.options.update(max_width=10_000)
    while True:
        spare = console.width - Measurement.get(console, unbounded, _table(document, shown, NAME_WIDTH)).maximum
        if spare >= 0 or len(shown) == 1:
            return _table(document, shown, NAME_WIDTH + max(spare, 0))
        shown.pop()


def _table(document: Document, shown: list[str], name_width: int) -> Table:
    labels = {part["name"]: part["label"] for part in document["parts"]}
    rows = [_cells(row, shown[0], shown) for row in document["candidates"]]
    name_width = min(name_width, max(NAME_WIDTH, *(len(name) for _, name, *_ in rows)))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("", width=1)
    table.add_column("candidate", overflow="fold", width=name_width)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column(f"{labels.get(shown[0], shown[0])} [95 %]", justify="right", no_wrap=True)
    for header in (*(labels.get(part, part) for part in shown[1:]), "answers", "s/doc", "$/1000"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("vs leader" if _is_against_leader(document) else "vs chosen", no_wrap=True)
    for row, cells in zip(document["candidates"], rows, strict=True):
        table.add_row(*cells, style="dim" if row["is_baseline"] else "")
    return table


def _is_against_leader(document: Document) -> bool:
    return document.get("reference_candidate") == document.get("leader")


def _has(document: Document, part: str) -> bool:
    return any(row["metrics"].get(part, {}).get("mean") is not None for row in document["candidates"])


def _cells(row: Document, primary: str, shown: list[str]) -> list[str]:
    mine = row["metrics"].get(primary, {})
    says_so = "baseline" in row["label"]
    name = escape(row["label"]) + (" (baseline)" if row["is_baseline"] and not says_so else "")
    latency = row["latency_ms"]["p50"]
    cost = row["cost_per_1000_usd"]
    told = row["versus_reference"] if "versus_reference" in row else row["versus_leader"].get(primary)
    return [
        "*" if row["best_group"] else "",
        name,
        str(mine.get("n", row["n"])),
        _interval(mine),
        *(_number(row["metrics"].get(part, {}).get("mean")) for part in shown[1:]),
        _share(row["answer_rate"]),
        "-" if latency is None else f"{latency / 1000:.2f}",
        ("unpriced" if row["n"] else "-") if cost is None else f"{cost:.2f}",
        "stopped" if row["problem"] else (_versus(told) if told else ""),
    ]


def _share(rate: float | None) -> str:
    """In whole percent; all is said only of all."""
    if rate is None:
        return "-"
    return ">99%" if 0.995 <= rate < 1 else f"{rate:.0%}"


def _versus(told: Document) -> str:
    if told["difference"] is None:
        return told["verdict"]
    return f"{GLYPHS[told['verdict']]} {told['difference']:+.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(mine: Document) -> str:
    if mine.get("mean") is None:
        return "-"
    if mine["low"] is None:
        return f"{mine['mean']:.3f}"
    return f"{mine['mean']:.3f} [{mine['low']:.3f}, {mine['high']:.3f}]"
