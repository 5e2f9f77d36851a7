"""From what was done to what it cost: events → ε, and ε → noise.

In ``common`` because calibration (clients and server), enforcement (clients), the
report and audits all need it. Events say what was done; an accountant turns them
into ε, and a tighter one may later turn the same events into less. Composition is
by privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022, whose
"connect the dots" discretisation only ever rounds ε up).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from common.config import RunConfig
from common.errors import ConfigError

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

#: What a round of each kind releases; the keys are Flower's message types.
Releases = dict[str, "DpEvent"]
Unit = Literal["user", "interaction"]
Relation = Literal["add-or-remove-one"]

#: Grid of the privacy loss; a coarser one gives a slightly larger, still valid ε.
FINE_GRID = 1e-4
COARSE_GRID = 1e-3

#: Calibration searches between these: below, ε says nothing and is slow to compute.
LEAST_NOISE, MOST_NOISE = 0.25, 2.0**20
CALIBRATION = 1e-4


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


def releases(config: RunConfig, noise_multiplier: float, number: int) -> Releases:
    """What a client releases in round ``number`` under this public configuration."""
    found = {
        "train": DpEvent(
            noise_multiplier, config.privacy.sample_rate, config.training.local_steps
        )
    }
    metrics = config.client_metrics
    if metrics.every and number % metrics.every == 0:
        private = config.privacy.mode != "off"
        found["evaluate"] = DpEvent(
            metrics.noise_multiplier if private else 0.0, 1.0, 1
        )
    return found


def planned_events(config: RunConfig, noise_multiplier: float) -> tuple[DpEvent, ...]:
    """What the whole run amounts to, one event a mechanism: training comes first."""
    rounds, every = config.training.rounds, config.client_metrics.every
    found = releases(config, noise_multiplier, every or 1)
    counts = {"train": rounds, "evaluate": rounds // every if every else 0}
    return tuple(
        replace(event, steps=event.steps * counts[kind])
        for kind, event in found.items()
        if counts[kind]
    )


def merged(events: Sequence[DpEvent]) -> tuple[DpEvent, ...]:
    """Equal mechanisms as one event with their steps added, in order of appearance.

    Composition is the same, its cost and its last digits do not depend on how the
    steps were cut into rounds.
    """
    steps: dict[DpEvent, int] = {}
    for event in events:
        kind = replace(event, steps=0)
        steps[kind] = steps.get(kind, 0) + event.steps
    return tuple(replace(kind, steps=count) for kind, count in steps.items())


def epsilon(events: Sequence[DpEvent], delta: float) -> float:
    """The ε of all ``events`` together at ``delta``; ``inf`` without noise.

    Raises:
        ConfigError: if events of different units would be added.
    """
    return _total(events, delta, "pld")


def epsilon_bound(events: Sequence[DpEvent], delta: float) -> float:
    """A quick upper bound of :func:`epsilon`, on a coarser grid; rarely 1e-4 above.

    Raises:
        ConfigError: if events of different units would be added.
    """
    return _total(events, delta, "pld, coarse")


def epsilon_rdp(events: Sequence[DpEvent], delta: float) -> float:
    """The same by Rényi divergences (dp-accounting's orders): valid, often loose.

    Shown beside :func:`epsilon` for comparison with systems that count so.

    Raises:
        ConfigError: if events of different units would be added.
    """
    return _total(events, delta, "rdp")


def _total(events: Sequence[DpEvent], delta: float, accountant: str) -> float:
    if len({event.unit for event in events}) > 1:
        raise ConfigError("Expected events of one privacy unit; units never add up.")
    if any(event.noise_multiplier == 0 and event.steps for event in events):
        return float("inf")
    return ACCOUNTANTS[accountant](merged(events), delta)


@lru_cache(maxsize=256)
def _epsilon_rdp(events: tuple[DpEvent, ...], delta: float) -> float:
    from dp_accounting.rdp import RdpAccountant

    # It warns of each order that it leaves out, which costs nothing but tightness.
    logging.getLogger("absl").setLevel(logging.ERROR)
    accountant = RdpAccountant()
    for event in events:
        if event.steps:
            accountant.compose(_step(event), event.steps)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=256)
def _epsilon_pld(events: tuple[DpEvent, ...], delta: float, grid: float) -> float:
    loss = _identity(grid)
    for event in events:
        loss = loss.compose(_loss(event, grid))
    return float(loss.get_epsilon_for_delta(delta))


ACCOUNTANTS: dict[str, Callable[[tuple[DpEvent, ...], float], float]] = {
    "pld": lambda events, delta: _epsilon_pld(events, delta, FINE_GRID),
    "pld, coarse": lambda events, delta: _epsilon_pld(events, delta, COARSE_GRID),
    "rdp": lambda events, delta: _epsilon_rdp(events, delta),
}


def epsilon_path(batches: Sequence[Sequence[DpEvent]], delta: float) -> list[float]:
    """ε after each batch of events, for display.

    Computed on a coarser grid than :func:`epsilon`, hence an upper bound.
    """
    noisy = 0
    while noisy < len(batches) and all(e.noise_multiplier for e in batches[noisy]):
        noisy += 1
    path = _epsilon_path(tuple(map(tuple, batches[:noisy])), delta)
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
) -> float:
    """The least noise multiplier whose ε is at most the target, to ``CALIBRATION``.

    Args:
        beside: further events that the same target has to cover.

    Never less than ``LEAST_NOISE``, however large the target.

    Raises:
        ConfigError: if no noise up to ``MOST_NOISE`` reaches the target.
    """
    from scipy.optimize import brentq

    def planned(noise: float) -> list[DpEvent]:
        return [DpEvent(noise, sample_rate, steps), *beside]

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


def noise_multiplier(config: RunConfig) -> float:
    """The noise of training this configuration asks for: given, calibrated, or none."""
    privacy = config.privacy
    if privacy.mode == "off":
        return 0.0
    if privacy.noise_multiplier > 0:
        return privacy.noise_multiplier
    training, *beside = planned_events(config, 0.0)
    return calibrate(
        privacy.target_epsilon,
        privacy.delta,
        privacy.sample_rate,
        training.steps,
        tuple(beside),
    )


def event_record(event: DpEvent) -> dict[str, Any]:
    """The event as ``dp-accounting`` writes it: class names and fields, for JSON."""
    mechanism: dict[str, Any] = {
        "class_name": "GaussianDpEvent",
        "noise_multiplier": event.noise_multiplier,
    }
    if event.sample_rate < 1.0:
        mechanism = {
            "class_name": "PoissonSampledDpEvent",
            "sampling_probability": event.sample_rate,
            "event": mechanism,
        }
    return {
        "class_name": "SelfComposedDpEvent",
        "event": mechanism,
        "count": event.steps,
    }


def read_event(record: Mapping[str, Any], unit: Unit, relation: Relation) -> DpEvent:
    """The event that :func:`event_record` wrote.

    Raises:
        KeyError, TypeError, ValueError: if the record is of another form.
    """
    mechanism, rate = record["event"], 1.0
    if mechanism["class_name"] == "PoissonSampledDpEvent":
        rate, mechanism = float(mechanism["sampling_probability"]), mechanism["event"]
    event = DpEvent(
        float(mechanism["noise_multiplier"]),
        rate,
        int(record["count"]),
        unit=unit,
        relation=relation,
    )
    if event_record(event) != record:
        raise ValueError("Expected a sampled Gaussian event.")
    return event


def _step(event: DpEvent) -> Any:
    import dp_accounting

    gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
    if event.sample_rate == 1.0:
        return gaussian
    return dp_accounting.PoissonSampledDpEvent(event.sample_rate, gaussian)
