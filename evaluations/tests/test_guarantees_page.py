"""The page "How we compare" shows what its command prints, and every promise on it was kept."""

from __future__ import annotations

import re

from benchmarks.guarantees import BEGIN, END, PAGE, Promise, promises, table


def lines() -> list[str]:
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    return [line for line in shown.splitlines() if line.startswith("|")][2:]


def test_every_promise_on_the_page_was_kept() -> None:
    assert len(lines()) >= 15
    assert [line for line in lines() if not line.endswith("| yes |")] == []


def test_the_page_tells_of_what_the_command_simulates() -> None:
    simulated = [promise.what for promise in promises(0.02)]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines()] == simulated


def test_a_broken_promise_is_said() -> None:
    broken = Promise("Two equal models called different", 0.035, 0.065, 0.2, 1_000)
    assert not broken.is_kept
    assert table([broken]).splitlines()[-1] == (
        "| Two equal models called different | 0.035 to 0.065 | 0.200 ± 0.013 | 1,000 | **no** |"
    )
    assert re.search(r"\| Kept \|", table([broken]))
