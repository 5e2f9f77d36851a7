"""Losses per user: axis 0 is the privacy unit, nothing is reduced over it.

In ``common`` because clients train with them and the server distils with them.
Distillation: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531), equations 1 and 2; for
high temperatures it becomes the squared error between logits (its section 2.1).
Rank-aware: Kang et al. 2020 (DE-RRD, arXiv 2012.04357) and 2023 (HetComp), who match
the teacher's order at its top; ours takes all of the top K, and samples nothing.
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


def rank(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """How unlikely the student finds the teacher's order of the K items.

    Plackett–Luce: items are drawn without replacement by the softmax of the student's
    logits over T, and each place of the teacher's order counts by its gain in NDCG
    (position-aware ListMLE, Lan et al. 2014). Only the order of the teacher matters.

    Args:
        teacher: logits float32 ``[B, K]``; of equal ones the first counts as better.
        student: logits float32 ``[B, K]`` on the same K items.
        temperature: T > 0; the factor T keeps gradients comparable across T.

    Returns:
        float32 ``[B]``, ≥ 0; 0 where K is 1, since there is one order.
    """
    order = teacher.argsort(dim=1, descending=True, stable=True)
    return order_loss(student.gather(1, order), None, temperature)


def order_loss(student: Tensor, rest: Tensor | None, temperature: float) -> Tensor:
    """:func:`rank` where the K items already stand in the teacher's order.

    Args:
        student: logits float32 ``[B, K]``, the teacher's best item first.
        rest: logits float32 ``[B, R]`` of items that each of the K should precede, in
            whatever order (DE-RRD's relaxed ranking); None for none.
        temperature: as in :func:`rank`.

    Returns:
        float32 ``[B]``, ≥ 0.
    """
    scaled = student / temperature
    left = scaled.flip(1).logcumsumexp(dim=1).flip(1)
    if rest is not None:
        others = (rest / temperature).logsumexp(dim=1, keepdim=True)
        left = torch.logaddexp(left, others)
    place = torch.arange(2, student.shape[1] + 2).to(student)
    gain = 1.0 / torch.log2(place)
    loss: Tensor = ((left - scaled) * (gain / gain.sum())).sum(dim=1)
    return loss * temperature


DISTILLATION: dict[str, DistillationLoss] = {"kl": kl, "mse": mse, "rank": rank}
