"""Synthetic interactions with popularity skew and cluster taste.

Simulations only, for tests and for scale; never a stand-in for a set that could not
be fetched.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from common.catalogue import SCHEMA as CATALOGUE_SCHEMA
from common.catalogue import Catalogue
from common.errors import ConfigError
from common.interactions import SCHEMA


def generate(
    *,
    num_users: int = 400,
    num_items: int = 200,
    num_clusters: int = 4,
    interactions_per_user: int = 20,
    skew: float = 0.8,
    seed: int = 0,
) -> tuple[pl.DataFrame, Catalogue, pl.DataFrame]:
    """Interactions, catalogue and users (with their cluster), the same for a seed.

    Item i has popularity ``(1 + rank)^-skew``; a user draws four fifths of the items
    from its own cluster, without repeats (Gumbel top-k).

    Raises:
        ConfigError: naming the size that is out of range.
    """
    sizes = (num_users, num_items, num_clusters, interactions_per_user)
    if min(sizes) < 1 or interactions_per_user > num_items or num_clusters > num_items:
        raise ConfigError(
            "synthetic: expected sizes ≥ 1, and no more interactions per user or "
            f"clusters than items; got {sizes}."
        )
    rng = np.random.default_rng(seed)
    popularity = -skew * np.log1p(rng.permutation(num_items))
    item_cluster = rng.integers(num_clusters, size=num_items)
    user_cluster = rng.integers(num_clusters, size=num_users)
    taste = np.log(4.0 * max(num_clusters - 1, 1))
    items = np.empty((num_users, interactions_per_user), dtype=np.int64)
    for start in range(0, num_users, 1024):
        mine = user_cluster[start : start + 1024, None]
        score = popularity + taste * (mine == item_cluster)
        score = score + rng.gumbel(size=score.shape)
        items[start : start + 1024] = np.argsort(-score, axis=1)[
            :, :interactions_per_user
        ]
    return (
        _table(items, rng),
        _catalogue(item_cluster),
        pl.DataFrame(
            {
                "user": [str(u + 1) for u in range(num_users)],
                "cluster": [str(c) for c in user_cluster],
            }
        ),
    )


def _table(items: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    num_users, per_user = items.shape
    columns = {
        "user": np.repeat(np.arange(1, num_users + 1), per_user).astype(str).tolist(),
        "item": (items.ravel() + 1).astype(str).tolist(),
        "value": rng.integers(1, 6, size=items.size).astype(np.float32),
        "timestamp": rng.integers(9 * 10**8, 10**9, size=items.size),
    }
    return pl.DataFrame(columns, schema=SCHEMA)


def _catalogue(cluster: np.ndarray) -> Catalogue:
    years = [1950 + 3 * int(c) for c in cluster]
    columns = {
        "item": [str(i + 1) for i in range(len(cluster))],
        "title": [f"Item {i + 1} ({year})" for i, year in enumerate(years)],
        "year": years,
        "categories": [[f"cluster-{c}"] for c in cluster],
    }
    return Catalogue(pl.DataFrame(columns, schema=CATALOGUE_SCHEMA))
