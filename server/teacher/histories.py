"""Ordered histories as sequences, windows and batches for a sequential teacher.

On the server: it sees the public users' histories, in the order of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from common.interactions import IntArray

#: Users sorted by length together: enough that a batch holds alike lengths.
POOL = 8

#: In ``Batch.target``: nothing to predict here.
NOTHING = -1


@dataclass(frozen=True)
class Batch:
    """Windows of some users, left-aligned.

    Attributes:
        user: int64 ``[B]``, index of the user's sequence.
        shown: int64 ``[B, L]``; after a window's end, the id ``n`` (unknown).
        target: int64 ``[B, L]``, the item that follows; ``NOTHING`` after the end.
    """

    user: IntArray
    shown: IntArray
    target: IntArray

    @property
    def num_targets(self) -> int:
        """Positions with something to predict."""
        return int((self.target != NOTHING).sum())


def sequences(history: sp.csr_matrix) -> list[IntArray]:
    """Each row's items from the earliest to the latest; ties by item id.

    Args:
        history: CSR ``[B, n]`` whose positive data are positions in time.

    >>> sequences(sp.csr_matrix(np.array([[2, 0, 1], [0, 0, 0]])))
    [array([2, 0]), array([], dtype=int64)]
    """
    rows = sp.csr_matrix(history, copy=True)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    in_time = rows.indices[np.lexsort((rows.data, row))].astype(np.int64)
    return np.split(in_time, rows.indptr[1:-1])


def left_aligned(rows: Sequence[IntArray], filler: int) -> IntArray:
    """Rows of unlike lengths as int64 ``[B, longest]``, filled up behind."""
    longest = max(len(row) for row in rows)
    table = np.full((len(rows), longest), filler, dtype=np.int64)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table


def epoch_batches(
    histories: Sequence[IntArray],
    *,
    num_items: int,
    length: int,
    batch_users: int,
    draw: np.random.Generator,
) -> list[Batch]:
    """One epoch: a window of every user with two items or more, in random order.

    A history longer than a window gives its latest one in half of the epochs, since
    that is where recommendations start from, and any one in the others.
    """
    users = draw.permutation([u for u, row in enumerate(histories) if len(row) > 1])
    windows = {int(u): _window(histories[u], length, draw) for u in users}
    batches = []
    for start in range(0, len(users), POOL * batch_users):
        pool = users[start : start + POOL * batch_users].tolist()
        pool.sort(key=lambda user: len(windows[user]))
        for first in range(0, len(pool), batch_users):
            members = pool[first : first + batch_users]
            batches.append(_batch(members, [windows[u] for u in members], num_items))
    return [batches[i] for i in draw.permutation(len(batches))]


def _window(row: IntArray, length: int, draw: np.random.Generator) -> IntArray:
    """At most ``length`` items to show, and one more to predict."""
    spare = len(row) - length - 1
    if spare <= 0:
        return row
    end = len(row) - (int(draw.integers(spare + 1)) if draw.random() < 0.5 else 0)
    return row[end - length - 1 : end]


def _batch(users: list[int], windows: list[IntArray], num_items: int) -> Batch:
    return Batch(
        user=np.asarray(users, dtype=np.int64),
        shown=left_aligned([row[:-1] for row in windows], num_items),
        target=left_aligned([row[1:] for row in windows], NOTHING),
    )


def draw_unseen(
    seen: Sequence[IntArray], count: int, num_items: int, draw: np.random.Generator
) -> IntArray:
    """Items outside each user's history, uniform with replacement, ``[B, count]``.

    Only the history the teacher is taught with says what was seen: sampling from
    "never touched, held-out items included" would tell which items are held out.

    Args:
        seen: each user's whole taught history; distinct items, fewer than all.
        count: items to draw for each user.
        num_items: items of the catalogue.
        draw: the randomness.
    """
    return np.stack([_draw_one(np.sort(row), count, num_items, draw) for row in seen])


def _draw_one(
    seen: IntArray, count: int, num_items: int, draw: np.random.Generator
) -> IntArray:
    # The j-th unseen item is j plus the number of seen items before it.
    drawn = draw.integers(num_items - len(seen), size=count)
    before = np.searchsorted(seen - np.arange(len(seen)), drawn, side="right")
    return (drawn + before).astype(np.int64)
