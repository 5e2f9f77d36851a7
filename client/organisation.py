"""A model of one client's own rows, which never leaves it: EASE, in closed form.

Client only: it is fitted without noise to everybody's rows in the folder and is for
serving these very users; shown to anybody else it would be a release. Each user
weighs ``1 / |history|``, so that long histories do not decide alone. Steck 2019
(arXiv 1905.03375), equation 8; the form for fewer users than items is Woodbury's
identity on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.interactions import FloatArray

#: The system that is solved has at most so many rows: 0.5 GB in double precision.
MOST_ROWS = 8000
#: How many times as long scipy takes for a number that is not zero.
DENSE = 8


@dataclass(frozen=True)
class Organisation:
    """Item-item weights ``left @ right + diag(diagonal)``, zero on their diagonal.

    Attributes:
        left: CSR float32 ``[num_items, r]``.
        right: float32 ``[r, num_items]``.
        diagonal: float32 ``[num_items]``.
    """

    left: sp.csr_matrix
    right: FloatArray
    diagonal: FloatArray

    def score(self, histories: sp.csr_matrix) -> FloatArray:
        """Scores float32 ``[B, num_items]`` of multi-hot histories (CSR)."""
        inner, own = histories @ self.left, histories.copy()
        # scipy adds up row by row: from an eighth on, a dense product is quicker.
        is_full = DENSE * inner.nnz > np.prod(inner.shape)
        found = (inner.toarray() if is_full else inner) @ self.right
        own.data = own.data * self.diagonal[own.indices]
        return np.asarray(found + own.toarray(), dtype=np.float32)


def fit_organisation(rows: sp.csr_matrix, l2: float) -> Organisation:
    """EASE over a client's users: ``min ‖X − XB‖² + l2·‖B‖²``, ``diag B = 0``.

    Args:
        rows: multi-hot CSR ``[users, num_items]``; of more than ``MOST_ROWS`` users
            (and items) the first ones count.
        l2: above 0.
    """
    if min(rows.shape) > MOST_ROWS:
        rows = rows[:MOST_ROWS]
    weight = 1.0 / np.sqrt(np.maximum(rows.sum(axis=1), 1.0))
    scaled = sp.csr_matrix(rows.multiply(weight), dtype=np.float64)
    return _many_users(scaled, l2) if _is_tall(rows) else _few_users(scaled, l2)


def _is_tall(rows: sp.csr_matrix) -> bool:
    return bool(rows.shape[0] >= rows.shape[1])


def _many_users(scaled: sp.csr_matrix, l2: float) -> Organisation:
    num_items = scaled.shape[1]
    precision = _inverse((scaled.T @ scaled).toarray(), l2)
    weights = -precision / np.diag(precision)
    np.fill_diagonal(weights, 0.0)
    return Organisation(
        sp.identity(num_items, dtype=np.float32, format="csr"),
        weights.astype(np.float32),
        np.zeros(num_items, dtype=np.float32),
    )


def _few_users(scaled: sp.csr_matrix, l2: float) -> Organisation:
    """``(XᵀX + λI)⁻¹ = (I − XᵀKX) / λ`` with ``K = (XXᵀ + λI)⁻¹``."""
    solved = _inverse((scaled @ scaled.T).toarray(), l2) @ scaled
    kept = 1.0 - np.asarray(scaled.multiply(solved).sum(axis=0)).ravel()
    return Organisation(
        sp.csr_matrix(scaled.T, dtype=np.float32),
        (solved / kept).astype(np.float32),
        (1.0 - 1.0 / kept).astype(np.float32),
    )


def _inverse(gram: npt.NDArray[np.float64], l2: float) -> npt.NDArray[np.float64]:
    gram[np.diag_indices_from(gram)] += l2
    return np.asarray(np.linalg.inv(gram), dtype=np.float64)
