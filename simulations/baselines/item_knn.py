"""Item-kNN: a history's items vote for their neighbours, by shrunk cosine.

Sarwar et al. 2001, "Item-based Collaborative Filtering Recommendation Algorithms";
the shrinkage is Bell & Koren's (2007): similarities seen on few users count less.
Simulations only, for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from common.interactions import FloatArray
from simulations.baselines.model import Model


@dataclass(frozen=True)
class ItemKnn:
    """Settings: neighbours kept an item, and what is added to each denominator."""

    neighbours: int = 200
    shrinkage: float = 10.0


GRID = (
    ItemKnn(200, 10.0),
    ItemKnn(100, 10.0),
    ItemKnn(400, 10.0),
    ItemKnn(200, 100.0),
)


def fit(train: sp.csr_matrix, settings: ItemKnn) -> Model:
    """``x S`` with S of :func:`similarities`."""
    weights = similarities(train, settings)

    def score(history: sp.csr_matrix) -> FloatArray:
        return np.asarray((history @ weights).toarray(), dtype=np.float32)

    return score


def similarities(train: sp.csr_matrix, settings: ItemKnn) -> sp.csr_matrix:
    """cᵢⱼ / (√(cᵢ cⱼ) + shrinkage), the largest of each item j, CSR ``[n, n]``.

    With cᵢⱼ the users who touched both, cᵢ those who touched i. Column j keeps its
    neighbours, ties to the lower id; an item is not its own neighbour.
    """
    together = np.asarray((train.T @ train).todense(), dtype=np.float32)
    counts = together.diagonal().copy()
    together /= np.sqrt(np.outer(counts, counts)) + np.float32(settings.shrinkage)
    np.fill_diagonal(together, 0.0)
    kept = min(settings.neighbours, len(counts))
    # The matrix is symmetric, so its rows are its columns, and quicker to sort.
    best = np.argsort(-together, axis=1, kind="stable")[:, :kept]
    rows = np.repeat(np.arange(len(counts)), kept)
    values = np.take_along_axis(together, best, axis=1).ravel()
    neighbours = sp.csr_matrix((values, (rows, best.ravel())), shape=together.shape)
    neighbours.eliminate_zeros()
    return neighbours.T.tocsr()
