"""Agreeing measures how far two readings of the same documents came to the same decision, and how far beyond chance.

Cohen's kappa: J. Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement
20 (1960) 37–46. Here the raters are "the first reading" and "the second", whoever the people behind them were.
PURE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    """`share` of `n` documents on which both readings decided alike, 0 to 1; `kappa` up to 1, 0 as chance would have
    it, below 0 worse than chance. None where it cannot be computed; `reason` then says why."""

    n: int
    share: float | None
    kappa: float | None
    reason: str = ""


def agreement(pairs: Mapping[tuple[str, str], int]) -> Agreement:
    """From {(first decision, second decision): number of documents}."""
    n = sum(pairs.values())
    if not n:
        return Agreement(0, None, None, "no document has been decided in both readings")
    share = sum(count for (first, second), count in pairs.items() if first == second) / n
    by_chance = 0.0
    for decision in {each for pair in pairs for each in pair}:
        in_first = sum(count for (first, _), count in pairs.items() if first == decision)
        in_second = sum(count for (_, second), count in pairs.items() if second == decision)
        by_chance += in_first * in_second / n**2
    if by_chance == 1.0:
        return Agreement(n, share, None, "both readings decided every document alike, so chance explains it all")
    return Agreement(n, share, (share - by_chance) / (1 - by_chance))
