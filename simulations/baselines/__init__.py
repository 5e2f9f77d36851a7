"""Models to compare with, computed on the same split instead of quoted.

Simulations only. Whatever is fitted to private rows without noise is NOT PRIVATE:
it says what privacy costs, no deployment makes it. Every model ranks users it never
saw, from the items they are shown. Adding one is a module with settings and a
``fit``, an entry here, and a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from common.interactions import FloatArray
from common.metrics import Scorer, evaluate_ranking
from simulations.baselines import ials, item_knn, popularity, puresvd
from simulations.baselines.model import Fit, Model

TUNED_BY = "ndcg@10"
_BATCH = 256


@dataclass(frozen=True)
class Baseline:
    """A way to fit, and the settings to choose among.

    Attributes:
        label: for people.
        fit: training rows CSR ``[users, n]``, settings → model.
        grid: settings of the module's own type; the first is the default.
    """

    label: str
    fit: Fit
    grid: tuple[Any, ...]


BASELINES: dict[str, Baseline] = {
    "popularity": Baseline("Popularity", popularity.fit, (None,)),
    "puresvd": Baseline("PureSVD", puresvd.fit, puresvd.GRID),
    "item_knn": Baseline("Item-kNN", item_knn.fit, item_knn.GRID),
    "ials": Baseline("iALS", ials.fit, ials.GRID),
}


def scorer_of(model: Model, shown: sp.csr_matrix) -> Scorer:
    """A model applied to what users are shown."""

    def score(start: int, stop: int) -> FloatArray:
        return model(shown[start:stop])

    return score


def tune(
    fit: Fit,
    grid: Sequence[Any],
    train: sp.csr_matrix,
    *,
    seed: int,
    share: float = 0.1,
) -> Any:
    """The settings with the best NDCG@10 on some of the *training* users.

    These users are left out of the fits compared here; a fifth of each one's items
    is to find. Held-out users decide nothing.

    Args:
        fit: what to tune.
        grid: settings, at least one.
        train: CSR ``[users, n]``.
        seed: of the choice of users and items.
        share: of the users to judge by.
    """
    if len(grid) == 1:
        return grid[0]
    rng = np.random.default_rng(seed)
    judges = rng.random(train.shape[0]) < share
    shown, held = _folded(train[judges], rng)
    values = [
        np.nanmean(
            evaluate_ranking(
                scorer_of(fit(train[~judges], settings), shown),
                shown,
                held,
                batch_size=_BATCH,
                metrics=[TUNED_BY],
            )[TUNED_BY]
        )
        for settings in grid
    ]
    return grid[int(np.argmax(values))]


def _folded(
    rows: sp.csr_matrix, rng: np.random.Generator
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    entries = rows.tocoo()
    held = rng.random(entries.nnz) < 0.2
    parts = []
    for keep in (~held, held):
        where = (entries.row[keep], entries.col[keep])
        ones = np.ones(int(keep.sum()), dtype=np.float32)
        parts.append(sp.csr_matrix((ones, where), shape=rows.shape))
    return parts[0], parts[1]
