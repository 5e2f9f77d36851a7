"""Transfer: the student starts from the teacher.

SVD projection of the teacher's item-item weights into the student's two tables, and
a content map (ridge regression from item features to item vectors) for items the
teacher never saw. Server only: it sees the teacher and the public catalogue.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse.linalg import svds

from common.config import Transfer
from common.student import StateDict, StudentSpec, random_state

Matrix = npt.NDArray[np.float32]


def from_svd(
    weights: Matrix,
    features: Matrix,
    known: npt.NDArray[np.bool_],
    spec: StudentSpec,
    settings: Transfer,
) -> StateDict:
    """Tables with ``encoder.T @ decoder.T ≈ weights``, the best of rank ``dim``.

    Args:
        weights: teacher's item-item weights ``[n, n]``.
        features: item features ``[n, F]``.
        known: which items the teacher saw, bool ``[n]``.
    """
    dim = min(spec.dim, weights.shape[0] - 1)
    start = np.ones(weights.shape[0]) / np.sqrt(weights.shape[0])
    left, values, right = svds(weights.astype(np.float64), k=dim, v0=start)
    root = np.sqrt(values)
    encoder, decoder = left * root, right.T * root
    if settings.content and not known.all():
        encoder = content_map(features, encoder, known, settings.content_l2)
        decoder = content_map(features, decoder, known, settings.content_l2)
    state = {
        "encoder.weight": torch.zeros(spec.dim, spec.num_items),
        "decoder.weight": torch.zeros(spec.num_items, spec.dim),
        "decoder.bias": torch.zeros(spec.num_items),
    }
    state["encoder.weight"][:dim] = torch.from_numpy(encoder.T.astype(np.float32))
    state["decoder.weight"][:, :dim] = torch.from_numpy(decoder.astype(np.float32))
    return state


def content_map(
    features: Matrix,
    vectors: npt.NDArray[np.float64],
    known: npt.NDArray[np.bool_],
    l2: float,
) -> npt.NDArray[np.float64]:
    """Vectors ``[n, d]`` where unknown rows are predicted from features by ridge."""
    seen = features[known].astype(np.float64)
    gram = seen.T @ seen + l2 * np.eye(features.shape[1])
    coefficients = np.linalg.solve(gram, seen.T @ vectors[known])
    return np.where(known[:, None], vectors, features @ coefficients)


def from_nothing(
    weights: Matrix,
    features: Matrix,
    known: npt.NDArray[np.bool_],
    spec: StudentSpec,
    settings: Transfer,
) -> StateDict:
    """A random start that ignores the teacher: the from-scratch baseline.

    Its seed is a public constant, so that two servers start alike.
    """
    del weights, features, known, settings
    return random_state(spec, torch.Generator().manual_seed(0))


TRANSFERS: dict[
    str,
    Callable[[Matrix, Matrix, npt.NDArray[np.bool_], StudentSpec, Transfer], StateDict],
] = {"svd": from_svd, "random": from_nothing}
