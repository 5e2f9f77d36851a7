"""Losses per user: axis 0 is the privacy unit, nothing is reduced over it.

In ``common`` because clients train with them and the server distils with them.
Distillation: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), equations 1 and 2; for
high temperatures it becomes the squared error between logits (its section 2.1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

DistillationLoss = Callable[[Tensor, Tensor, float], Tensor]


def multinomial(logits: Tensor, target: Tensor) -> Tensor:
    """Mean negative log-likelihood of each user's target items.

    Args:
        logits: float32 ``[B, num_items]``.
        target: multi-hot float32 ``[B, num_items]``.

    Returns:
        float32 ``[B]``, ≥ 0; 0 (with zero gradient) for a user without targets.
    """
    count = target.sum(dim=1)
    total = -(target * F.log_softmax(logits, dim=1)).sum(dim=1)
    return total / count.clamp(min=1.0)


def kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """``T²·KL(softmax(teacher/T) ‖ softmax(student/T))`` per user.

    Args:
        teacher: logits float32 ``[B, K]``.
        student: logits float32 ``[B, K]`` on the same K items.
        temperature: T > 0; the factor T² keeps gradients comparable across T.

    Returns:
        float32 ``[B]``, ≥ 0.
    """
    log_p = F.log_softmax(teacher / temperature, dim=1)
    log_q = F.log_softmax(student / temperature, dim=1)
    divergence: Tensor = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return divergence * temperature**2


def mse(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """``½(o_t − o_s)²``, mean over the K items; the temperature plays no part.

    Args:
        teacher: logits float32 ``[B, K]``.
        student: logits float32 ``[B, K]`` on the same K items.
        temperature: unused; every distillation loss takes it.

    Returns:
        float32 ``[B]``, ≥ 0.
    """
    del temperature
    return 0.5 * torch.square(teacher - student).mean(dim=1)


DISTILLATION: dict[str, DistillationLoss] = {"kl": kl, "mse": mse}
