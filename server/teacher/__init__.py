"""Teachers: large models trained on public data only, by name.

Adding one is a module with a ``fit``, an entry here, a line in ``checkpoint.py``, a
test, and its name in ``common/config.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.config import RunConfig
from common.features import Features
from server.teacher import ease, transformer

Matrix = npt.NDArray[np.float32]


class Teacher(Protocol):
    """What the server asks of a teacher, whatever it is made of.

    Histories are CSR ``[B, n]``: binary, or ordered (int32 data is the 1-based
    position in time). A teacher without a sense of order reads both alike.
    """

    @property
    def additive(self) -> bool:
        """Whether scores grow with the history; otherwise they are logits."""
        ...

    def score(self, history: sp.csr_matrix) -> Matrix:
        """Scores of every item, float32 ``[B, n]``; seen items are scored too."""
        ...

    def tables(self, rank: int | None = None) -> tuple[Matrix, Matrix]:
        """Input and output item vectors, float32 ``[n, D]`` each, ``D ≤ rank``.

        ``score(x)`` is about ``(x > 0) @ input @ output.T``, up to scale; columns
        come in order of weight, so the first d are the best of rank d.
        """
        ...

    def tensors(self) -> dict[str, Matrix]:
        """Everything ``checkpoint.py`` needs to make the teacher again."""
        ...


#: ``fit(ordered public interactions [users, n], item features, config) → teacher``
TEACHERS: dict[str, Callable[[sp.csr_matrix, Features | None, RunConfig], Teacher]] = {
    "ease": ease.fit,
    "transformer": transformer.fit,
}
