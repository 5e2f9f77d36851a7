"""What a check saw, and whether chance explains it: from observations to records.

Simulations only. An observation says within which bounds its figure lies as long as the
assumption holds: exact ones always, those of chance with probability 1 − α at least.
The α of all of them together is what a confidence leaves (Bonferroni), so that of
audits of honest clients at most that share raises any alarm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from simulations.audits.findings import CheckRecord

Float = npt.NDArray[np.float64]
#: α → the least and the most that a figure may be.
Bounds = Callable[[float], tuple[float, float]]
#: Deviations to which side make a promise false; the others merely deviate.
Side = Literal["below", "above", "both", "neither"]


@dataclass(frozen=True)
class Observed:
    """One figure of a check.

    Attributes:
        check: key of ``checks.CHECKS``.
        assumption: what the promise takes for true, in a sentence.
        measure: what the figure is.
        expected: what it is where the assumption holds, but for chance.
        measured: what it came to; ``None`` where it could not be seen.
        bounds: what it may come to.
        detail: what was found, in a sentence; no row of anybody.
        chance: whether bounds depend on α.
        refuting: which deviations make the promise false.
    """

    check: str
    assumption: str
    measure: str
    expected: float
    measured: float | None
    bounds: Bounds
    detail: str
    chance: bool = True
    refuting: Side = "both"


def judged(found: Sequence[Observed], confidence: float) -> list[CheckRecord]:
    """Records of observations, which hold together with ``confidence``."""
    alpha = (1 - confidence) / max(1, sum(each.chance for each in found))
    return [_record(each, alpha) for each in found]


def _record(seen: Observed, alpha: float) -> CheckRecord:
    low, high = seen.bounds(alpha)
    value = seen.measured
    below = value is not None and value < low
    above = value is not None and value > high
    grave = (below and seen.refuting in ("below", "both")) or (
        above and seen.refuting in ("above", "both")
    )
    deviates = below or above or (value is not None and not math.isfinite(value))
    return CheckRecord(
        check=seen.check,
        assumption=seen.assumption,
        source="rerun",
        finding="unknown" if value is None else "deviates" if deviates else "holds",
        measure=seen.measure,
        expected=seen.expected,
        measured=None if value is None or not math.isfinite(value) else value,
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        detail=seen.detail,
        refutes=grave or (deviates and value is not None and not math.isfinite(value)),
    )


def exactly(low: float, high: float | None = None) -> Bounds:
    """Bounds that are no matter of chance."""
    most = low if high is None else high
    return lambda alpha: (low, most)


def deviation_bounds(count: int, more: float = 0.0) -> Bounds:
    """Of the root mean square of standard normal numbers: exact, by chi-squared.

    Args:
        more: at most so much may something else than noise have added, in length.
    """

    def bounds(alpha: float) -> tuple[float, float]:
        from scipy.stats import chi2

        low, high = chi2.ppf([alpha / 2, 1 - alpha / 2], count)
        return (
            math.sqrt(low / count) - more,
            math.sqrt(high / count) + more,
        )

    return bounds


def share_bounds(count: int, rate: float) -> Bounds:
    """Of the share of successes in so many trials at ``rate``: exact binomial."""

    def bounds(alpha: float) -> tuple[float, float]:
        from scipy.stats import binom

        low, high = binom.ppf([alpha / 2, 1 - alpha / 2], count, rate)
        return float(low) / count, float(high) / count

    return bounds


def drawn_bounds(draws: Callable[[], Float]) -> Bounds:
    """Of a figure that can be drawn as it is where the assumption holds.

    Args:
        draws: → many draws, the same each time: nothing that was seen decides.
    """

    def bounds(alpha: float) -> tuple[float, float]:
        low, high = np.quantile(draws(), [alpha / 2, 1 - alpha / 2])
        return float(low), float(high)

    return bounds


def normal_bounds() -> Bounds:
    """Of a figure with mean 0 and deviation 1, a sum of so much that it is normal."""

    def bounds(alpha: float) -> tuple[float, float]:
        from scipy.stats import norm

        most = float(norm.ppf(1 - alpha / 2))
        return -most, most

    return bounds


def scaled(bounds: Bounds, factor: float, centre: float) -> Bounds:
    """Of a figure that is ``centre`` and ``factor`` times one with these bounds."""

    def moved(alpha: float) -> tuple[float, float]:
        low, high = bounds(alpha)
        return centre + factor * low, centre + factor * high

    return moved
