"""Guessing a user's items from noisy numbers: prior, evidence, and what both say.

Simulations only. Evidence about one item depends on the user's other items (pairs of
them, the direction of a gradient); so a belief about all of them is improved a few
times, each item's chance given the others' (mean field; Jordan et al. 1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import expit

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

#: How often a belief is improved, and steps of the search for its level.
IMPROVED, _STEPS = 3, 60
#: Log-odds beyond which nothing is more certain.
_SURE = 60.0


class Evidence(Protocol):
    """What some released numbers say of one user's items."""

    def score(self, belief: Float, length: int) -> Float:
        """Log-likelihood ratio of each item, touched or not, float64 ``[n]``.

        Args:
            belief: chance that each item is the user's, ``[n]``.
            length: how many items the user has.
        """


@dataclass(frozen=True)
class Inferred:
    """How likely each item is the user's: log-odds up to a constant, ``[n]``.

    Attributes:
        prior: before anything was seen.
        evidence: what was seen adds.
    """

    prior: Float
    evidence: Float

    @property
    def total(self) -> Float:
        """Both together."""
        return self.prior + self.evidence


def infer(
    evidence: Sequence[Evidence],
    prior: Float,
    known: Bool,
    length: int,
    improved: int = IMPROVED,
) -> Inferred:
    """Guess a user's items.

    Args:
        prior: log-odds of each item before anything was seen, up to a constant.
        known: items given to the attacker.
        length: how many items the user has, the known ones among them.
        improved: how often the belief about the others is improved.
    """
    found = Inferred(prior.astype(np.float64), np.zeros(len(prior)))
    for _ in range(improved):
        belief = believe(found.total, known, length)
        parts = [each.score(belief, length) for each in evidence]
        found = Inferred(found.prior, np.sum([np.zeros(len(prior)), *parts], axis=0))
    return found


def believe(total: Float, known: Bool, length: int) -> Float:
    """Chances that add up to the user's length, the known items' 1, ``[n]``."""
    odds = total - np.median(total)
    left = length - int(known.sum())
    low, high = -_SURE - float(np.abs(odds).max()), _SURE + float(np.abs(odds).max())
    for _ in range(_STEPS):
        level = (low + high) / 2
        if expit(odds - level)[~known].sum() > left:
            low = level
        else:
            high = level
    found: Float = expit(odds - high)
    return np.where(known, 1.0, found)
