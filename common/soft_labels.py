"""Soft labels: the teacher's top-K scores on a proxy set, eight bits a score.

In ``common`` because the server encodes and clients decode. A proxy user is public
(or synthetic), never private, so soft labels tell nothing about private rows beyond
what the teacher already held.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from common.errors import ProtocolError

#: int8 codes run from -127 to 127, so that a row is symmetric around its centre.
LEVELS = 254


@dataclass(frozen=True)
class SoftLabels:
    """Top-K teacher logits of Q proxy users.

    Attributes:
        proxy: multi-hot histories, CSR float32 ``[Q, num_items]``.
        item: int32 ``[Q, K]``, the K items of each row, best first.
        logit: int8 ``[Q, K]``; the value is ``centre + scale · logit``.
        scale, centre: float32 ``[Q]``.
    """

    proxy: sp.csr_matrix
    item: npt.NDArray[np.int32]
    logit: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    centre: npt.NDArray[np.float32]


def encode(scores: npt.NDArray[np.float32], proxy: sp.csr_matrix, k: int) -> SoftLabels:
    """Keep each row's K best scores, ties to the lower item id, as eight bits.

    The decoded value differs by at most half a step, ``(max − min) / 508`` of the
    row's K scores.

    Args:
        scores: teacher logits float32 ``[Q, num_items]``, finite.
        proxy: histories CSR ``[Q, num_items]``.
        k: how many to keep; at most ``num_items`` are.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, scores.shape[1])]
    top = np.take_along_axis(scores, order, axis=1)
    low, high = top[:, -1], top[:, 0]
    scale = ((high - low) / LEVELS).astype(np.float32)
    centre = ((high + low) / 2).astype(np.float32)
    step = np.where(scale > 0, scale, 1)[:, None]
    codes = np.rint((top - centre[:, None]) / step).clip(-127, 127)
    return SoftLabels(
        proxy, order.astype(np.int32), codes.astype(np.int8), scale, centre
    )


def decode(labels: SoftLabels) -> Tensor:
    """Logits float32 ``[Q, K]``."""
    values = labels.centre[:, None] + labels.scale[:, None] * labels.logit
    return torch.from_numpy(values.astype(np.float32))


_KINDS = {
    "item": np.dtype(np.int32),
    "logit": np.dtype(np.int8),
    "scale": np.dtype(np.float32),
    "centre": np.dtype(np.float32),
}


def check(labels: SoftLabels, num_items: int) -> None:
    """Refuse labels that do not fit the catalogue.

    Raises:
        ProtocolError: naming the part that does not fit.
    """
    for name, kind in _KINDS.items():
        if getattr(labels, name).dtype != kind:
            raise ProtocolError(f"Expected soft-label {name} of type {kind}.")
    if labels.item.ndim != 2 or not labels.item.shape[1]:
        raise ProtocolError("Expected soft-label items of shape (rows, width).")
    rows, width = labels.item.shape
    if labels.proxy.shape != (rows, num_items):
        raise ProtocolError(
            f"Expected a proxy set of shape {(rows, num_items)}, "
            f"got {labels.proxy.shape}."
        )
    per_row = {labels.scale.shape, labels.centre.shape}
    if labels.logit.shape != (rows, width) or per_row != {(rows,)}:
        raise ProtocolError("Expected as many soft-label logits and scales as items.")
    if labels.item.size and not 0 <= labels.item.min() <= labels.item.max() < num_items:
        raise ProtocolError(f"Expected soft-label items in 0..{num_items - 1}.")
    if not (np.isfinite(labels.scale).all() and np.isfinite(labels.centre).all()):
        raise ProtocolError("Expected finite soft-label scales, got others.")
