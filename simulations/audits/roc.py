"""How well a statistic tells members from others: AUC, and TPR where FPR is small.

Simulations only. Averages hide what a confident attacker finds out about a few; so the
true positive rate at false positive rates of 1 % and 0.1 % comes first (Carlini et al.
2022, arXiv 2112.03570), with exact intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from simulations.audits.bounds import clopper_pearson

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

#: False positive rates that a result quotes, and how many points its curve has.
QUOTED, POINTS = (1e-2, 1e-3), 25


@dataclass(frozen=True)
class Operating:
    """An attack at one threshold.

    Attributes:
        target: the false positive rate that was asked for.
        fpr, tpr: the rates there; ``fpr ≤ target``.
        low, high: interval of ``tpr``.
        fpr_low, fpr_high: interval of ``fpr``.
        resolved: whether there are non-members enough to see such a rate at all.
    """

    target: float
    fpr: float
    fpr_low: float
    fpr_high: float
    tpr: float
    low: float
    high: float
    resolved: bool


def area_under_curve(scores: Float, member: Bool) -> float:
    """The chance that a member scores above another; ties count half.

    0.5 where there are no members, or nobody else.
    """
    inside = int(member.sum())
    outside = len(member) - inside
    if not inside or not outside:
        return 0.5
    ranks = float(rankdata(scores)[member].sum())
    return (ranks - inside * (inside + 1) / 2) / (inside * outside)


def operate(scores: Float, member: Bool, target: float, confidence: float) -> Operating:
    """The threshold with the most true positives at a false positive rate."""
    inside, outside = scores[member], np.sort(scores[~member])[::-1]
    allowed = math.floor(target * len(outside) + 1e-9)
    # Above the first non-member that would be one too many; all, if there is none.
    threshold = outside[allowed] if allowed < len(outside) else -math.inf
    false_positives = int((outside > threshold).sum())
    found = int((inside > threshold).sum())
    low, high = clopper_pearson(found, len(inside), confidence)
    fpr_low, fpr_high = clopper_pearson(false_positives, len(outside), confidence)
    return Operating(
        target,
        false_positives / max(1, len(outside)),
        fpr_low,
        fpr_high,
        found / max(1, len(inside)),
        low,
        high,
        allowed >= 1,
    )


def curve(scores: Float, member: Bool, confidence: float) -> tuple[Operating, ...]:
    """Points evenly in log FPR, from one non-member in all of them to all."""
    outside = int((~member).sum())
    if not outside or not member.any():
        return ()
    targets = np.unique(np.geomspace(1 / outside, 1.0, POINTS).round(12))
    return tuple(operate(scores, member, float(each), confidence) for each in targets)
