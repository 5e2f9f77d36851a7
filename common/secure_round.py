"""One round of mode ``distributed`` in public numbers, and updates as vectors.

In ``common`` because clients and server derive the same from the same configuration,
and neither takes them from the other.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.config import RunConfig
from common.fixed_point import Float
from common.integer_noise import SumPlan, policy_of, rotation_seed, sum_plan
from common.plan import noise_multiplier
from common.secagg.terms import Terms
from common.student import StateDict, StudentSpec, shapes


@dataclass(frozen=True)
class SecureRound:
    """What both sides know of a round before it begins.

    Attributes:
        plan: noise, rate, ring.
        terms: of the protocol.
        seed: of the rotation, public.
    """

    plan: SumPlan
    terms: Terms
    seed: bytes


def secure_round(config: RunConfig, dim: int, run: str, number: int) -> SecureRound:
    """A round's public numbers.

    Args:
        dim: parameters of the student, see :func:`num_parameters`.
        run: the run's id.
        number: the round, from 1.

    Raises:
        ConfigError: if no ring, or no noise, is enough for what is configured.
    """
    plan = sum_plan(config, noise_multiplier(config), dim)
    terms = Terms(
        run,
        number,
        dim,
        plan.bits,
        plan.least,
        policy_of(config),
        config.secagg.clients,
        _agreed(config),
    )
    return SecureRound(plan, terms, rotation_seed(run, number))


def _agreed(config: RunConfig) -> str:
    """A digest of what noise, grid and sampling follow from.

    A client's noise protects the others. A server that could tell one client of a
    coarse grid and all others of a fine one would leave the first one without noise.
    """
    parts = (config.privacy, config.secagg, config.training)
    text = json.dumps([part.model_dump(mode="json") for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def num_parameters(sizes: Iterable[tuple[int, ...]]) -> int:
    """Numbers in tensors of these shapes."""
    return sum(math.prod(shape) for shape in sizes)


def vector_of(update: Mapping[str, Tensor], spec: StudentSpec) -> Float:
    """An update as one vector, float64 ``[d]``, in state-dict order."""
    parts = [update[name].detach().cpu().double().reshape(-1) for name in shapes(spec)]
    vector: Float = torch.cat(parts).numpy()
    return vector


def update_of(vector: Float, spec: StudentSpec) -> StateDict:
    """The float32 update that a vector ``[d]`` stands for."""
    update, begin = {}, 0
    for name, shape in shapes(spec).items():
        end = begin + math.prod(shape)
        part = vector[begin:end].astype(np.float32)
        update[name] = torch.from_numpy(part.reshape(shape))
        begin = end
    return update
