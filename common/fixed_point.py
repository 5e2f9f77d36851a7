"""A clipped update as integers, and a sum of them as an update again.

In ``common`` because clients encode and the server decodes. The whole update is
clipped in L2, rotated (``rotation.py``), scaled, and rounded at random to integers,
again until their norm is within a public bound: conditional randomised rounding
(Kairouz, Liu & Steinke 2021, arXiv 2102.06387, §4; Agarwal, Kairouz & Liu 2021, arXiv
2110.04995, §4). The bound holds of the integers themselves, checked in integer
arithmetic, so that no floating-point error is in the sensitivity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from common.rotation import rotate, unrotate

Float = npt.NDArray[np.float64]
Integer = npt.NDArray[np.int64]
#: So many numbers in (0, 1), float64.
Uniform = Callable[[int], Float]

#: Roundings before it is cut towards zero; each fails with a probability of at most β.
TRIES = 64


@dataclass(frozen=True)
class Grid:
    """The public integer grid on which updates are summed.

    Attributes:
        clip: L2 norm of an update at most.
        parameters: coordinates at most; a shorter update keeps to every bound too.
        granularity: the clipped norm over √parameters, in steps of the grid.
        beta: a rounding is within the bound with a probability of at least 1 − β.
    """

    clip: float
    parameters: int
    granularity: float
    beta: float

    @property
    def norm(self) -> float:
        """L2 norm of a clipped update in steps of the grid, before rounding."""
        return self.granularity * math.sqrt(self.parameters)

    @property
    def scale(self) -> float:
        """Steps of the grid in a unit of the update."""
        return self.norm / self.clip

    @cached_property
    def l2_squared(self) -> int:
        """Squared L2 norm of an encoded update at most (Kairouz 2021, prop. 4.4)."""
        root = math.sqrt(self.parameters)
        likely = self.norm**2 + self.parameters / 4
        likely += math.sqrt(2 * math.log(1 / self.beta)) * (self.norm + root / 2)
        return math.floor(min(likely, (self.norm + root) ** 2))

    @property
    def l1(self) -> int:
        """L1 norm at most: |z|₁ ≤ √d·|z|₂, and of integers |z|₁ ≤ |z|₂²."""
        return min(math.isqrt(self.parameters * self.l2_squared), self.l2_squared)

    @property
    def l2(self) -> float:
        """L2 norm at most, rounded up."""
        return math.nextafter(math.sqrt(self.l2_squared), math.inf)


def encode(update: Float, grid: Grid, seed: bytes, uniform: Uniform) -> Integer:
    """The update on the grid, int64 ``[d]``, within ``grid.l2_squared`` and ``l1``.

    An update that is not finite counts as none: zeros. So do zeros, exactly.

    Args:
        update: float64 ``[d]``, d ≤ ``grid.parameters``.
        seed: of the round's rotation, public.
    """
    exact = rotate(clipped(update, grid.clip) * grid.scale, seed)
    floor = np.floor(exact)
    fraction = exact - floor
    for _ in range(TRIES):
        rounded = (floor + (uniform(len(exact)) < fraction)).astype(np.int64)
        if int(rounded @ rounded) <= grid.l2_squared:
            return rounded
    # Not longer than before rounding, hence within the bound.
    return np.trunc(exact).astype(np.int64)


def decode(total: Integer, grid: Grid, seed: bytes) -> Float:
    """The sum of updates that a sum on the grid stands for, float64 ``[d]``."""
    return unrotate(total.astype(np.float64), seed) / grid.scale


def clipped(update: Float, clip: float) -> Float:
    """The update with an L2 norm of ``clip`` at most; zeros if it is not finite."""
    if not np.isfinite(update).all():
        return np.zeros(len(update))
    # Squares of large numbers overflow.
    largest = max(float(np.abs(update).max(initial=0.0)), 1.0)
    norm = largest * float(np.linalg.norm(update / largest))
    return update * (clip / norm) if norm > clip else update.astype(np.float64)


def wrapped(vector: Integer, bits: int) -> Integer:
    """The vector modulo 2^bits, int64 in [0, 2^bits): what a client masks."""
    return vector & np.int64((1 << bits) - 1)


def centred(vector: Integer, bits: int) -> Integer:
    """Numbers modulo 2^bits as the nearest to 0, int64 in [−2^(bits−1), 2^(bits−1))."""
    half = np.int64(1 << (bits - 1))
    return wrapped(vector + half, bits) - half
