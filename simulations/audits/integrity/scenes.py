"""One trust model with its people, some of whom lie: what an attack is set in.

Simulations only: who lies about what, and the held-out users, are ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from simulations.audits.integrity.dealing import dealt
from simulations.audits.integrity.lies import Float, IntArray
from simulations.audits.world import ClientRows, World, new_pseudonyms
from simulations.collecting import FEDERATION
from simulations.evaluation import HeldOut, read_heldout

#: Items that are to rise, or to fall.
TARGETS = 5
#: Popular items that a false user claims beside the targets.
FILLERS = 30
OFF, DISTRIBUTED = "off", "distributed"


@dataclass(frozen=True)
class Scene:
    """One trust model with its people.

    Attributes:
        liars: names of the clients that lie.
        raised, lowered: targets of push, and of nuke.
        popularity: users of each item over users, float64 ``[n]``.
        dealing: how rows came to the clients, in words.
    """

    world: World
    liars: tuple[str, ...]
    raised: IntArray
    lowered: IntArray
    popularity: Float
    heldout: HeldOut
    dealing: str
    seed: int

    @property
    def liars_of(self) -> str:
        """How many lie, of all."""
        return f"{len(self.liars)} of {len(self.world.clients)}"


def make_scene(
    world: World, mode: str, share: tuple[int, int], place: Path, seed: int
) -> Scene:
    """Deal the run's rows, and draw who lies about what.

    Args:
        mode: ``off``, or the run's own.
        share: clients that are wanted, and how many of them lie.
        place: a folder for the federation's fixed parts.
    """
    rng = np.random.default_rng(seed)
    off = {"privacy.mode": OFF} if mode == OFF else {}
    # How many clients a secure sum takes is agreed beforehand: they stay as they are.
    wanted = 1 if mode == DISTRIBUTED else share[0]
    new = dealt(world, wanted, off, place / "world", rng)
    rows = sp.vstack([client.histories for client in new.clients], format="csr")
    counts = np.asarray((rows > 0).sum(axis=0)).ravel()
    count = max(1, round(share[1] * len(new.clients) / share[0]))
    liars = rng.choice(len(new.clients), size=count, replace=False)
    raised, lowered = choose_targets(counts, rng)
    return Scene(
        new,
        tuple(new.clients[place].name for place in sorted(liars)),
        raised,
        lowered,
        counts / rows.shape[0],
        read_heldout(new.run / FEDERATION),
        _dealing(world, new),
        seed,
    )


def choose_targets(
    counts: IntArray, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Items that few know, to push; and items that most know, to nuke.

    Args:
        counts: users of each item.
    """
    order = np.argsort(-counts, kind="stable")
    touched = order[: max(int((counts > 0).sum()), 4 * TARGETS)]
    few = touched[len(touched) // 2 :]
    most = touched[: max(2 * TARGETS, len(touched) // 50)]
    raised: IntArray = np.sort(rng.choice(few, TARGETS, replace=False))
    lowered: IntArray = np.sort(rng.choice(most, TARGETS, replace=False))
    return raised, lowered


def _dealing(before: World, after: World) -> str:
    users = sum(len(client.users) for client in after.clients) / len(after.clients)
    if len(after.clients) == len(before.clients):
        return f"The run's own {len(after.clients)} clients of {users:.0f} users each."
    noise = "" if after.config.privacy.mode == OFF else ", with its noise at each"
    return (
        f"The run's rows dealt anew from {len(before.clients)} to {len(after.clients)} "
        f"clients of {users:.0f} users each{noise}."
    )


def false_users(scene: Scene, client: ClientRows, targets: IntArray) -> ClientRows:
    """As many users as are declared, each of whom claims targets and popular items."""
    rng = np.random.default_rng([scene.seed, int(client.name)])
    count, size = scene.world.config.privacy.declared_users, len(scene.popularity)
    others = np.setdiff1d(np.flatnonzero(scene.popularity > 0), targets)
    chance = scene.popularity[others] / scene.popularity[others].sum()
    rows = np.zeros((count, size), dtype=np.float32)
    for row in rows:
        fillers = rng.choice(others, min(FILLERS, len(others)), replace=False, p=chance)
        row[fillers] = 1.0
        row[targets] = 1.0
    return ClientRows(client.name, new_pseudonyms(count), sp.csr_matrix(rows))
