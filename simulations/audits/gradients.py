"""Users' clipped gradients as an attacker works them out: in closed form, no autograd.

Simulations only. An own derivation of what ``client/dp.py`` computes through Opacus, so
that an audit does not inherit its faults. The student has two linear layers, and each
user is one row of both: a user's gradient is a sum of outer products, and its norm, its
product with any direction and sums over users follow from the factors alone. Which
items were masked in a step an attacker does not know; it takes the mean of some masks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from common.student import StateDict, StudentSpec, normalise_history

Float = npt.NDArray[np.float64]

#: Masks that an attacker averages over, and users held dense at once.
MASKS, MASKS_OF_SUM, USERS = 8, 2, 256


@dataclass(frozen=True)
class Factors:
    """Gradients of B users' losses, in factors.

    Attributes:
        residual: ``softmax − targets``, ``[B, n]``: the bias' gradient, and with
            ``user`` the decoder's.
        user: user vector, ``[B, d]``.
        pull: ``[B, d]``, with ``history`` the encoder's gradient.
        history: scaled history, ``[B, n]``.
        clip: coefficient of each gradient, ``[B]``.
    """

    residual: Tensor
    user: Tensor
    pull: Tensor
    history: Tensor
    clip: Tensor

    def along(self, direction: StateDict) -> Tensor:
        """The clipped gradients' products with a direction, ``[B]``."""
        outward = self.user @ direction["decoder.weight"].T + direction["decoder.bias"]
        inward = self.history @ direction["encoder.weight"].T
        products = (self.residual * outward).sum(1) + (self.pull * inward).sum(1)
        return self.clip * products

    def products(self, other: Factors) -> Tensor:
        """Each user's product with its own gradient under another mask, ``[B]``."""
        bias = (self.residual * other.residual).sum(1)
        decoder = bias * (self.user * other.user).sum(1)
        pull = (self.pull * other.pull).sum(1)
        encoder = pull * (self.history * other.history).sum(1)
        return self.clip * other.clip * (bias + decoder + encoder)


@dataclass(frozen=True)
class Gradients:
    """The clipped gradients of any users at one student.

    Attributes:
        spec, state: the student that was sent.
        target_fraction: public chance of an item to be masked.
        max_grad_norm: the clip; ``inf`` for none.
        seed: of the masks: the same ones for the same rows.
    """

    spec: StudentSpec
    state: StateDict
    target_fraction: float
    max_grad_norm: float
    seed: int = 0

    def along(self, rows: sp.csr_matrix, direction: StateDict) -> Float:
        """The mean clipped gradients' products with a direction, float64 ``[B]``."""
        if not rows.nnz:
            return np.zeros(rows.shape[0])
        found = [
            torch.stack([each.along(direction) for each in masked]).mean(0)
            for masked in self._parts(rows, MASKS)
        ]
        return _joined(found)

    def norms(self, rows: sp.csr_matrix) -> Float:
        """Length of each user's mean clipped gradient, float64 ``[B]``."""
        found = []
        for masked in self._parts(rows, MASKS):
            pairs = [one.products(two) for one in masked for two in masked]
            found.append(torch.stack(pairs).mean(0).clamp(min=0).sqrt())
        return _joined(found)

    def sum(self, rows: sp.csr_matrix) -> StateDict:
        """The sum of the users' mean clipped gradients."""
        total = {name: torch.zeros_like(value) for name, value in self.state.items()}
        if not rows.nnz:
            return total
        # Of many users together a few masks are mean enough.
        for masked in self._parts(rows, MASKS_OF_SUM):
            for each in masked:
                residual = each.residual * (each.clip / len(masked))[:, None]
                pull = each.pull * (each.clip / len(masked))[:, None]
                total["decoder.weight"] += residual.T @ each.user
                total["decoder.bias"] += residual.sum(0)
                total["encoder.weight"] += pull.T @ each.history
        return total

    def _parts(self, rows: sp.csr_matrix, count: int) -> Iterator[list[Factors]]:
        """A block of users at a time, under so many masks."""
        rng = np.random.default_rng(self.seed)
        for start in range(0, rows.shape[0], USERS):
            part = torch.from_numpy(rows[start : start + USERS].toarray())
            yield [self._factors(part, rng) for _ in range(count)]

    def _factors(self, rows: Tensor, rng: np.random.Generator) -> Factors:
        drawn = torch.from_numpy(rng.random(tuple(rows.shape), dtype=np.float32))
        masked = (drawn < self.target_fraction).to(rows)
        target = rows * masked
        history = normalise_history(rows - target, self.spec.history_exponent)
        decoder, scale = self.state["decoder.weight"], self.spec.logit_scale
        user = history @ self.state["encoder.weight"].T * scale
        logits = user @ decoder.T + self.state["decoder.bias"]
        count = target.sum(1, keepdim=True)
        residual = logits.softmax(1) - target / count.clamp(min=1.0)
        residual = residual * (count > 0)
        pull = residual @ decoder * scale
        free = Factors(residual, user, pull, history, torch.ones(len(rows)))
        norm = free.products(free).clamp(min=0).sqrt()
        clip = torch.ones(len(rows))
        if math.isfinite(self.max_grad_norm):
            clip = (self.max_grad_norm / norm).clamp(max=1.0)
        return Factors(residual, user, pull, history, clip)


def log_likelihood(
    spec: StudentSpec,
    state: StateDict,
    rows: sp.csr_matrix,
    target_fraction: float,
    seed: int = 0,
) -> Float:
    """Mean log-probability of each user's masked items given the rest, ``[B]``.

    0 for a user without items, who has nothing to find.
    """
    if not rows.nnz:
        return np.zeros(rows.shape[0])
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, rows.shape[0], USERS):
        part = torch.from_numpy(rows[start : start + USERS].toarray())
        total = torch.zeros(len(part))
        for _ in range(MASKS):
            drawn = torch.from_numpy(rng.random(tuple(part.shape), dtype=np.float32))
            target = part * (drawn < target_fraction)
            history = normalise_history(part - target, spec.history_exponent)
            user = history @ state["encoder.weight"].T * spec.logit_scale
            logits = user @ state["decoder.weight"].T + state["decoder.bias"]
            each = (target * logits.log_softmax(1)).sum(1)
            total += each / target.sum(1).clamp(min=1.0)
        found.append(total / MASKS)
    return _joined(found)


def _joined(parts: list[Tensor]) -> Float:
    if not parts:
        return np.zeros(0)
    return torch.cat(parts).numpy().astype(np.float64)
