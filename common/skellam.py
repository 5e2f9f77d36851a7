"""Exact Skellam noise: the difference of two Poisson numbers, by inversion.

In ``common`` because its arithmetic knows nothing of who draws; the random words are
an argument, and production's come from the operating system. Sums of Skellam numbers
are Skellam, their variances added, so that a cohort's shares are one mechanism whoever
drops out (Agarwal, Kairouz & Liu 2021, arXiv 2110.04995).

The distribution function is computed in integers of arbitrary length by Miller's
recurrence and compared with uniform integers: no float is in the noise, and a draw is
off the true distribution by less than 2^-100 in total variation. What it does not do:
run in constant time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError

Words = npt.NDArray[np.uint64]
#: So many uniform 64-bit words.
Source = Callable[[int], Words]

#: Bits of the distribution function, and of the tails that are left out.
BITS, TAIL = 128, 140
#: Tables grow with the deviation.
LEAST_VARIANCE, MOST_VARIANCE = 2.0**-40, 2.0**32


@dataclass(frozen=True)
class SkellamTable:
    """P[X ≤ k]·2^128 for k from −most to most − 1, in words of 64 bits.

    Attributes:
        high, low: the upper and lower words, uint64 ``[2·most]``.
    """

    most: int
    high: Words
    low: Words


@lru_cache(maxsize=8)
def skellam_table(variance: float) -> SkellamTable:
    """The distribution function of a Skellam number of mean 0.

    Raises:
        ConfigError: if the variance is beyond what a table is made for.
    """
    if not LEAST_VARIANCE <= variance <= MOST_VARIANCE:
        raise ConfigError(
            "secagg: expected a granularity and noise whose share has a variance of "
            f"2^-40 to 2^32 in each coordinate, got {variance:g}."
        )
    weights = _weights(variance, _reach(variance))
    whole = 2 * sum(weights) - weights[0]
    total, steps = 0, []
    for weight in [*weights[:0:-1], *weights[:-1]]:
        total += weight
        steps.append((total << BITS) // whole)
    high = np.array([step >> 64 for step in steps], dtype=np.uint64)
    low = np.array([step & (2**64 - 1) for step in steps], dtype=np.uint64)
    return SkellamTable(len(weights) - 1, high, low)


def draw(table: SkellamTable, count: int, source: Source) -> npt.NDArray[np.int64]:
    """Independent Skellam numbers, int64 ``[count]``."""
    words = source(count)
    places = np.searchsorted(table.high, words)
    # Where the upper word decides nothing, in 1 of 2^50 draws, the lower one does.
    last = np.minimum(places, len(table.high) - 1)
    for index in np.flatnonzero(table.high[last] == words):
        word, lower = words[index], source(1)[0]
        equal = slice(places[index], np.searchsorted(table.high, word, side="right"))
        places[index] += np.searchsorted(table.low[equal], lower, side="right")
    return (places - table.most).astype(np.int64)


def tail_exponent(height: float, variance: float) -> float:
    """−log of Chernoff's bound on P[X ≥ height] for a Skellam number, at least 0."""
    ratio = height / variance
    return height * math.asinh(ratio) - variance * (math.hypot(1.0, ratio) - 1.0)


def _reach(variance: float) -> int:
    """Beyond it, a Skellam number lies with a probability of less than 2^-TAIL."""
    low, high = 0, 1
    while tail_exponent(high, variance) < (TAIL + 1) * math.log(2):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = tail_exponent(middle, variance) >= (TAIL + 1) * math.log(2)
        low, high = (low, middle) if enough else (middle, high)
    return high


def _weights(variance: float, most: int) -> list[int]:
    """Proportional to P[X = k] for k from 0 to ``most``, as integers.

    P[X = k] is proportional to the Bessel function I_k(variance), and I_(k−1) =
    I_(k+1) + (2k / variance) I_k, run downwards from far out: Miller's algorithm
    (Gautschi 1967), stable because the other solution dies out.
    """
    numerator, denominator = variance.as_integer_ratio()
    after, here, weights = 0, 1 << 64, []
    for k in range(most + 16, 0, -1):
        after, here = here, after + 2 * k * denominator * here // numerator
        if k <= most + 1:
            weights.append(here)
    return weights[::-1]
