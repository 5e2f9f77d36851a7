"""One client's training: private steps on its rows, distilling as it goes.

Client only. One sample is one user: part of the user's items is masked and to be
ranked from the rest (multinomial loss). Distillation's gradient touches public
proxy users alone and is added after the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy.sparse as sp
import torch
from torch import Tensor

from client.dp import Mechanism, PrivateSteps, draw_users
from client.randomness import RandomStream
from common.config import RunConfig
from common.distillation import distillation_loss
from common.losses import multinomial
from common.soft_labels import SoftLabels
from common.student import StateDict, Student, is_bounded


@dataclass(frozen=True)
class Streams:
    """Separate randomness for who is sampled, what is masked, and noise."""

    sampling: RandomStream
    masking: RandomStream
    noise: RandomStream


def mechanism_of(config: RunConfig, noise_multiplier: float) -> Mechanism:
    """The public constants of this run's steps; mode ``off`` clips nothing."""
    privacy = config.privacy
    private = privacy.mode != "off"
    return Mechanism(
        noise_multiplier if private else 0.0,
        privacy.max_grad_norm if private else math.inf,
        privacy.sample_rate,
        privacy.declared_users,
    )


def train(
    student: Student,
    histories: sp.csr_matrix,
    labels: SoftLabels | None,
    config: RunConfig,
    mechanism: Mechanism,
    streams: Streams,
) -> StateDict:
    """``local-steps`` private steps; a step is a step, an empty sample included.

    Args:
        student: where to start, on the device to train on; changed in place, and
            in double precision afterwards.
        histories: private multi-hot rows, CSR ``[users, n]``.
        labels: soft labels to distil from, if any.
        config: steps, masking and distillation.
        mechanism: the public constants of a step.
        streams: randomness by purpose.

    Returns:
        The update, ``after − before`` in float32, under the student's own names.
    """
    student.train().double()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    settings = config.training
    steps = PrivateSteps(
        student, multinomial, mechanism, settings.learning_rate, streams.noise
    )
    extra = None
    if labels is not None and config.distillation.weight > 0:
        extra = distillation_loss(student, labels, config.distillation)
    device = student.encoder.weight.device
    for _ in range(settings.local_steps):
        users = draw_users(histories.shape[0], mechanism.sample_rate, streams.sampling)
        if not is_bounded(student.spec, student.state_dict()):
            # Noise or public gradients took it there: a step for nobody's rows.
            users = users[:0]
        for start in range(0, len(users), settings.chunk_users):
            rows = histories[users[start : start + settings.chunk_users]]
            history, target = split(rows, settings.target_fraction, streams.masking)
            steps.accumulate(dense(history).to(device), dense(target).to(device))
        steps.step(extra)
    after = student.state_dict()
    return {name: (after[name] - before[name]).float() for name in before}


def split(
    rows: sp.csr_matrix, fraction: float, stream: RandomStream
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Mask each item with probability ``fraction``: history and target.

    Each user's own items alone decide its split: examples stay uncoupled.

    Returns:
        Two multi-hot float32 CSR ``[B, n]``; their sum is the rows.
    """
    masked = stream.uniform(rows.nnz) < fraction
    history, target = rows.copy(), rows.copy()
    history.data[masked] = 0.0
    target.data[~masked] = 0.0
    history.eliminate_zeros()
    target.eliminate_zeros()
    return history, target


def dense(rows: sp.csr_matrix) -> Tensor:
    """Rows as a float32 tensor ``[B, n]``."""
    # Memory of torch's own alignment: the last bits of a product depend on it.
    return torch.tensor(rows.toarray())
