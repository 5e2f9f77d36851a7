"""Canaries: users, or single interactions, that are in by the toss of a coin.

Simulations only: ground truth. They enter a run as rows of client folders, so that the
code which is audited is the code that ships. A new design is one function here, one
entry in ``DESIGNS``, one test.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.durable_files import write_durably
from common.events import Unit
from common.integer_noise import unit_of
from common.plan import statistics_noise
from simulations.audits.gradients import Gradients
from simulations.audits.summed import gradient_clip, is_summed
from simulations.audits.world import ClientRows, World, new_pseudonyms

IntArray = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

#: Items of a rare-item user, and how many Dirac users may have.
RARE_ITEMS, DIRAC_ITEMS = 5, (1, 2, 3, 5)


@dataclass(frozen=True)
class Canaries:
    """Who is looked for, and how their rows differ with and without them.

    Attributes:
        unit: what of a client's rows the coin decides on.
        client: int64 ``[m]``, place of the client whose rows they are.
        present, absent: a canary's user with it and without it, CSR ``[m, n]``; a user
            canary is absent with no row at all.
        users: pseudonym of each canary's user, a real one's for interactions.
    """

    unit: Unit
    client: IntArray
    present: sp.csr_matrix
    absent: sp.csr_matrix
    users: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.client)

    def at(self, client: int) -> IntArray:
        """Places of the canaries of one client."""
        return np.flatnonzero(self.client == client)

    def first(self, count: int) -> Canaries:
        """The first so many."""
        return Canaries(
            self.unit,
            self.client[:count],
            self.present[:count],
            self.absent[:count],
            self.users[:count],
        )


Design = Callable[[World, int, np.random.Generator], Canaries]


def random_users(world: World, count: int, rng: np.random.Generator) -> Canaries:
    """Users like anybody: as many items as somebody, drawn by how popular they are."""
    rows = sp.vstack([client.histories for client in world.clients], format="csr")
    popularity = np.asarray(rows.sum(axis=0)).ravel() + 1e-9
    lengths = np.diff(rows.indptr)[rng.integers(rows.shape[0], size=count)]
    chance = popularity / popularity.sum()
    items = [
        rng.choice(world.num_items, size=max(1, int(length)), replace=False, p=chance)
        for length in lengths
    ]
    return _users(world, items)


def rare_users(world: World, count: int, rng: np.random.Generator) -> Canaries:
    """Users of a few of the rarest items, as people with niche tastes are."""
    rows = sp.vstack([client.histories for client in world.clients], format="csr")
    order = np.argsort(np.asarray(rows.sum(axis=0)).ravel(), kind="stable")
    rare = order[: max(RARE_ITEMS, world.num_items // 4)]
    items = [rng.choice(rare, size=RARE_ITEMS, replace=False) for _ in range(count)]
    return _users(world, items)


def dirac_users(world: World, count: int, rng: np.random.Generator) -> Canaries:
    """Users whose contribution stands alone: very few items, that others do not share.

    How few is chosen by what the public plan makes of such a user: the number of items
    whose expected, clipped contribution is the longest against the noise.
    """
    size = max(
        DIRAC_ITEMS,
        key=lambda each: information(world, _sparse(world, count, each, rng)),
    )
    return _users(world, _sparse(world, count, size, rng))


def interactions(world: World, count: int, rng: np.random.Generator) -> Canaries:
    """One rare item more for a real user; users of few items first, once each."""
    clients = world.clients
    owner = np.repeat(np.arange(len(clients)), [len(each.users) for each in clients])
    rows = sp.vstack([client.histories for client in clients], format="csr")
    names = [user for client in clients for user in client.users]
    # Of users of one length chance decides: the first would all be of one client.
    hosts = np.lexsort((rng.random(len(owner)), np.diff(rows.indptr)))[:count]
    order = np.argsort(np.asarray(rows.sum(axis=0)).ravel(), kind="stable")
    absent = rows[hosts]
    present = absent.tolil()
    for place in range(len(hosts)):
        free = order[~np.isin(order, absent[place].indices)]
        if len(free):
            rare = free[: max(1, len(free) // 4)]
            present[place, int(rng.choice(rare))] = 1.0
    return Canaries(
        "interaction",
        owner[hosts],
        present.tocsr(),
        absent,
        tuple(names[host] for host in hosts),
    )


#: Name → design. Results name it.
DESIGNS: dict[str, Design] = {
    "random": random_users,
    "rare-item": rare_users,
    "dirac": dirac_users,
    "interaction": interactions,
}


def information(world: World, items: list[IntArray]) -> float:
    """How far such users stand out of the noise, squared, by the public plan alone.

    Of the statistics each user is a vector of length 1 (√c for one item, which is in no
    pair); of training the mean clipped gradient at the transferred student, times what
    sampling lets through. Without noise, against a deviation of one clip or one user.
    """
    config, total = world.config, 0.0
    single = len(items[0]) == 1
    if config.statistics.share:
        noise = statistics_noise(config)
        length = config.statistics.counts_share if single else 1.0
        total += length / (noise.pairs or 1.0) ** 2
        if config.statistics.sketch_share and not single:
            total += 1.0 / (noise.sketch or 1.0) ** 2
    if config.training.rounds:
        off = config.privacy.mode == "off"
        clip = math.inf if off else config.privacy.max_grad_norm
        if is_summed(config):
            clip = gradient_clip(config)
        some = _multi_hot(items[:16], world.num_items)
        lengths = Gradients(
            world.spec, world.start, config.training.target_fraction, clip
        ).norms(some)
        mean = float(np.square(lengths).mean()) / (1.0 if off else clip) ** 2
        steps = config.total_steps * config.privacy.sample_rate**2
        total += steps * mean / (world.noise or 1.0) ** 2
    return total


def most_canaries(world: World, wanted: int) -> int:
    """So many, or one a client where a client's whole update is the clipped unit."""
    return min(wanted, len(world.clients)) if is_summed(world.config) else wanted


def toss(canaries: Canaries, rng: np.random.Generator) -> Bool:
    """Who is in, each with probability one half."""
    return rng.random(len(canaries)) < 0.5


def insert(
    world: World, canaries: Canaries, included: Bool
) -> tuple[tuple[ClientRows, ...], tuple[sp.csr_matrix, ...]]:
    """The clients' rows with the canaries that are in.

    Where a client's whole update is the unit, a canary is all that its client has, in
    the place of its users; without it the client has no rows, and adds noise alone.

    Returns:
        The clients, and of each the rows that no coin decided on, CSR.
    """
    mixed = sp.csr_matrix(
        sp.diags(included.astype(np.float32)) @ canaries.present
        + sp.diags((~included).astype(np.float32)) @ canaries.absent
    ).astype(np.float32)
    mixed.eliminate_zeros()
    clients, known = [], []
    alone = is_summed(world.config) and canaries.unit != "interaction"
    for place, client in enumerate(world.clients):
        chosen = canaries.at(place)
        hosts = {canaries.users[index] for index in chosen}
        others = [i for i, u in enumerate(client.users) if u not in hosts]
        stay = client.where([] if alone and len(chosen) else others)
        there = chosen[np.diff(mixed.indptr)[chosen] > 0]
        names = [canaries.users[index] for index in there]
        clients.append(stay.beside(names, mixed[there]))
        known.append(stay.histories)
    return tuple(clients), tuple(known)


def write_truth(path: Path, world: World, canaries: Canaries, included: Bool) -> None:
    """Keep who was in, in the audit's folder: no party of the run ever sees it."""
    names = world.catalogue.items.ids
    lines = [
        {
            "client": world.clients[int(client)].name,
            "user": user,
            "items": [names[i] for i in canaries.present[place].indices],
            "included": bool(included[place]),
        }
        for place, (client, user) in enumerate(
            zip(canaries.client, canaries.users, strict=True)
        )
    ]
    write_durably(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def _users(world: World, items: list[IntArray]) -> Canaries:
    """User canaries dealt to the clients in turn."""
    present = _multi_hot(items, world.num_items)
    config = world.config
    return Canaries(
        unit_of(config) if is_summed(config) else "user",
        np.arange(len(items), dtype=np.int64) % len(world.clients),
        present,
        sp.csr_matrix(present.shape, dtype=np.float32),
        new_pseudonyms(len(items)),
    )


def _multi_hot(items: list[IntArray], num_items: int) -> sp.csr_matrix:
    lengths = [len(each) for each in items]
    rows = np.repeat(np.arange(len(items)), lengths)
    values = np.ones(len(rows), dtype=np.float32)
    columns = np.concatenate(items) if items else np.zeros(0, dtype=np.int64)
    return sp.csr_matrix((values, (rows, columns)), shape=(len(items), num_items))


def _sparse(
    world: World, count: int, size: int, rng: np.random.Generator
) -> list[IntArray]:
    """Groups of ``size`` items, disjoint in an answer while they last, rare first."""
    clients = [client.histories for client in world.clients]
    if is_summed(world.config):
        # All of them meet in one sum.
        clients = [sp.vstack(clients, format="csr")]
    found: list[IntArray] = [np.zeros(0, dtype=np.int64)] * count
    for place, histories in enumerate(clients):
        wanted = range(place, count, len(clients))
        order = np.argsort(np.asarray(histories.sum(axis=0)).ravel(), kind="stable")
        queue: list[IntArray] = []
        for index in wanted:
            if not queue:
                pool = rng.permutation(order[: max(size, len(wanted) * size)])
                queue = [
                    pool[start : start + size]
                    for start in range(0, len(pool) - size + 1, size)
                ]
            found[index] = queue.pop()
    return found
