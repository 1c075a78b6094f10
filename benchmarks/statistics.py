"""The statistics of a comparison against the straightforward ways to compute them, with equal results.

The bootstrap is held against a loop that resamples one pair of candidates after the other, as most scripts do, and
against plain numpy that gathers the drawn rows; the sign-flip test against a loop over resamples; the full comparison
of 8 candidates on 10 metric parts against the ten seconds that PERFORMANCE §5 promises. scipy's own tests are run
where scipy is installed. Loops are timed on a part of the work and scaled, which is said.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from benchmarks.reporting import Row, in_turn, run
from evaluations import stats
from evaluations.resampling import DRAWS, bootstrap_means, sign_flip, sign_flip_many

Floats = npt.NDArray[np.float64]
CANDIDATES, PARTS = 8, 10
SEED = 7


def scores(documents: int, columns: int) -> Floats:
    """(documents, columns) values shaped like ROUGE: skewed, sharing each document's difficulty, with zeros."""
    random = np.random.default_rng(SEED)
    difficulty = random.beta(3, 4, (documents, 1))
    values = np.clip(difficulty * random.gamma(6, 1 / 6, (documents, columns)), 0, 1)
    return np.where(random.random((documents, columns)) < 0.02, 0.0, values)


def drawing(resamples: int) -> np.random.Generator:
    """A generator that draws the documents that `bootstrap_means` draws, one resample after the other."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((SEED, DRAWS, resamples))))


def loop_of_pairs(table: Floats, pairs: list[tuple[int, int]], resamples: int, some: int) -> Floats:
    """(some, pairs) mean differences, each pair resampled by itself, one resample after the other."""
    documents = len(table)
    found = np.empty((some, len(pairs)))
    for column, (i, j) in enumerate(pairs):
        random, gap = drawing(resamples), table[:, j] - table[:, i]
        for row in range(some):
            found[row, column] = gap[random.integers(0, documents, size=documents, dtype=np.int64)].mean()
    return found


def gathered(table: Floats, resamples: int, some: int) -> Floats:
    """(some, columns) means of all columns at once, by gathering the drawn rows."""
    documents, random = len(table), drawing(resamples)
    rows = (random.integers(0, documents, size=documents, dtype=np.int64) for _ in range(some))
    return np.stack([table[drawn].mean(axis=0) for drawn in rows])


def bootstrap(documents: int, resamples: int, columns: int) -> Iterator[Row]:
    table, some = scores(documents, columns), 40
    pairs = [(i, j) for part in range(columns // CANDIDATES) for i, j in _pairs(part * CANDIDATES)]
    few = pairs[:12]
    mine: list[Floats] = []
    ours, looped, plain = in_turn(
        [
            lambda: mine.append(bootstrap_means(table, resamples=resamples, seed=SEED)),
            lambda: loop_of_pairs(table, few, resamples, some),
            lambda: gathered(table, resamples, some),
        ],
        3,
    )
    gaps = np.stack([mine[0][:some, j] - mine[0][:some, i] for i, j in few], axis=1)
    same = np.allclose(gaps, loop_of_pairs(table, few, resamples, some), atol=1e-12)
    work = f"bootstrap {resamples:,} × {documents:,} documents × {columns} columns"
    note = f"the loop ran {some} of {resamples:,} resamples of {len(few)} of {len(pairs)} pairs, scaled"
    theirs = looped * resamples / some * len(pairs) / len(few)
    target = 150 if documents >= 5_000 else 0  # what is promised is promised of the full size
    yield Row(work, "loop over pairs", ours, theirs, target=target, equal=same, note=note)
    same = np.allclose(mine[0][:some], gathered(table, resamples, some), atol=1e-12)
    scaled = plain * resamples / some
    yield Row(work, "numpy, rows gathered", ours, scaled, equal=same, note=f"{some} resamples, scaled")


def _pairs(start: int) -> list[tuple[int, int]]:
    return [(start + i, start + j) for i in range(CANDIDATES) for j in range(i + 1, CANDIDATES)]


def flips(documents: int, resamples: int) -> Iterator[Row]:
    table = scores(documents, CANDIDATES)
    differences = np.stack([table[:, j] - table[:, i] for i, j in _pairs(0)], axis=1)
    some = 200
    random = np.random.default_rng(SEED)

    def loop() -> list[float]:
        reached = []
        for column in differences.T[:2]:
            observed = abs(column.mean())
            reached.append(
                sum(abs((column * random.choice((-1.0, 1.0), documents)).mean()) >= observed for _ in range(some))
            )
        return [(count + 1) / (some + 1) for count in reached]

    began = time.perf_counter()
    mine = sign_flip_many(differences, resamples=resamples, seed=SEED)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    theirs_p = loop()
    theirs = (time.perf_counter() - began) * resamples / some * len(differences.T) / 2
    close = all(
        test is not None and abs(test.p - p) <= 5 * math.sqrt(max(p * (1 - p), 1 / some) / some)
        for test, p in zip(mine[:2], theirs_p, strict=True)
    )
    yield Row(
        f"sign-flip {resamples:,} × {documents:,} documents × {len(differences.T)} pairs",
        "loop over resamples",
        ours,
        theirs,
        equal=close,
        note=f"{some} resamples of 2 pairs, scaled; equal within the Monte-Carlo error",
    )


def exact() -> Iterator[Row]:
    """A small test, where every sign pattern is looked at, against a plain enumeration."""
    column = scores(12, 2)
    gap = column[:, 1] - column[:, 0]

    def enumerated() -> float:
        patterns = 1 - 2 * ((np.arange(2**12)[:, None] >> np.arange(12)) & 1)
        return float((np.abs(patterns @ gap) >= abs(gap.sum()) - 1e-12).mean())

    ours, theirs = in_turn([lambda: sign_flip(gap), enumerated], 9)
    same = math.isclose(sign_flip(gap).p, enumerated(), rel_tol=1e-12)
    yield Row("exact sign-flip of 12 documents", "plain enumeration", ours, theirs, equal=same)


def whole(documents: int, limit: float) -> Iterator[Row]:
    """Everything that finalize asks: tests with Holm, intervals, P(best), ranks, one-sided bounds, tie groups."""
    table = scores(documents, CANDIDATES * PARTS)
    pieces = np.split(table, PARTS, axis=1)
    parts = {f"part{number}": stats.Part(piece) for number, piece in enumerate(pieces)}
    keys = [f"model{number}" for number in range(CANDIDATES)]
    began = time.perf_counter()
    told = stats.compare_parts(parts, keys=keys, seed=SEED)
    ours = time.perf_counter() - began
    again = stats.compare_parts(
        {name: stats.Part(part.matrix[:, ::-1]) for name, part in parts.items()},  # type: ignore[call-overload,index]
        keys=keys[::-1],
        seed=SEED,
    )
    same = told == again
    resamples = told["part0"].signature["resamples"]
    work = f"comparison {CANDIDATES} × {PARTS} parts × {documents:,}, R = {resamples:,}, B = 10,000"
    note = "equal: the candidates in reverse order give the very same result"
    yield Row(work, f"{limit:g} s promised", ours, limit, target=1, equal=same, note=note)


def scipys(documents: int, resamples: int) -> Iterator[Row]:
    column = scores(documents, 1)
    if importlib.util.find_spec("scipy") is None:
        work = f"bootstrap of one column, {resamples:,} × {documents:,}"
        [ours] = in_turn([lambda: bootstrap_means(column, resamples=resamples, seed=SEED)], 1)
        yield Row(work, "scipy", ours, 0.0, note="scipy is not installed: nothing was compared with it")
        return
    scipy = importlib.import_module("scipy.stats")
    gap = (table := scores(documents, 2))[:, 1] - table[:, 0]
    found: dict[str, float] = {}

    def flipped() -> None:
        done = scipy.permutation_test(
            (gap,), lambda x, axis: x.mean(axis), permutation_type="samples", vectorized=True, n_resamples=resamples,
            batch=1000, rng=np.random.default_rng(SEED),
        )  # fmt: skip
        found["p"] = float(done.pvalue)

    def drawn() -> None:
        random = np.random.default_rng(SEED)
        scipy.bootstrap((gap,), np.mean, n_resamples=resamples, method="percentile", batch=500, rng=random)

    ours, theirs = in_turn([lambda: sign_flip(gap, resamples=resamples, seed=SEED), flipped], 1)
    p = sign_flip(gap, resamples=resamples, seed=SEED)
    close = abs(p.p - found["p"]) <= 6 * max(p.se, 1 / resamples)
    yield Row(
        f"sign-flip of one pair, {resamples:,} × {documents:,}", "scipy.permutation_test", ours, theirs, equal=close
    )
    ours, theirs = in_turn([lambda: bootstrap_means(gap[:, None], resamples=resamples, seed=SEED), drawn], 1)
    yield Row(f"bootstrap of one pair, {resamples:,} × {documents:,}", "scipy.bootstrap", ours, theirs)


def measure(quick: bool) -> Iterator[Row]:
    yield from exact()
    yield from bootstrap(2_000 if quick else 5_000, 4_000 if quick else 10_000, CANDIDATES * PARTS)
    yield from flips(1_000 if quick else 5_000, 10_000 if quick else 100_000)
    yield from whole(1_000 if quick else 5_000, 4 if quick else 10)
    yield from scipys(500 if quick else 2_000, 2_000 if quick else 10_000)


if __name__ == "__main__":
    run("statistics", measure)
