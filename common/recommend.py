"""Recommendations from a student: for a history, and like an item.

In ``common`` because it sees only its arguments: whoever holds a student ranks alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch

from common.interactions import FloatArray
from common.metrics import Scorer, TopK, top_k
from common.student import Student


def score_histories(student: Student, histories: sp.csr_matrix) -> Scorer:
    """What ranks users by a student: ``score(start, stop)`` for these rows.

    Args:
        histories: multi-hot float32, CSR ``[users, num_items]``.
    """

    def score(start: int, stop: int) -> FloatArray:
        with torch.no_grad():
            logits = student(torch.from_numpy(histories[start:stop].toarray()))
        scores: FloatArray = logits.numpy()
        return scores

    return score


def recommend(student: Student, items: Sequence[int], k: int) -> TopK:
    """The k best items for a history, the history itself left out.

    Args:
        items: dense ids, at least one; repeats count once.
        k: at most the number of items left.

    Returns:
        One row: items int64 ``[1, k]``, scores float32 ``[1, k]``, best first.
    """
    history = np.zeros((1, student.spec.num_items), dtype=np.float32)
    history[0, list(items)] = 1.0
    seen = sp.csr_matrix(history)
    left = student.spec.num_items - seen.nnz
    return top_k(score_histories(student, seen)(0, 1), seen, min(k, left))


def similar(student: Student, item: int, k: int) -> TopK:
    """The k items whose output vectors have the largest cosine to ``item``'s."""
    vectors = student.decoder.weight.detach()
    unit = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)
    scores = (unit @ unit[item]).numpy()[None, :]
    itself = sp.csr_matrix(([1.0], ([0], [item])), shape=scores.shape)
    return top_k(scores, itself, min(k, student.spec.num_items - 1))


def constant_scores(scores: FloatArray) -> Scorer:
    """Everyone gets the same scores, float32 ``[num_items]``: popularity, say."""

    def score(start: int, stop: int) -> FloatArray:
        return np.broadcast_to(scores, (stop - start, len(scores)))

    return score
