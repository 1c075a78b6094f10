"""Fronts says how often a candidate would stay on the Pareto front if other documents had been drawn.

A candidate is on the front when no other is at least as good and at least as cheap (or fast), and better in one. The
front that one sample shows may be luck, so membership is recomputed on every bootstrap resample of whole units, with
one set of draws for quality, cost and time (STATISTICS §4). PURE: numpy only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evaluations.resampling import TIE, Floats, Ints, unit_draws

RESAMPLES = 2_000  # the Monte-Carlo error of a share is 0.011 at most


def front_shares(quality: npt.ArrayLike, price: npt.ArrayLike, *, higher_is_better: bool = True) -> list[float | None]:
    """Share of the resamples in which each candidate is on the front; None for one without a quality or a price.

    `quality` is (resamples, candidates) and so is `price`, or (candidates,) for prices that do not vary; nan is
    unknown. A resample in which a candidate has no value counts as one in which it is not on the front.
    """
    worth = np.asarray(quality, dtype=np.float64) * (1.0 if higher_is_better else -1.0)
    cost = np.broadcast_to(np.asarray(price, dtype=np.float64), worth.shape)
    known = ~(np.isnan(worth) | np.isnan(cost))
    taking_part = [j for j in range(worth.shape[1]) if known[:, j].any()]
    slack, leeway = TIE * np.abs(worth), TIE * np.abs(cost)
    shares: list[float | None] = [None] * worth.shape[1]
    for j in taking_part:
        beaten = ~known[:, j]
        for i in taking_part:
            if i == j:
                continue
            no_worse = (worth[:, i] >= worth[:, j] - slack[:, j]) & (cost[:, i] <= cost[:, j] + leeway[:, j])
            better = (worth[:, i] > worth[:, j] + slack[:, j]) | (cost[:, i] < cost[:, j] - leeway[:, j])
            beaten |= known[:, i] & no_worse & better
        shares[j] = float(1 - beaten.mean())
    return shares


def bootstrap_medians(
    values: npt.ArrayLike, codes: Ints, units: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """Medians of each column of (documents, columns), nan for absent, in every resample of whole units.

    `codes` is the unit of each document. The draws are those of `bootstrap_means` for as many units, resamples and
    the same seed. nan where a resample holds no value of a column.
    """
    table = np.asarray(values, dtype=np.float64)
    medians = np.full((resamples, table.shape[1]), np.nan)
    orders = [
        np.argsort(table[:, j], kind="stable")[: int((~np.isnan(table[:, j])).sum())] for j in range(len(table.T))
    ]
    if units == 0:
        return medians
    for start, stop, counts in unit_draws(units, max(len(table), 1), resamples, seed):
        for j, order in enumerate(orders):
            if not len(order):
                continue
            passed = np.cumsum(counts[:, codes[order]], axis=1)
            half = passed[:, -1:] / 2
            low, high = (passed >= half).argmax(axis=1), (passed > half).argmax(axis=1)
            found = (table[order[low], j] + table[order[high], j]) / 2
            medians[start:stop, j] = np.where(half[:, 0] > 0, found, np.nan)
    return medians
