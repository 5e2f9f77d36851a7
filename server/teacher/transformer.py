"""The sequential teacher by its config: who validates, who teaches, which seed.

On the server: it is fitted to public histories alone, in the order of time.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from common.config import RunConfig
from common.features import Features
from common.interactions import IntArray
from server.teacher.histories import sequences
from server.teacher.scoring import SequentialTeacher
from server.teacher.training import Validation, train

#: Users whose latest item chooses the epoch: at most so many, and this share.
MOST_VALIDATION_USERS = 512
VALIDATION_SHARE = 0.25

#: Shorter histories only teach.
LEAST_HISTORY = 3


def fit(
    teaching: sp.csr_matrix,
    features: Features | None,
    config: RunConfig,
    progress: Path | None = None,
) -> SequentialTeacher:
    """Train on public histories; the best epoch by some users' latest item is kept.

    Args:
        teaching: public histories, CSR ``[users, n]``, ordered.
        features: of the declared catalogue; items without history need them.
        config: ``transformer`` and ``run.seed``.
        progress: a file from which a killed training goes on.
    """
    seed = config.run.seed if config.run.seed >= 0 else secrets.randbits(62)
    histories, validation = hold_out(sequences(teaching), seed)
    return train(
        histories,
        validation,
        features,
        config.transformer,
        num_items=teaching.shape[1],
        seed=seed,
        device=config.run.device,
        progress=progress,
    )


def hold_out(rows: Sequence[IntArray], seed: int) -> tuple[list[IntArray], Validation]:
    """The latest item of some users, and everyone's history without it.

    Where a test set holds the very last items, these are the last but one.
    """
    able = [user for user, row in enumerate(rows) if len(row) >= LEAST_HISTORY]
    count = min(MOST_VALIDATION_USERS, int(VALIDATION_SHARE * len(able)))
    chosen = set(np.random.default_rng(seed).permutation(able)[:count].tolist())
    histories = [row[:-1] if user in chosen else row for user, row in enumerate(rows)]
    picked = sorted(chosen)
    shown = [histories[user] for user in picked]
    return histories, Validation(shown, [int(rows[user][-1]) for user in picked])
