"""Fusion: several modalities as one matrix, several rankings as one.

In ``common`` because it sees only its arguments: the server fuses features, and
whoever holds two scorers fuses their decisions. The third level, the gate of a deep
network, belongs to its teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import rankdata

from common.errors import DataFormatError
from common.features import Features, Known, Matrix

#: Weights that ``weight`` tries for each modality.
GRID = (0.0, 0.25, 0.5, 1.0, 2.0)
#: Rows that the choice of weights looks at, at most: its time grows as their cube.
MOST_ROWS = 800
#: Cormack, Clarke, Büttcher 2009, "Reciprocal Rank Fusion": their constant.
RANK_OFFSET = 60.0

Float = npt.NDArray[np.float64]


# ------------------------------------------------------------------ features
def blocks(features: Features) -> dict[str, Matrix]:
    """Modality → its matrix, known rows of mean squared norm 1, missing rows 0."""
    found = {}
    for name, values in features.values.items():
        known = features.known[name]
        kept = np.where(known[:, None], values, np.float32(0.0))
        norm = np.sqrt((kept.astype(np.float64) ** 2).sum() / max(known.sum(), 1))
        found[name] = (kept / (norm if norm > 0 else 1.0)).astype(np.float32)
    return found


def weigh(features: Features, weights: Mapping[str, float]) -> Matrix:
    """Modalities side by side, each times its weight (1 where none is named).

    Returns:
        float32 ``[num_items, sum of dims]``; missing is 0.
    """
    parts = blocks(features).items()
    return np.hstack([part * np.float32(weights.get(n, 1.0)) for n, part in parts])


def concatenate(features: Features, targets: Matrix, rows: Known, l2: float) -> Matrix:
    """All modalities with equal say, whatever the targets."""
    del targets, rows, l2
    return weigh(features, {})


def weight(features: Features, targets: Matrix, rows: Known, l2: float) -> Matrix:
    """Modalities by how well they predict the targets; see :func:`choose_weights`."""
    return weigh(features, choose_weights(features, targets, rows, l2))


def choose_weights(
    features: Features, targets: Matrix, rows: Known, l2: float
) -> dict[str, float]:
    """Weights of ``GRID`` under which ridge regression predicts items best.

    One modality at a time, twice round, from equal weights. The error is that of
    leaving one item out, exact for ridge: with C = (K + l2·I)⁻¹ the residual of item
    i is (C·y)ᵢ / Cᵢᵢ.

    Args:
        features: of all items.
        targets: item vectors of a teacher that saw public rows only, ``[n, d]``.
        rows: items whose vectors are known, bool ``[n]``.
        l2: the ridge's, > 0.
    """
    chosen = np.flatnonzero(rows)
    if not targets[chosen].any():  # nothing to judge by
        return dict.fromkeys(features.values, 1.0)
    step = max(len(chosen) / MOST_ROWS, 1.0)
    chosen = chosen[np.arange(0, len(chosen), step).astype(np.int64)]
    wanted = targets[chosen].astype(np.float64)
    parts = {n: part[chosen].astype(np.float64) for n, part in blocks(features).items()}
    kernels = {name: part @ part.T for name, part in parts.items()}
    weights = dict.fromkeys(kernels, 1.0)
    for name in [*kernels, *kernels]:
        rest = sum(
            (weights[n] ** 2 * kernel for n, kernel in kernels.items() if n != name),
            start=np.zeros((len(chosen), len(chosen))),
        )
        errors = [
            _left_out_error(rest + trial**2 * kernels[name], wanted, l2)
            for trial in GRID
        ]
        weights[name] = GRID[int(np.argmin(errors))]
    return weights


def _left_out_error(kernel: Float, targets: Float, l2: float) -> float:
    inverse = cho_solve(
        cho_factor(kernel + l2 * np.eye(len(kernel))), np.eye(len(kernel))
    )
    residuals = (inverse @ targets) / np.diag(inverse)[:, None]
    return float((residuals**2).sum())


#: ``(features, targets, rows, l2) → float32 [n, F]``, as :func:`choose_weights`.
FUSIONS: dict[str, Callable[[Features, Matrix, Known, float], Matrix]] = {
    "concatenate": concatenate,
    "weight": weight,
}


# ------------------------------------------------------------------ decisions
def _fused(
    scores: Sequence[Matrix],
    weights: Sequence[float] | None,
    points: Callable[[Float, Known], Float],
) -> Matrix:
    """Σ weight · points over the scorers that score an item; −∞ where none does."""
    weights = [1.0] * len(scores) if weights is None else weights
    shapes = {matrix.shape for matrix in scores}
    if len(shapes) != 1 or len(weights) != len(scores):
        raise DataFormatError(
            "Expected scores [B, n] of one shape and as many weights; got shapes "
            f"{[list(matrix.shape) for matrix in scores]} and {len(weights)} weights."
        )
    total = np.zeros(shapes.pop())
    scored = np.zeros(total.shape, dtype=np.bool_)
    for matrix, each in zip(scores, weights, strict=True):
        there = np.isfinite(matrix)
        safe = np.where(there, matrix, 0.0).astype(np.float64)
        total += each * np.where(there, points(safe, there), 0.0)
        scored |= there
    return np.where(scored, total, -np.inf).astype(np.float32)


def z_scores(
    scores: Sequence[Matrix], weights: Sequence[float] | None = None
) -> Matrix:
    """Sum of scores, each user's brought to mean 0 and deviation 1.

    Args:
        scores: float32 ``[B, n]`` a scorer; −∞ or NaN where it has no opinion, which
            then counts as an average one.
        weights: one a scorer; None weighs them alike.

    Returns:
        float32 ``[B, n]``, −∞ where no scorer has an opinion.

    Raises:
        DataFormatError: if shapes or counts differ.
    """
    return _fused(scores, weights, _standardised)


def min_max(scores: Sequence[Matrix], weights: Sequence[float] | None = None) -> Matrix:
    """Sum of scores, each user's brought to 0…1; arguments as :func:`z_scores`.

    No opinion counts as the worst.
    """
    return _fused(scores, weights, _unit_range)


def reciprocal_ranks(
    scores: Sequence[Matrix], weights: Sequence[float] | None = None
) -> Matrix:
    """Σ 1 / (60 + rank), ranks from 1, ties sharing their mean; as :func:`z_scores`.

    Cormack, Clarke, Büttcher 2009. No opinion gives nothing.
    """
    return _fused(scores, weights, lambda s, there: 1 / (RANK_OFFSET + _rank(s, there)))


def borda(scores: Sequence[Matrix], weights: Sequence[float] | None = None) -> Matrix:
    """Share of the scored items that an item leaves behind; as :func:`z_scores`.

    Borda 1781, with votes divided by the number of candidates so that a scorer of
    few items counts as much. No opinion gives nothing.
    """
    return _fused(scores, weights, _votes)


def _standardised(scores: Float, there: Known) -> Float:
    count = np.maximum(there.sum(axis=1, keepdims=True), 1)
    centred = np.where(there, scores - scores.sum(axis=1, keepdims=True) / count, 0.0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    # Equal scores differ by rounding from their mean: that is no opinion to amplify.
    some = deviation > 1e-9 * np.abs(scores).max(axis=1, keepdims=True, initial=0.0)
    scaled: Float = np.where(some, centred, 0.0) / np.where(some, deviation, 1.0)
    return scaled


def _unit_range(scores: Float, there: Known) -> Float:
    low = np.where(there, scores, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = np.where(there, scores, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    some = high > low
    width = np.where(some, high, 1.0) - np.where(some, low, 0.0)
    above = np.where(there & some, scores - np.where(some, low, 0.0), 0.0)
    scaled: Float = above / width
    return scaled


def _rank(scores: Float, there: Known) -> Float:
    ranks: Float = rankdata(np.where(there, -scores, np.inf), axis=1)
    return ranks


def _votes(scores: Float, there: Known) -> Float:
    count = there.sum(axis=1, keepdims=True)
    votes: Float = (count - _rank(scores, there)) / np.maximum(count - 1, 1)
    return votes


#: ``(scores, weights) → float32 [B, n]``, as :func:`z_scores`.
DECISIONS: dict[str, Callable[[Sequence[Matrix], Sequence[float] | None], Matrix]] = {
    "z-scores": z_scores,
    "min-max": min_max,
    "reciprocal-ranks": reciprocal_ranks,
    "borda": borda,
}
