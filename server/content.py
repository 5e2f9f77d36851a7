"""Items like those of a history, by content alone: no one's rows are needed.

Server only, beside the teachers whose shape it has: it works in a domain nobody has
touched yet, as long as items have features. Lops, de Gemmis, Semeraro 2011,
"Content-based Recommender Systems".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Matrix = npt.NDArray[np.float32]

#: Items whose similarities are held dense at once.
CHUNK = 1024
#: Users by whom scales are measured, at most.
MOST_USERS = 1000


def content_factor(features: Matrix) -> Matrix:
    """Fused features, each row of length 1: similarity is ``factor @ factor.T``.

    What all items share tells none apart, so the mean is taken off first; an item
    without features (a row of zeros) stays zero and is like nothing.

    Args:
        features: float32 ``[n, F]``.

    Returns:
        float32 ``[n, F]``.
    """
    some = features.any(axis=1, keepdims=True)
    mean = features.sum(axis=0, dtype=np.float64) / max(int(some.sum()), 1)
    centred = np.where(some, features - mean, 0.0)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    factor: Matrix = (centred / np.where(norm > 1e-12, norm, 1.0)).astype(np.float32)
    return factor


def content_similarity(factor: Matrix, neighbours: int) -> sp.csr_matrix:
    """Each item's most similar others, and how similar: the rest is left out.

    Args:
        factor: of :func:`content_factor`, ``[n, F]``.
        neighbours: kept an item, ≥ 1; fewer where fewer cosines are positive.

    Returns:
        CSR float32 ``[n, n]``, diagonal zero; ``history @ similarity`` scores.
    """
    num_items = len(factor)
    kept = min(neighbours, num_items)
    parts = []
    for start in range(0, num_items, CHUNK):
        cosine = factor[start : start + CHUNK] @ factor.T
        rows = np.arange(len(cosine))
        cosine[rows, start + rows] = 0.0
        best = np.argpartition(-cosine, kept - 1, axis=1)[:, :kept]
        values = np.maximum(np.take_along_axis(cosine, best, axis=1), 0.0)
        place = (np.repeat(rows, kept), best.ravel())
        parts.append(sp.csr_matrix((values.ravel(), place), shape=cosine.shape))
    found = sp.vstack(parts, format="csr", dtype=np.float32)
    found.eliminate_zeros()
    # Column j holds what speaks for j, so that histories multiply from the left.
    return found.T.tocsr()


@dataclass(frozen=True, eq=False)
class ContentTeacher:
    """Scores an item by its likeness to what a history holds.

    Attributes:
        factor: of :func:`content_factor`, float32 ``[n, F]``.
    """

    factor: Matrix
    additive: ClassVar[bool] = True

    def score(self, history: sp.csr_matrix) -> Matrix:
        """Sum of cosines to the history's items, float32 ``[B, n]``."""
        taste = (history > 0).astype(np.float32) @ self.factor
        return np.asarray(taste @ self.factor.T, dtype=np.float32)

    def tables(self, rank: int | None = None) -> tuple[Matrix, Matrix]:
        """Input and output vectors, the same, float32 ``[n, D]``, heaviest first."""
        gram = self.factor.T.astype(np.float64) @ self.factor
        _, directions = np.linalg.eigh(gram)  # ascending
        turned = self.factor @ directions[:, ::-1][:, :rank]
        return turned.astype(np.float32), turned.astype(np.float32)

    def tensors(self) -> dict[str, Matrix]:
        """What a checkpoint holds."""
        return {"factor": self.factor}


def blend(
    weights: Matrix, factor: Matrix, histories: sp.csr_matrix, share: float = 0.1
) -> Matrix:
    """Item-item weights that also know items nobody touched: content is added.

    Content is brought to the weights' own scale, measured as the typical spread of a
    public user's scores over the items that the public has touched.

    Args:
        weights: of a linear teacher (EASE), float32 ``[n, n]``.
        factor: of :func:`content_factor`, ``[n, F]``.
        histories: the public ones that taught the teacher, CSR ``[users, n]``.
        share: spread of the content's scores, where the teacher's is 1.

    Returns:
        float32 ``[n, n]``, the diagonal as in ``weights``.
    """
    sample = (histories[:MOST_USERS] > 0).astype(np.float32)
    touched = np.asarray((histories > 0).sum(axis=0)).ravel() > 0
    similarity = factor @ factor.T
    np.fill_diagonal(similarity, 0.0)
    spread = [
        np.median(np.asarray(sample @ matrix[:, touched]).std(axis=1))
        for matrix in (weights, similarity)
    ]
    scale = share * spread[0] / spread[1] if spread[1] > 0 else 0.0
    return weights + np.float32(scale) * similarity
