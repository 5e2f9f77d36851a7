"""A gated network of many inputs: one vector of an item from all its modalities.

Each modality is projected to one width, and a gate that sees all of them says how
much each counts for this item (gated multimodal units, Arevalo et al. 2017, arXiv
1702.01992). A modality that an item lacks gets no weight. On the server, beside the
teacher whose item vectors it makes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class GatedFusion(nn.Module):
    """``Σ_m gate_m · project_m(x_m)`` with a softmax gate over known modalities."""

    def __init__(self, widths: Sequence[int], dim: int) -> None:
        """Gates start equal; their first gradient tells modalities apart.

        Args:
            widths: columns of each modality's features; at least one modality.
            dim: width of the result.
        """
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, dim) for width in widths)
        self.gate = nn.Linear(dim * len(widths), len(widths))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, values: Sequence[Tensor], known: Tensor) -> Tensor:
        """Fused vectors float32 ``[n, dim]``; zero where no modality is known.

        Args:
            values: of each modality, float32 ``[n, width]``.
            known: bool ``[n, M]``; what is not known may hold any finite number.
        """
        pairs = zip(self.projections, values, strict=True)
        projected = torch.stack([project(rows) for project, rows in pairs], dim=1)
        projected = projected.masked_fill(~known[:, :, None], 0.0)
        weights = masked_softmax(self.gate(projected.flatten(1)), known)
        fused: Tensor = (weights[:, :, None] * projected).sum(dim=1)
        return fused


def masked_softmax(logits: Tensor, present: Tensor) -> Tensor:
    """Softmax over the present entries of each row; all zero where none is.

    >>> logits = torch.tensor([[0.0, 0.0, 5.0], [1.0, 2.0, 3.0]])
    >>> masked_softmax(logits, torch.tensor([[True, True, False], [False] * 3]))
    tensor([[0.5000, 0.5000, 0.0000],
            [0.0000, 0.0000, 0.0000]])
    """
    least = torch.finfo(logits.dtype).min
    return logits.masked_fill(~present, least).softmax(dim=1) * present
