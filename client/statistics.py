"""One noisy sum of which items go together: statistics instead of gradients.

Client only. Each user adds the outer product of its weighted row with itself, scaled
to L2 norm 1 over the upper triangle; the sum gets Gaussian noise in proportion
(Dwork and Roth 2014, theorem A.1; the event is a Gaussian without sampling). A linear
teacher needs nothing else of the rows (protecting sufficient statistics: Krichene et
al. 2023, arXiv 2310.15454). The server's weights say which items count and how much;
whatever they are, a user's norm is 1 or, with no item of them, 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from client.randomness import RandomStream


def gram_sum(
    histories: sp.csr_matrix,
    weights: npt.NDArray[np.float32],
    noise_multiplier: float,
    noise: RandomStream,
) -> npt.NDArray[np.float32]:
    """The noised sum of users' outer products, its upper triangle row by row.

    Args:
        histories: private multi-hot rows, CSR ``[users, n]``.
        weights: of each item, ``[n]``; items of weight 0 are left out.
        noise_multiplier: noise deviation over the norm 1; 0 adds none (mode off).
        noise: randomness of the noise.

    Returns:
        float32 ``[m (m + 1) / 2]`` over the m items of positive weight.
    """
    kept = np.flatnonzero(weights > 0)
    rows = unit_rows(histories[:, kept], weights[kept])
    total = np.asarray((rows.T @ rows).todense())[np.triu_indices(len(kept))]
    if noise_multiplier > 0:
        total = total + noise.normal(total.shape).numpy() * noise_multiplier
    return np.asarray(total, dtype=np.float32)


def unit_rows(
    histories: sp.csr_matrix, weights: npt.NDArray[np.float32]
) -> sp.csr_matrix:
    """Rows ``r`` whose outer product has an upper triangle of L2 norm 1 (or 0).

    With ``a = Σ rᵢ²`` and ``b = Σ rᵢ⁴`` that norm is ``√((a² + b) / 2)``. Each user's
    scale is its own alone, in double precision.
    """
    rows = histories.astype(np.float64) @ sp.diags(weights.astype(np.float64))
    square = np.asarray(rows.power(2).sum(axis=1)).ravel()
    fourth = np.asarray(rows.power(4).sum(axis=1)).ravel()
    norm = np.sqrt((square**2 + fourth) / 2)
    scale = np.divide(1.0, np.sqrt(norm), out=np.zeros_like(norm), where=norm > 0)
    return sp.csr_matrix(sp.diags(scale) @ rows)
