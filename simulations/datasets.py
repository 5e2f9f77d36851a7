"""Data sets by name or folder: interactions, catalogue, users, and what was repaired.

Simulations only. A folder is recognised by the files in it; a client's own import
uses the same readers from ``common``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from common.catalogue import Catalogue
from common.errors import ConfigError, DataFormatError
from common.interactions import SCHEMA
from common.item_readers import read_items, read_users
from common.readers import read_interactions
from common.repairs import ReadReport
from simulations.fetching import fetch
from simulations.synthetic import generate


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        interactions: columns of ``interactions.SCHEMA``.
        users: ``user`` and attributes, all strings; None where the set has none.
        source: where it came from, one sentence.
    """

    name: str
    interactions: pl.DataFrame
    catalogue: Catalogue
    users: pl.DataFrame | None
    source: str
    reports: tuple[ReadReport, ...] = ()


def load(name: str) -> Dataset:
    """A data set by name (``ml-100k``, ``synthetic``) or folder.

    ``synthetic:num_users=500,seed=3`` passes sizes to the generator.

    Raises:
        ConfigError: if there is neither such a name nor such a folder.
        DataFormatError: if its files are damaged.
    """
    if name.partition(":")[0] == "synthetic":
        return _synthetic(name)
    folder = Path(name)
    if folder.is_dir():
        return read_folder(folder)
    if name == "ml-100k":
        fetched = fetch(name)
        found = read_folder(fetched.folder)
        return Dataset(
            name,
            found.interactions,
            found.catalogue,
            found.users,
            fetched.statement,
            found.reports,
        )
    raise ConfigError(
        f"data: expected ml-100k, synthetic or a folder, got {name!r}, which is none."
    )


def read_folder(folder: Path) -> Dataset:
    """A data set from the files of a folder.

    Raises:
        DataFormatError: listing what would have been recognised.
    """
    for files, reader in LAYOUTS.items():
        if all((folder / file).is_file() for file in files):
            return reader(folder)
    inter = sorted(folder.glob("*.inter"))
    if len(inter) == 1 and inter[0].with_suffix(".item").is_file():
        stem = inter[0]
        return _simple(
            folder, stem, stem.with_suffix(".item"), stem.with_suffix(".user")
        )
    known = "; ".join(", ".join(files) for files in LAYOUTS)
    raise DataFormatError(
        f"{folder}: expected one of these groups of files: {known}; or one .inter "
        "file with its .item."
    )


def _simple(folder: Path, interactions: Path, items: Path, users: Path) -> Dataset:
    read = read_interactions(interactions)
    return _assemble(
        folder,
        read.frame,
        Catalogue(read_items(items)),
        read_users(users) if users.is_file() else None,
        (read.report,),
    )


def _assemble(
    folder: Path,
    interactions: pl.DataFrame,
    catalogue: Catalogue,
    users: pl.DataFrame | None,
    reports: tuple[ReadReport, ...],
) -> Dataset:
    known = set(catalogue.items.ids)
    unknown = set(interactions["item"].unique().to_list()) - known
    if unknown:
        raise DataFormatError(
            f"{folder}: expected every item in the item file, {len(unknown)} are not."
        )
    return Dataset(folder.name, interactions, catalogue, users, str(folder), reports)


def _movielens_100k(folder: Path) -> Dataset:
    return _simple(folder, folder / "u.data", folder / "u.item", folder / "u.user")


def _movielens_1m(folder: Path) -> Dataset:
    return _simple(
        folder, folder / "ratings.dat", folder / "movies.dat", folder / "users.dat"
    )


def _movielens_latest(folder: Path) -> Dataset:
    return _simple(folder, folder / "ratings.csv", folder / "movies.csv", folder / "-")


def _sequences_1m(folder: Path) -> Dataset:
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
    return _assemble(folder, interactions, catalogue, users, (read.report,))


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


LAYOUTS: dict[tuple[str, ...], Callable[[Path], Dataset]] = {
    ("u.data", "u.item"): _movielens_100k,
    ("ratings.dat", "movies.dat"): _movielens_1m,
    (
        "gsasrec/train/input.txt",
        "mapping/sas_to_original_items.txt",
        "movies.dat",
    ): _sequences_1m,
    ("ratings.csv", "movies.csv"): _movielens_latest,
}


def _synthetic(name: str) -> Dataset:
    text = name.partition(":")[2]
    try:
        pairs = [part.split("=") for part in text.split(",") if part]
        sizes = {
            key.strip(): float(value) if "." in value else int(value)
            for key, value in pairs
        }
        interactions, catalogue, users = generate(**sizes)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise ConfigError(
            "data: expected synthetic:key=number,… with keys num_users, num_items, "
            f"num_clusters, interactions_per_user, skew, seed; got {name!r}."
        ) from None
    return Dataset(name, interactions, catalogue, users, "generated")
