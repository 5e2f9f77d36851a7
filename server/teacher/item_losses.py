"""Losses over a whole catalogue, for a teacher that a plain CPU can train.

Full softmax cross-entropy (Klenitskiy & Vasilev 2023, arXiv 2309.07602: it is what
lifts SASRec above BERT4Rec), and gBCE on sampled negatives (Petrov & Macdonald 2023,
arXiv 2308.07192). On the server: nothing here is private.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: Positions whose logits are held at once: on a CPU they fit a core's cache; elsewhere
#: large pieces keep the device busy.
CHUNK, CHUNK_ELSEWHERE = 128, 8192


class _SoftmaxCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass, a few positions × the catalogue at a time.

    Written out, the logits of a batch are hundreds of megabytes that are read six
    times; in pieces that fit the cache the same arithmetic takes half the time.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, items: Tensor, target: Tensor) -> Tensor:
        hidden, items = hidden.detach(), items.detach()
        d_hidden, d_items = torch.empty_like(hidden), torch.zeros_like(items)
        total = hidden.new_zeros((), dtype=torch.float64)
        chunk = CHUNK if hidden.device.type == "cpu" else CHUNK_ELSEWHERE
        for start in range(0, len(hidden), chunk):
            piece = slice(start, start + chunk)
            logits = hidden[piece] @ items.T
            wanted = target[piece, None]
            of_target = logits.gather(1, wanted)
            largest = logits.amax(dim=1, keepdim=True)
            scale = logits.sub_(largest).exp_().sum(dim=1, keepdim=True)
            total += (scale.log() + largest - of_target).sum()
            residual = logits.div_(scale)
            residual.scatter_add_(1, wanted, residual.new_full(wanted.shape, -1.0))
            torch.mm(residual, items, out=d_hidden[piece])
            d_items.addmm_(residual.T, hidden[piece])
        ctx.save_for_backward(d_hidden, d_items)
        return total.to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        d_hidden, d_items = ctx.saved_tensors
        return d_hidden * upstream[0], d_items * upstream[0], None


def softmax_loss(hidden: Tensor, items: Tensor, target: Tensor) -> Tensor:
    """``Σ −log softmax(hidden @ items.T)[target]``, a scalar.

    Args:
        hidden: float32 ``[P, dim]``, one row a position.
        items: float32 ``[n, dim]``.
        target: int64 ``[P]`` in ``0..n-1``.
    """
    loss: Tensor = _SoftmaxCrossEntropy.apply(hidden, items, target)  # type: ignore[no-untyped-call]
    return loss


def calibrated_loss(
    positive: Tensor, negative: Tensor, *, num_items: int, calibration: float
) -> Tensor:
    """Sum of gBCE over positions: ``−(β·log σ(s⁺) + Σ log(1 − σ(s⁻))) / (K + 1)``.

    With K of n − 1 possible negatives, α = K/(n − 1) and β = α·(t·(1 − 1/α) + 1/α):
    t = 0 is plain cross-entropy, whose probabilities are too high by sampling; t = 1
    has none of this overconfidence.

    Args:
        positive: logits ``[P]``.
        negative: logits ``[P, K]``.
        num_items: items of the catalogue, n.
        calibration: t in [0, 1].
    """
    rate = negative.shape[1] / (num_items - 1)
    beta = calibration * (rate - 1.0) + 1.0
    found = beta * F.logsigmoid(positive)
    refused = F.logsigmoid(-negative).sum(dim=1)
    return -(found + refused).sum() / (negative.shape[1] + 1)
