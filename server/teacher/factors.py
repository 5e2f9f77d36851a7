"""A linear teacher of low rank: item-item weights as two thin tables.

Steck 2019's closed form (arXiv 1905.03375) where the Gram matrix is ``V Vᵀ`` plus a
diagonal: its inverse is of the same form (Woodbury), and no ``n × n`` matrix is made.
On the server, as all teachers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Matrix = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Factors:
    """Scores of a history are the sum of its items' input rows, times the outputs.

    Attributes:
        inputs, outputs: float32 ``[n, D]``.
    """

    inputs: Matrix
    outputs: Matrix
    additive: ClassVar[bool] = True

    def score(self, history: sp.csr_matrix) -> Matrix:
        """``(history > 0) @ inputs @ outputs.T``, float32 ``[B, n]``."""
        seen = (history > 0).astype(np.float32)
        return np.asarray((seen @ self.inputs) @ self.outputs.T, dtype=np.float32)

    def tables(self, rank: int | None = None) -> tuple[Matrix, Matrix]:
        """Tables whose product is the best of that rank for what the teacher says."""
        left, upper_left = np.linalg.qr(self.inputs.astype(np.float64))
        right, upper_right = np.linalg.qr(self.outputs.astype(np.float64))
        u, values, v = np.linalg.svd(upper_left @ upper_right.T)
        root = np.sqrt(values[:rank])
        inputs, outputs = left @ u[:, :rank] * root, right @ v[:rank].T * root
        return inputs.astype(np.float32), outputs.astype(np.float32)

    def tensors(self) -> dict[str, Matrix]:
        """Both tables."""
        return {"inputs": self.inputs, "outputs": self.outputs}


def fit_factors(tastes: Float, diagonal: Float) -> Factors:
    """EASE for the Gram matrix ``V Vᵀ + diag(d)``.

    With ``P`` its inverse, the weights are ``−Pᵢⱼ / Pⱼⱼ`` off the diagonal; what the
    tables have on it concerns items that were seen, which nobody recommends.

    Args:
        tastes: V, float64 ``[n, r]``.
        diagonal: d > 0, float64 ``[n]``.
    """
    scaled = tastes / diagonal[:, None]
    core = np.linalg.inv(np.eye(tastes.shape[1]) + tastes.T @ scaled)
    inputs = scaled @ core
    precision = 1.0 / diagonal - (inputs * scaled).sum(axis=1)
    outputs = scaled / precision[:, None]
    return Factors(inputs.astype(np.float32), outputs.astype(np.float32))
