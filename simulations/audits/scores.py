"""What released numbers say of each target: one statistic a target and viewpoint.

Simulations only. A target is a canary or a user; its statistic is larger where it seems
to be in. Of noised sums it is the likelihood ratio's exponent: the product of what the
target would have added with what came beyond expectation, over the noise's variance
(Neyman and Pearson). Of students it is how much better they know the target's items
than a student of a run without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from client.evaluate import HELD
from client.randomness import seeded_stream
from client.statistics import pair_sums, sketch_sum
from client.train import split
from common import wire
from common.config import RunConfig
from common.distillation import distillation_loss
from common.metrics import evaluate_ranking
from common.plan import releases, statistics_noise
from common.recommend import score_histories
from common.statistics import pair_shapes
from common.student import StateDict, Student, StudentSpec, build
from simulations.audits.gradients import USERS, Gradients, log_likelihood
from simulations.audits.transcript import Exchange, exchanges
from simulations.audits.world import World

Float = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


#: Draws of held items that a user's metrics are a mean of.
METRIC_MASKS = 4


@dataclass(frozen=True)
class Targets:
    """Who is looked for.

    Attributes:
        client: int64 ``[m]``, place of the client that may hold it.
        present, absent: its user's rows if it is in and if not, CSR ``[m, n]``.
        known: by client, rows that are there in any case, CSR.
    """

    client: IntArray
    present: sp.csr_matrix
    absent: sp.csr_matrix
    known: tuple[sp.csr_matrix, ...]

    def at(self, client: int) -> Targets:
        """One client's."""
        chosen = np.flatnonzero(self.client == client)
        return Targets(
            self.client[chosen],
            self.present[chosen],
            self.absent[chosen],
            (self.known[client],),
        )

    def expected(self, total: Callable[[sp.csr_matrix], Float]) -> Float:
        """A linear sum over the known rows, and half of each target's two."""
        (known,) = self.known
        found: Float = total(known) + (total(self.present) + total(self.absent)) / 2
        return found


#: A client's answer → statistic of each of its targets.
Channel = Callable[[World, Exchange, str, Targets], Float]


def server_scores(world: World, recording: Path, targets: Targets) -> Float:
    """The statistic of whoever sees each client's own answers, float64 ``[m]``.

    Channels are added: each is a log-likelihood ratio by itself. Where nothing is
    noised there is no such scale, and each is brought to deviation 1 instead.
    """
    total = np.zeros(len(targets.client))
    private = world.config.privacy.mode != "off"
    for exchange in exchanges(recording):
        channel = CHANNELS.get(exchange.kind)
        if channel is None:
            continue
        found = np.zeros_like(total)
        for place, client in enumerate(world.clients):
            chosen = targets.client == place
            # Who did not answer said nothing.
            if chosen.any() and client.name in exchange.answers:
                own = targets.at(place)
                found[chosen] = channel(world, exchange, client.name, own)
        if not private:
            found /= max(float(found.std()), 1e-12)
        total += found
    return total


def _pairs(world: World, exchange: Exchange, client: str, targets: Targets) -> Float:
    """Counts and pairs of items."""
    chosen = exchange.sent[f"{wire.ITEMS}/chosen"] == 1
    share = world.config.statistics.counts_share
    size = int(chosen.sum())

    def exact(rows: sp.csr_matrix) -> Float:
        found = pair_sums(rows, chosen, share, 0.0, seeded_stream(0))
        return np.concatenate([found.counts, found.pairs]).astype(np.float64)

    answer = exchange.answers[client]
    parts = [answer[f"{wire.PAIRS}/{name}"] for name in pair_shapes(size)]
    beyond = np.concatenate(parts) - targets.expected(exact)
    matrix = np.zeros((size, size))
    matrix[np.triu_indices(size, 1)] = beyond[size:]
    matrix += matrix.T

    def along(rows: sp.csr_matrix) -> Float:
        own = rows[:, np.flatnonzero(chosen)].astype(np.float64)
        length = np.diff(own.indptr).astype(np.float64)
        counts = (own @ beyond[:size]) * np.sqrt(share / np.maximum(length, 1))
        both = np.asarray(own.multiply(own @ matrix).sum(axis=1)).ravel() / 2
        pairs = np.maximum(length * (length - 1) / 2, 1)
        found: Float = counts + both * np.sqrt((1 - share) / pairs)
        return found

    noise = statistics_noise(world.config).pairs or 1.0
    return (along(targets.present) - along(targets.absent)) / noise**2


def _sketch(world: World, exchange: Exchange, client: str, targets: Targets) -> Float:
    """Pairs along the directions that the server chose."""
    chosen = exchange.sent[f"{wire.ITEMS}/chosen"] == 1
    directions = exchange.sent[f"{wire.DIRECTIONS}/directions"]

    def exact(rows: sp.csr_matrix) -> Float:
        found = sketch_sum(rows, chosen, directions, 0.0, seeded_stream(0))
        return found.astype(np.float64)

    answer = exchange.answers[client][f"{wire.SKETCH_SUM}/sketch"]
    beyond = answer - targets.expected(exact)

    def along(rows: sp.csr_matrix) -> Float:
        own = rows[:, np.flatnonzero(chosen)].astype(np.float64)
        user = np.repeat(np.arange(own.shape[0]), np.diff(own.indptr))
        added = (own @ directions)[user] - directions[own.indices]
        norm = np.sqrt(np.bincount(user, (added**2).sum(axis=1), own.shape[0]))
        products = (added * beyond[own.indices]).sum(axis=1)
        # Of nobody's rows it would be of integers.
        found = np.bincount(user, products, own.shape[0]).astype(np.float64)
        return np.divide(found, norm, out=np.zeros_like(found), where=norm > 0)

    noise = statistics_noise(world.config).sketch or 1.0
    return (along(targets.present) - along(targets.absent)) / noise**2


def _updates(world: World, exchange: Exchange, client: str, targets: Targets) -> Float:
    """A round's update of the client: the noisy sum of clipped gradients behind it."""
    config = world.config
    gradients = gradients_at(world.spec, exchange.student, config)
    steps = config.training.local_steps
    expected = steps * config.privacy.sample_rate
    beyond = noisy_sum(exchange, client, world.spec, config)
    (known,) = targets.known
    parts = ((known, 1.0), (targets.present, 0.5), (targets.absent, 0.5))
    for rows, weight in parts:
        for name, value in gradients.sum(rows).items():
            beyond[name] -= value * (expected * weight)
    off = config.privacy.mode == "off"
    deviation = 1.0 if off else world.noise * config.privacy.max_grad_norm
    found = gradients.along(targets.present, beyond)
    found -= gradients.along(targets.absent, beyond)
    # What a sampled target adds is there in a share of the steps alone.
    return found * (config.privacy.sample_rate / deviation**2)


def _metrics(world: World, exchange: Exchange, client: str, targets: Targets) -> Float:
    """Sums of metrics over users: three numbers, in which all users blur each other."""
    student = build(world.spec, exchange.student)

    def each(rows: sp.csr_matrix) -> Float:
        return metric_values(student, rows)

    answer = exchange.answers[client][f"{wire.METRICS}/sums"].astype(np.float64)
    present, absent = each(targets.present), each(targets.absent)
    (known,) = targets.known
    expected = each(known).sum(axis=0) + (present.sum(axis=0) + absent.sum(axis=0)) / 2
    event = releases(world.config, 0.0, exchange.number)[wire.EVALUATE]
    noise = event.noise_multiplier * wire.METRIC_NORM or 1.0
    found: Float = (present - absent) @ (answer - expected) / noise**2
    return found


def metric_values(student: Student, rows: sp.csr_matrix) -> Float:
    """What each user adds to the sums on average, float64 ``[B, metrics + 1]``.

    Which items are held is drawn by the client; an attacker takes the mean of some
    draws. No user is beyond the clip: a metric is at most 1.
    """
    drawn = [
        _metrics_of(student, *split(rows, HELD, seeded_stream(0, str(mask))))
        for mask in range(METRIC_MASKS)
    ]
    return np.asarray(np.mean(drawn, axis=0))


def _metrics_of(student: Student, shown: sp.csr_matrix, held: sp.csr_matrix) -> Float:
    """Metrics and a one; all 0 for a user of whom nothing is held."""
    if not shown.shape[0]:
        return np.zeros((0, len(wire.METRIC_NAMES) + 1))
    score = score_histories(student, shown)
    found = evaluate_ranking(
        score, shown, held, batch_size=USERS, metrics=wire.METRIC_NAMES
    )
    values = [found[name] for name in wire.METRIC_NAMES]
    whole: Float = np.nan_to_num(np.column_stack([*values, np.diff(held.indptr) > 0]))
    return whole


#: Message type → its channel.
CHANNELS: dict[str, Channel] = {
    wire.STATISTICS: _pairs,
    wire.SKETCH: _sketch,
    wire.TRAIN: _updates,
    wire.EVALUATE: _metrics,
}


def gradients_at(
    spec: StudentSpec, state: StateDict, config: RunConfig, seed: int = 0
) -> Gradients:
    """Users' clipped gradients at a student, as this run clips them."""
    off = config.privacy.mode == "off"
    clip = math.inf if off else config.privacy.max_grad_norm
    return Gradients(spec, state, config.training.target_fraction, clip, seed)


def noisy_sum(
    exchange: Exchange, client: str, spec: StudentSpec, config: RunConfig
) -> StateDict:
    """The noisy sum of gradients behind an update, by what everybody knows of a step.

    ``update = −rate · Σ steps (sum / denominator + distillation)``; with several local
    steps the distillation is taken at the student that was sent.
    """
    privacy, training = config.privacy, config.training
    denominator = privacy.sample_rate * privacy.declared_users
    update = exchange.update(client)
    found = {
        name: value * (-denominator / training.learning_rate)
        for name, value in update.items()
    }
    labels = exchange.soft_labels
    if labels is None or not config.distillation.weight:
        return found
    student = build(spec, exchange.student)
    loss = distillation_loss(student, labels, config.distillation)
    torch.autograd.backward([loss()])
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            found[name] -= parameter.grad * (denominator * training.local_steps)
    return found


def student_scores(
    world: World,
    found: Sequence[StateDict],
    reference: Sequence[StateDict],
    targets: Targets,
) -> Float:
    """How much better students know each target's items than a run's without it.

    Args:
        found: the students of the attacked run.
        reference: as many of a run in which no target was.

    Returns:
        Mean gain in log-likelihood, float64 ``[m]``.
    """
    total = np.zeros(len(targets.client))
    for state, other in zip(found, reference, strict=True):
        for rows, sign in ((targets.present, 1.0), (targets.absent, -1.0)):
            gain = knowledge(world, state, rows) - knowledge(world, other, rows)
            total += sign * gain
    return total / max(1, len(found))


def knowledge(world: World, state: StateDict, rows: sp.csr_matrix) -> Float:
    """Mean log-probability that a student gives users' items, float64 ``[B]``."""
    fraction = world.config.training.target_fraction
    return log_likelihood(world.spec, state, rows, fraction)
