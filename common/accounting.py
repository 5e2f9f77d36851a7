"""From what was done to what it cost: events → ε, and ε → noise.

In ``common`` because calibration (clients and server), enforcement (clients), the
report and audits all need it. Events say what was done; an accountant turns them
into ε, and a tighter one may later turn the same events into less. Composition is
by privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022, whose
"connect the dots" discretisation only ever rounds ε up). Where Skellam noise is among
the events, all of them compose by Rényi divergences (``renyi.py``), which is looser.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError
from common.events import DpEvent, merged
from common.renyi import curve, epsilon_of, epsilon_renyi, no_cost

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

#: Grid of the privacy loss; a coarser one gives a slightly larger, still valid ε.
FINE_GRID = 1e-4
COARSE_GRID = 1e-3

#: Calibration searches between these: below, ε says nothing and is slow to compute.
LEAST_NOISE, MOST_NOISE = 0.25, 2.0**20
CALIBRATION = 1e-4
GAUSSIAN = DpEvent(1.0, 1.0, 1)

BY_PLD = "privacy loss distributions (dp-accounting PLD)"
BY_RENYI = (
    "Rényi divergences of the integer mechanism, its L1 term included, under Poisson "
    "sampling"
)


def accountant_of(events: Sequence[DpEvent]) -> str:
    """How :func:`epsilon` counts these events, in words."""
    return BY_RENYI if _is_integer(events) else BY_PLD


def epsilon(events: Sequence[DpEvent], delta: float) -> float:
    """The ε of all ``events`` together at ``delta``; ``inf`` without noise.

    Raises:
        ConfigError: if events of different units would be added.
    """
    found = _composable(events)
    if _is_integer(found):
        return _epsilon_rdp(found, delta)
    return _epsilon_pld(found, delta, FINE_GRID)


def epsilon_bound(events: Sequence[DpEvent], delta: float) -> float:
    """A quick upper bound of :func:`epsilon`, on a coarser grid; rarely 1e-4 above.

    Raises:
        ConfigError: if events of different units would be added.
    """
    found = _composable(events)
    if _is_integer(found):
        return _epsilon_rdp(found, delta)
    return _epsilon_pld(found, delta, COARSE_GRID)


def epsilon_rdp(events: Sequence[DpEvent], delta: float) -> float:
    """The same by Rényi divergences (dp-accounting's orders): valid, often loose.

    Shown beside :func:`epsilon` for comparison with systems that count so.

    Raises:
        ConfigError: if events of different units would be added.
    """
    return _epsilon_rdp(_composable(events), delta)


def _composable(events: Sequence[DpEvent]) -> tuple[DpEvent, ...]:
    if len({event.unit for event in events}) > 1:
        raise ConfigError("Expected events of one privacy unit; units never add up.")
    # In one order always: the last digits of a composition depend on it.
    return tuple(sorted(merged(events), key=_order))


def _order(event: DpEvent) -> tuple[float | str, ...]:
    return (
        event.noise_multiplier,
        event.sample_rate,
        event.steps,
        event.mechanism,
        event.l2_sensitivity,
        event.l1_sensitivity,
    )


def _is_integer(events: Sequence[DpEvent]) -> bool:
    """Whether integer noise is among them, of which no loss distribution is known."""
    return any(event.mechanism == "skellam" for event in events)


def _is_bare(events: Sequence[DpEvent]) -> bool:
    """Whether something was released without noise, which costs everything."""
    return any(event.noise_multiplier == 0 and event.steps for event in events)


@lru_cache(maxsize=256)
def _epsilon_rdp(events: tuple[DpEvent, ...], delta: float) -> float:
    from dp_accounting.rdp import RdpAccountant

    if _is_bare(events):
        return math.inf
    if _is_integer(events):
        return epsilon_renyi(events, delta)
    # It warns of each order that it leaves out, which costs nothing but tightness.
    logging.getLogger("absl").setLevel(logging.ERROR)
    accountant = RdpAccountant()
    for event in events:
        if event.steps:
            accountant.compose(_step(event), event.steps)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=256)
def _epsilon_pld(events: tuple[DpEvent, ...], delta: float, grid: float) -> float:
    if _is_bare(events):
        return math.inf
    loss = _identity(grid)
    for event in events:
        loss = loss.compose(_loss(event, grid))
    return float(loss.get_epsilon_for_delta(delta))


def epsilon_path(batches: Sequence[Sequence[DpEvent]], delta: float) -> list[float]:
    """ε after each batch of events, for display.

    Computed on a coarser grid than :func:`epsilon`, hence an upper bound; by Rényi
    divergences all along where any event is integer noise.
    """
    noisy = 0
    while noisy < len(batches) and all(e.noise_multiplier for e in batches[noisy]):
        noisy += 1
    done = tuple(map(tuple, batches[:noisy]))
    if any(map(_is_integer, done)):
        path = _renyi_path(done, delta)
    else:
        path = _epsilon_path(done, delta)
    return [*path, *[float("inf")] * (len(batches) - noisy)]


@lru_cache(maxsize=8)
def _epsilon_path(
    batches: tuple[tuple[DpEvent, ...], ...], delta: float
) -> tuple[float, ...]:
    loss, path = _identity(COARSE_GRID), []
    for batch in batches:
        for event in batch:
            loss = loss.compose(_loss(event, COARSE_GRID))
        path.append(float(loss.get_epsilon_for_delta(delta)))
    return tuple(path)


@lru_cache(maxsize=8)
def _renyi_path(
    batches: tuple[tuple[DpEvent, ...], ...], delta: float
) -> tuple[float, ...]:
    spent, path = no_cost(), []
    for batch in batches:
        spent = sum((curve(event) for event in batch), spent)
        path.append(epsilon_of(spent, delta))
    return tuple(path)


def _identity(grid: float) -> PrivacyLossDistribution:
    from dp_accounting.pld import privacy_loss_distribution as pld

    return pld.identity(value_discretization_interval=grid)


def _loss(event: DpEvent, grid: float) -> PrivacyLossDistribution:
    """The loss distribution of an event, as dp-accounting's accountant has it."""
    if not event.steps:
        return _identity(grid)
    if event.sample_rate == 1.0:
        # Gaussians compose to a Gaussian.
        return _step_loss(event.noise_multiplier / math.sqrt(event.steps), 1.0, grid)
    one = _step_loss(event.noise_multiplier, event.sample_rate, grid)
    return one.self_compose(event.steps)


@lru_cache(maxsize=32)
def _step_loss(noise: float, rate: float, grid: float) -> PrivacyLossDistribution:
    """The loss distribution of a step; most of the time goes into making it."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    return pld.from_gaussian_mechanism(
        standard_deviation=noise, value_discretization_interval=grid, sampling_prob=rate
    )


@lru_cache(maxsize=64)
def calibrate(
    target_epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    beside: tuple[DpEvent, ...] = (),
    kind: DpEvent = GAUSSIAN,
) -> float:
    """The least noise multiplier whose ε is at most the target, to ``CALIBRATION``.

    Args:
        beside: further events that the same target has to cover.
        kind: mechanism, sensitivities and unit of the steps; nothing else of it
            matters.

    Never less than ``LEAST_NOISE``, however large the target.

    Raises:
        ConfigError: if no noise up to ``MOST_NOISE`` reaches the target.
    """
    from scipy.optimize import brentq

    def planned(noise: float) -> list[DpEvent]:
        one = replace(
            kind, noise_multiplier=noise, sample_rate=sample_rate, steps=steps
        )
        return [one, *beside]

    def excess(noise: float) -> float:
        return epsilon(planned(noise), delta) - target_epsilon

    # Rényi first: a loss distribution of far too little noise takes gigabytes.
    high = LEAST_NOISE
    while epsilon_rdp(planned(high), delta) > target_epsilon and high < MOST_NOISE:
        high *= 2
    while excess(high) > 0:
        high *= 2
        if high > MOST_NOISE:
            raise ConfigError(
                f"privacy.target-epsilon: no noise reaches {target_epsilon}; "
                "expected a larger target or fewer steps."
            )
    low = high / 2
    while low >= LEAST_NOISE and excess(low) <= 0:
        low, high = low / 2, low
    if low < LEAST_NOISE:
        return high
    found = float(brentq(excess, low, high, xtol=CALIBRATION / 2))
    while excess(found) > 0:
        found += CALIBRATION / 2
    return found


def _step(event: DpEvent) -> Any:
    import dp_accounting

    gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
    if event.sample_rate == 1.0:
        return gaussian
    return dp_accounting.PoissonSampledDpEvent(event.sample_rate, gaussian)
