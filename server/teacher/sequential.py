"""The sequential teacher's network: a causal transformer over the latest items.

SASRec (Kang & McAuley 2018, arXiv 1808.09781) with normalisation before each layer;
the vectors of the items it reads are those it ranks by. On the server: it is fitted
to public histories alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import ConfigError
from common.features import Features
from common.sections import Transformer
from server.teacher.fusion_layer import GatedFusion

#: How often training hides the id of an item that has content: content alone must
#: serve the items that nobody has touched yet.
HIDDEN_IDS = 0.1


@dataclass(frozen=True)
class Shape:
    """What fixes the encoder's tensors and its function."""

    num_items: int
    dim: int
    blocks: int
    heads: int
    length: int


def shape_of(settings: Transformer, num_items: int) -> Shape:
    """The encoder this configuration asks for over a catalogue.

    Raises:
        ConfigError: if the heads do not share the width evenly.
    """
    if settings.dim % settings.heads:
        raise ConfigError(
            f"transformer.heads: expected a divisor of transformer.dim = "
            f"{settings.dim}, got {settings.heads}."
        )
    return Shape(
        num_items, settings.dim, settings.blocks, settings.heads, settings.length
    )


class ItemTable(nn.Module):
    """Item vectors from ids and features, fused by a gate.

    An item that has content but that no public user touched is known by its content
    alone: nothing would have taught its id.
    """

    has_content: Tensor
    known: Tensor

    def __init__(self, taught: Tensor, features: Features | None, dim: int) -> None:
        """See the class.

        Args:
            taught: bool ``[n]``, items in the histories the teacher is taught with.
            features: of the declared catalogue.
            dim: width of the vectors.
        """
        super().__init__()
        self.ids = nn.Embedding(len(taught), dim)
        nn.init.normal_(self.ids.weight, std=dim**-0.5)
        # Features and flags are given, not learned: no part of the state.
        content = _content(features)
        for i, values in enumerate(content):
            self.register_buffer(f"content_{i}", values, persistent=False)
        flags = features.known.values() if features else ()
        known = [torch.from_numpy(flag) for flag in flags]
        has_content = torch.stack([torch.zeros_like(taught), *known]).any(dim=0)
        self.register_buffer("has_content", has_content, persistent=False)
        usable = torch.stack([taught | ~has_content, *known], dim=1)
        self.register_buffer("known", usable, persistent=False)
        widths = [values.shape[1] for values in content]
        self.fusion = GatedFusion([dim, *widths], dim) if widths else None

    def forward(self) -> Tensor:
        """Vectors of all items, float32 ``[n, dim]``."""
        if self.fusion is None:
            return self.ids.weight
        known = self.known.clone()
        if self.training:
            hidden = torch.rand(len(known), device=known.device) < HIDDEN_IDS
            known[:, 0] &= ~(hidden & self.has_content)
        content = [self.get_buffer(f"content_{i}") for i in range(known.shape[1] - 1)]
        fused: Tensor = self.fusion([self.ids.weight, *content], known)
        return fused


def _content(features: Features | None) -> list[Tensor]:
    """Each modality, scaled so that its known rows are of length one on average.

    Unknown rows may hold anything; zeros, unlike NaN, also vanish from gradients.
    """
    if features is None:
        return []
    scaled = []
    for name, values in features.values.items():
        rows = torch.from_numpy(np.where(features.known[name][:, None], values, 0))
        count = max(1, int(features.known[name].sum()))
        scaled.append(rows / (rows.norm(dim=1).sum() / count).clamp(min=1e-12))
    return scaled


class Encoder(nn.Module):
    """Histories → vectors, each of what was seen up to its position."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        """See the class; ``dropout`` matters in training only."""
        super().__init__()
        self.shape = shape
        self.unknown = nn.Parameter(torch.randn(shape.dim) * shape.dim**-0.5)
        self.positions = nn.Parameter(torch.randn(shape.length, shape.dim) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(shape.dim, shape.heads, dropout) for _ in range(shape.blocks)
        )
        self.norm = nn.LayerNorm(shape.dim)

    def forward(self, shown: Tensor, items: Tensor) -> Tensor:
        """Vectors float32 ``[B, L, dim]``; their scores are ``vectors @ items.T``.

        Args:
            shown: int64 ``[B, L]``, L ≤ length, left-aligned; the id ``num_items``
                stands for an item that is not known, and fills up behind, where
                causality hides it from all before.
            items: float32 ``[num_items, dim]``.
        """
        table = torch.cat([items, self.unknown[None]])
        x = F.embedding(shown, table) * math.sqrt(self.shape.dim)
        x = self.dropout(x + self.positions[: shown.shape[1]])
        for block in self.blocks:
            x = block(x)
        vectors: Tensor = self.norm(x)
        return vectors


class Block(nn.Module):
    """Causal self-attention, then a network of each position by itself."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        """``dim`` must be a multiple of ``heads``."""
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(dim)
        self.attention_in = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.before_inner = nn.LayerNorm(dim)
        self.inner_in = nn.Linear(dim, 2 * dim)
        self.inner_out = nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, L, dim]`` → the same."""
        x = x + self.dropout(self._attend(self.before_attention(x)))
        inner = F.gelu(self.inner_in(self.before_inner(x)))
        out: Tensor = x + self.dropout(self.inner_out(self.dropout(inner)))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        size, length, _ = x.shape
        parts = self.attention_in(x).view(size, length, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.attention_out(mixed.transpose(1, 2).reshape(x.shape))
        return out
