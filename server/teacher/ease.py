"""EASE: a linear item-item model in closed form.

Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data" (arXiv
1905.03375), equation 8. It lives on the server: it is fitted to public data alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import svds

from common.config import RunConfig
from common.errors import ConfigError
from common.features import Features

Matrix = npt.NDArray[np.float32]

#: Columns of the tables where nobody asks for fewer.
MOST_RANK = 256


@dataclass(frozen=True)
class Ease:
    """Item-item weights; the scores of a history are the sum of its items' rows.

    Attributes:
        weights: float32 ``[t, t]``, zero diagonal; row: item seen, column: scored.
        items: which of the catalogue's items these are, int64 ``[t]``; the others,
            which no public user touched, neither speak nor score. None: all.
        num_items: of the catalogue; 0: as many as weights.
    """

    weights: Matrix
    items: npt.NDArray[np.int64] | None = None
    num_items: int = 0
    additive: ClassVar[bool] = True

    def score(self, history: sp.csr_matrix) -> Matrix:
        """``(history > 0) @ weights``, float32 ``[B, n]``."""
        seen = (history > 0).astype(np.float32)
        if self.items is None:
            return np.asarray(seen @ self.weights, dtype=np.float32)
        scores = np.zeros(history.shape, dtype=np.float32)
        scores[:, self.items] = seen[:, self.items] @ self.weights
        return scores

    def tables(self, rank: int | None = None) -> tuple[Matrix, Matrix]:
        """Factors whose product is the best approximation of ``weights``.

        Args:
            rank: at most so many columns, the heaviest first; clipped to n − 1.
        """
        size = self.weights.shape[0]
        # A fixed start: the factors, signs included, are the same in every process.
        left, values, right = svds(
            self.weights.astype(np.float64),
            k=min(rank or MOST_RANK, size - 1),
            v0=np.full(size, size**-0.5),
        )
        heaviest = np.argsort(-values)
        root = np.sqrt(values[heaviest])
        return (
            self._embedded((left[:, heaviest] * root).astype(np.float32)),
            self._embedded((right[heaviest].T * root).astype(np.float32)),
        )

    def _embedded(self, table: Matrix) -> Matrix:
        """Rows of the touched items in a table of the whole catalogue."""
        if self.items is None:
            return table
        whole = np.zeros((self.num_items, table.shape[1]), dtype=np.float32)
        whole[self.items] = table
        return whole

    def tensors(self) -> dict[str, Matrix]:
        """The weights; and where they are of some items alone, of which."""
        if self.items is None:
            return {"weights": self.weights}
        touched = np.zeros(self.num_items, dtype=np.float32)
        touched[self.items] = 1.0
        return {"weights": self.weights, "touched": touched}


def fit(teaching: sp.csr_matrix, features: Features | None, config: RunConfig) -> Ease:
    """The minimiser of ``‖X − XB‖² + l2·‖B‖²`` with a zero diagonal.

    Args:
        teaching: public histories X, CSR ``[users, n]``; counts as multi-hot.
        features: not used: EASE knows items by who touched them.
        config: ``teacher.l2``.
    """
    del features
    seen = (teaching > 0).astype(np.float64)
    items = np.flatnonzero(seen.getnnz(axis=0)).astype(np.int64)
    # An untouched item's weights are zero: a large catalogue costs what is touched.
    seen = seen[:, items]
    gram = np.asarray((seen.T @ seen).todense(), dtype=np.float64)
    weights = fit_gram(gram, config.teacher.l2)
    if len(items) == teaching.shape[1]:
        return Ease(weights)
    return Ease(weights, items, teaching.shape[1])


def fit_gram(gram: npt.NDArray[np.float64], l2: float) -> Matrix:
    """EASE's weights from the item-item Gram matrix alone.

    All that EASE learns from people is ``gram = XᵀX``; a noisy one will do as well.

    Args:
        gram: symmetric, float64 ``[n, n]``; left as it is.
        l2: added to the diagonal.

    Returns:
        float32 ``[n, n]`` with a zero diagonal; scores of a history x are ``x @ B``.

    Raises:
        ConfigError: if ``gram + l2`` is not positive definite.
    """
    ridge = torch.from_numpy(gram + 0.0)
    ridge.diagonal().add_(l2)
    factor, fault = torch.linalg.cholesky_ex(ridge)
    if fault:
        raise ConfigError(
            f"teacher.l2: expected a positive definite Gram matrix with {l2} added to "
            "its diagonal, got another; raise l2 or remove its negative eigenvalues."
        )
    precision = torch.cholesky_inverse(factor)
    precision.div_(-precision.diagonal().clone()[None, :])
    precision.fill_diagonal_(0.0)
    # By rows: a history picks rows, which lie apart in the other order.
    return np.ascontiguousarray(precision.numpy(), dtype=np.float32)
