"""Shadow models: the run again and again, each time over a random half of its users.

Simulations only: it knows every user of every client. Runs go to processes of one
thread each; what comes back are statistics, not models.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from simulations.audits.knowledge import Object, judges
from simulations.audits.membership import Trials
from simulations.audits.scores import Targets
from simulations.audits.settings import AuditSettings, Tell
from simulations.audits.summed import seen_scores
from simulations.audits.viewpoints import servers_seat
from simulations.audits.world import World, read_world, rerun, write_clients

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Shadow:
    """What one run says of everybody, by object.

    Attributes:
        users: statistic of every user, ``[users]``.
        population: of everybody who is in no run, ``[others]``; may be empty.
    """

    users: dict[Object, Float]
    population: dict[Object, Float]


def membership_trials(
    world: World, settings: AuditSettings, tell: Tell
) -> dict[Object, Trials]:
    """Statistics of every user in every shadow run, by what was attacked."""
    rng = np.random.default_rng(settings.seed)
    num_users = sum(len(client.users) for client in world.clients)
    member = rng.random((settings.num_shadows, num_users)) < 0.5
    shadows: list[Shadow] = []
    for done in _computed(world, member, settings):
        shadows.append(done)
        tell(f"membership: shadow model {len(shadows)} of {settings.num_shadows}")
    return {
        each: Trials(
            np.stack([shadow.users[each] for shadow in shadows]),
            member[: len(shadows)],
            np.stack([shadow.population[each] for shadow in shadows]),
        )
        for each in shadows[0].users
    }


def _computed(world: World, member: Bool, settings: AuditSettings) -> Iterator[Shadow]:
    """The shadows in the order of their rows, whichever is ready first."""
    seeds = [
        None if settings.seed is None else settings.seed + run
        for run in range(len(member))
    ]
    if settings.workers == 0:
        for included, seed in zip(member, seeds, strict=True):
            yield shadow(world.run, included, seed)
        return
    with (
        one_thread_each(),
        ProcessPoolExecutor(
            settings.workers,
            mp_context=get_context("spawn"),
            initializer=single_thread,
        ) as pool,
    ):
        jobs = [
            pool.submit(shadow, world.run, included, seed)
            for included, seed in zip(member, seeds, strict=True)
        ]
        for job in jobs:
            yield job.result()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Libraries read these when a process starts, and would take every core."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def single_thread() -> None:
    """Torch counts its own."""
    import torch

    torch.set_num_threads(1)


def shadow(run: Path, included: Bool, seed: int | None) -> Shadow:
    """Run over the included users, and attack.

    Args:
        run: the audited run's folder.
        included: over all clients' users in order, bool ``[users]``.
        seed: of the noise; ``None`` for the operating system's.
    """
    world = read_world(run)
    clients, start = [], 0
    for client in world.clients:
        stop = start + len(client.users)
        clients.append(client.where(np.flatnonzero(included[start:stop]).tolist()))
        start = stop
    with tempfile.TemporaryDirectory(prefix="tutela-shadow-") as name:
        place = Path(name)
        folders = write_clients(world, clients, place / "federation", seed)
        rerun(world, folders, place / "run", place / "messages", seed)
        return _attacked(world, place)


def _attacked(world: World, place: Path) -> Shadow:
    rows = sp.vstack([client.histories for client in world.clients], format="csr")
    owner = np.repeat(
        np.arange(len(world.clients)), [len(each.users) for each in world.clients]
    )
    nobody = sp.csr_matrix((0, world.num_items), dtype=np.float32)
    targets = Targets(
        owner,
        rows,
        sp.csr_matrix(rows.shape, dtype=np.float32),
        (nobody,) * len(world.clients),
    )
    mode = world.config.privacy.mode
    server = (servers_seat(mode), "answers" if mode != "distributed" else "sums")
    users = {server: seen_scores(world, place / "messages", targets)}
    population: dict[Object, Float] = {server: np.zeros(0)}
    for name, judge in judges(world, place / "messages", place / "run").items():
        users[name], population[name] = judge(rows), judge(world.outsiders)
    return Shadow(users, population)
