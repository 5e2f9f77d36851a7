"""Do no harm: how far the released student may leave the transferred one.

The interpolation weight is chosen on *public* validation users, and so is the start
where clients' statistics made another one; it is post-processing of released students
and costs no privacy. Server only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from common.metrics import Scorer, evaluate_ranking
from common.recommend import score_histories
from common.student import StateDict, StudentSpec, build, interpolate

METRIC = "ndcg@100"

#: The public teacher's own student, or that of the one which statistics refined.
Start = Literal["transferred", "refined"]
BATCH = 256


@dataclass(frozen=True)
class Choice:
    """The weight of the trained student, and how every tried weight did.

    Attributes:
        weight: in [0, 1]; 0 releases the start, 1 the trained student.
        curve: pairs (weight, NDCG@100 on public validation users), from the start that
            the rounds had.
        reason: a sentence or two for the report.
        start: what has the rest of the weight.
    """

    weight: float
    curve: tuple[tuple[float, float], ...]
    reason: str
    start: Start = "transferred"


def validate(
    state: StateDict, spec: StudentSpec, shown: sp.csr_matrix, held: sp.csr_matrix
) -> float:
    """NDCG@100 of a student on public users; NaN without any."""
    if shown.shape[0] == 0:
        return float("nan")
    score = score_histories(build(spec, state).eval(), shown)
    return float(np.nanmean(rank_public(score, shown, held)))


def rank_public(
    score: Scorer, shown: sp.csr_matrix, held: sp.csr_matrix
) -> npt.NDArray[np.float64]:
    """NDCG@100 of any scorer for each public user, NaN where nothing is held."""
    values = evaluate_ranking(score, shown, held, batch_size=BATCH, metrics=[METRIC])
    return np.asarray(values[METRIC], dtype=np.float64)


def choose_weight(
    transferred: StateDict,
    trained: StateDict,
    spec: StudentSpec,
    shown: sp.csr_matrix,
    held: sp.csr_matrix,
    *,
    grid: int,
) -> Choice:
    """The weight in ``0/grid … grid/grid`` that ranks best; ties to the larger.

    Without validation users nothing can be chosen, and the trained student stands.
    """
    if shown.shape[0] == 0:
        return Choice(
            1.0, (), "No public validation users: the trained student stands."
        )
    curve = []
    for step in range(grid + 1):
        weight = step / grid
        state = interpolate(transferred, trained, weight)
        curve.append((weight, validate(state, spec, shown, held)))
    best = max(curve, key=lambda point: (point[1], point[0]))
    reason = (
        f"Weight {best[0]:g} ranked best of {grid + 1} on {shown.shape[0]} public "
        "validation users (post-processing, no privacy cost)."
    )
    return Choice(best[0], tuple(curve), reason)


def origin_of(start: StateDict, transferred: StateDict) -> Start:
    """Which start the rounds had: another one only where statistics made it."""
    same = all(torch.equal(start[name], transferred[name]) for name in transferred)
    return "transferred" if same else "refined"


def choose_start(
    choice: Choice,
    released: StateDict,
    transferred: StateDict,
    spec: StudentSpec,
    shown: sp.csr_matrix,
    held: sp.csr_matrix,
) -> Choice:
    """Take a refinement back that ranks worse than what the public teacher made.

    Args:
        choice: what was chosen so far, from a refined start.
        released: the student of that choice.
        transferred: the public teacher's own.

    Returns:
        The choice, or ``transferred`` with weight 0 where that ranks strictly better.
        Without validation users nothing can be compared, and the refinement stands.
    """
    if shown.shape[0] == 0:
        return choice
    own = validate(transferred, spec, shown, held)
    best = validate(released, spec, shown, held)
    if own > best:
        reason = (
            f"The public teacher's own student ranked better ({own:.4f}) than all that "
            f"the clients' statistics led to ({best:.4f}) on {shown.shape[0]} public "
            "validation users, so it is released (post-processing, no privacy cost)."
        )
        return Choice(0.0, choice.curve, reason, "transferred")
    reason = f"{choice.reason} The public teacher's own student ranked no better."
    return replace(choice, reason=reason)
