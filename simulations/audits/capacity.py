"""How many canaries a client's answers have room for: the server refuses larger sums.

Simulations only: it counts everybody's rows. What a client may answer is bounded by its
declared number of users (``server/bounds.py``). Canaries are users beyond those, and
all of a kind, so that many of them together are refused where noise does not hide it;
and with their answer the run fails. Found out before it runs, and without a look at who
is in: the number of canaries must not tell.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.errors import ConfigError
from common.plan import statistics_noise
from server.bounds import DEVIATIONS
from server.refinement import choose_items
from server.settings import read_public_data
from simulations.audits.canaries import Canaries
from simulations.audits.world import World

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


def room_for(world: World, canaries: Canaries) -> int:
    """How many of the canaries, the first ones, may all be in.

    Users' counts ``x / √n`` are added up: their norm is at least that of the pairs,
    since ``k (k − 1) / √(n (n − 1) m (m − 1)) ≤ k / √(n m)`` for k items shared, and
    about the most of a sketch. Half of the deviations that the server lets pass are
    left to the noise itself.
    """
    settings = world.config.statistics
    if not settings.share or canaries.unit != "user":
        return len(canaries)
    chosen = choose_items(read_public_data(world.server), settings.most_items)
    noise = statistics_noise(world.config)
    least = min(noise.pairs, noise.sketch) if settings.sketch_share else noise.pairs
    longest = world.config.privacy.declared_users + least * DEVIATIONS / 2
    most = len(canaries)
    for place, client in enumerate(world.clients):
        theirs = canaries.at(place)
        fit = _fitting(
            np.asarray(_unit(client.histories, chosen).sum(axis=0)).ravel(),
            _unit(canaries.present[theirs], chosen),
            longest,
        )
        if fit < len(theirs):
            most = min(most, int(theirs[fit]))
    return most


def fitted(world: World, canaries: Canaries) -> Canaries:
    """The first of them, as many as there is room for.

    Raises:
        ConfigError: if that is not two.
    """
    room = room_for(world, canaries)
    if room < 2:
        raise ConfigError(
            f"privacy.declared-users: expected room for canaries beside the users, got "
            f"{world.config.privacy.declared_users} declared users a client, whose "
            "sums the server would refuse; audit without canaries."
        )
    return canaries.first(room)


def _fitting(total: Float, rows: sp.csr_matrix, most: float) -> int:
    """How many rows can be added until the sum is longer than ``most``."""
    square = float(total @ total)
    for place in range(rows.shape[0]):
        start, stop = rows.indptr[place], rows.indptr[place + 1]
        items, values = rows.indices[start:stop], rows.data[start:stop]
        square += float(2 * total[items] @ values + values @ values)
        if math.sqrt(square) > most:
            return place
        total[items] += values
    return int(rows.shape[0])


def _unit(rows: sp.csr_matrix, chosen: Bool) -> sp.csr_matrix:
    """The items that count, each row scaled to length 1, an empty one as it is."""
    rows = rows[:, np.flatnonzero(chosen)]
    lengths = np.sqrt(np.maximum(np.diff(rows.indptr), 1))
    return sp.csr_matrix(sp.diags(1 / lengths) @ rows.astype(np.float64))
