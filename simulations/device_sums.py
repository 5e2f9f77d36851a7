"""Many one-user devices at once: what their secure sum would decode to.

Simulations only. A device makes one step on its one user, so its whole update is its
user's gradient and the sum of a cohort is one pass over a sparse matrix. What follows
of mode ``distributed`` is done for the cohort, not for each device, where the sum's
distribution is the same: shares of Skellam noise are drawn as the one number that they
add up to, the rotation is linear. Only the roundings are not repeated one by one: all
of a cohort's are drawn at once, with the largest variance that they can have, so that
a figure made so is never too good. Keys, masks and messages are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from client.randomness import RandomStream
from common.fixed_point import Float, Integer, centred, decode, wrapped
from common.integer_noise import SumPlan
from common.rotation import rotate
from common.secure_round import vector_of
from common.skellam import MOST_VARIANCE, draw, skellam_table
from common.student import StateDict, StudentSpec, shapes

#: Devices whose logits are in memory at once.
BLOCK = 1024


#: Histories and targets, multi-hot, one row a device, as ``client.train.split`` masks.
Masked = tuple[sp.csr_matrix, sp.csr_matrix]


def clipped_sum(
    spec: StudentSpec,
    student: StateDict,
    masked: Sequence[Masked],
    rate: float,
    clip: float,
) -> Float:
    """The sum of devices' clipped updates.

    Args:
        student: where every device starts.
        masked: of each local step. All steps are taken from where the first starts:
            exact for one step, for more to first order in ``rate``.
        rate: of the local steps.
        clip: L2 norm of a whole update at most.

    Returns:
        float64 ``[parameters]``, as ``vector_of`` orders them, in single precision.
    """
    total = {name: torch.zeros(shape) for name, shape in shapes(spec).items()}
    for start in range(0, masked[0][0].shape[0], BLOCK):
        part = slice(start, start + BLOCK)
        steps = [
            _gradients(spec, student, history[part], target[part])
            for history, target in masked
        ]
        _subtract(total, steps, rate, clip)
    return vector_of(total, spec)


@dataclass(frozen=True)
class _Gradients:
    """Gradients of B devices' losses; two linear layers, hence outer products.

    Attributes:
        residual: ``softmax - targets``, ``[B, n]``: the bias' gradient, and with
            ``user`` ``[B, d]`` the decoder's.
        pull: ``[B, d]``, with ``history`` ``[B, n]`` the encoder's.
    """

    residual: Tensor
    user: Tensor
    pull: Tensor
    history: sp.csr_matrix

    def products(self, other: _Gradients) -> Tensor:
        """Each device's gradient times its own at another step, ``[B]``."""
        bias = (self.residual * other.residual).sum(1)
        outward = bias * (1 + (self.user * other.user).sum(1))
        common = np.asarray(self.history.multiply(other.history).sum(axis=1)).ravel()
        inward = (self.pull * other.pull).sum(1) * torch.from_numpy(common)
        return outward + inward


def _gradients(
    spec: StudentSpec, student: StateDict, history: sp.csr_matrix, target: sp.csr_matrix
) -> _Gradients:
    decoder, scale = student["decoder.weight"], spec.logit_scale
    length = np.maximum(np.asarray(history.sum(axis=1)), 1.0) ** spec.history_exponent
    scaled = sp.csr_matrix(history.multiply(1.0 / length), dtype=np.float32)
    encoder = student["encoder.weight"].numpy().T
    user = torch.from_numpy(np.asarray(scaled @ encoder)) * scale
    residual = torch.addmm(student["decoder.bias"], user, decoder.T).softmax(1)
    count = np.asarray(target.sum(axis=1))
    aims = target.multiply(1.0 / np.maximum(count, 1.0)).tocoo()
    rows, columns = torch.from_numpy(aims.row).long(), torch.from_numpy(aims.col).long()
    residual[rows, columns] -= torch.from_numpy(aims.data.astype(np.float32))
    # Who has nothing to find has no gradient.
    residual *= torch.from_numpy(count > 0)
    return _Gradients(residual, user, residual @ decoder * scale, scaled)


def _subtract(
    total: StateDict, steps: Sequence[_Gradients], rate: float, clip: float
) -> None:
    """Subtract a block's gradients, each device's summed over the steps and clipped."""
    own = torch.stack([each.products(each) for each in steps]).sum(0)
    pairs = [one.products(two) for one, two in combinations(steps, 2)]
    square = own + 2 * torch.stack(pairs).sum(0) if pairs else own
    norm = rate * square.clamp(min=0).sqrt()
    kept = rate * (clip / norm).clamp(max=1.0)[:, None]
    for step in steps:
        residual = step.residual * kept
        total["decoder.weight"] -= residual.T @ step.user
        total["decoder.bias"] -= residual.sum(0)
        inward = np.asarray(step.history.T @ (step.pull * kept).numpy()).T
        total["encoder.weight"] -= torch.from_numpy(np.ascontiguousarray(inward))


@dataclass(frozen=True)
class Cohort:
    """Who is behind a round's sum.

    Attributes:
        finished: devices whose vectors are in it; each brought its share of noise.
        sampled: those of them whose own coin put their update in.
    """

    finished: int
    sampled: int


def decoded_sum(
    total: Float, cohort: Cohort, plan: SumPlan, seed: bytes, stream: RandomStream
) -> Float:
    """The mean update that the server decodes, float64 ``[d]``.

    Args:
        total: the sum of the sampled devices' clipped updates.
        seed: of the round's rotation.
        stream: roundings and noise.
    """
    exact = rotate(total * plan.grid.scale, seed)
    summed = rounded(exact, cohort.sampled, stream)
    summed += noise(plan.share * cohort.finished, len(total), stream)
    received = centred(wrapped(summed, plan.bits), plan.bits)
    return decode(received, plan.grid, seed) / plan.expected


def rounded(exact: Float, sampled: int, stream: RandomStream) -> Integer:
    """Integers around a sum on the grid, as far off as so many roundings at most.

    A rounding at random has a variance of at most ¼ and a mean of 0.
    """
    spread = stream.normal(exact.shape).numpy() * (math.sqrt(sampled) / 2)
    moved = exact + spread
    floor = np.floor(moved)
    up = stream.uniform(len(moved)) < moved - floor
    found: Integer = (floor + up).astype(np.int64)
    return found


def noise(variance: float, dim: int, stream: RandomStream) -> Integer:
    """Skellam noise of this variance, int64 ``[dim]``: many devices' shares at once."""
    pieces = math.ceil(variance / MOST_VARIANCE)
    table = skellam_table(variance / pieces)
    found = draw(table, dim, stream.words)
    for _ in range(pieces - 1):
        found += draw(table, dim, stream.words)
    return found
