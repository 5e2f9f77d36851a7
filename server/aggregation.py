"""Aggregation: pure functions from updates to the next student.

FedAvg on updates (McMahan et al. 2017, arXiv 1602.05629) and FedAdam (Reddi et al.
2021, arXiv 2003.00295, algorithm 2, with Adam's bias correction). Server only: it
sees what arrived from many clients. Weights are equal or declared public sizes,
never the private number of rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from common.errors import ProtocolError
from common.sections import Aggregation
from common.student import StateDict
from common.wire import METRIC_NAMES, METRIC_NORM
from server.robust import robust_update


@dataclass(frozen=True)
class OptimiserState:
    """FedAdam's moments; empty for FedAvg.

    Attributes:
        step: how many updates were applied.
        mean, square: running first and second moment of the averaged update.
    """

    step: int = 0
    mean: StateDict = field(default_factory=dict)
    square: StateDict = field(default_factory=dict)


def combined(
    updates: Sequence[StateDict], weights: Sequence[float], settings: Aggregation
) -> StateDict:
    """The mean of the updates, or the robust one that ``aggregation.robust`` names.

    Robust means count every client once: a declared size is only what a client says.

    Raises:
        ProtocolError: as of :func:`weighted_mean`.
        RoundFailed: if there are too few for a robust mean.
    """
    if settings.robust == "none":
        return weighted_mean(updates, weights)
    return robust_update(updates, settings)


def weighted_mean(updates: Sequence[StateDict], weights: Sequence[float]) -> StateDict:
    """``Σ w·u / Σ w`` tensor by tensor.

    Raises:
        ProtocolError: without updates or with weights that do not sum to > 0.
    """
    total = float(sum(weights))
    if not updates or len(updates) != len(weights) or total <= 0:
        raise ProtocolError("Expected at least one update, and a weight for each.")
    ordered = sorted(zip(updates, weights, strict=True), key=_content)
    mean = {}
    for name, first in updates[0].items():
        total_update = torch.zeros_like(first, dtype=torch.float64)
        for update, weight in ordered:
            total_update += update[name].double() * (weight / total)
        mean[name] = total_update.to(first.dtype)
    return mean


def _content(part: tuple[StateDict, float]) -> tuple[bytes, float]:
    """What updates are ordered by before they are added.

    Replies come ordered by node ids, which differ from one deployment to the next; a
    sum of rounded numbers depends on the order of its terms.
    """
    update, weight = part
    digest = hashlib.sha256()
    for name in sorted(update):
        digest.update(update[name].contiguous().numpy().data)
    return digest.digest(), weight


def fedavg(
    student: StateDict, update: StateDict, state: OptimiserState, settings: Aggregation
) -> tuple[StateDict, OptimiserState]:
    """``student + learning_rate · update``."""
    step = OptimiserState(step=state.step + 1)
    rate = settings.learning_rate
    return {name: student[name] + rate * update[name] for name in student}, step


def fedadam(
    student: StateDict, update: StateDict, state: OptimiserState, settings: Aggregation
) -> tuple[StateDict, OptimiserState]:
    """One Adam step along the averaged update."""
    step = state.step + 1
    b1, b2 = settings.beta_1, settings.beta_2
    mean, square, moved = {}, {}, {}
    for name, change in update.items():
        before = state.mean.get(name, torch.zeros_like(change))
        mean[name] = b1 * before + (1 - b1) * change
        before = state.square.get(name, torch.zeros_like(change))
        square[name] = b2 * before + (1 - b2) * change**2
        direction = mean[name] / (1 - b1**step)
        size = (square[name] / (1 - b2**step)).sqrt() + settings.epsilon
        moved[name] = student[name] + settings.learning_rate * direction / size
    return moved, OptimiserState(step, mean, square)


AGGREGATORS: dict[
    str,
    Callable[
        [StateDict, StateDict, OptimiserState, Aggregation],
        tuple[StateDict, OptimiserState],
    ],
] = {"fedavg": fedavg, "fedadam": fedadam}


def running_average(average: StateDict, latest: StateDict, count: int) -> StateDict:
    """Mean of ``count`` iterates from the mean of the ``count − 1`` before."""
    return {name: torch.lerp(average[name], latest[name], 1 / count) for name in latest}


def mean_metrics(
    sums: Sequence[npt.NDArray[np.float32]], noise_multiplier: float
) -> dict[str, float]:
    """Means over all clients' users from their noised sums.

    Args:
        sums: one a client, float32 ``[len(METRIC_NAMES) + 1]``, the last entry the
            noised number of users.
        noise_multiplier: of each sum; 0 in mode off.

    Returns:
        By metric; ``users``, the noised number; and ``noise_deviation``, that of the
        noise in each mean. Noise may take a mean out of [0, 1].
    """
    # In an order of their own, as updates.
    ordered = sorted(sums, key=lambda each: each.tobytes())
    total = np.stack(ordered).astype(np.float64).sum(axis=0)
    users = max(float(total[-1]), 1.0)
    means = {
        name: float(value) / users
        for name, value in zip(METRIC_NAMES, total[:-1], strict=True)
    }
    deviation = noise_multiplier * METRIC_NORM * math.sqrt(len(sums)) / users
    return means | {"users": float(total[-1]), "noise_deviation": deviation}
