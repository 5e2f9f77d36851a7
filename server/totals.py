"""Totals of the clients' statistics: sums of noised sums, plain or robust.

Server only: it sees what each client answered. A robust total is the number of clients
times their robust mean (``robust.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from common.sections import Aggregation
from common.statistics import FloatArray, Pairs
from server.robust import robust_mean, robust_mean_of_pairs
from server.taste import Float


def total_pairs(answers: Sequence[Pairs], settings: Aggregation) -> tuple[Float, Float]:
    """Counts ``[m]`` and pairs ``[m (m − 1) / 2]`` over the clients.

    Raises:
        RoundFailed: if a robust total is asked for, of too few answers.
    """
    counts = total([each.counts for each in answers], settings)
    pairs = [each.pairs for each in answers]
    if settings.robust == "none":
        return counts, total(pairs, settings)
    return counts, len(pairs) * robust_mean_of_pairs(pairs, settings)


def total(parts: Sequence[FloatArray], settings: Aggregation) -> Float:
    """In double precision and an order of their own, not that of the nodes' ids.

    Args:
        parts: one a client, ``[rows]`` or ``[rows, width]``, a row an item.

    Raises:
        RoundFailed: as :func:`total_pairs`.
    """
    if settings.robust != "none":
        return len(parts) * robust_mean(parts, settings)
    ordered = sorted(parts, key=_digest)
    summed: Float = np.sum([each.astype(np.float64) for each in ordered], axis=0)
    return summed


def _digest(part: FloatArray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(part).data).digest()
