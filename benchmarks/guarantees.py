"""What the statistics promise in the long run, simulated: the table of docs/how-we-compare.md.

    python -m benchmarks.guarantees             print the table
    python -m benchmarks.guarantees --write     put it into docs/how-we-compare.md, between its two marks

Scores are shaped like ROUGE: in [0, 1], skewed, sharing each document's difficulty, one in twenty an output that
failed. Seeds are fixed, so the numbers are the same on every machine. Each simulated rate stands beside the promised
range and its own Monte-Carlo error.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evaluations import stats
from evaluations.resampling import interval_of

Floats = npt.NDArray[np.float64]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-we-compare.md"
BEGIN, END = "<!-- the table begins -->", "<!-- the table ends -->"


@dataclass(frozen=True)
class Promise:
    """One simulated rate: what was simulated, the promised range, what came out of how many simulations."""

    what: str
    low: float
    high: float
    rate: float
    simulations: int

    @property
    def is_kept(self) -> bool:
        return self.low <= self.rate <= self.high

    @property
    def error(self) -> float:
        return math.sqrt(self.rate * (1 - self.rate) / self.simulations)

    @property
    def as_line(self) -> str:
        promised = f"at most {self.high:.3f}" if self.low == 0 else f"{self.low:.3f} to {self.high:.3f}"
        kept = "yes" if self.is_kept else "**no**"
        return f"| {self.what} | {promised} | {self.rate:.3f} ± {self.error:.3f} | {self.simulations:,} | {kept} |"


def rouge_like(random: np.random.Generator, documents: int, columns: int) -> Floats:
    """(documents, columns) scores; every column is drawn alike."""
    difficulty = random.beta(3, 4, (documents, 1))
    values = np.clip(difficulty * random.gamma(6, 1 / 6, (documents, columns)), 0, 1)
    return np.where(random.random((documents, columns)) < 0.05, 0.0, values)


def gaps(seed: int, documents: int, simulations: int) -> Floats:
    """(documents, simulations) differences of two equal systems, a fresh pair in each column."""
    random = np.random.default_rng(seed)
    pairs = [rouge_like(random, documents, 2) for _ in range(simulations)]
    return np.stack([pair[:, 1] - pair[:, 0] for pair in pairs], axis=1)


def rejected(differences: Floats, resamples: int = 2_000) -> float:
    tests = stats.sign_flip_many(differences, resamples=resamples, seed=1)
    return float(np.mean([test.p <= 0.05 for test in tests if test is not None]))


def false_positives(scale: float) -> Iterator[Promise]:
    for documents in (10, 20, 30, 100, 200):
        n = round(3_000 * scale)
        rate = rejected(gaps(documents, documents, n))
        yield Promise(f"Two equal models called different, {documents} documents", 0.035, 0.065, rate, n)


def family_wise(scale: float) -> Iterator[Promise]:
    """Any difference at all among eight equal models, after Holm over their 28 pairs."""
    random, n = np.random.default_rng(8), round(400 * scale)
    sides = list(itertools.combinations(range(8), 2))
    left, right = [i for i, _ in sides], [j for _, j in sides]
    tables = [rouge_like(random, 40, 8) for _ in range(n)]
    tests = stats.sign_flip_many(np.hstack([t[:, right] - t[:, left] for t in tables]), resamples=4_000, seed=2)
    p = np.array([1.0 if test is None else test.p for test in tests]).reshape(n, len(sides))
    rate = float(np.mean([min(stats.holm(row.tolist())) <= 0.05 for row in p]))
    yield Promise("Any difference among 8 equal models, Holm over 28 pairs, 40 documents", 0.0, 0.06, rate, n)


def coverage(scale: float) -> Iterator[Promise]:
    for documents in (30, 60, 100, 200):
        n = round(2_000 * scale)
        differences = gaps(1000 + documents, documents, n)  # the truth is 0
        boot = stats.bootstrap_means(differences, resamples=2_000, seed=3)
        sizes = np.ones(documents)
        spans = [interval_of(differences[:, j], sizes, boot[:, j]) for j in range(n)]
        held = float(np.mean([(span.low or 0.0) <= 0 <= (span.high or 0.0) for span in spans]))
        kind = "t" if documents < 100 else "bootstrap"
        yield Promise(f"95 % interval of a difference holds it ({kind}), {documents} documents", 0.93, 0.97, held, n)


def power(scale: float) -> Iterator[Promise]:
    for documents in (50, 200):
        n = round(2_000 * scale)
        shift = stats.mde(float(gaps(8, 200, 500).std()), documents)
        rate = rejected(gaps(7, documents, n) + shift)
        yield Promise(f"A difference of the detectable size is found, {documents} documents", 0.75, 0.85, rate, n)


def non_inferiority(scale: float) -> Iterator[Promise]:
    """The truth lies exactly on the margin: the hardest case of "at most so much worse"."""
    for documents in (40, 150):
        n = round(1_000 * scale)
        differences = gaps(60 + documents, documents, n) - 0.02
        proven = [
            stats.non_inferiority(differences[:, j], 0.02, resamples=1_000).verdict == "non-inferior" for j in range(n)
        ]
        rate, allowed = float(np.mean(proven)), 0.05 + 3 * math.sqrt(0.05 * 0.95 / n)
        yield Promise(f"A model as bad as the margin is let through, {documents} documents", 0.0, allowed, rate, n)


def best_group(scale: float) -> Iterator[Promise]:
    """One of five models is better by 0.02: how often the best group holds it."""
    n = round(100 * scale)
    kept = 0
    for number in range(n):
        table = rouge_like(np.random.default_rng(900 + number), 60, 5)
        table[:, 2] += 0.02
        kept += "c" in stats.compare(table, keys=list("abcde"), bootstrap=200, max_resamples=10_000).best_group
    yield Promise("The best of 5 models is in the best group, 60 documents", 0.95, 1.0, kept / n, n)


def promises(scale: float = 1.0) -> Iterator[Promise]:
    """Every promise, simulated; `scale` shrinks the number of simulations (for a look, not for the page)."""
    for simulate in (false_positives, family_wise, coverage, power, non_inferiority, best_group):
        yield from simulate(scale)


def table(found: list[Promise]) -> str:
    head = "| What | Promised | Simulated | Simulations | Kept |\n| --- | --- | --- | --: | --- |"
    return "\n".join([head, *(promise.as_line for promise in found)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate what the statistics promise")
    parser.add_argument("--write", action="store_true", help=f"put the table into docs/{PAGE.name}")
    parser.add_argument("--scale", type=float, default=1.0, help="this share of the simulations (default 1)")
    asked = parser.parse_args()
    found = list(promises(asked.scale))
    print(table(found))
    if asked.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table(found)}\n\n{END}{rest.partition(END)[2]}")
    if not all(promise.is_kept for promise in found):
        raise SystemExit("a promise is not kept: see the table")


if __name__ == "__main__":
    main()
