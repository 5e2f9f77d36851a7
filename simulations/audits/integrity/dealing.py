"""The run's rows dealt anew to enough clients that a few of them can be few.

Simulations only: it sees every client's rows. Two liars of four are no minority; so a
run of few clients is attacked as if as many people stood behind more and smaller ones.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from common.config import FlatConfig, Scalar, parse, to_flat
from common.folders import CATALOGUE
from simulations.audits.world import ClientRows, World
from simulations.collecting import FEDERATION
from simulations.partition import CLIENTS, HELDOUT, SERVER


def dealt(
    world: World,
    num_clients: int,
    overrides: Mapping[str, Scalar],
    folder: Path,
    rng: np.random.Generator,
) -> World:
    """The same people at ``num_clients`` clients, or at the run's own if it has more.

    Each declares a share of what the run's own declared, so that the people behind a
    public number stay in proportion; noise multipliers are the run's own.

    Args:
        overrides: of the run's config.
        folder: where the new federation's fixed parts are written.
        rng: who goes where.
    """
    before, clients = len(world.clients), world.clients
    config: FlatConfig = {**world.flat, **overrides}
    if num_clients > before:
        clients = _deal(world, num_clients, rng)
        declared = world.config.privacy.declared_users * before / num_clients
        config["partition.num-clients"] = num_clients
        config["privacy.declared-users"] = math.ceil(declared)
    federation = folder / FEDERATION
    for part in (SERVER, HELDOUT):
        shutil.copytree(world.run / FEDERATION / part, federation / part)
    for client in clients:
        place = federation / CLIENTS / client.name
        place.mkdir(parents=True)
        shutil.copy(world.server / CATALOGUE, place / CATALOGUE)
    return replace(world, run=folder, config=parse(config), clients=clients)


def _deal(
    world: World, num_clients: int, rng: np.random.Generator
) -> tuple[ClientRows, ...]:
    rows = sp.vstack([client.histories for client in world.clients], format="csr")
    users = [user for client in world.clients for user in client.users]
    parts = np.array_split(rng.permutation(len(users)), num_clients)
    return tuple(
        ClientRows(f"{index:04d}", tuple(users[place] for place in part), rows[part])
        for index, part in enumerate(parts)
    )


def under(world: World, overrides: Mapping[str, Scalar]) -> World:
    """The same people under another configuration."""
    return replace(world, config=parse({**to_flat(world.config), **overrides}))
