"""One held item among 99 sampled ones (LOO-99): second to full ranking.

Simulations only, and for comparison with published tables alone: sampled metrics
can reverse comparisons (Krichene & Rendle 2020). The protocol of He et al. 2017,
"Neural Collaborative Filtering": the sampled items are ones the user never touched,
drawn once from a seed, the same for every model.

What a model is *trained* against is another matter. Negatives drawn from items
"never touched, test included" can never be the held item, so the number of draws
alone finds it; :func:`counting_scorer` is that attack. Training negatives must come
from the complement of the training rows only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from common.beyond_accuracy import Values
from common.errors import DataFormatError, ProtocolError
from common.interactions import FloatArray, IntArray
from common.metrics import METRICS, HeldRanks, Scorer

NUM_NEGATIVES = 99
#: Negatives a positive and a round, as the designs that leak draw them.
PER_POSITIVE = 4


@dataclass(frozen=True)
class Candidates:
    """What is ranked for each user.

    Attributes:
        held: int64 ``[users]``, the item to find.
        negative: int64 ``[users, 99]``, distinct items the user never touched.
    """

    held: IntArray
    negative: IntArray


def draw_candidates(
    shown: sp.csr_matrix,
    held: sp.csr_matrix,
    *,
    seed: int,
    num_negatives: int = NUM_NEGATIVES,
) -> Candidates:
    """Sampled negatives, uniform over what a user touched neither before nor last.

    Args:
        shown: CSR ``[users, n]``, what the user touched beside ``held``.
        held: CSR ``[users, n]``, one item a user.
        seed: of the draw; it protects nothing.
        num_negatives: how many to rank the held item among.

    Raises:
        DataFormatError: if a user has not exactly one held item, or fewer untouched
            items than are to be drawn.
    """
    if (np.diff(held.indptr) != 1).any():
        raise DataFormatError("Expected exactly one held item for each user.")
    allowed = (shown + held).toarray() == 0
    if (allowed.sum(axis=1) < num_negatives).any():
        raise DataFormatError(
            f"Expected {num_negatives} items that a user never touched, got fewer."
        )
    rng = np.random.default_rng(seed)
    drawn = [
        rng.choice(np.flatnonzero(row), size=num_negatives, replace=False)
        for row in allowed
    ]
    return Candidates(held.indices.astype(np.int64), np.asarray(drawn, dtype=np.int64))


def evaluate_sampled(
    score: Scorer, candidates: Candidates, *, batch_size: int, k: int = 10
) -> dict[str, Values]:
    """HR@k and NDCG@k of the held item among the sampled ones.

    Ties go to the lower item id, as in the full ranking.

    Args:
        score: ``score(start, stop)`` gives float32 ``[stop - start, n]``.
        candidates: of every user that ``score`` knows, in order.
        batch_size: users scored at once.
        k: cut.

    Returns:
        By metric, float64 ``[users]``.

    Raises:
        ProtocolError: if a score is not a number.
    """
    ranks = []
    for start in range(0, len(candidates.held), batch_size):
        stop = min(start + batch_size, len(candidates.held))
        ranks.append(_ranks(score(start, stop), candidates, slice(start, stop)))
    rank = np.concatenate(ranks)
    found = HeldRanks(np.arange(len(rank)), rank, np.ones(len(rank), dtype=np.int64))
    return {f"{name}@{k}": METRICS[name](found, k) for name in ("hr", "ndcg")}


def _ranks(score: FloatArray, candidates: Candidates, users: slice) -> IntArray:
    held, negative = candidates.held[users, None], candidates.negative[users]
    mine = np.take_along_axis(score, held, axis=1)
    others = np.take_along_axis(score, negative, axis=1)
    if np.isnan(mine).any() or np.isnan(others).any():
        raise ProtocolError("Expected numbers as scores, got NaN.")
    ahead = (others > mine) | ((others == mine) & (negative < held))
    rank: IntArray = 1 + ahead.sum(axis=1, dtype=np.int64)
    return rank


def counting_scorer(
    train: sp.csr_matrix, excluded: sp.csr_matrix, *, rounds: int, seed: int
) -> Scorer:
    """No model at all: the less often an item was drawn as a negative, the better.

    Each user draws ``PER_POSITIVE`` negatives a training row and round, with
    replacement, uniformly from what ``excluded`` leaves. Equal counts are in random
    order.

    Args:
        train: CSR ``[users, n]``, the training rows.
        excluded: CSR ``[users, n]``, what is never drawn: ``train`` where the
            protocol is sound, ``train + held`` where it leaks.
        rounds: of training.
        seed: of the draws.
    """
    allowed = (excluded.toarray() == 0).astype(np.float64)
    allowed /= allowed.sum(axis=1, keepdims=True)
    draws = np.diff(train.indptr) * PER_POSITIVE * rounds
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(draws, allowed)
    scores = (rng.random(counts.shape) - counts).astype(np.float32)

    def score(start: int, stop: int) -> FloatArray:
        return scores[start:stop]

    return score
