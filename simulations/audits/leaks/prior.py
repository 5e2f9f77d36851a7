"""What an attacker expects of somebody before looking at any answer: log-odds.

Simulations only. A student's scores are no chances. The attacker learns what a place in
its list is worth from users whom it knows whole and who are in no run.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from common.student import StateDict
from simulations.audits.leaks.knowledge import Asked, log_chances, popularity
from simulations.audits.world import World

Float = npt.NDArray[np.float64]

#: Pairs of user and item that are learned from at most.
_PAIRS = 100_000


def public_odds(world: World) -> Float:
    """Log-odds of each item by public rows alone, float64 ``[n]``."""
    counts = popularity(world) + 0.5
    found: Float = np.log(counts / counts.sum())
    return found


def learned_odds(world: World, state: StateDict, asked: Asked, teach: Asked) -> Float:
    """Log-odds by a student, float64 ``[users, n]``.

    Args:
        asked: whose odds are asked for; only their known items are looked at.
        teach: users known whole, to learn from. Without any with something hidden,
            public popularity decides.
    """
    target = teach.question.hidden[~teach.question.known]
    if not target.any() or target.all():
        return np.tile(public_odds(world), (asked.rows.shape[0], 1))
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    features = _features(world, state, teach)[~teach.question.known]
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(target))[:_PAIRS]
    if not target[chosen].any():
        return np.tile(public_odds(world), (asked.rows.shape[0], 1))
    model = LogisticRegression().fit(features[chosen], target[chosen])
    found: Float = _features(world, state, asked) @ model.coef_[0]
    return found + float(model.intercept_[0])


def _features(world: World, state: StateDict, asked: Asked) -> Float:
    """Each item's place in the student's list: log-odds are close to linear in its log.

    Returns:
        float64 ``[users, n, 1]``.
    """
    scores = log_chances(world.spec, state, asked.shown)
    scores[asked.question.known] = -np.inf
    place: Float = rankdata(-scores, axis=1)
    return np.log(place)[..., None]
