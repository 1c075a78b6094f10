"""Samples are invented figures for the page of components: the shapes are real, the numbers are nobody's."""

from __future__ import annotations

from typing import Any

from django import template

from evaluations import states

register = template.Library()

# label, is baseline, mean, half interval, dollars per 1,000 documents, milliseconds, verdict against the leader
_CANDIDATES: tuple[tuple[str, bool, float, float, float | None, int, str], ...] = (
    ("harbour-large", False, 0.412, 0.012, 3.4, 1900, ""),
    ("meadow-base", False, 0.405, 0.012, 0.42, 640, "no clear difference"),
    ("orchard-chat", False, 0.398, 0.013, None, 2400, "no clear difference"),
    ("cinder-small", False, 0.377, 0.012, 0.08, 310, "worse"),
    ("willow-chat", False, 0.352, 0.014, 1.1, 1400, "worse"),
    ("baseline/lead-3", True, 0.331, 0.011, 0.0, 1, "worse"),
    ("pebble-tiny", False, 0.268, 0.013, 0.0, 95, "worse"),
    ("baseline/random-3", True, 0.214, 0.010, 0.0, 1, "worse"),
)
_PARTS = (("rougeLsum", "ROUGE-Lsum", 1.0), ("rouge1", "ROUGE-1", 1.13), ("meteor", "METEOR (NLTK)", 0.94))


def comparison() -> dict[str, Any]:
    """An invented comparison document, complete in the shape of `comparing.comparison`."""
    rows = [_row(position) for position in range(len(_CANDIDATES))]
    return {
        "experiment": {"state": "completed", "primary_metric": "rougeLsum"},
        "primary_metric": "rougeLsum",
        "parts": [{"name": name, "label": label, "higher_is_better": True} for name, label, _ in _PARTS],
        "reference_candidate": 1,
        "ranked": True,
        "detectable": 0.02,
        "candidates": rows,
        "pairs": [
            _pair(1, 2, -0.007, "no clear difference"),
            _pair(1, 4, -0.035, "worse"),
            _pair(2, 4, -0.028, "worse"),
        ],
        "alarms": [],
        "recommendation": {
            "sentence": "Choose meadow-base: with 200 documents it cannot be told from harbour-large and orchard-chat "
            "on ROUGE-Lsum, and it is the cheapest of them.",
            "candidate": 2,
            "reasons": ["ROUGE-Lsum 0.405 (95 % interval 0.393 to 0.417, n = 200)."],
            "caveats": ["With this many documents, differences of 0.020 can be seen four times out of five."],
        },
        "signature": {
            "seed": 7,
            "resamples": 10000,
            "bootstrap": 10000,
            "alpha": 0.05,
            "correction": "holm",
            "metrics": {"5a17c0de5a17c0de": {"metric": "rouge", "stemmer": True, "aggregation": "max"}},
        },
    }


def _row(position: int) -> dict[str, Any]:
    label, is_baseline, mean, half, cost, latency, verdict = _CANDIDATES[position]
    leader = _CANDIDATES[0][2]
    metrics, versus = {}, {}
    for name, _, factor in _PARTS:
        here = mean * factor
        metrics[name] = {
            "mean": here, "low": here - half, "high": here + half, "n": 200, "states": {"value": 200},
            "signature": "5a17c0de5a17c0de",
        }  # fmt: skip
        if verdict:
            gap = (mean - leader) * factor
            versus[name] = {
                "against": 1, "difference": gap, "low": gap - 0.011, "high": gap + 0.011, "verdict": verdict,
                "p": 0.0004, "p_holm": 0.28 if verdict != "worse" else 0.0008, "win": 71, "tie": 9, "loss": 120,
                "detectable": 0.02,
            }  # fmt: skip
    return {
        "candidate": position + 1,
        "label": label,
        "is_baseline": is_baseline,
        "uses_references": False,
        "n": 200,
        "states": {"ok": 198, "error": 2, "refused": 0, "empty": 0} if position == 3 else {"ok": 200},
        "problem": "",
        "metrics": metrics,
        "answer_rate": 0.99 if position == 3 else 1.0,
        "truncated_rate": 0.16 if position in (3, 6) else 0.0,
        "latency_ms": {"p50": latency, "p95": latency * 2.2},
        "tokens_per_second": 60_000 / latency if latency > 10 else None,
        "cost_usd": None if cost is None else cost / 5,
        "cost_per_1000_usd": cost,
        "best_group": position < 3,
        "p_best": (0.61, 0.27, 0.12)[position] if position < 3 else None,
        "versus_leader": versus,
    }


def _pair(a: int, b: int, difference: float, verdict: str) -> dict[str, Any]:
    return {
        "a": a, "b": b, "metric": "rougeLsum", "difference": difference, "low": difference - 0.011,
        "high": difference + 0.011, "p": 0.001, "p_holm": 0.004, "verdict": verdict,
    }  # fmt: skip


@register.simple_tag
def sample(name: str) -> Any:
    """An invented thing to show a component with."""
    from evaluations.presenting import Shown

    made: dict[str, Any] = {
        "states": states.EXPERIMENT.values(),
        "shown": lambda: Shown(comparison()),
        "bins": [{"low": 40 * step, "high": 40 * (step + 1), "count": amount} for step, amount in enumerate(_LENGTHS)],
        "course": (0.31, 0.33, 0.32, 0.36, 0.38, 0.37, 0.41),
        "reference": "The council approved the budget on Monday after three hours of debate.",
        "output": "On Monday the council approved a new budget, after a debate of three hours.",
    }
    found = made[name]
    return found() if callable(found) else found


_LENGTHS = (2, 9, 24, 41, 52, 47, 31, 22, 15, 9, 6, 3, 2, 1)
