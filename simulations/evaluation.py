"""Every model of a run ranked on the same held-out users.

Simulations only: held-out users and private popularity are ground truth that no
party of a real federation has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.beyond_accuracy import ItemFacts
from common.catalogue import Catalogue, read_catalogue
from common.features import item_features
from common.folders import CATALOGUE, INTERACTIONS
from common.interactions import encode_table, read_table
from common.intervals import Estimate, estimate
from common.metrics import (
    BEYOND_ACCURACY,
    DEFAULT_METRICS,
    PerUser,
    Scorer,
    evaluate_ranking,
)
from common.recommend import constant_scores, score_histories
from common.sections import Evaluation
from common.student import load_student
from server.teacher.checkpoint import load_teacher
from simulations.partition import CLIENTS, HELDOUT, SERVER

DIVERSITY = BEYOND_ACCURACY[0]
#: The bootstrap's seed: every model is resampled on the same users.
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class HeldOut:
    """Held-out users: items shown to a model, and items to find. CSR both.

    Attributes:
        ordered: as ``shown``, each entry the item's place in time, from 1.
        users: their outside ids, one a row.
        facts: public facts of the items, by which lists are judged.
    """

    catalogue: Catalogue
    shown: sp.csr_matrix
    held: sp.csr_matrix
    ordered: sp.csr_matrix
    users: tuple[str, ...]
    facts: ItemFacts

    @cached_property
    def num_users(self) -> int:
        """How many users are held out."""
        return int(self.shown.shape[0])


def read_heldout(federation: Path) -> HeldOut:
    """Read the held-out folder that the partition wrote."""
    catalogue = read_catalogue(federation / SERVER / CATALOGUE)
    table = read_table(federation / HELDOUT / INTERACTIONS)
    encoded = encode_table(table.drop("held"), catalogue.items)
    held = table["held"].to_numpy()
    shown = encoded.interactions.where(~held)
    return HeldOut(
        catalogue=catalogue,
        shown=shown.matrix(),
        held=encoded.interactions.where(held).matrix(),
        ordered=shown.ordered(),
        users=encoded.users.ids,
        facts=public_facts(federation, catalogue),
    )


def public_facts(federation: Path, catalogue: Catalogue) -> ItemFacts:
    """Public counts, and categories and periods of the declared catalogue."""
    public = federation / SERVER / INTERACTIONS
    return ItemFacts(count_popularity([public], catalogue), item_features(catalogue))


def rows_of(paths: Sequence[Path], catalogue: Catalogue) -> sp.csr_matrix:
    """Users of several interaction files, binary CSR ``[users, num_items]``.

    A user with rows in two files is two rows, as two clients would see them.
    """
    tables = [encode_table(read_table(path), catalogue.items) for path in paths]
    return sp.vstack([t.interactions.matrix() for t in tables], format="csr")


def public_rows(federation: Path, catalogue: Catalogue) -> sp.csr_matrix:
    """The public users that teach, CSR ``[users, num_items]``."""
    return rows_of([federation / SERVER / INTERACTIONS], catalogue)


def private_rows(federation: Path, catalogue: Catalogue) -> sp.csr_matrix:
    """All clients' users, CSR ``[users, num_items]``: whatever uses it, NOT PRIVATE."""
    return rows_of(sorted((federation / CLIENTS).glob(f"*/{INTERACTIONS}")), catalogue)


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
    return constant_scores(
        count_popularity([federation / SERVER / INTERACTIONS], catalogue)
    )


def private_popularity(federation: Path, catalogue: Catalogue) -> Scorer:
    """Everyone gets what private users touched most: NOT PRIVATE."""
    paths = sorted((federation / CLIENTS).glob(f"*/{INTERACTIONS}"))
    return constant_scores(count_popularity(paths, catalogue))


def teacher_scorer(path: Path, ordered: sp.csr_matrix) -> Scorer:
    """A saved teacher applied to what is shown, in the order it was touched."""
    teacher = load_teacher(path, None)

    def score(start: int, stop: int) -> npt.NDArray[np.float32]:
        return teacher.score(ordered[start:stop])

    return score


def student_scorer(path: Path, shown: sp.csr_matrix) -> Scorer:
    """A saved student applied to what is shown."""
    return score_histories(load_student(path), shown)


def rank(score: Scorer, heldout: HeldOut, settings: Evaluation) -> PerUser:
    """Per-user metrics of one model; no diversity where features are unknown."""
    found = evaluate_ranking(
        score,
        heldout.shown,
        heldout.held,
        batch_size=settings.batch_size,
        metrics=(*DEFAULT_METRICS, *BEYOND_ACCURACY),
        facts=heldout.facts,
    )
    if np.isnan(found[DIVERSITY]).all():
        del found[DIVERSITY]
    return found


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
