"""What a run releases: its configuration as events, and the noise they ask for.

In ``common`` because the client charges these events, the server announces them and
reports state them; all must derive the same from the same public configuration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from common.accounting import CALIBRATION, calibrate, epsilon
from common.config import RunConfig
from common.events import DpEvent
from common.integer_noise import sum_event
from common.sections import Statistics
from common.wire import EVALUATE, SKETCH, STATISTICS, TRAIN

#: What a round of each kind releases; the keys are Flower's message types.
Releases = dict[str, DpEvent]


def releases(config: RunConfig, noise_multiplier: float, number: int) -> Releases:
    """What a client releases in round ``number`` under this public configuration.

    Args:
        noise_multiplier: of training.
        number: from 1. The statistics belong to the first round, whether or not any
            training follows.
    """
    found = {}
    private = config.privacy.mode != "off"
    if config.statistics.share and number == 1:
        noise = statistics_noise(config)
        found[STATISTICS] = DpEvent(noise.pairs, 1.0, 1)
        if config.statistics.sketch_share:
            found[SKETCH] = DpEvent(noise.sketch, 1.0, 1)
    if number <= config.training.rounds:
        found[TRAIN] = training_event(config, noise_multiplier)
    metrics = config.client_metrics
    if metrics.every and number % metrics.every == 0:
        found[EVALUATE] = DpEvent(metrics.noise_multiplier if private else 0.0, 1.0, 1)
    return found


def training_event(config: RunConfig, noise_multiplier: float) -> DpEvent:
    """What a round of training releases.

    Noisy steps of each client, or one noisy sum of all their updates (mode
    ``distributed``), whatever steps a client makes without noise before.
    """
    if config.privacy.mode == "distributed":
        return sum_event(config, noise_multiplier)
    return DpEvent(
        noise_multiplier, config.privacy.sample_rate, config.training.local_steps
    )


def planned_releases(config: RunConfig, noise_multiplier: float) -> Releases:
    """What the whole run amounts to, one event a kind of message."""
    rounds, every = config.training.rounds, config.client_metrics.every
    counts = {STATISTICS: 1, SKETCH: 1, TRAIN: rounds}
    counts[EVALUATE] = rounds // every if every else 0
    found = releases(config, noise_multiplier, 1)
    if counts[EVALUATE]:
        found |= {EVALUATE: releases(config, noise_multiplier, every)[EVALUATE]}
    return {
        kind: replace(event, steps=event.steps * counts[kind])
        for kind, event in found.items()
        if counts[kind]
    }


def planned_events(config: RunConfig, noise_multiplier: float) -> tuple[DpEvent, ...]:
    """The events of :func:`planned_releases`."""
    return tuple(planned_releases(config, noise_multiplier).values())


@dataclass(frozen=True)
class StatisticsNoise:
    """Noise multipliers of the two sums of statistics; 0 in mode off."""

    pairs: float
    sketch: float


def statistics_noise(config: RunConfig) -> StatisticsNoise:
    """The noise of the statistics, shared out so that together they cost their share.

    Gaussians compose to a Gaussian: 1/σ² of the whole is the sum of both (Dong, Roth &
    Su 2019, corollary 3.3).
    """
    return shared_out(config.statistics, total_statistics_noise(config))


def shared_out(settings: Statistics, whole: float) -> StatisticsNoise:
    """The noise of both sums from that of one Gaussian that costs as much."""
    sketch = settings.sketch_share
    return StatisticsNoise(
        whole / math.sqrt(1 - sketch), whole / math.sqrt(sketch) if sketch else 0.0
    )


def total_statistics_noise(config: RunConfig) -> float:
    """The noise of one Gaussian that costs as much: given, calibrated, or none."""
    settings, privacy = config.statistics, config.privacy
    if privacy.mode == "off" or not settings.share:
        return 0.0
    if settings.noise_multiplier > 0:
        return settings.noise_multiplier
    target = privacy.target_epsilon * settings.share
    whole = calibrate(target, privacy.delta, 1.0, 1)
    # Two events are charged, whose composition rounds otherwise than one.
    step = CALIBRATION / 2
    while epsilon(_gaussians(settings, whole), privacy.delta) > target:
        whole, step = whole + step, 2 * step
    return whole


def _gaussians(settings: Statistics, whole: float) -> list[DpEvent]:
    noise = shared_out(settings, whole)
    return [DpEvent(each, 1.0, 1) for each in (noise.pairs, noise.sketch) if each]


def noise_multiplier(config: RunConfig) -> float:
    """The noise of training this configuration asks for: given, calibrated, or none."""
    privacy = config.privacy
    if privacy.mode == "off" or not config.training.rounds:
        return 0.0
    if privacy.noise_multiplier > 0:
        return privacy.noise_multiplier
    planned = planned_releases(config, 0.0)
    training = planned.pop(TRAIN)
    return calibrate(
        privacy.target_epsilon,
        privacy.delta,
        privacy.sample_rate,
        training.steps,
        tuple(planned.values()),
        training,
    )
