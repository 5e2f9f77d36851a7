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
        weights: float32 ``[n, n]``, zero diagonal; row: item seen, column: scored.
    """

    weights: Matrix
    additive: ClassVar[bool] = True

    def score(self, history: sp.csr_matrix) -> Matrix:
        """``(history > 0) @ weights``, float32 ``[B, n]``."""
        seen = (history > 0).astype(np.float32)
        return np.asarray(seen @ self.weights, dtype=np.float32)

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
            (left[:, heaviest] * root).astype(np.float32),
            (right[heaviest].T * root).astype(np.float32),
        )

    def tensors(self) -> dict[str, Matrix]:
        """The weights, under the name ``weights``."""
        return {"weights": self.weights}


def fit(teaching: sp.csr_matrix, features: Features | None, config: RunConfig) -> Ease:
    """The minimiser of ``‖X − XB‖² + l2·‖B‖²`` with a zero diagonal.

    Args:
        teaching: public histories X, CSR ``[users, n]``; counts as multi-hot.
        features: not used: EASE knows items by who touched them.
        config: ``teacher.l2``.
    """
    del features
    seen = (teaching > 0).astype(np.float64)
    gram = np.asarray((seen.T @ seen).todense(), dtype=np.float64)
    return Ease(fit_gram(gram, config.teacher.l2))


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
