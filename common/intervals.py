"""How sure a metric is: values with 95 % intervals over users.

In ``common`` beside the metrics, for whoever reports them. Means over users get a
percentile bootstrap (Efron 1979), figures of all lists together a jackknife (Efron
& Stein 1981). Neither says anything of other training runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from common.beyond_accuracy import (
    CATALOGUE_METRICS,
    Values,
    coverage_without,
    gini_without,
)
from common.errors import DataFormatError
from common.interactions import IntArray
from common.metrics import PerUser


@dataclass(frozen=True)
class Estimate:
    """A value, and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def estimate(
    values: PerUser,
    num_items: int,
    *,
    seed: int,
    num_resamples: int = 1000,
) -> dict[str, Estimate]:
    """Value and 95 % interval of everything ``evaluate_ranking`` returned."""
    found = {}
    for name, value in values.items():
        family = name.partition("@")[0]
        if family in CATALOGUE_METRICS:
            found[name] = catalogue_interval(family, value, num_items)
        else:
            found[name] = bootstrap_interval(
                value, seed=seed, num_resamples=num_resamples
            )
    return found


def bootstrap_interval(
    values: Values,
    *,
    seed: int,
    num_resamples: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """Mean over users, and its percentile bootstrap interval (Efron 1979).

    The same seed draws the same users for every metric and every model, so the
    interval of a difference is that of the users' differences, in any order.

    Args:
        values: ``[users]``; users with NaN (nothing held) are left out.
        seed: of the resampling; it protects nothing.
        num_resamples: how often as many users are drawn with replacement.
        confidence: in (0, 1).

    Raises:
        DataFormatError: if no user has a value.

    >>> bootstrap_interval(np.array([0.5, 0.5, np.nan]), seed=0)
    Estimate(value=0.5, low=0.5, high=0.5)
    """
    kept = values[~np.isnan(values)]
    if not len(kept):
        raise DataFormatError("Expected a user with held items, got none.")
    draw = np.random.default_rng(seed)
    means = [
        kept[draw.integers(len(kept), size=len(kept))].mean()
        for _ in range(num_resamples)
    ]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(kept.mean()), float(low), float(high))


def catalogue_interval(
    family: str, item: IntArray, num_items: int, *, confidence: float = 0.95
) -> Estimate:
    """A figure of all lists together, and its jackknife interval, within [0, 1].

    A resample with replacement holds 63 % of the users, so a percentile interval of
    a union lies below the union itself. With θᵢ the figure without user i:
    var = (n−1)/n · Σ (θᵢ − θ̄)², which is never too small in expectation (Efron &
    Stein 1981).

    Args:
        family: a key of ``CATALOGUE_METRICS``.
        item: lists int64 ``[users, k]``, −1 for no item, each without repeats.
        num_items: items in the catalogue.
        confidence: in (0, 1).

    >>> catalogue_interval("coverage", np.array([[0], [0]]), num_items=2)
    Estimate(value=0.5, low=0.5, high=0.5)
    """
    value = CATALOGUE_METRICS[family](item, num_items)
    spread = WITHOUT[family](item, num_items).std()
    margin = NormalDist().inv_cdf((1 + confidence) / 2) * float(
        np.sqrt(len(item) - 1) * spread
    )
    return Estimate(value, max(0.0, value - margin), min(1.0, value + margin))


#: The figure without each user in turn: (lists, number of items) → ``[users]``.
WITHOUT: dict[str, Callable[[IntArray, int], Values]] = {
    "coverage": coverage_without,
    "gini": gini_without,
}
