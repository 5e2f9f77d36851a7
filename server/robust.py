"""Robust means: what a few lying clients can do to an average, bounded.

Server only: it needs each client's own answer, as the server sees them in the modes
``local`` and ``off``; of a sum under secure aggregation nothing here can be computed.
Coordinate-wise trimmed mean and median: Yin et al. 2018 (arXiv 1803.01498);
multi-Krum: Blanchard et al. 2017 (arXiv 1703.02757); norm bounding: Sun et al. 2019
(arXiv 1911.07963). Norms and distances are those of one item's row at a time: whoever
pushes an item changes one row of thousands, and hardly the norm of the whole.

Flower has these for whole updates alone, and for no statistics.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from common.errors import RoundFailed
from common.sections import Aggregation
from common.student import StateDict

Float = npt.NDArray[np.float64]
AnyFloat = npt.NDArray[np.floating[Any]]

#: Which axis of a student's tensor counts items; 0 where none is named.
ITEM_AXIS = {"encoder.weight": 1}

#: No majority among fewer.
FEWEST = 3

#: Numbers of each client sorted at once, and item rows of pairs unfolded at once.
NUMBERS, ROWS = 1 << 18, 256

#: Numbers drawn to see how noisy a robust mean is.
SAMPLE = 1 << 14

#: A share times a number of clients is rounded down, but for what floats lose.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Weights:
    """How much each client counts in each item's row.

    Attributes:
        by_row: from 0 to 1, float64 ``[clients, rows]``.
        normalised: whether the mean is over the weights, not over all clients.
    """

    by_row: Float
    normalised: bool


def assumed_liars(count: int, settings: Aggregation) -> int:
    """How many of ``count`` answers may be lies: their share, at least one."""
    return max(1, int(settings.malicious * count + ROUNDING))


def check_enough(count: int, settings: Aggregation) -> None:
    """Refuse to aggregate fewer answers than the aggregator needs for its lies.

    Raises:
        RoundFailed: naming the keys, what was expected and what came.
    """
    if settings.robust == "none" or _suffices(count, settings):
        return
    raise RoundFailed(
        f"aggregation.robust = {settings.robust!r} with aggregation.malicious = "
        f"{settings.malicious:g} expected at least {fewest(settings)} clients' "
        f"answers, got {count}: fewer outvote no lie. Wait for more clients "
        "(run.min-clients, run.min-replies), or aggregate with 'none'."
    )


def fewest(settings: Aggregation) -> int:
    """The fewest answers that the aggregator can work with; 1 for none."""
    if settings.robust == "none":
        return 1
    count = FEWEST
    while not _suffices(count, settings):
        count += 1
    return count


def _suffices(count: int, settings: Aggregation) -> bool:
    # Blanchard et al.: n ≥ 2f + 3; all others need a majority of honest answers.
    more = 3 if settings.robust == "multi-krum" else 1
    return count >= max(FEWEST, 2 * assumed_liars(count, settings) + more)


def noise_spread(count: int, settings: Aggregation, rows: int = 1) -> float:
    """How much noisier than a plain mean a robust one of ``count`` answers is.

    The ratio of standard deviations where answers differ by Gaussian noise alone; from
    a fixed sample, to about one in a hundred. Whoever knows the noise of a sum has to
    know this too. Exactly 1 for no robust mean.

    Args:
        rows: to how many items' rows a number belongs: 2 for pairs.
    """
    if settings.robust in BY_NUMBER:
        drawn = np.random.default_rng(0).standard_normal((count, SAMPLE))
        found = BY_NUMBER[settings.robust](np.sort(drawn, axis=0), settings)
        return float(found.std() * math.sqrt(count))
    if settings.robust == "multi-krum":
        # Rows of many numbers: who is nearest is next to independent of each one.
        kept = 1 - assumed_liars(count, settings) / count
        return math.sqrt(kept**-rows)
    return 1.0


def robust_update(updates: Sequence[StateDict], settings: Aggregation) -> StateDict:
    """The robust mean of updates; an item's row is all that an update says of it.

    Raises:
        RoundFailed: if there are too few.
    """
    mean = robust_mean([item_rows(each) for each in updates], settings)
    return _from_rows(mean, updates[0])


def item_rows(update: StateDict) -> Float:
    """All tensors side by side, a row an item: float64 ``[items, 2 · dim + 1]``."""
    return np.hstack([_item_first(name, each) for name, each in update.items()])


def _item_first(name: str, tensor: torch.Tensor) -> Float:
    rows = np.moveaxis(tensor.double().numpy(), ITEM_AXIS.get(name, 0), 0)
    return rows.reshape(len(rows), -1)


def _from_rows(rows: Float, like: StateDict) -> StateDict:
    found, start = {}, 0
    for name, tensor in like.items():
        axis = ITEM_AXIS.get(name, 0)
        shape = np.moveaxis(np.empty(tuple(tensor.shape)), axis, 0).shape
        width = int(np.prod(shape[1:], dtype=np.int64))
        part = rows[:, start : start + width].reshape(shape)
        moved = np.ascontiguousarray(np.moveaxis(part, 0, axis))
        found[name] = torch.tensor(moved).to(tensor.dtype)
        start += width
    return found


def robust_mean(tables: Sequence[AnyFloat], settings: Aggregation) -> Float:
    """The robust mean of tables with a row an item.

    Args:
        tables: one a client, ``[rows]`` or ``[rows, width]``.
        settings: ``robust``, not ``none``, and its parameters.

    Returns:
        float64, of a table's shape; no bit depends on the order of the clients.

    Raises:
        RoundFailed: if there are too few.
    """
    check_enough(len(tables), settings)
    ordered = sorted(tables, key=_digest)
    if settings.robust in BY_NUMBER:
        return _by_number(ordered, settings)
    stack = np.stack(ordered).astype(np.float64)
    rows = stack.reshape(len(stack), stack.shape[1], -1)
    products = np.matmul(rows.transpose(1, 0, 2), rows.transpose(1, 2, 0))
    weights = BY_ROW[settings.robust](products, settings)
    mean: Float = np.zeros(rows.shape[1:])
    for table, weight in zip(rows, weights.by_row, strict=True):
        mean += table * weight[:, None]
    mean /= _divisor(weights.by_row, weights.normalised)[:, None]
    return mean.reshape(stack.shape[1:])


def robust_mean_of_pairs(uppers: Sequence[AnyFloat], settings: Aggregation) -> Float:
    """The robust mean of pairs of items, each of which belongs to two items' rows.

    A pair counts as little as the more suspicious of its two rows.

    Args:
        uppers: one a client, above the diagonal row by row, ``[m (m − 1) / 2]``.
        settings: as of :func:`robust_mean`.

    Raises:
        RoundFailed: if there are too few.
    """
    check_enough(len(uppers), settings)
    ordered = sorted(uppers, key=_digest)
    if settings.robust in BY_NUMBER:
        return _by_number(ordered, settings)
    size = num_items(len(ordered[0]))
    weights = BY_ROW[settings.robust](_pair_products(ordered, size), settings)
    first, second = np.triu_indices(size, 1)
    mean, count = np.zeros(len(first)), np.zeros(len(first))
    for upper, weight in zip(ordered, weights.by_row, strict=True):
        least = np.minimum(weight[first], weight[second])
        mean += least * upper
        count += least if weights.normalised else 1.0
    return mean / count


def _divisor(by_row: Float, normalised: bool) -> Float:
    counted = by_row if normalised else np.ones_like(by_row)
    total: Float = counted.sum(axis=0)
    return total


def num_items(num_pairs: int) -> int:
    """m, for m (m − 1) / 2 pairs."""
    return (1 + math.isqrt(1 + 8 * num_pairs)) // 2


def pair_rows(upper: AnyFloat, size: int, start: int, stop: int) -> Float:
    """Rows of the symmetric matrix with these pairs, float64 ``[stop − start, m]``."""
    row, column = np.arange(start, stop)[:, None], np.arange(size)[None]
    low, high = np.minimum(row, column), np.maximum(row, column)
    place = low * size - low * (low + 1) // 2 + high - low - 1
    rows = upper[np.where(row == column, 0, place)].astype(np.float64)
    return np.where(row == column, 0.0, rows)


def _pair_products(uppers: Sequence[AnyFloat], size: int) -> Float:
    """Inner products of the clients' rows, float64 ``[m, clients, clients]``."""
    found = np.empty((size, len(uppers), len(uppers)))
    for start in range(0, size, ROWS):
        stop = min(start + ROWS, size)
        rows = np.stack([pair_rows(each, size, start, stop) for each in uppers], 1)
        found[start:stop] = np.matmul(rows, rows.transpose(0, 2, 1))
    return found


def _digest(part: AnyFloat) -> bytes:
    """What answers are ordered by: sums of rounded numbers depend on the order."""
    return hashlib.sha256(np.ascontiguousarray(part).data).digest()


def _by_number(parts: Sequence[AnyFloat], settings: Aggregation) -> Float:
    """Each number by itself, from its clients' values in ascending order."""
    reduce, flat = BY_NUMBER[settings.robust], [each.reshape(-1) for each in parts]
    found = np.empty(flat[0].shape)
    for start in range(0, len(found), NUMBERS):
        block = np.stack([each[start : start + NUMBERS] for each in flat])
        ascending = np.sort(block.astype(np.float64), axis=0)
        found[start : start + NUMBERS] = reduce(ascending, settings)
    return found.reshape(parts[0].shape)


def trimmed_mean(ascending: Float, settings: Aggregation) -> Float:
    """The mean without as many of the smallest and largest as may be lies.

    Args:
        ascending: float64 ``[clients, numbers]``, each column sorted.
    """
    cut = assumed_liars(len(ascending), settings)
    mean: Float = ascending[cut : len(ascending) - cut].mean(axis=0)
    return mean


def median(ascending: Float, settings: Aggregation) -> Float:
    """The middle value, or the mean of the two middle ones."""
    del settings
    low, high = (len(ascending) - 1) // 2, len(ascending) // 2
    middle: Float = (ascending[low] + ascending[high]) / 2
    return middle


def multi_krum(products: Float, settings: Aggregation) -> Weights:
    """Of n answers with f lies the n − f that are nearest to their n − f − 2 nearest.

    Args:
        products: inner products of the clients' rows, float64 ``[rows, n, n]``.
    """
    count = products.shape[1]
    liars = assumed_liars(count, settings)
    square = np.einsum("rcc->rc", products)
    distance = square[:, :, None] + square[:, None, :] - 2 * products
    distance = np.maximum(distance, 0.0)
    distance[:, np.arange(count), np.arange(count)] = np.inf
    nearest = np.sort(distance, axis=2)[:, :, : count - liars - 2]
    order = np.argsort(nearest.sum(axis=2), axis=1, kind="stable")
    chosen = np.zeros((count, len(products)))
    rows = np.arange(len(products))[:, None]
    chosen[order[:, : count - liars], rows] = 1.0
    return Weights(chosen, normalised=True)


def norm_bound(products: Float, settings: Aggregation) -> Weights:
    """No client's row longer than a multiple of the median length.

    The median is that of the row over the clients, or of all rows where that is more:
    an item that hardly anybody touched may be as long as any other.

    Args:
        products: as of :func:`multi_krum`.
    """
    norms = np.sqrt(np.einsum("rcc->rc", products))
    typical = np.maximum(np.median(norms, axis=1), np.median(norms))
    most = settings.norm_bound * typical[:, None]
    # Equal to its bound, 0 included, is within it.
    scale = np.divide(most, norms, out=np.ones_like(norms), where=norms > most)
    return Weights(scale.T, normalised=False)


#: Of each number by itself: sorted values → one.
BY_NUMBER: dict[str, Callable[[Float, Aggregation], Float]] = {
    "trimmed-mean": trimmed_mean,
    "median": median,
}
#: Of an item's row: inner products of the clients' rows → how much each counts.
BY_ROW: dict[str, Callable[[Float, Aggregation], Weights]] = {
    "multi-krum": multi_krum,
    "norm-bound": norm_bound,
}
