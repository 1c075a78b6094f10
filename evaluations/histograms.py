"""Histograms puts the values of all candidates into the same bins, so that their shapes can be compared. PURE."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 16


def shared_bins(matrix: npt.ArrayLike, *, bins: int = BINS) -> dict[str, Any]:
    """{"edges": [bins + 1], "counts": [[bins] for each column]} of (documents, columns), nan for absent.

    {} where no value is present. Values that are all equal get one bin around them.
    """
    table = np.asarray(matrix, dtype=np.float64)
    present = table[~np.isnan(table)]
    if not len(present):
        return {}
    low, high = float(present.min()), float(present.max())
    if low == high:
        half = abs(low) * 0.05 or 0.05
        edges = np.array([low - half, low + half])
    else:
        edges = np.linspace(low, high, bins + 1)
    counts = [np.histogram(column[~np.isnan(column)], edges)[0].tolist() for column in table.T]
    return {"edges": [float(f"{edge:.6g}") for edge in edges], "counts": counts}
