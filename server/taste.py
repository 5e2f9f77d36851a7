"""Tastes behind noisy sums of pairs: a factorisation that knows the noise.

Server only, and post-processing: it sees what clients released. Pairs of items are
``offdiagonal(V Vᵀ)`` plus Gaussian noise of known deviation; rows of V are normal with
variances in proportion to an item's popularity, around what the items' features say.
The means of V follow by coordinate ascent in a mean-field approximation (automatic
relevance determination: Bishop 1999, "Variational principal components"; Nakajima et
al. 2013, JMLR 14), which lets weak tastes through where a threshold on eigenvalues
would cut them, and fade where there is only noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import eigsh

Float = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]

#: Far below any variance of use.
TINY = 1e-9


@dataclass(frozen=True)
class Evidence:
    """What was released of m items, and how noisy it is.

    Attributes:
        popularity: positive, float64 ``[m]``: the prior's variance of each item.
        features: of the items, float64 ``[m, F]``, a column of ones among them.
        pairs: symmetric, zero diagonal, float32 ``[m, m]``.
        pairs_noise: deviation of the noise in an entry, > 0.
        sketch: pairs along some directions, float64 ``[m, q]``, if there is one.
        sketch_noise: deviation of the noise in an entry of it.
    """

    popularity: Float
    features: Float
    pairs: Single
    pairs_noise: float
    sketch: Float | None = None
    sketch_noise: float = 1.0


@dataclass(frozen=True)
class Tastes:
    """Mean and variance of each item's row.

    Attributes:
        mean: V, float64 ``[m, r]``.
        variance: float64 ``[m, r]``.
        prior: what the features say, float64 ``[m, r]``.
        spread: variance of the features' coefficients, float64 ``[r]``.
    """

    mean: Float
    variance: Float
    prior: Float
    spread: Float | None = None


def leading(pairs: Single, rank: int) -> Float:
    """Where to start: the leading eigenvectors, each as heavy as its eigenvalue."""
    size = len(pairs)
    rank = min(rank, size - 1)
    if not pairs.any():
        return np.eye(size, rank)
    first = np.ones(size, np.float32)
    values, vectors = eigsh(pairs, k=rank, which="LA", tol=1e-3, v0=first)
    order = np.argsort(-values)
    weight = np.sqrt(np.maximum(values[order].astype(np.float64), 1.0))
    start: Float = vectors[:, order] * weight
    return start


def find_tastes(evidence: Evidence, start: Float, iterations: int) -> Float:
    """V after some rounds of coordinate ascent, float64 ``[m, r]``."""
    nothing = np.zeros_like(start)
    tastes = Tastes(start, nothing, nothing)
    for _ in range(iterations):
        tastes = _ascend(evidence, tastes)
    return tastes.mean


def _ascend(evidence: Evidence, tastes: Tastes) -> Tastes:
    pull, precision = _evidence_terms(evidence, tastes)
    # In the basis where the precision is diagonal, so are the rows' variances.
    strength, basis = np.linalg.eigh(precision)
    basis, strength = basis[:, ::-1], np.maximum(strength[::-1], TINY)
    pull, mean = pull @ basis, tastes.mean @ basis
    popularity = evidence.popularity[:, None]
    away = (mean - tastes.prior @ basis) ** 2 + tastes.variance @ basis**2
    relevance = np.maximum((away / popularity).mean(axis=0), TINY)
    prior, spread = _content_prior(
        evidence, pull / strength, strength, relevance, tastes.spread
    )
    prior_variance = popularity * relevance
    variance = 1.0 / (1.0 / prior_variance + strength)
    return Tastes(variance * (pull + prior / prior_variance), variance, prior, spread)


def _evidence_terms(evidence: Evidence, tastes: Tastes) -> tuple[Float, Float]:
    """The rows' linear term ``[m, r]`` and their common precision ``[r, r]``."""
    mean = tastes.mean
    moment = mean.T @ mean + np.diag(tastes.variance.sum(axis=0))
    seen = (evidence.pairs @ mean.astype(np.float32)).astype(np.float64)
    # The diagonal was not released: in its place what the factorisation has there.
    seen += (mean**2).sum(axis=1)[:, None] * mean
    pull = seen / evidence.pairs_noise**2
    precision = moment / evidence.pairs_noise**2
    if evidence.sketch is not None:
        # Normal about zero with the rows' own moment as variance, so that a taste that
        # has faded takes nothing of the sketch on itself.
        ridged = moment @ moment + evidence.sketch_noise**2 * np.eye(len(moment))
        mixing = np.linalg.solve(ridged, moment @ (mean.T @ evidence.sketch)).T
        pull = pull + evidence.sketch @ mixing / evidence.sketch_noise**2
        precision = precision + mixing.T @ mixing / evidence.sketch_noise**2
    return pull, precision


def _content_prior(
    evidence: Evidence,
    found: Float,
    strength: Float,
    relevance: Float,
    spread: Float | None,
) -> tuple[Float, Float]:
    """What the features predict of each column, by ridge with a learnt variance."""
    root = np.sqrt(evidence.popularity)
    spread = relevance.copy() if spread is None else spread.copy()
    prior = np.empty_like(found)
    for k, column in enumerate(found.T / root):
        noise = 1.0 / (strength[k] * evidence.popularity)
        weighted = evidence.features / (relevance[k] + noise)[:, None]
        least = max(spread[k], 0.1 * relevance[k])
        inner = weighted.T @ evidence.features
        covariance = np.linalg.inv(inner + np.eye(len(inner)) / least)
        coefficients = covariance @ (weighted.T @ column)
        learnt = (coefficients**2 + np.diag(covariance)).mean()
        spread[k] = max(float(learnt), TINY)
        prior[:, k] = root * (evidence.features @ coefficients)
    return prior, spread
