"""What a server sees of its clients' answers: each of them, or sums of some.

Simulations only. A trust model, as far as reconstruction is concerned: in modes local
and off every answer is seen by itself; under secure aggregation a sum alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from simulations.audits.transcript import Exchange
from simulations.audits.world import ClientRows

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sight:
    """One number the server sees: the sum of these clients' answers.

    Attributes:
        clients: names of whose answers are in it.
        noises: how many clients' noises, each of the run's whole multiplier, are in
            it: as many as clients where each adds its own, 1 where each adds a share.
    """

    clients: tuple[str, ...]
    noises: float

    def total(self, exchange: Exchange, name: str) -> Float:
        """The sum of one array of the answers, float64."""
        parts = [exchange.answers[client][name] for client in self.clients]
        return np.asarray(np.sum(parts, axis=0, dtype=np.float64))

    def rows(self, clients: Sequence[ClientRows]) -> sp.csr_matrix:
        """Ground truth: everybody who is in it, CSR."""
        inside = [each.histories for each in clients if each.name in self.clients]
        return sp.vstack(inside, format="csr")


def each_answer(clients: Sequence[ClientRows]) -> list[Sight]:
    """Modes local and off: every client's answer by itself."""
    return [Sight((client.name,), 1.0) for client in clients]


def one_sum(clients: Sequence[ClientRows], noises: float | None = None) -> list[Sight]:
    """Under secure aggregation: the sum of all.

    Args:
        noises: as in :class:`Sight`; by default every client's own.
    """
    names = tuple(client.name for client in clients)
    return [Sight(names, len(names) if noises is None else noises)]
