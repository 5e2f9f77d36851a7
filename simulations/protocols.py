"""Which rows teach and which are to be found: four protocols over one table.

Simulations only: a split sees everyone at once. What a model learns from never
holds a row it is asked for, nor (``temporal``) one that came later. The kinds are
those of Meng et al. 2020, "Exploring Data Splitting Strategies for the Evaluation
of Recommendation Models" (arXiv 2007.13237). All raise ``DataFormatError`` where
that leaves nobody to rank for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from common.errors import ConfigError, DataFormatError
from simulations.partition import fold


@dataclass(frozen=True)
class Shares:
    """How much of the rows, or of the users, is kept back.

    Attributes:
        shown: share of a user's items (``random``, ``held_out_users``), or of all
            rows by time (``temporal``), that a model is given; in (0, 1).
        users: share of the users held out as a whole (``held_out_users``).

    Raises:
        ConfigError: naming the share that is not in (0, 1).
    """

    shown: float = 0.8
    users: float = 0.1

    def __post_init__(self) -> None:
        for name in ("shown", "users"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(
                    f"Expected 0 < {name} < 1, got {getattr(self, name)}."
                )


@dataclass(frozen=True)
class Parts:
    """A table split by a protocol.

    Attributes:
        train: rows a model may learn from.
        evaluated: rows of the users to rank for, with a column ``held``: false
            where an item is shown, true where it is to find; every user has one of
            each. ``common.interactions.encode_held`` reads it.
    """

    train: pl.DataFrame
    evaluated: pl.DataFrame

    @property
    def held(self) -> pl.DataFrame:
        """Rows to find."""
        return self.evaluated.filter("held").drop("held")

    @property
    def shown(self) -> pl.DataFrame:
        """Rows of the same users that a model ranks from."""
        return self.evaluated.filter(~pl.col("held")).drop("held")


def leave_one_out(
    table: pl.DataFrame, shares: Shares, rng: np.random.Generator
) -> Parts:
    """Each user's last item is to find; ties of time go by row order."""
    rows = first_rows(table)
    place = pl.int_range(pl.len()).over("user")
    return _within_users(rows, place == pl.len().over("user") - 1)


def temporal(table: pl.DataFrame, shares: Shares, rng: np.random.Generator) -> Parts:
    """One cut in time for everybody: the latest 1 − ``shown`` of the rows is to find.

    Rows of one instant fall on the same side. Later rows of users who have none
    before the cut teach nothing and are not asked for.

    Raises:
        DataFormatError: if no row is later than the cut, as without times.
    """
    rows = first_rows(table)
    ordered = rows["timestamp"].to_numpy()
    cut = int(ordered[max(int(np.ceil(shares.shown * len(ordered))) - 1, 0)])
    if not (ordered > cut).any():
        raise DataFormatError(
            f"Expected rows later than the first {shares.shown:.0%}, got none; the "
            "times are missing or all alike, take another protocol."
        )
    return _within_users(rows, pl.col("timestamp") > cut)


def random(table: pl.DataFrame, shares: Shares, rng: np.random.Generator) -> Parts:
    """A random 1 − ``shown`` of each user's items is to find, at least one."""
    rows = fold(first_rows(table), shares.shown, rng)
    return _within_users(rows, pl.col("held"))


def held_out_users(
    table: pl.DataFrame, shares: Shares, rng: np.random.Generator
) -> Parts:
    """A share of the users teaches nothing; part of their items is shown.

    Raises:
        DataFormatError: if there are fewer than two users.
    """
    rows = first_rows(table)
    users = rng.permutation(rows["user"].unique(maintain_order=True).to_numpy())
    if len(users) < 2:
        raise DataFormatError(f"Expected two users or more, got {len(users)}.")
    count = min(max(round(shares.users * len(users)), 1), len(users) - 1)
    theirs = pl.col("user").is_in(users[:count].tolist())
    folded = fold(rows.filter(theirs), shares.shown, rng)
    return Parts(rows.filter(~theirs), _rankable(folded))


def first_rows(table: pl.DataFrame) -> pl.DataFrame:
    """Rows by time, ties in row order, only the first of a user with an item.

    A later visit to an item already seen is no new item to find.
    """
    ordered = table.sort("timestamp", maintain_order=True)
    return ordered.unique(["user", "item"], keep="first", maintain_order=True)


def _within_users(rows: pl.DataFrame, held: pl.Expr) -> Parts:
    """Shown rows are those that teach; users without one are not asked for."""
    marked = rows.with_columns(held.alias("held"))
    train = marked.filter(~pl.col("held")).drop("held")
    return Parts(train, _rankable(marked))


def _rankable(marked: pl.DataFrame) -> pl.DataFrame:
    """Only users with an item shown and an item to find.

    Raises:
        DataFormatError: if there is no such user: a mean over nobody is no figure.
    """
    both = marked.filter(pl.col("held").n_unique().over("user") == 2)
    if both.is_empty():
        raise DataFormatError(
            "Expected a user with an item shown and an item to find, got none; take "
            "another protocol or other shares."
        )
    return both


#: Table of ``common.interactions.SCHEMA``, shares, randomness → parts.
PROTOCOLS: dict[str, Callable[[pl.DataFrame, Shares, np.random.Generator], Parts]] = {
    "leave_one_out": leave_one_out,
    "temporal": temporal,
    "random": random,
    "held_out_users": held_out_users,
}
