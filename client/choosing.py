"""What helps a client's users, judged on their own items: leave some out, compare.

Client only, and nothing of it leaves. Each candidate is measured on the same left-out
items, so differences have a standard error of their own; a candidate is taken where
it gains more than that, and the released student is kept where none does. Pooled over
a client's users first, then user by user where the user's own items say otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from client.randomness import RandomStream
from common.interactions import FloatArray
from common.metrics import top_k

Values = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FOLDS = 5
CUT = 100
#: A user with fewer left-out items has no standard error worth the name.
LEAST_ITEMS = 5
#: Likewise a client with fewer users.
LEAST_USERS = 5
#: Standard errors that a gain has to exceed.
BAR = 1.0


@dataclass(frozen=True)
class Judged:
    """Left-out items and what each candidate made of them; candidate 0 is to beat.

    Attributes:
        user: int64 ``[m]``, the row of the user whose item it is.
        fold: int64 ``[m]``, when it was left out.
        value: float64 ``[candidates, m]``; its mean over a user's items of one fold is
            the user's NDCG@100 there.
        num_users: rows there are, with or without items.
    """

    user: IntArray
    fold: IntArray
    value: Values
    num_users: int

    def where(self, keep: npt.NDArray[np.bool_]) -> Judged:
        """Only the items that ``keep`` (bool ``[m]``) marks."""
        return Judged(
            self.user[keep], self.fold[keep], self.value[:, keep], self.num_users
        )

    def counts(self) -> IntArray:
        """Items left out of each user, ``[num_users]``."""
        return np.bincount(self.user, minlength=self.num_users)

    def means(self) -> Values:
        """Each user's mean by candidate, ``[candidates, num_users]``; 0 for nobody."""
        sums = np.stack([np.bincount(self.user, row, self.num_users)
                         for row in self.value])  # fmt: skip
        return sums / np.maximum(self.counts(), 1)


def deal_folds(rows: sp.csr_matrix, stream: RandomStream) -> IntArray:
    """The fold of every stored item, int64 ``[nnz]``, each user's dealt evenly."""
    user = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((stream.uniform(rows.nnz), user))
    place = np.arange(rows.nnz) - rows.indptr[user]
    fold = np.empty(rows.nnz, dtype=np.int64)
    # Where a user starts is drawn too: else fold 0 would be the largest.
    start = (stream.uniform(rows.shape[0]) * FOLDS).astype(np.int64)
    fold[order] = (place + start[user]) % FOLDS
    return fold


def leave_out(
    rows: sp.csr_matrix, fold: IntArray, number: int
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Rows without the items of one fold, and those items: CSR, same shape."""
    shown, hidden = rows.copy(), rows.copy()
    shown.data = np.where(fold == number, 0.0, rows.data)
    hidden.data = np.where(fold == number, rows.data, 0.0)
    shown.eliminate_zeros()
    hidden.eliminate_zeros()
    return shown, hidden


def item_values(
    scores: FloatArray, shown: sp.csr_matrix, hidden: sp.csr_matrix
) -> Values:
    """Each hidden item's share of its user's NDCG@100, float64 ``[hidden.nnz]``.

    ``m / IDCG(m) / log2(1 + rank)`` within the cut, 0 beyond it, for a user with m
    hidden items: the mean over them is the user's NDCG@100.
    """
    best = top_k(scores, shown, CUT).item
    discount = 1.0 / np.log2(np.arange(2, best.shape[1] + 2))
    gain = np.zeros((scores.shape[0], scores.shape[1] + 1))
    # −1, no item, falls into a column of its own.
    np.put_along_axis(gain, best, discount[None, :], axis=1)
    count = np.diff(hidden.indptr)
    ideal = np.append(0.0, np.cumsum(discount))[np.minimum(count, len(discount))]
    user = np.repeat(np.arange(len(count)), count)
    shares: Values = (
        gain[user, hidden.indices] * (count / np.maximum(ideal, 1e-12))[user]
    )
    return shares


def pooled_choice(judged: Judged) -> int:
    """The candidate that is best for the client's users together, 0 unless surely so.

    Its mean gain over candidate 0 has to exceed ``BAR`` standard errors over users.
    """
    counted = judged.counts() > 0
    if counted.sum() < LEAST_USERS:
        return 0
    means = judged.means()[:, counted]
    gains = means - means[0]
    error = gains.std(axis=1, ddof=1) / np.sqrt(gains.shape[1])
    best = int(gains.mean(axis=1).argmax())
    return best if gains[best].mean() > BAR * error[best] else 0


def user_choices(judged: Judged, default: int) -> IntArray:
    """The candidate of each user, int64 ``[num_users]``: the default, or a surer one.

    A user departs from the default to the candidate whose gain over it exceeds the
    standard error of that gain, over the user's own items, by the most.
    """
    count = judged.counts()
    gain = judged.value - judged.value[default]
    spread = Judged(judged.user, judged.fold, gain, judged.num_users).means()
    square = Judged(judged.user, judged.fold, gain**2, judged.num_users).means()
    variance = np.maximum(square - spread**2, 0.0) / np.maximum(count - 1, 1)
    margin = spread - BAR * np.sqrt(variance)
    best = margin.argmax(axis=0)
    sure = (margin.max(axis=0) > 0) & (count >= LEAST_ITEMS)
    return np.where(sure, best, default)


def choose(judged: Judged) -> tuple[int, IntArray]:
    """The client's choice, and each user's."""
    default = pooled_choice(judged)
    return default, user_choices(judged, default)


def crossed(judged: Judged) -> tuple[Values, Values]:
    """What choosing is worth: chosen on the other folds, measured on each.

    Choosing and measuring on the same items would flatter the choice.

    Returns:
        Means of candidate 0 and of what was chosen, ``[num_users]``, NaN for a user
        without left-out items.
    """
    chosen = np.zeros(len(judged.user))
    for number in range(FOLDS):
        own = judged.fold == number
        _, choice = choose(judged.where(~own))
        chosen[own] = judged.value[choice[judged.user[own]], own]
    both = np.stack([judged.value[0], chosen])
    means = Judged(judged.user, judged.fold, both, judged.num_users).means()
    before, after = np.where(judged.counts() > 0, means, np.nan)
    return before, after
