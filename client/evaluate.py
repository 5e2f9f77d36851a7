"""Metrics on private users, as one noised sum: a release with its own event.

Client only, off by default. Each user adds a vector of metrics in [0, 1] and a one,
clipped in L2 norm over the whole vector; the sum gets Gaussian noise in proportion
to that norm (Dwork and Roth 2014, theorem A.1; the event is a Gaussian without
sampling). No number of users, no mean and no per-user value leaves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from client.randomness import RandomStream
from client.train import split
from common.interactions import FloatArray
from common.metrics import evaluate_ranking
from common.recommend import score_histories
from common.student import Student
from common.wire import METRIC_NAMES, METRIC_NORM

#: Share of a user's items to find again from the others, drawn anew each time.
HELD = 0.2


def metric_sums(
    student: Student,
    histories: sp.csr_matrix,
    noise_multiplier: float,
    masking: RandomStream,
    noise: RandomStream,
) -> npt.NDArray[np.float32]:
    """Noised sums of the metrics in ``METRIC_NAMES``, and of users who have any.

    Args:
        student: the released student, on the CPU.
        histories: private multi-hot rows, CSR ``[users, n]``.
        noise_multiplier: noise deviation over ``METRIC_NORM``; 0 adds none (mode off).
        masking, noise: randomness by purpose.

    Returns:
        float32 ``[len(METRIC_NAMES) + 1]``.
    """
    shown, held = split(histories, HELD, masking)
    return noised(user_values(student, shown, held), noise_multiplier, noise)


def user_values(
    student: Student, shown: sp.csr_matrix, held: sp.csr_matrix
) -> npt.NDArray[np.float64]:
    """A row a user, float64 ``[users, len(METRIC_NAMES) + 1]``.

    All zero for a user without held items, or whose metrics are not finite.
    """
    if not shown.shape[0]:
        return np.zeros((0, len(METRIC_NAMES) + 1))
    score = score_histories(student, shown)

    def rankable(start: int, stop: int) -> FloatArray:
        # A student can be made to overflow on one history and not on another: an
        # error would tell. Such a user just ranks badly.
        scores = score(start, stop)
        return np.where(np.isnan(scores), np.float32(-np.inf), scores)

    found = evaluate_ranking(
        rankable,
        shown,
        held,
        # Alone: the last bits of scores, and so ties, depend on who is in a batch.
        batch_size=1,
        metrics=METRIC_NAMES,
    )
    values = np.stack([found[name] for name in METRIC_NAMES], axis=1)
    values = np.column_stack([values, np.ones(len(values))])
    return np.where(np.isfinite(values).all(axis=1, keepdims=True), values, 0.0)


def noised(
    values: npt.NDArray[np.float64], noise_multiplier: float, noise: RandomStream
) -> npt.NDArray[np.float32]:
    """Clip each row to ``METRIC_NORM``, add up, add noise."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    clipped = values * np.minimum(1.0, METRIC_NORM / np.maximum(norms, 1e-12))
    total = clipped.sum(axis=0)
    if noise_multiplier > 0:
        drawn = noise.normal((values.shape[1],)).numpy()
        total = total + drawn * (noise_multiplier * METRIC_NORM)
    return np.asarray(total, dtype=np.float32)
