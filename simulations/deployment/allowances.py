"""What the clients of a deployment allow at first, and how that is not the default.

Simulations only: it writes for every owner at once. A real owner's budget is a number
that somebody stated, ``privacy.target-epsilon``; noise never comes from a seed. What
is looser or tighter than what ``client`` has by default is said, each time it is
written.
"""

from __future__ import annotations

import tomli_w

from client.settings import Budget, ClientSettings, read_settings
from common.accounting import LEAST_NOISE, epsilon
from common.config import RunConfig
from common.durable_files import write_durably
from common.errors import ConfigError
from common.plan import noise_multiplier, planned_events
from common.promise import round_up
from simulations.deployment.layout import ClientPlace


def check_allowance(config: RunConfig) -> None:
    """Whether the clients of a deployment may be set up for this run.

    Raises:
        ConfigError: if its noise comes from a seed, or it costs more than the budget
            that it states.
    """
    if config.run.seed >= 0:
        raise ConfigError(
            f"run.seed: expected -1 for a deployment, got {config.run.seed}: whoever "
            "knows the seed of a client's noise removes it. Take the key out of the "
            "configuration, or simulate."
        )
    fixed = config.privacy.noise_multiplier or config.statistics.noise_multiplier
    if config.privacy.mode == "off" or not fixed:
        return
    cost = epsilon(
        planned_events(config, noise_multiplier(config)), config.privacy.delta
    )
    if cost > config.privacy.target_epsilon:
        raise ConfigError(
            "privacy.target-epsilon: expected the budget that every client is to "
            f"have, at least ε = {round_up(cost)}, which this run with its fixed noise "
            f"costs; got {config.privacy.target_epsilon}. Raise it if owners agree to "
            "that, or leave the noise multipliers at 0."
        )


def write_allowance(place: ClientPlace, config: RunConfig) -> None:
    """A client's settings, its budget the one that the run's configuration states.

    Args:
        config: one that passed :func:`check_allowance`.
    """
    # Only here: polars takes its time.
    from simulations.partition import owners_settings

    target = config.privacy.target_epsilon
    text = tomli_w.dumps(owners_settings(place.name, config, target))
    write_durably(place.settings, text.encode())


def deviations(place: ClientPlace) -> tuple[str, ...]:
    """What a client's settings allow otherwise than by default, for the operator."""
    settings = read_settings(place.folder)
    notes = [
        note
        for unit, budget in settings.budget.items()
        for note in _budget(unit, budget)
    ]
    if settings.least_noise_multiplier != LEAST_NOISE:
        notes.append(
            "The clients' settings take noise multipliers from "
            f"{settings.least_noise_multiplier:g} on (by default {LEAST_NOISE:g})."
        )
    if settings.allow_non_private:
        notes.append("The clients' settings allow NOT PRIVATE training.")
    return (*notes, *_trust(settings), *_seed(settings))


def _trust(settings: ClientSettings) -> list[str]:
    limits = settings.distributed
    if limits is None:
        return []
    notes = [
        "The clients' settings let a run lean on others (mode distributed): at most "
        f"{limits.most_clients} of them, {limits.least_threshold:.0%} finishing, at "
        f"least {limits.least_corrupt:.0%} taken for in league with the server (by "
        "default the mode is refused)."
    ]
    if not limits.roster:
        notes.append(
            "They ask for no roster: a server that makes up the other clients reads "
            "each client's update."
        )
    return notes


def _budget(unit: str, budget: Budget) -> list[str]:
    usual, notes = Budget(), []
    given = (budget.target_epsilon, budget.delta)
    if unit != "user" or given != (usual.target_epsilon, usual.delta):
        whose, before = ("", "") if unit == "user" else (f" per {unit}", " per user")
        notes.append(
            f"The clients' budget{whose} is ε = {given[0]:g} at δ = {given[1]:g} (by "
            f"default {usual.target_epsilon:g} at {usual.delta:g}{before})."
        )
    if budget.metrics_epsilon:
        notes.append(
            f"Of it, ε = {budget.metrics_epsilon:g} may go to metrics (by default "
            "none)."
        )
    return notes


def _seed(settings: ClientSettings) -> list[str]:
    if settings.seed is None:
        return []
    return [
        f"The clients' settings take noise from seed {settings.seed}: whoever knows it "
        "removes the noise. For tests only."
    ]
