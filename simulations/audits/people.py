"""What an audit may group users by: activity, taste, client, and known attributes.

Simulations only: attributes come from the data set's publisher, and are joined with
the pseudonyms by each client's own key, which only a simulation has at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.stats import rankdata

from client.identifiers import pseudonym
from common.durable_files import read_or_create_secret
from common.errors import ConfigError, DataFormatError
from common.folders import ID_KEY
from simulations.audits.world import World
from simulations.collecting import FEDERATION
from simulations.groups import AGE_BANDS, UNKNOWN, labels_of
from simulations.partition import CLIENTS

Float = npt.NDArray[np.float64]
Labels = npt.NDArray[np.str_]

TASTES = (
    "most popular quarter",
    "second quarter",
    "third quarter",
    "most niche quarter",
)


@dataclass(frozen=True)
class Property:
    """Each user's group by one property.

    Attributes:
        labels: ``[users]``.
        order: of the groups, for people.
    """

    labels: Labels
    order: tuple[str, ...]


def properties(world: World) -> dict[str, Property]:
    """Each user's group by every property, users in the order of the clients."""
    rows = sp.vstack([client.histories for client in world.clients], format="csr")
    owner = [client.name for client in world.clients for _ in client.users]
    names = tuple(client.name for client in world.clients)
    return {
        "activity": activity(rows),
        "taste": taste(rows),
        "client": Property(np.asarray(owner, dtype=np.str_), names),
        **known_attributes(world),
    }


def activity(rows: sp.csr_matrix) -> Property:
    """Quarters by number of items; named by their ends, never by anybody's own."""
    counts = np.asarray(rows.getnnz(axis=1), dtype=np.float64)
    ends = np.unique(np.quantile(counts, [0.25, 0.5, 0.75]).round())
    names = [
        f"{low + 1:.0f} to {high:.0f} items" if low >= 0 else f"up to {high:.0f} items"
        for low, high in zip([-1.0, *ends[:-1]], ends, strict=True)
    ]
    names.append(f"more than {ends[-1]:.0f} items")
    place = np.searchsorted(ends, counts, side="left")
    return Property(np.asarray(names)[place], tuple(names))


def taste(rows: sp.csr_matrix) -> Property:
    """Quarters by the mean popularity rank of a user's items; few know niche ones."""
    ranks = rankdata(-np.asarray(rows.sum(axis=0)).ravel())
    counts = np.maximum(rows.getnnz(axis=1), 1)
    mean = np.asarray(rows @ ranks).ravel() / counts
    place = (rankdata(mean, method="ordinal") - 1) * len(TASTES) // max(1, len(mean))
    return Property(np.asarray(TASTES)[place.astype(np.int64)], TASTES)


def known_attributes(world: World) -> dict[str, Property]:
    """Attributes that the private data set has; none where it cannot be read again."""
    from simulations.experiment import deal

    try:
        dealt = deal(world.config)
        keys = [_key(world, client.name) for client in world.clients]
    except (ConfigError, DataFormatError, OSError):
        return {}
    if dealt.users is None or len(dealt.clients) != len(world.clients):
        return {}
    parts: dict[str, list[str]] = {}
    for table, client, key in zip(dealt.clients, world.clients, keys, strict=True):
        outside = {pseudonym(user, key): user for user in table["user"].unique()}
        ids = [outside.get(user, "") for user in client.users]
        for name, labels in labels_of(dealt.users, ids).items():
            parts.setdefault(name, []).extend(labels.tolist())
    return {
        name: Property(
            np.asarray(labels, dtype=np.str_),
            (*AGE_BANDS.values(), *sorted(set(labels) - set(AGE_BANDS.values()))),
        )
        for name, labels in parts.items()
        if set(labels) != {UNKNOWN}
    }


def _key(world: World, client: str) -> bytes:
    """A client's key, never a new one.

    Raises:
        OSError: if there is none.
        ConfigError: if it is damaged, or others may read it.
    """
    path = world.run / FEDERATION / CLIENTS / client / ID_KEY
    path.stat()
    return read_or_create_secret(path)
