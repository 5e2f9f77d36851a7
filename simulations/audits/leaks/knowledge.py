"""What an attacker is given: part of a user's items, and what public data say.

Simulations only: it takes the part from ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from common.folders import INTERACTIONS
from common.student import StateDict, StudentSpec, build
from simulations.audits.leaks.measures import Question
from simulations.audits.world import World
from simulations.evaluation import count_popularity, public_rows

Float = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Share of a user's items that interaction inference is given.
KNOWN = 0.5
#: Clients whose users are attacked: each one's answers are read by themselves.
MOST_CLIENTS = 16
_USERS = 256


@dataclass(frozen=True)
class Asked:
    """Users under attack, and what is known of them.

    Attributes:
        rows: all of their items, CSR ``[users, n]``.
        client: place of the client whose answers are looked at; int64 ``[users]``.
        is_inside: whether they are users of these clients, or of none.
        question: what is known of them, and what is to be found.
    """

    rows: sp.csr_matrix
    client: IntArray
    is_inside: bool
    question: Question

    @property
    def shown(self) -> sp.csr_matrix:
        """The known items, CSR ``[users, n]``."""
        return sp.csr_matrix(self.question.known.astype(np.float32))

    @property
    def length(self) -> IntArray:
        """How many items each has, int64 ``[users]``."""
        return np.asarray(np.diff(self.rows.indptr), dtype=np.int64)


def ask(
    rows: sp.csr_matrix,
    client: IntArray,
    share: float,
    rng: np.random.Generator,
    *,
    is_inside: bool = True,
) -> Asked:
    """Show a random share of each user's items, rounded down."""
    known = np.zeros(rows.shape, dtype=bool)
    for user in range(rows.shape[0]):
        own = rng.permutation(rows.indices[rows.indptr[user] : rows.indptr[user + 1]])
        known[user, own[: int(len(own) * share)]] = True
    hidden = rows.toarray().astype(bool) & ~known
    return Asked(rows, client, is_inside, Question(known, hidden))


def some_users(
    world: World, most: int, rng: np.random.Generator, share: float = KNOWN
) -> Asked:
    """Some users of some clients, with two items or more each."""
    rows = sp.vstack([each.histories for each in world.clients], format="csr")
    sizes = [len(each.users) for each in world.clients]
    client = np.repeat(np.arange(len(sizes)), sizes)
    visited = rng.permutation(len(sizes))[:MOST_CLIENTS]
    rows, client = rows[np.isin(client, visited)], client[np.isin(client, visited)]
    chosen = _some(rows, most, rng)
    return ask(rows[chosen], client[chosen], share, rng)


def outsiders(world: World, most: int, rng: np.random.Generator) -> Asked:
    """Held-out users, who are in no run and teach nothing, each asked of one client."""
    rows = world.outsiders[: world.outsiders.shape[0] - _num_public(world)]
    chosen = _some(rows, most, rng)
    client = np.arange(len(chosen)) % min(len(world.clients), MOST_CLIENTS)
    return ask(rows[chosen], client, KNOWN, rng, is_inside=False)


def _some(rows: sp.csr_matrix, most: int, rng: np.random.Generator) -> IntArray:
    fit = np.flatnonzero(np.diff(rows.indptr) > 1)
    return np.sort(rng.permutation(fit)[:most])


def _num_public(world: World) -> int:
    return int(public_rows(world.server.parent, world.catalogue).shape[0])


def popularity(world: World) -> Float:
    """Public rows an item, float64 ``[n]``: who saw nothing private ranks by it."""
    counts = count_popularity([world.server / INTERACTIONS], world.catalogue)
    return counts.astype(np.float64)


def log_chances(
    spec: StudentSpec, state: StateDict, rows: sp.csr_matrix
) -> npt.NDArray[np.float64]:
    """A student's log-probability of each item for histories, ``[users, n]``."""
    student = build(spec, state).eval()
    found = []
    with torch.no_grad():
        for start in range(0, rows.shape[0], _USERS):
            part = torch.from_numpy(rows[start : start + _USERS].toarray())
            found.append(student(part).log_softmax(1).numpy().astype(np.float64))
    return np.concatenate([np.zeros((0, spec.num_items)), *found])
