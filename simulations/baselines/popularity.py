"""Everyone gets what most users touched.

Simulations only: the floor below which a recommender has learnt nothing of anyone.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from common.interactions import FloatArray
from simulations.baselines.model import Model


def fit(train: sp.csr_matrix, settings: None = None) -> Model:
    """Users an item, the same score for everyone."""
    counts = np.asarray((train > 0).sum(axis=0), dtype=np.float32).ravel()

    def score(history: sp.csr_matrix) -> FloatArray:
        return np.broadcast_to(counts, history.shape)

    return score
