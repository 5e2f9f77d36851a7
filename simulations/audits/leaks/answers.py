"""From a recorded run to evidence: each kind of answer by its own reading.

Simulations only. A new kind of answer is one reading and one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from common import wire
from simulations.audits.leaks.inference import Bool, Evidence
from simulations.audits.leaks.sight import Sight
from simulations.audits.leaks.sums import (
    PairEvidence,
    SketchEvidence,
    pair_evidence,
    sketch_evidence,
)
from simulations.audits.leaks.updates import UpdateEvidence, update_evidence
from simulations.audits.transcript import Exchange, exchanges
from simulations.audits.world import World

Read = PairEvidence | SketchEvidence | UpdateEvidence
Reading = Callable[[World, Exchange, Sight, sp.csr_matrix], Read]

#: Message type → its reading; metrics are three numbers, and say next to nothing.
READINGS: dict[str, Reading] = {
    wire.STATISTICS: pair_evidence,
    wire.SKETCH: sketch_evidence,
    wire.TRAIN: update_evidence,
}


def readable(messages: Path, world: World, most_rounds: int) -> Iterator[Exchange]:
    """What can be read, of rounds at most so many, evenly over the run."""
    rounds = world.config.training.rounds
    count = min(rounds, most_rounds)
    wanted = set(np.linspace(1, max(rounds, 1), max(count, 1)).round().astype(int))
    for exchange in exchanges(messages):
        if exchange.kind not in READINGS:
            continue
        if exchange.kind != wire.TRAIN or exchange.number in wanted:
            yield exchange


def read_answers(
    world: World,
    messages: Path,
    sight: Sight,
    known: sp.csr_matrix,
    most_rounds: int,
) -> list[Read]:
    """Evidence in all that is visible of some clients.

    Args:
        messages: a recording.
        sight: what the server sees.
        known: rows that are taken off, CSR ``[users, n]``.
    """
    return [
        READINGS[exchange.kind](world, exchange, sight, known)
        for exchange in readable(messages, world, most_rounds)
    ]


def beside(evidence: list[Read], items: Bool) -> list[Evidence]:
    """The evidence that somebody faces who knows all of these rows but one user's."""
    return [each.beside(items) for each in evidence]
