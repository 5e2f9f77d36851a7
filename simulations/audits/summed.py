"""What a secure sum says of each target: the server's seat in mode ``distributed``.

Simulations only. The server learns one decoded sum a round, and whose vectors are in
it. A client's whole update is clipped and is there with the probability of its own
coin; a client without rows adds noise like the others. So a target's statistic is the
likelihood ratio's exponent, as in ``scores.py``, of the one answer that there is: its
expected update times what came beyond the expectation of all, over the noise's variance
(Neyman and Pearson). The variance is what the survivors' shares add up to, all of them:
more than is accounted, since nobody is thought to be in league with the server.

What a client's steps change is taken at the student that was sent: as many times the
first step, in the closed form of ``gradients.py``. With one step and one user a client
that is exact but for the masks, over which it is averaged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from common import wire
from common.config import RunConfig
from common.integer_noise import SumPlan, sum_plan
from common.secure_round import num_parameters
from common.student import StateDict, shapes
from server.kept_answers import SUM, SURVIVORS
from simulations.audits.gradients import Gradients
from simulations.audits.scores import Targets, server_scores
from simulations.audits.transcript import Exchange, exchanges
from simulations.audits.world import World
from simulations.engine import FIRST_CLIENT_NODE

Float = npt.NDArray[np.float64]


def is_summed(config: RunConfig) -> bool:
    """Whether the server sees sums alone."""
    return config.privacy.mode == "distributed"


def step_of(config: RunConfig) -> float:
    """What a client's whole update is of its users' gradients, but for the clip."""
    training = config.training
    rate = training.learning_rate * training.local_steps
    return rate / config.privacy.declared_users


def gradient_clip(config: RunConfig) -> float:
    """The length of a gradient whose update is as long as the clip."""
    return config.privacy.max_grad_norm / step_of(config)


def seen_scores(world: World, recording: Path, targets: Targets) -> Float:
    """The statistic of whoever sits where the server does, float64 ``[m]``."""
    seen = summed_scores if is_summed(world.config) else server_scores
    return seen(world, recording, targets)


def summed_scores(world: World, recording: Path, targets: Targets) -> Float:
    """The statistic of whoever sees the decoded sum of each round, float64 ``[m]``."""
    total = np.zeros(len(targets.client))
    for exchange in exchanges(recording):
        # A discarded round has no sum.
        if exchange.kind == wire.TRAIN and SUM in exchange.answers:
            total += _of_sum(world, exchange, targets)
    return total


def sum_plan_of(world: World) -> SumPlan:
    """The plan of the run's sums."""
    dim = num_parameters(shapes(world.spec).values())
    return sum_plan(world.config, world.noise, dim)


def _of_sum(world: World, exchange: Exchange, targets: Targets) -> Float:
    config, plan = world.config, sum_plan_of(world)
    survivors = exchange.answers[SUM][SURVIVORS].astype(np.int64)
    inside = np.isin(FIRST_CLIENT_NODE + np.arange(len(world.clients)), survivors)
    gradients = Gradients(
        world.spec,
        exchange.student,
        config.training.target_fraction,
        gradient_clip(config),
    )
    there = inside[targets.client]
    beyond = {
        name: value * plan.expected for name, value in exchange.update(SUM).items()
    }
    # An update goes against its gradient.
    expected = -plan.rate * step_of(config)
    known = [rows for rows, yes in zip(targets.known, inside, strict=True) if yes]
    halves = [targets.present[there], targets.absent[there]]
    for weight, part in (
        *((1.0, each) for each in _clients_gradients(gradients, known, config)),
        *((0.5, gradients.sum(rows)) for rows in halves),
    ):
        for name, value in part.items():
            beyond[name] -= value * (expected * weight)
    variance = plan.share * len(survivors) / plan.grid.scale**2
    found = gradients.along(targets.present, beyond)
    found -= gradients.along(targets.absent, beyond)
    scores: Float = found * (expected / variance) * there
    return scores


def _clients_gradients(
    gradients: Gradients, known: Sequence[sp.csr_matrix], config: RunConfig
) -> Iterator[StateDict]:
    """The clipped gradients of whole clients, those of one user all together."""
    single = [rows for rows in known if rows.shape[0] == 1]
    if single:
        yield gradients.sum(sp.vstack(single, format="csr"))
    if config.privacy.declared_users == 1:
        # Others than those of one user add noise alone.
        return
    free = Gradients(
        gradients.spec, gradients.state, gradients.target_fraction, math.inf
    )
    for rows in known:
        if rows.shape[0] > 1:
            yield _clipped(free.sum(rows), gradients.max_grad_norm)


def _clipped(gradient: StateDict, clip: float) -> StateDict:
    norm = math.sqrt(sum(float(each.square().sum()) for each in gradient.values()))
    factor = min(1.0, clip / norm) if norm else 1.0
    return {name: torch.mul(value, factor) for name, value in gradient.items()}
