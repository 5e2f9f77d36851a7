"""From what was done to what it cost: events → ε, and ε → noise.

In ``common`` because calibration (clients and server), enforcement (clients), the
report and audits all need it. Events say what was done; an accountant turns them
into ε, and a tighter one may later turn the same events into less. Composition is
by privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022, whose
"connect the dots" discretisation only ever rounds ε up).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from common.config import Privacy
from common.errors import ConfigError

if TYPE_CHECKING:
    from dp_accounting.pld.pld_privacy_accountant import PLDAccountant

Unit = Literal["user", "interaction"]
Relation = Literal["add-or-remove-one"]

#: Grid of the privacy loss; a coarser one gives a slightly larger, still valid ε.
FINE_GRID = 1e-4
COARSE_GRID = 1e-3

#: Calibration searches between these: below, ε says nothing and is slow to compute.
LEAST_NOISE, MOST_NOISE = 0.25, 2.0**20


@dataclass(frozen=True)
class DpEvent:
    """``steps`` noisy sums over Poisson samples of the units.

    Attributes:
        noise_multiplier: noise deviation over the clipping norm; 0 is no privacy.
        sample_rate: probability that a unit is in a step's sample, in (0, 1].
        steps: how many sums were released, empty samples included.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    mechanism: Literal["gaussian"] = "gaussian"
    unit: Unit = "user"
    relation: Relation = "add-or-remove-one"


def planned_event(privacy: Privacy, noise_multiplier: float, steps: int) -> DpEvent:
    """What ``steps`` steps under this public configuration amount to."""
    return DpEvent(noise_multiplier, privacy.sample_rate, steps)


def epsilon(events: Sequence[DpEvent], delta: float) -> float:
    """The ε of all ``events`` together at ``delta``; ``inf`` without noise.

    Raises:
        ConfigError: if events of different units would be added.
    """
    if len({event.unit for event in events}) > 1:
        raise ConfigError("Expected events of one privacy unit; units never add up.")
    if any(event.noise_multiplier == 0 and event.steps for event in events):
        return float("inf")
    return _epsilon(tuple(events), delta)


@lru_cache(maxsize=256)
def _epsilon(events: tuple[DpEvent, ...], delta: float) -> float:
    accountant = _accountant(FINE_GRID)
    for event in events:
        if event.steps:
            accountant.compose(_step(event), event.steps)
    return float(accountant.get_epsilon(delta))


def epsilon_path(event: DpEvent, delta: float, num_points: int) -> list[float]:
    """ε after each of ``num_points`` repetitions of ``event``, for display.

    Computed on a coarser grid than :func:`epsilon`, hence an upper bound.
    """
    if event.noise_multiplier == 0:
        return [float("inf")] * num_points
    return list(_epsilon_path(event, delta, num_points))


@lru_cache(maxsize=8)
def _epsilon_path(event: DpEvent, delta: float, num_points: int) -> tuple[float, ...]:
    accountant = _accountant(COARSE_GRID)
    path = []
    for _ in range(num_points):
        accountant.compose(_step(event), event.steps)
        path.append(float(accountant.get_epsilon(delta)))
    return tuple(path)


@lru_cache(maxsize=64)
def calibrate(
    target_epsilon: float, delta: float, sample_rate: float, steps: int
) -> float:
    """The least noise multiplier (to 1e-4) whose ε is at most ``target_epsilon``.

    Never less than ``LEAST_NOISE``, however large the target.

    Raises:
        ConfigError: if no noise up to ``MOST_NOISE`` reaches the target.
    """
    import dp_accounting

    def planned(noise: float) -> DpEvent:
        return DpEvent(noise, sample_rate, steps)

    def event(noise: float) -> Any:
        return dp_accounting.SelfComposedDpEvent(_step(planned(noise)), steps)

    # Doubling from one: an ε at little noise takes seconds, at much noise none.
    low = high = 1.0
    while epsilon([planned(high)], delta) > target_epsilon:
        low, high = high, 2 * high
        if high > MOST_NOISE:
            raise ConfigError(
                f"privacy.target-epsilon: no noise reaches {target_epsilon}; "
                "expected a larger target or fewer steps."
            )
    while epsilon([planned(low)], delta) <= target_epsilon:
        if low <= LEAST_NOISE:
            return low
        low, high = low / 2, low
    found = dp_accounting.calibrate_dp_mechanism(
        lambda: _accountant(FINE_GRID),
        event,
        target_epsilon,
        delta,
        dp_accounting.ExplicitBracketInterval(low, high),
        tol=1e-4,
    )
    return float(found)


def noise_multiplier(privacy: Privacy, steps: int) -> float:
    """The noise this configuration asks for: given, calibrated, or none."""
    if privacy.mode == "off":
        return 0.0
    if privacy.noise_multiplier > 0:
        return privacy.noise_multiplier
    return calibrate(privacy.target_epsilon, privacy.delta, privacy.sample_rate, steps)


def _accountant(grid: float) -> PLDAccountant:
    from dp_accounting.pld.pld_privacy_accountant import PLDAccountant

    return PLDAccountant(value_discretization_interval=grid)


def _step(event: DpEvent) -> Any:
    import dp_accounting

    gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
    if event.sample_rate == 1.0:
        return gaussian
    return dp_accounting.PoissonSampledDpEvent(event.sample_rate, gaussian)
