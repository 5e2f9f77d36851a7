"""Movies: MovieLens-100K, MovieLens-1M in two forms, MovieLens latest-small.

Harper & Konstan 2015, "The MovieLens Datasets". Simulations only.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from common.catalogue import Catalogue
from common.interactions import SCHEMA
from common.item_readers import read_items, read_users
from common.readers import read_interactions
from simulations.datasets.dataset import Dataset, assemble

STARS = (1.0, 5.0)


def read_simple(
    folder: Path,
    interactions: Path,
    items: Path,
    users: Path,
    scale: tuple[float, float] | None = None,
) -> Dataset:
    """A set of one interaction file, one item file and perhaps one user file."""
    read = read_interactions(interactions)
    return assemble(
        folder,
        read.frame,
        Catalogue(read_items(items)),
        read_users(users) if users.is_file() else None,
        (read.report,),
        scale,
    )


def movielens_100k(folder: Path) -> Dataset:
    """Tab-separated ratings, ``|``-separated items and users in Latin-1."""
    return read_simple(
        folder, folder / "u.data", folder / "u.item", folder / "u.user", STARS
    )


def movielens_1m(folder: Path) -> Dataset:
    """The publisher's three ``::``-separated files."""
    return read_simple(
        folder,
        folder / "ratings.dat",
        folder / "movies.dat",
        folder / "users.dat",
        STARS,
    )


def movielens_latest(folder: Path) -> Dataset:
    """CSV; half stars. Tags are rows of users, so none enter the public catalogue."""
    found = read_simple(
        folder,
        folder / "ratings.csv",
        folder / "movies.csv",
        folder / "-",
        (0.5, 5.0),
    )
    if not (folder / "tags.csv").is_file():
        return found
    note = "tags.csv is not read: tags are users' rows, the catalogue is public"
    report = replace(found.reports[0], notes=(*found.reports[0].notes, note))
    return replace(found, reports=(report, *found.reports[1:]))


def sequences_1m(folder: Path) -> Dataset:
    """MovieLens-1M as gSASRec publishes it, under MovieLens' own ids.

    A user's last item is in ``test``. For 512 users the one before is in
    ``val/output.txt`` and the one before that ends the line of ``val/input.txt``,
    which otherwise equals a line of ``train``. The files hold 994,083 of the set's
    999,611 interactions: for the other users the last but one is in none of them.
    """
    base = folder / "gsasrec"
    read = read_interactions(base / "train/input.txt", format="sequences")
    item_of = _mapping(folder / "mapping/sas_to_original_items.txt")
    user_of = _mapping(folder / "mapping/sas_to_original_users.txt")
    rows = pl.concat([read.frame, _held_rows(base)])
    interactions = rows.select(
        pl.col("user").replace_strict(user_of),
        pl.col("item").replace_strict(item_of),
        "value",
        "timestamp",
    )
    titles = read_items(folder / "movies.dat")
    order = pl.DataFrame({"item": list(item_of.values())})
    catalogue = Catalogue(
        order.join(titles, on="item", how="left", maintain_order="left").select(
            titles.columns
        )
    )
    users = read_users(folder / "users.dat")
    return assemble(folder, interactions, catalogue, users, (read.report,))


def _held_rows(base: Path) -> pl.DataFrame:
    """The published validation and test items, as rows of the table."""
    lines = (base / "train/input.txt").read_text().splitlines()
    user_of_line = {tuple(line.split()): i for i, line in enumerate(lines, start=1)}
    seen = [line.split() for line in (base / "val/input.txt").read_text().splitlines()]
    found = (base / "val/output.txt").read_text().split()
    test = (base / "test/output.txt").read_text().split()
    owners = [user_of_line[tuple(line[:-1])] for line in seen]
    users = [*owners, *owners, *range(1, len(test) + 1)]
    columns = {
        "user": [str(user) for user in users],
        "item": [*(line[-1] for line in seen), *found, *test],
        "value": [1.0] * len(users),
        "timestamp": [100_000] * len(seen)
        + [100_001] * len(found)
        + [100_002] * len(test),
    }
    return pl.DataFrame(columns, schema=SCHEMA)


def _mapping(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return {line.split()[0]: line.split()[1] for line in lines if line.strip()}
