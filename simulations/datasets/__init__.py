"""Data sets by name or folder: interactions, catalogue, users, and what was repaired.

Simulations only. A folder is recognised by the files in it and read as it was
published; a client's own import uses the same readers from ``common``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from common.errors import ConfigError, DataFormatError
from simulations import finance, synthetic
from simulations.datasets import books, commerce, content, movies, music
from simulations.datasets.dataset import Dataset
from simulations.fetching import fetch

__all__ = ["GENERATORS", "LAYOUTS", "Dataset", "load", "read_folder"]

#: Files that tell a folder → its reader; the first that fits reads it.
LAYOUTS: dict[tuple[str, ...], Callable[[Path], Dataset]] = {
    ("u.data", "u.item"): movies.movielens_100k,
    ("ratings.dat", "movies.dat"): movies.movielens_1m,
    (
        "gsasrec/train/input.txt",
        "mapping/sas_to_original_items.txt",
        "movies.dat",
    ): movies.sequences_1m,
    ("ratings.csv", "movies.csv"): movies.movielens_latest,
    ("user_artists.dat", "artists.dat"): music.lastfm,
    (commerce.ARCHIVE,): commerce.retailrocket,
    tuple(commerce.EVENTS): commerce.retailrocket_unpacked,
    (books.ARCHIVE,): books.book_crossing,
    books.FILES: books.book_crossing_unpacked,
    ("anonymous-msweb.data", "anonymous-msweb.test"): content.web_visits,
    ("ratings.dat",): commerce.amazon_video,
    ("users.dat",): content.citeulike,
}


def load(name: str) -> Dataset:
    """A data set by name (``ml-100k``, ``synthetic``, ``finance``) or folder.

    ``synthetic:num_users=500,seed=3`` passes sizes to the generator, and likewise
    ``finance:num_investors=500``.

    Raises:
        ConfigError: if there is neither such a name nor such a folder.
        DataFormatError: if its files are damaged.
    """
    if name.partition(":")[0] in GENERATORS:
        return _generated(name)
    folder = Path(name)
    if folder.is_dir():
        return read_folder(folder)
    if name == "ml-100k":
        fetched = fetch(name)
        found = read_folder(fetched.folder)
        return replace(found, name=name, source=fetched.statement)
    raise ConfigError(
        f"data: expected ml-100k, synthetic or a folder, or finance, got {name!r}, "
        "which is none."
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
        return movies.read_simple(
            folder, stem, stem.with_suffix(".item"), stem.with_suffix(".user")
        )
    known = "; ".join(", ".join(files) for files in LAYOUTS)
    raise DataFormatError(
        f"{folder}: expected one of these groups of files: {known}; or one .inter "
        "file with its .item."
    )


def _synthetic(name: str, sizes: Mapping[str, float]) -> Dataset:
    interactions, catalogue, users = synthetic.generate(**sizes)  # type: ignore[arg-type]
    return Dataset(name, interactions, catalogue, users, "generated", scale=(1.0, 5.0))


def _finance(name: str, sizes: Mapping[str, float]) -> Dataset:
    market = finance.generate(**sizes)  # type: ignore[arg-type]
    return Dataset(
        name,
        market.interactions,
        market.catalogue,
        market.investors,
        finance.SOURCE,
        (market.report,),
    )


#: Name → keys of its sizes, and what generates it. Generated sets say so.
GENERATORS: dict[
    str, tuple[tuple[str, ...], Callable[[str, Mapping[str, float]], Dataset]]
] = {
    "synthetic": (
        (
            "num_users",
            "num_items",
            "num_clusters",
            "interactions_per_user",
            "skew",
            "seed",
        ),
        _synthetic,
    ),
    "finance": (
        ("num_investors", "num_instruments", "num_sectors", "num_days", "seed"),
        _finance,
    ),
}


def _generated(name: str) -> Dataset:
    kind, _, text = name.partition(":")
    keys, generator = GENERATORS[kind]
    try:
        pairs = [part.split("=") for part in text.split(",") if part]
        sizes = {
            key.strip(): float(value) if "." in value else int(value)
            for key, value in pairs
        }
        return generator(name, sizes)
    except (ValueError, TypeError):
        raise ConfigError(
            f"data: expected {kind}:key=number,… with keys {', '.join(keys)}; "
            f"got {name!r}."
        ) from None
