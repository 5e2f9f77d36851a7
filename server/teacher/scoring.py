"""A trained sequential teacher: item vectors, an encoder, and nothing of training.

Features are not needed any more, for they are fused into the item vectors. On the
server, which asks it for scores of public histories and for its item space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from common.interactions import IntArray
from server.teacher.histories import left_aligned, sequences
from server.teacher.sequential import Encoder, Shape

Matrix = npt.NDArray[np.float32]

#: Users encoded at once.
BATCH = 128

ITEMS = "items"
_ENCODER = "encoder."


@dataclass(frozen=True, eq=False)
class SequentialTeacher:
    """Scores are logits of the next item.

    Attributes:
        items: float32 ``[n, dim]``, read and ranked by.
        encoder: in evaluation mode.
    """

    items: Tensor
    encoder: Encoder
    additive: ClassVar[bool] = False

    def score(self, history: sp.csr_matrix) -> Matrix:
        """Logits of every item after each history, float32 ``[B, n]``.

        Args:
            history: CSR ``[B, n]``, ordered; the order of a binary one is that of
                item ids, which says nothing: expect worse scores.
        """
        return self.score_sequences(sequences(history))

    def score_sequences(self, rows: Sequence[IntArray], missing: int = 0) -> Matrix:
        """As :meth:`score`, of items in time order.

        Args:
            rows: item ids of each user, the latest last; an id of ``n`` stands for
                an item that is not known.
            missing: how many interactions after the last known one, and before the
                one to predict, are not known.
        """
        shape = self.encoder.shape
        # Without any history there is still a next item.
        unknown = np.full(missing, shape.num_items, dtype=np.int64)
        first = np.full(1, shape.num_items, dtype=np.int64)
        ended = [np.concatenate([row, unknown])[-shape.length :] for row in rows]
        ended = [row if len(row) else first for row in ended]
        scores = np.empty((len(rows), shape.num_items), dtype=np.float32)
        by_length = np.argsort([len(row) for row in ended], kind="stable")
        for start in range(0, len(rows), BATCH):
            members = by_length[start : start + BATCH]
            scores[members] = self._score_batch([ended[i] for i in members])
        return scores

    @torch.no_grad()
    def _score_batch(self, rows: list[IntArray]) -> Matrix:
        shown = torch.from_numpy(left_aligned(rows, self.encoder.shape.num_items))
        vectors = self.encoder(shown, self.items)
        last = torch.tensor([len(row) - 1 for row in rows])
        logits = vectors[torch.arange(len(rows)), last] @ self.items.T
        scores: Matrix = logits.numpy()
        return scores

    def tables(self, rank: int | None = None) -> tuple[Matrix, Matrix]:
        """The item vectors, twice, along their principal axes.

        Args:
            rank: at most so many columns, the heaviest first.
        """
        items = self.items.double()
        _, axes = torch.linalg.eigh(items.T @ items)
        turned = (items @ axes.flip(1))[:, :rank].float().numpy()
        return turned, turned.copy()

    def tensors(self) -> dict[str, Matrix]:
        """Item vectors and the encoder's state."""
        state = {
            _ENCODER + name: tensor.numpy()
            for name, tensor in self.encoder.state_dict().items()
        }
        return {ITEMS: self.items.numpy()} | state


def from_tensors(
    tensors: Mapping[str, Tensor | Matrix], heads: int
) -> SequentialTeacher:
    """What :meth:`SequentialTeacher.tensors` took apart; the tensors are copied.

    Args:
        tensors: by name.
        heads: of attention; the tensors do not show it.

    Raises:
        KeyError, RuntimeError: if names or shapes do not fit each other.
    """
    state = {
        name.removeprefix(_ENCODER): torch.as_tensor(tensor).detach().clone()
        for name, tensor in tensors.items()
    }
    items = state.pop(ITEMS)
    length, dim = state["positions"].shape
    blocks = 1 + max(
        (int(name.split(".")[1]) for name in state if name.startswith("blocks.")),
        default=-1,
    )
    encoder = Encoder(Shape(len(items), dim, blocks, heads, length)).eval()
    encoder.load_state_dict(state)
    return SequentialTeacher(items, encoder.requires_grad_(False))
