"""How far targets rose or fell, over held-out users, and what it cost everybody.

Simulations only: held-out users are ground truth that no party of a run has.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.folders import STUDENT, SUMMARY
from common.metrics import evaluate_ranking, top_k
from common.recommend import score_histories
from common.student import load_student
from simulations.evaluation import HeldOut

IntArray = npt.NDArray[np.int64]
#: Of the list that a user sees.
SHOWN = 10


@dataclass(frozen=True)
class Outcome:
    """What held-out users get of a run.

    Attributes:
        rank: median rank of the targets among a user's unseen items, 1 the best, over
            users and targets they have not seen.
        exposure: share of users with a target in their top ten.
        quality: NDCG@10.
        start: what the safeguard went on from: ``refined`` or ``transferred``.
        weight: how far it went from there, 0 for not at all.
    """

    rank: float
    exposure: float
    quality: float
    start: str
    weight: float


def measure(run: Path, heldout: HeldOut, targets: IntArray) -> Outcome:
    """What the run's final student gives the held-out users.

    Args:
        run: the server's folder.
        targets: int64 ``[t]``.
    """
    score = score_histories(load_student(run / STUDENT), heldout.shown)
    scores = score(0, heldout.num_users)
    best = top_k(scores, heldout.shown, SHOWN).item
    quality = evaluate_ranking(
        score,
        heldout.shown,
        heldout.held,
        batch_size=heldout.num_users,
        metrics=(f"ndcg@{SHOWN}",),
    )[f"ndcg@{SHOWN}"]
    summary = json.loads((run / SUMMARY).read_text())
    return Outcome(
        float(np.median(target_ranks(scores, heldout, targets))),
        float(np.isin(best, targets).any(axis=1).mean()),
        float(np.nanmean(quality)),
        str(summary["safeguard"]["start"]),
        float(summary["safeguard"]["weight"]),
    )


def target_ranks(
    scores: npt.NDArray[np.float32], heldout: HeldOut, targets: IntArray
) -> IntArray:
    """Ranks of the targets among each user's unseen items, seen ones left out.

    Ties go to the lower item id, as everywhere.
    """
    seen = heldout.shown.toarray() > 0
    hidden = np.where(seen, -np.inf, scores)
    order = np.argsort(-hidden, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(1, order.shape[1] + 1)[None], axis=1)
    found: IntArray = rank[:, targets][~seen[:, targets]]
    return found
