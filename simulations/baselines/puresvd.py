"""PureSVD: scores by the projection onto the rows' leading singular directions.

Cremonesi, Koren, Turrin 2010, "Performance of Recommender Algorithms on Top-N
Recommendation Tasks". Simulations only, for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from common.interactions import FloatArray
from simulations.baselines.model import Model


@dataclass(frozen=True)
class PureSVD:
    """Settings: how many singular directions; clipped to what the rows have."""

    factors: int = 64


GRID = (PureSVD(64), PureSVD(32), PureSVD(16), PureSVD(128))


def fit(train: sp.csr_matrix, settings: PureSVD) -> Model:
    """``x V Vᵀ``, with V the right singular vectors of the training rows."""
    items = directions(train, settings.factors)

    def score(history: sp.csr_matrix) -> FloatArray:
        return np.asarray((history @ items) @ items.T, dtype=np.float32)

    return score


def directions(train: sp.csr_matrix, factors: int) -> FloatArray:
    """Leading right singular vectors, float32 ``[n, min(factors, rows−1, n−1)]``."""
    rank = min(factors, min(train.shape) - 1)
    # A fixed start: the same rows give the same vectors.
    start = np.ones(min(train.shape))
    _, _, found = sp.linalg.svds(train.astype(np.float64), k=rank, v0=start)
    vectors: FloatArray = found.T.astype(np.float32)
    return vectors
