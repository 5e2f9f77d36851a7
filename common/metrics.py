"""Full-ranking metrics: where do held items stand among all unseen items?

In ``common`` because everyone ranks: the server on public users, a client on its
own, simulations on held-out ones. Every item of the catalogue is ranked, since
ranking against sampled negatives can reverse comparisons (Krichene & Rendle 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.beyond_accuracy import (
    CATALOGUE_METRICS,
    LIST_METRICS,
    ItemFacts,
    Values,
)
from common.errors import ConfigError, DataFormatError, ProtocolError
from common.interactions import FloatArray, IntArray

Scorer = Callable[[int, int], FloatArray]
#: By metric, one row a user.
PerUser = dict[str, npt.NDArray[Any]]

DEFAULT_METRICS = (
    *("ndcg@10", "ndcg@20", "ndcg@100", "recall@10", "recall@20"),
    *("hr@10", "mrr", "coverage@10"),
)
#: Beside accuracy; all but Gini need ``ItemFacts``.
BEYOND_ACCURACY = ("diversity@10", "novelty@10", "gini@10")

_ID_BITS = 32
_ID_MASK = (1 << _ID_BITS) - 1
_SEEN = ((1 << 31) - 1) << _ID_BITS  # above the key of any number


@dataclass(frozen=True)
class HeldRanks:
    """Where the held items of a batch of users stand.

    Attributes:
        row: int64 ``[m]``, the user's row in the batch, one entry a held item.
        rank: int64 ``[m]``, 1 is best; seen items are not ranked.
        num_held: int64 ``[B]``.
    """

    row: IntArray
    rank: IntArray
    num_held: IntArray

    def sums(self, gain: Values) -> Values:
        """Sum of ``gain`` (``[m]``) over each user's held items, ``[B]``."""
        sums = np.bincount(self.row, gain, minlength=len(self.num_held))
        return sums.astype(np.float64)

    def per_user(self, numerator: Values, denominator: Values | IntArray) -> Values:
        """The quotient, and NaN for users without held items."""
        quotient = np.full(len(self.num_held), np.nan)
        np.divide(numerator, denominator, out=quotient, where=self.num_held > 0)
        return quotient


@dataclass(frozen=True)
class TopK:
    """Best unseen items, best first.

    Attributes:
        item: int64 ``[B, k]``; −1 where a user has fewer than k unseen items.
        score: float32 ``[B, k]``; −inf beside an item of −1.
    """

    item: IntArray
    score: FloatArray


def ndcg(held: HeldRanks, k: int) -> Values:
    """Σ 1/log₂(1 + rank) over held ranks ≤ k, over its greatest possible value.

    >>> one_user = HeldRanks(np.array([0, 0]), np.array([1, 3]), np.array([2]))
    >>> ndcg(one_user, 10).round(4)  # (1 + 1/2) / (1 + 1/log2(3))
    array([0.9197])
    """
    gain = np.where(held.rank <= k, 1.0 / np.log2(1.0 + held.rank), 0.0)
    most = min(k, int(held.num_held.max(initial=0)))
    ideal = np.append(0.0, np.cumsum(1.0 / np.log2(np.arange(2.0, most + 2.0))))
    return held.per_user(held.sums(gain), ideal[np.minimum(held.num_held, most)])


def recall(held: HeldRanks, k: int) -> Values:
    """Held items of rank ≤ k, over min(k, number held).

    >>> one_user = HeldRanks(np.array([0, 0]), np.array([1, 3]), np.array([2]))
    >>> recall(one_user, 1), recall(one_user, 2)
    (array([1.]), array([0.5]))
    """
    hits = held.sums((held.rank <= k).astype(np.float64))
    return held.per_user(hits, np.minimum(held.num_held, k))


def hit_rate(held: HeldRanks, k: int) -> Values:
    """1 if any held item has rank ≤ k, else 0.

    >>> one_user = HeldRanks(np.array([0, 0]), np.array([4, 3]), np.array([2]))
    >>> hit_rate(one_user, 2), hit_rate(one_user, 3)
    (array([0.]), array([1.]))
    """
    hits = held.sums((held.rank <= k).astype(np.float64))
    return held.per_user((hits > 0).astype(np.float64), np.ones(len(hits)))


def mrr(held: HeldRanks, k: int) -> Values:
    """1 / rank of the best held item, 0 where that rank exceeds k.

    >>> one_user = HeldRanks(np.array([0, 0]), np.array([4, 3]), np.array([2]))
    >>> mrr(one_user, 10).round(4), mrr(one_user, 2)
    (array([0.3333]), array([0.]))
    """
    best = np.full(len(held.num_held), np.inf)
    np.minimum.at(best, held.row, held.rank)
    return held.per_user(np.where(best <= k, 1.0, 0.0), best)


#: Per-user metrics: (held ranks, k) → float64 ``[B]``, NaN where nothing is held.
METRICS: dict[str, Callable[[HeldRanks, int], Values]] = {
    "ndcg": ndcg,
    "recall": recall,
    "hr": hit_rate,
    "mrr": mrr,
}


def evaluate_ranking(
    score: Scorer,
    seen: sp.csr_matrix,
    held: sp.csr_matrix,
    *,
    batch_size: int,
    metrics: Sequence[str] = DEFAULT_METRICS,
    facts: ItemFacts | None = None,
) -> PerUser:
    """Rank every unseen item for every user, in memory of one batch × items.

    Seen items are not ranked; ties go to the lower item id. The values do not
    depend on ``batch_size`` as long as the scores do not.

    Args:
        score: ``score(start, stop)`` gives float32 ``[stop - start, num_items]``
            for these users; infinities are allowed, NaN is not.
        seen: CSR ``[users, num_items]``, items shown to the model.
        held: CSR ``[users, num_items]``, items to find; none of them seen.
        batch_size: users scored at once.
        metrics: ``name@k``, or ``name`` for the full ranking.
        facts: public facts of the items, for ``diversity`` and ``novelty``.

    Returns:
        By metric: float64 ``[users]``, NaN for users it says nothing of; for
        ``coverage@k`` and ``gini@k``, which are of all users together, the lists
        themselves, int64 ``[users, min(k, num_items)]``, −1 where a user ran out of
        unseen items.

    Raises:
        ConfigError: if a metric is unknown, or needs facts and has none.
        DataFormatError: if ``seen`` and ``held`` do not fit each other.
        ProtocolError: if scores have another shape or hold a NaN; the message
            names the user's row.
    """
    cuts = {name: parse_metric(name, held.shape[1]) for name in metrics}
    _check_facts(cuts, facts)
    seen, held = _binary(seen), _binary(held)
    _check_pair(seen, held)
    parts = []
    for start in range(0, held.shape[0], batch_size):
        users = slice(start, min(start + batch_size, held.shape[0]))
        batch = _checked(score(users.start, users.stop), seen[users], start)
        parts.append(_evaluate(batch, seen[users], held[users], cuts, facts))
    return {name: np.concatenate([part[name] for part in parts]) for name in cuts}


def top_k(score: FloatArray, seen: sp.csr_matrix | None, k: int) -> TopK:
    """The k best unseen items of each row, ties to the lower item id.

    Args:
        score: float32 ``[B, num_items]``, no NaN.
        seen: CSR ``[B, num_items]``, items to leave out; ``None`` for none.
        k: at least 1; clipped to ``num_items``.

    Raises:
        ProtocolError: if ``score`` is no matrix of this shape or holds a NaN.

    >>> top_k(np.float32([[1, 3, 3, 2]]), sp.csr_matrix([[0, 1, 0, 0]]), 2).item
    array([[2, 3]])
    """
    seen = sp.csr_matrix(score.shape) if seen is None else _binary(seen)
    score = _checked(score, seen, first_row=0)
    keys = _keys(score, seen)
    k = min(k, score.shape[1])
    best = np.sort(np.partition(keys, k - 1, axis=1)[:, :k], axis=1)
    item = best & _ID_MASK
    unseen = best < _SEEN
    found = np.take_along_axis(score, item, axis=1)
    return TopK(np.where(unseen, item, -1), np.where(unseen, found, -np.inf))


def parse_metric(name: str, num_items: int) -> tuple[str, int]:
    """``"ndcg@10"`` → ``("ndcg", 10)``; without ``@`` every item counts.

    Raises:
        ConfigError: if the metric is unknown or k is not a positive number.

    >>> parse_metric("mrr", num_items=50)
    ('mrr', 50)
    """
    family, at, cut = name.partition("@")
    known = [*METRICS, *LIST_METRICS, *CATALOGUE_METRICS]
    if family not in known:
        raise ConfigError(f"Expected a metric of {', '.join(known)}, got {name!r}.")
    if at and not (cut.isascii() and cut.isdigit() and int(cut)):
        raise ConfigError(f"Expected {family}@k with k > 0, got {name!r}.")
    return family, int(cut) if at else num_items


def _evaluate(
    score: FloatArray,
    seen: sp.csr_matrix,
    held: sp.csr_matrix,
    cuts: Mapping[str, tuple[str, int]],
    facts: ItemFacts | None,
) -> PerUser:
    order = np.sort(_keys(score, seen), axis=1) & _ID_MASK
    ranks = _held_ranks(order, held)
    num_unseen = score.shape[1] - np.diff(seen.indptr)
    found: PerUser = {}
    for name, (family, k) in cuts.items():
        if family in METRICS:
            found[name] = METRICS[family](ranks, k)
            continue
        lists = _lists(order, num_unseen, k)
        if facts is not None and family in LIST_METRICS:
            found[name] = LIST_METRICS[family](lists, facts)
        else:
            found[name] = lists
    return found


def _check_facts(cuts: Mapping[str, tuple[str, int]], facts: ItemFacts | None) -> None:
    needing = [name for name, (family, _) in cuts.items() if family in LIST_METRICS]
    if needing and facts is None:
        raise ConfigError(f"Expected facts of the items for {needing}, got none.")


def _held_ranks(order: IntArray, held: sp.csr_matrix) -> HeldRanks:
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(1, order.shape[1] + 1)[None], axis=1)
    row = _rows(held)
    num_held = np.diff(held.indptr).astype(np.int64)
    return HeldRanks(row, rank[row, held.indices], num_held)


def _lists(order: IntArray, num_unseen: IntArray, k: int) -> IntArray:
    best = order[:, :k]
    return np.where(np.arange(best.shape[1]) < num_unseen[:, None], best, -1)


def _keys(score: FloatArray, seen: sp.csr_matrix) -> IntArray:
    """Distinct int64 keys; ascending keys are descending scores, then ids.

    The bits of a float, read as an integer, are ordered as the floats are once
    those of negative numbers are flipped; the item's id fills the lower half.
    """
    bits = (score + np.float32(0)).view(np.int32)  # −0.0 equals 0.0
    ascending = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    keys = (~ascending).astype(np.int64) << _ID_BITS
    keys |= np.arange(score.shape[1], dtype=np.int64)
    keys[_rows(seen), seen.indices] = _SEEN | seen.indices.astype(np.int64)
    return keys


def _rows(matrix: sp.csr_matrix) -> IntArray:
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _binary(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """A copy whose stored entries are exactly the nonzero ones, in id order."""
    entries = sp.csr_matrix(matrix, copy=True)
    entries.sum_duplicates()
    entries.eliminate_zeros()
    return entries


def _check_pair(seen: sp.csr_matrix, held: sp.csr_matrix) -> None:
    if seen.shape != held.shape or not held.shape[0]:
        raise DataFormatError(
            "Expected seen and held items of the same users, at least one, got "
            f"shapes {seen.shape} and {held.shape}."
        )
    both = seen.multiply(held).nnz
    if both:
        raise DataFormatError(
            f"Expected held items that are not seen, got {both} items in both."
        )


def _checked(score: FloatArray, seen: sp.csr_matrix, first_row: int) -> FloatArray:
    score = np.asarray(score, dtype=np.float32)
    if score.shape != seen.shape:
        raise ProtocolError(
            f"Expected scores of shape {seen.shape} for users from row {first_row}, "
            f"got {score.shape}."
        )
    broken = np.isnan(score).any(axis=1)
    if broken.any():
        row = first_row + int(broken.argmax())
        raise ProtocolError(f"Expected numbers as scores, got NaN in user row {row}.")
    return score
