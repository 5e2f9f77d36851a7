"""Noisy sums of which items go together: statistics instead of gradients.

Client only. A linear teacher needs nothing of the rows but how often items were
touched, alone and in pairs (protecting sufficient statistics: Krichene et al. 2023,
arXiv 2310.15454). Two questions: counts and pairs; then, once the server knows the
main directions of taste, the pairs along these alone, which takes far fewer noisy
numbers. Each user adds a vector of L2 norm 1, by its own scale and in double precision,
whatever the server asks; the sum gets Gaussian noise in proportion (Dwork and Roth
2014, theorem A.1; the events are Gaussians without sampling).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from client.randomness import RandomStream
from common.statistics import Pairs

Float = npt.NDArray[np.float64]

#: Numbers of a sketch and users of a product held at once. What a sum needs is
#: decided by public sizes: whether there is room must not depend on the rows.
NUMBERS, USERS = 2_000_000, 512


def pair_sums(
    histories: sp.csr_matrix,
    chosen: npt.NDArray[np.bool_],
    counts_share: float,
    noise_multiplier: float,
    noise: RandomStream,
) -> Pairs:
    """Noised sums of touched items and of pairs of them.

    A user of n chosen items adds ``√c · x / √n`` to the counts and ``√(1 − c) · x xᵀ /
    √(n (n − 1) / 2)`` to the pairs above the diagonal: norm 1 together.

    Args:
        histories: private multi-hot rows, CSR ``[users, n]``.
        chosen: the items that count, bool ``[n]``, m of them.
        counts_share: c, in (0, 1).
        noise_multiplier: noise deviation over the norm 1; 0 adds none (mode off).
        noise: randomness of the noise.
    """
    rows = histories[:, np.flatnonzero(chosen)].astype(np.float64)
    length = np.diff(rows.indptr).astype(np.float64)
    single = _inverse(np.sqrt(length / counts_share))
    double = _inverse(np.sqrt(length * (length - 1) / 2 / (1 - counts_share)))
    counts = np.asarray(rows.T @ single)
    together = _products(sp.csr_matrix(sp.diags(np.sqrt(double)) @ rows))
    pairs = together[np.triu_indices(rows.shape[1], 1)]
    noised = (_noised(part, noise_multiplier, noise) for part in (counts, pairs))
    return Pairs(*noised)


def sketch_sum(
    histories: sp.csr_matrix,
    chosen: npt.NDArray[np.bool_],
    directions: npt.NDArray[np.float32],
    noise_multiplier: float,
    noise: RandomStream,
) -> npt.NDArray[np.float32]:
    """The noised sum of users' pairs along some directions.

    Of each user's matrix ``offdiagonal(x xᵀ) @ directions``, scaled to norm 1; a user
    whose matrix is zero adds nothing. Norms are of the very numbers that are added,
    so that no direction, however it cancels, makes them more.

    Args:
        histories: private multi-hot rows, CSR ``[users, n]``.
        chosen: the items that count, bool ``[n]``, m of them.
        directions: public, finite, float32 ``[m, q]``.
        noise_multiplier: noise deviation over the norm 1; 0 adds none (mode off).
        noise: randomness of the noise.

    Returns:
        float32 ``[m, q]``.
    """
    rows = histories[:, np.flatnonzero(chosen)].astype(np.float64)
    basis = directions.astype(np.float64)
    total = np.zeros(basis.shape)
    step = max(1, NUMBERS // basis.shape[1])
    ends = np.searchsorted(rows.indptr, np.arange(0, rows.nnz + step, step))
    for start, stop in pairwise(ends):
        part = rows[start:stop]
        user = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
        along = (part @ basis)[user] - basis[part.indices]
        square = np.bincount(user, (along**2).sum(axis=1), minlength=part.shape[0])
        scaled = along * _inverse(np.sqrt(square))[user, None]
        picked = (np.ones(len(user)), (part.indices, np.arange(len(user))))
        total += sp.csr_matrix(picked, shape=(len(basis), len(user))) @ scaled
    return _noised(total, noise_multiplier, noise)


def _products(rows: sp.csr_matrix) -> Float:
    """``rowsᵀ rows``, dense ``[m, m]``, a block of users at a time."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    block = np.zeros((USERS, rows.shape[1]))
    for start in range(0, max(rows.shape[0], 1), USERS):
        block[:] = 0.0
        part = rows[start : start + USERS].toarray()
        block[: len(part)] = part
        total += block.T @ block
    return total


def _inverse(values: Float) -> Float:
    """``1 / value``, and 0 for 0."""
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def _noised(
    total: Float, noise_multiplier: float, noise: RandomStream
) -> npt.NDArray[np.float32]:
    if noise_multiplier > 0:
        total = total + noise.normal(total.shape).numpy() * noise_multiplier
    return np.asarray(total, dtype=np.float32)
