"""Sampling keeps some of the rows that stream by, each with the same chance, in bounded memory. Pure.

Algorithm R (Vitter 1985, "Random sampling with a reservoir"): seeded, so that the same rows give the same sample.
"""

from __future__ import annotations

import random
from typing import Generic, TypeVar

T = TypeVar("T")


class Reservoir(Generic[T]):
    """At most `size` of the items offered. Ask `place()` once for each item; `keep` those that are given a place."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.n = 0
        self.kept: list[T] = []
        self._random = random.Random(seed)

    def place(self) -> int | None:
        """Where the next item goes, or None when it is not sampled."""
        self.n += 1
        if self.n <= self.size:
            return self.n - 1
        place = int(self._random.random() * self.n)
        return place if place < self.size else None

    def keep(self, place: int, item: T) -> None:
        if place == len(self.kept):
            self.kept.append(item)
        else:
            self.kept[place] = item

    @property
    def is_sample(self) -> bool:
        """Whether there were more items than are kept."""
        return self.n > self.size
