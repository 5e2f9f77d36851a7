"""A variation of a run for reconstruction: other clients, or another trust model.

Simulations only. Clients of one user, as devices are, are dealt from the run's own
users; code and the rest of the configuration are the run's.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from common.config import FlatConfig, parse
from common.folders import CATALOGUE
from simulations.audits.one_run import recorded
from simulations.audits.world import ClientRows, World
from simulations.collecting import FEDERATION
from simulations.partition import CLIENTS, SERVER


def devices(world: World, most: int, rng: np.random.Generator) -> list[ClientRows]:
    """A client each for some of the run's users with two items or more."""
    users = [
        (client, user)
        for client in world.clients
        for user in np.flatnonzero(np.diff(client.histories.indptr) > 1).tolist()
    ]
    chosen = sorted(rng.permutation(len(users))[:most].tolist())
    return [
        replace(users[place][0].where([users[place][1]]), name=f"{number:04d}")
        for number, place in enumerate(chosen)
    ]


@contextmanager
def staged(
    world: World,
    clients: Sequence[ClientRows],
    overrides: FlatConfig,
    seed: int | None,
) -> Iterator[tuple[World, Path]]:
    """Run a variation; its world and its messages, while the block lasts.

    Args:
        overrides: what differs from the run's configuration, whose noise is kept.
        seed: of the noise; ``None`` for the operating system's.
    """
    with TemporaryDirectory(prefix="tutela-leaks-") as name:
        run = Path(name, "run")
        folder = run / FEDERATION
        for client in clients:
            place = folder / CLIENTS / client.name
            place.mkdir(parents=True)
            shutil.copy(world.run / CATALOGUE, place / CATALOGUE)
        (folder / SERVER).symlink_to(world.server.resolve())
        varied = replace(
            world,
            run=run,
            config=parse(world.flat | overrides),
            clients=tuple(clients),
        )
        with recorded(varied, varied.clients, seed) as messages:
            yield varied, messages
