"""Exact sums of statistics, worked out user by user as the promise describes them.

Simulations only. An own, slow derivation of what ``client/statistics.py`` adds up, so
that a check does not inherit its faults.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def pair_sums(
    rows: Sequence[Sequence[int]], chosen: npt.NDArray[np.bool_], counts_share: float
) -> dict[str, Float]:
    """Counts ``[m]`` and pairs above the diagonal, of users of length 1 each."""
    size = int(chosen.sum())
    counts, pairs = np.zeros(size), np.zeros((size, size))
    for own in _places(rows, chosen):
        count = len(own)
        if count:
            counts[own] += math.sqrt(counts_share / count)
        if count > 1:
            weight = math.sqrt((1 - counts_share) / (count * (count - 1) / 2))
            pairs[np.ix_(own, own)] += weight
    return {"counts": counts, "pairs": pairs[np.triu_indices(size, 1)]}


def sketch_sum(
    rows: Sequence[Sequence[int]],
    chosen: npt.NDArray[np.bool_],
    directions: npt.NDArray[np.float32],
) -> dict[str, Float]:
    """Pairs along directions ``[m, q]``, of users of length 1 each."""
    basis = directions.astype(np.float64)
    total = np.zeros(basis.shape)
    for own in _places(rows, chosen):
        along = basis[own].sum(axis=0) - basis[own]
        norm = float(np.linalg.norm(along))
        if norm > 0:
            total[own] += along / norm
    return {"sketch": total}


def _places(
    rows: Sequence[Sequence[int]], chosen: npt.NDArray[np.bool_]
) -> list[list[int]]:
    """Each user's distinct chosen items, numbered among the chosen."""
    place = np.cumsum(chosen) - 1
    return [
        [int(place[item]) for item in sorted(set(own)) if chosen[item]] for own in rows
    ]
