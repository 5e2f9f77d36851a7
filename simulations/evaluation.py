"""Every model of a run ranked on the same held-out users.

Simulations only: held-out users and private popularity are ground truth that no
party of a real federation has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from safetensors.numpy import load_file

from common.catalogue import Catalogue, read_catalogue
from common.config import Evaluation
from common.folders import CATALOGUE, INTERACTIONS
from common.interactions import encode_held, read_table
from common.metrics import (
    DEFAULT_METRICS,
    Estimate,
    PerUser,
    Scorer,
    estimate,
    evaluate_ranking,
)
from common.recommend import score_histories
from common.student import load_student
from simulations.partition import CLIENTS, HELDOUT, SERVER

#: The bootstrap's seed: every model is resampled on the same users.
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class HeldOut:
    """Held-out users: items shown to a model, and items to find. CSR both."""

    catalogue: Catalogue
    shown: sp.csr_matrix
    held: sp.csr_matrix

    @cached_property
    def num_users(self) -> int:
        """How many users are held out."""
        return int(self.shown.shape[0])


def read_heldout(federation: Path) -> HeldOut:
    """Read the held-out folder that the partition wrote."""
    catalogue = read_catalogue(federation / SERVER / CATALOGUE)
    table = read_table(federation / HELDOUT / INTERACTIONS)
    return HeldOut(catalogue, *encode_held(table, catalogue.items))


def count_popularity(
    paths: list[Path], catalogue: Catalogue
) -> npt.NDArray[np.float32]:
    """Rows an item over several interaction files, float32 ``[num_items]``."""
    counts = np.zeros(catalogue.num_items, dtype=np.float32)
    for path in paths:
        items = catalogue.items.encode(read_table(path)["item"].to_list())
        counts += np.bincount(items, minlength=len(counts)).astype(np.float32)
    return counts


def public_popularity(federation: Path, catalogue: Catalogue) -> Scorer:
    """Everyone gets what public users touched most."""
    return _constant(count_popularity([federation / SERVER / INTERACTIONS], catalogue))


def private_popularity(federation: Path, catalogue: Catalogue) -> Scorer:
    """Everyone gets what private users touched most: NOT PRIVATE."""
    paths = sorted((federation / CLIENTS).glob(f"*/{INTERACTIONS}"))
    return _constant(count_popularity(paths, catalogue))


def _constant(scores: npt.NDArray[np.float32]) -> Scorer:
    def score(start: int, stop: int) -> npt.NDArray[np.float32]:
        return np.broadcast_to(scores, (stop - start, len(scores)))

    return score


def teacher_scorer(path: Path, shown: sp.csr_matrix) -> Scorer:
    """The teacher's item-item weights applied to what is shown."""
    weights = load_file(path)["weights"]

    def score(start: int, stop: int) -> npt.NDArray[np.float32]:
        return np.asarray(shown[start:stop] @ weights, dtype=np.float32)

    return score


def student_scorer(path: Path, shown: sp.csr_matrix) -> Scorer:
    """A saved student applied to what is shown."""
    return score_histories(load_student(path), shown)


def rank(score: Scorer, heldout: HeldOut, settings: Evaluation) -> PerUser:
    """Per-user metrics of one model."""
    return evaluate_ranking(
        score,
        heldout.shown,
        heldout.held,
        batch_size=settings.batch_size,
        metrics=DEFAULT_METRICS,
    )


def summarise(
    values: PerUser, heldout: HeldOut, settings: Evaluation
) -> dict[str, Estimate]:
    """Means with bootstrap 95 % intervals over users."""
    return estimate(
        values,
        heldout.catalogue.num_items,
        seed=BOOTSTRAP_SEED,
        num_resamples=settings.resamples,
    )
