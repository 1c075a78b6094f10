"""Lengths counts words, estimates tokens, and puts many lengths into a few figures and a histogram. Pure."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np

CHARACTERS_PER_TOKEN = 4.0
"""Of ASCII text. Models cut English into pieces of 3.7 (vocabularies of 50,000) to 4.5 characters (200,000)."""
ALPHABETIC_PER_TOKEN = 1.5
"""Of letters that take two bytes: Cyrillic, Greek, Arabic, Hebrew, accents. Measured 1.0 to 1.4 where a model has seen
little but English; models made for many languages need fewer tokens."""
WIDE_PER_TOKEN = 1.0
"""Of letters that take three bytes or more: Chinese, Japanese, Korean, Thai, Indic scripts, emoji."""
WINDOWS = (512, 1024, 2048, 4096, 8192, 16_384, 32_768, 131_072)
BINS = 24


def estimated_tokens(text: str) -> int:
    """About how many tokens a model reads in `text`, by the constants above; a third more or less is usual.

    What one model really reads is counted with its own tokenizer when an experiment is planned and run.
    """
    if text.isascii():
        return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
    plain = len(text.encode("ascii", "ignore"))
    others, their_bytes = len(text) - plain, len(text.encode("utf-8", "surrogatepass")) - plain
    wide = min(others, their_bytes - 2 * others)
    return math.ceil(plain / CHARACTERS_PER_TOKEN + (others - wide) / ALPHABETIC_PER_TOKEN + wide / WIDE_PER_TOKEN)


def figures(lengths: array[int]) -> dict[str, float] | None:
    """n, min, median, mean, 95th percentile (linear between neighbours) and max of some lengths; None of none."""
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


def histogram(lengths: array[int]) -> dict[str, Any] | None:
    """{edges[m+1], counts[m], n_above}: at most 24 bins of one round width; None of no lengths.

    A bin holds low <= length < high. `n_above` are longer than the last edge: the longest 1 %, and what lies beyond
    the third quartile by more than three times the quartiles' distance, would flatten all the rest.
    """
    if not lengths:
        return None
    values = np.frombuffer(lengths, dtype=np.uint32)
    lower, upper, high = np.percentile(values, [25, 75, 99], method="higher").tolist()
    if upper > lower:
        high = min(high, upper + 3 * (upper - lower))
    low = int(values.min())
    width = _round_width((high + 1 - low) / (BINS - 1))
    first = low // width * width
    edges = np.arange(first, high + width + 1, width)
    counts, _ = np.histogram(values[values < edges[-1]], bins=[*edges[:-1], edges[-1] - 0.5])
    return {"edges": edges.tolist(), "counts": counts.tolist(), "n_above": int((values >= edges[-1]).sum())}


def _round_width(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50 … that is not below `least`."""
    power = 10 ** max(0, math.floor(math.log10(max(least, 1.0))))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)


def beyond_windows(tokens: array[int]) -> list[dict[str, int]]:
    """[{window, n}]: how many of the lengths exceed each of the usual context windows, smallest window first."""
    values = np.frombuffer(tokens, dtype=np.uint32) if tokens else np.empty(0, np.uint32)
    return [{"window": window, "n": int((values > window).sum())} for window in WINDOWS]


def far_out(lengths: array[int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which lengths are far above the others: beyond the third quartile by more than three times the quartiles'
    distance (Tukey's "far out"), and more than three times the median. All False below eight lengths."""
    values = np.frombuffer(lengths, dtype=np.uint32) if lengths else np.empty(0, np.uint32)
    if len(values) < 8:
        return np.zeros(len(values), dtype=np.bool_)
    lower, median, upper = np.percentile(values, [25, 50, 75])
    return values > max(upper + 3 * (upper - lower), 3 * median)
