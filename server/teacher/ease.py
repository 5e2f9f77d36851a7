"""EASE: a linear item-item model in closed form.

Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data" (arXiv
1905.03375), equation 8. It lives on the server: it is fitted to public data alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from common.config import Teacher


def fit(interactions: sp.csr_matrix, settings: Teacher) -> npt.NDArray[np.float32]:
    """Item-item weights B with zero diagonal minimising ‖X − XB‖² + l2·‖B‖².

    Args:
        interactions: multi-hot X, CSR ``[users, items]``.
        settings: ``l2`` > 0.

    Returns:
        float32 ``[items, items]``; scores of a history row x are ``x @ B``.
    """
    gram = np.asarray((interactions.T @ interactions).todense(), dtype=np.float64)
    gram[np.diag_indices_from(gram)] += settings.l2
    # The Gram matrix is symmetric and, with l2 > 0, positive definite.
    factor = torch.linalg.cholesky(torch.tensor(gram))
    precision = torch.cholesky_inverse(factor).numpy()
    weights = -precision / np.diag(precision)[None, :]
    weights[np.diag_indices_from(weights)] = 0.0
    return weights.astype(np.float32)
