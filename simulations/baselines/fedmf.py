"""FedMF under user-level DP: items' factors at the server, users' on their devices.

Federated collaborative filtering for implicit feedback (Ammad-ud-din et al. 2019,
arXiv 1901.09888; Chai et al. 2020, arXiv 1906.05108): each round the server sends
item factors V, every user solves for its own factor, which never leaves, and answers
with the gradient of its loss in V. Made private as in McMahan et al. 2018: each
user's gradient is clipped over all of V, Gaussian noise covers the sum, and
``common.accounting`` composes the rounds. Everyone takes part in every round; one
clip over the union of users, or the users of several clients each covered by its
client's own whole noise. Simulations only, for comparison under the same (ε, δ).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.accounting import calibrate, epsilon
from common.events import DpEvent
from common.interactions import FloatArray
from common.promise import Promise
from simulations.baselines import puresvd
from simulations.baselines.model import Model

Matrix = npt.NDArray[np.float64]

_CHUNK = 1024
_ROUNDING = 1e-9
_BETA_1, _BETA_2, _TINY = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class FedMF:
    """Public constants of a run.

    Attributes:
        dim: length of a factor.
        confidence: weight of a touched item beyond the 1 of every item.
        l2: of a user's least squares.
        max_grad_norm: a user's bound, over all of V.
        learning_rate: of the server's Adam.
        average_from: iterates after this share of the rounds are averaged.
        scale: of a random start.
    """

    dim: int = 32
    rounds: int = 60
    confidence: float = 4.0
    l2: float = 10.0
    max_grad_norm: float = 0.1
    learning_rate: float = 0.1
    average_from: float = 0.5
    scale: float = 0.1


def event_of(settings: FedMF, noise_multiplier: float) -> DpEvent:
    """What a run amounts to: a noisy sum a round, over all users."""
    return DpEvent(noise_multiplier, 1.0, settings.rounds)


def promise_for(settings: FedMF, noise_multiplier: float, delta: float) -> Promise:
    """What a run promises, whole."""
    event = event_of(settings, noise_multiplier)
    return Promise(
        epsilon=epsilon([event], delta),
        delta=delta,
        unit=event.unit,
        relation=event.relation,
        mode="local",
        trust="nobody else is trusted, the server and other clients included",
        released="gradients of the item factors, and nothing else of its data",
        accountant="privacy loss distributions (dp-accounting PLD)",
        sampling=f"none, every user in each of {event.steps} rounds",
        seeded=True,
    )


def noise_for(settings: FedMF, target_epsilon: float, delta: float) -> float:
    """The least noise multiplier that keeps the whole run at ``target_epsilon``."""
    return calibrate(target_epsilon, delta, 1.0, settings.rounds)


def fit(
    train: sp.csr_matrix,
    settings: FedMF,
    *,
    noise_multiplier: float,
    declared_users: int,
    seed: int,
    num_clients: int = 1,
    start: FloatArray | None = None,
) -> Model:
    """Train item factors and return what ranks by them.

    Args:
        train: the users' rows, binary CSR ``[users, n]``.
        settings: public constants.
        noise_multiplier: noise deviation over ``max_grad_norm``; 0 is NOT PRIVATE.
        declared_users: public size, the mean's denominator.
        seed: of start and noise: a simulation, whose artefact protects nobody.
        num_clients: who hold the users; each adds its own whole noise.
        start: public item factors float32 ``[n, dim]``; None starts at random.
    """
    rng = np.random.default_rng(seed)
    shape = (train.shape[1], settings.dim)
    items = rng.normal(scale=settings.scale, size=shape) if start is None else start
    items = np.asarray(items, dtype=np.float64)
    first, second = np.zeros(shape), np.zeros(shape)
    kept = []
    for number in range(1, settings.rounds + 1):
        # Independent noises of K clients add up to one that is √K as large.
        deviation = noise_multiplier * settings.max_grad_norm * np.sqrt(num_clients)
        total = noised(clipped_sum(train, items, settings), deviation, rng)
        mean = total / declared_users
        first = _BETA_1 * first + (1 - _BETA_1) * mean
        second = _BETA_2 * second + (1 - _BETA_2) * mean**2
        step = (first / (1 - _BETA_1**number)) / (
            np.sqrt(second / (1 - _BETA_2**number)) + _TINY
        )
        items = items - settings.learning_rate * step
        if number > settings.average_from * settings.rounds:
            kept.append(items)
    return model_of(np.mean(kept, axis=0), settings)


def noised(total: Matrix, deviation: float, rng: np.random.Generator) -> Matrix:
    """The sum with Gaussian noise on every number of it."""
    return total + rng.normal(size=total.shape) * deviation


def model_of(items: Matrix, settings: FedMF) -> Model:
    """Scores of a history: its own factor, solved on the device, times V."""

    def score(history: sp.csr_matrix) -> FloatArray:
        users = user_factors(history, items, settings)
        return np.asarray(users @ items.T, dtype=np.float32)

    return score


def public_start(public: sp.csr_matrix, settings: FedMF) -> FloatArray:
    """Item factors from public rows, float32 ``[n, dim]``, of a random start's size.

    Their leading right singular vectors; an item without public rows starts at zero.
    """
    directions = puresvd.directions(public, settings.dim)
    start = np.zeros((public.shape[1], settings.dim), dtype=np.float32)
    start[:, : directions.shape[1]] = directions
    return start * np.float32(settings.scale * np.sqrt(public.shape[1]))


def user_factors(history: sp.csr_matrix, items: Matrix, settings: FedMF) -> Matrix:
    """The p that minimises Σᵢ cᵢ (xᵢ − vᵢ·p)² + l2 |p|², float64 ``[B, dim]``.

    With cᵢ = 1 + confidence where xᵢ = 1, else 1. Each user's needs its own row
    alone.
    """
    dim, extra = settings.dim, settings.confidence
    row, column = np.triu_indices(dim)
    normal = np.empty((history.shape[0], dim, dim))
    # vᵢ vᵢᵀ is symmetric: half of it is enough.
    normal[:, row, column] = extra * (history @ (items[:, row] * items[:, column]))
    normal[:, column, row] = normal[:, row, column]
    normal += items.T @ items + settings.l2 * np.eye(dim)
    wanted = (1.0 + extra) * (history @ items)
    users: Matrix = np.linalg.solve(normal, wanted[:, :, None])
    return users[:, :, 0]


def clipped_sum(history: sp.csr_matrix, items: Matrix, settings: FedMF) -> Matrix:
    """Sum over users of their clipped gradients in V, float64 ``[n, dim]``.

    User u's gradient is the outer product of eᵤ, its weighted errors, and pᵤ, so its
    norm over all of V is |eᵤ| |pᵤ| and no gradient is formed by itself. Nor is eᵤ:
    it is V pᵤ but for the items that u touched.
    """
    total = np.zeros_like(items)
    inner = items.T @ items
    for first in range(0, history.shape[0], _CHUNK):
        rows = history[first : first + _CHUNK].tocoo()
        users = user_factors(rows.tocsr(), items, settings)
        scores = np.einsum("ed,ed->e", users[rows.row], items[rows.col])
        errors = (1.0 + settings.confidence) * (scores - 1.0)
        untouched = np.einsum("ud,de,ue->u", users, inner, users)
        square = untouched + np.bincount(
            rows.row, errors**2 - scores**2, minlength=rows.shape[0]
        )
        # What rounding leaves of a difference counts as if it were there.
        square = np.maximum(square, 0.0) + _ROUNDING * untouched
        norms = np.sqrt(square) * np.linalg.norm(users, axis=1)
        clip = np.minimum(1.0, settings.max_grad_norm / np.maximum(norms, _TINY))
        clipped = users * clip[:, None]
        touched = sp.csr_matrix(
            (errors - scores, (rows.col, rows.row)), rows.shape[::-1]
        )
        total += items @ (users.T @ clipped) + touched @ clipped
    return total
