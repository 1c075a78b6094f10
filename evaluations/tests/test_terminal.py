"""The comparison in a terminal: everything that matters is there, and nothing is cut."""

from __future__ import annotations

import re
from typing import Any

import pytest

from evaluations import terminal
from evaluations.metrics import part_owner
from evaluations.terminal import show

LONG = "mikeadimech/longformer-qmsum-meeting-summarization"


def value(mean: float | None, n: int = 50_000) -> dict[str, Any]:
    if mean is None:
        return {"mean": None, "low": None, "high": None, "n": 0}
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "n": n}


def row(label: str, mean: float | None, verdict: str = "", **more: Any) -> dict[str, Any]:
    told = {"difference": -0.0123, "verdict": verdict} if verdict else None
    return {
        "label": label, "is_baseline": False, "best_group": False, "problem": "", "n": 50_000,
        "metrics": {part: value(mean) for part in terminal.HEADLINES}, "answer_rate": 0.998,
        "latency_ms": {"p50": 12_345.0}, "cost_per_1000_usd": 12.3456,
        "versus_leader": {"rougeLsum": told} if told else {}, **more,
    }  # fmt: skip


def document(*rows: dict[str, Any]) -> dict[str, Any]:
    parts = [{"name": part, "label": part_owner()[part].part(part).label} for part in terminal.HEADLINES]
    said = {"sentence": f"Choose {LONG}: " + "it is good [at this] :smile: " * 8, "reasons": ["R."], "caveats": ["C."]}
    return {"primary_metric": "rougeLsum", "parts": parts, "candidates": rows, "alarms": [], "recommendation": said}


LEADER = row(LONG, 0.4, best_group=True)
EVERY_VERDICT = document(
    LEADER,
    row("openai/gpt-4o-mini", 0.39, "no clear difference", best_group=True),
    row("birch", 0.3, "worse"),
    row("cedar", 0.3, "borderline"),
    row("damson", 0.3, "too little data"),
    row("baseline/lead-3", 0.45, "better", is_baseline=True),
    row("elder", None, problem="the key was refused: an administrator enters a new one under Models"),
)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    """shown(document) → what is printed; shown(document, width) → in a terminal that wide."""

    def of(told: dict[str, Any], width: int | None = None) -> str:
        show(told, width=width)
        return capsys.readouterr().out

    return of


def header_of(output: str) -> str:
    return next(line for line in output.splitlines() if line.lstrip().startswith("candidate"))


def test_every_header_is_whole_in_one_line(shown: Any) -> None:
    words = header_of(shown(EVERY_VERDICT))
    for label in (
        "candidate",
        "n",
        "ROUGE-Lsum [95 %]",
        "ROUGE-1",
        "METEOR",
        "answers",
        "s/doc",
        "$/1000",
        "vs leader",
    ):
        assert label in words
    assert "…" not in words


@pytest.mark.parametrize("width", [140, 110, 80])
def test_nothing_is_cut_and_nothing_sticks_out(shown: Any, width: int) -> None:
    output = shown(EVERY_VERDICT, width)
    table = output[output.index("candidate") :].split("* the best group")[0].splitlines()
    assert max(map(len, table)) <= width
    assert not [line for line in table if "…" in line]
    assert header_of(output).rstrip().endswith("vs leader")
    second = re.search(r" n ", header_of(output))
    assert second
    names = "".join(line[3 : second.start() - 5].strip() for line in table)
    assert LONG in names, "a name is folded, never cut"


def test_a_narrow_terminal_loses_secondary_metrics_first(shown: Any) -> None:
    wide, narrow = header_of(shown(EVERY_VERDICT, 140)), header_of(shown(EVERY_VERDICT, 80))
    assert "METEOR" in wide
    assert "METEOR" not in narrow
    assert "vs leader" in narrow


@pytest.mark.parametrize(
    ("label", "cell"),
    [
        ("openai/gpt-4o-mini", "≈ -0.012"),
        ("birch", "▼ -0.012"),
        ("cedar", "~ -0.012"),
        ("damson", "? -0.012"),
        ("baseline/lead-3", "▲ -0.012"),
        ("elder", "stopped"),
    ],
)
def test_the_verdict_is_a_sign_and_a_number(shown: Any, label: str, cell: str) -> None:
    [line] = [line for line in shown(EVERY_VERDICT).splitlines() if re.match(rf"[ *]*{label} ", line)]
    assert line.rstrip().endswith(cell)


def test_every_sign_is_explained(shown: Any) -> None:
    [legend] = [line for line in shown(EVERY_VERDICT).splitlines() if "* the best group" in line]
    for sign in terminal.GLYPHS.values():
        assert sign in legend


def test_without_rivals_there_is_nothing_to_explain(shown: Any) -> None:
    assert "* the best group" not in shown(document(LEADER))


def test_in_a_pipe_a_sentence_stays_one_line_and_says_what_it_says(shown: Any) -> None:
    assert EVERY_VERDICT["recommendation"]["sentence"] in shown(EVERY_VERDICT)


def test_why_a_model_stopped_is_said_in_full(shown: Any) -> None:
    assert "! elder: the key was refused: an administrator enters a new one under Models\n" in shown(EVERY_VERDICT)


def test_the_best_group_is_marked(shown: Any) -> None:
    starred = [line for line in shown(EVERY_VERDICT, 180).splitlines() if line.startswith("* ")]
    assert [line.split()[1] for line in starred] == [LONG, "openai/gpt-4o-mini"]


def test_what_is_not_known_is_a_dash_or_a_word_and_never_zero(shown: Any) -> None:
    bare = row("fig", None, cost_per_1000_usd=None, latency_ms={"p50": None}, answer_rate=None)
    [line] = [line for line in shown(document(bare)).splitlines() if "fig" in line]
    assert line.split() == ["fig", "0", "-", "-", "-", "unpriced"]
