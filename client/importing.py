"""Bring an owner's interaction files into a client's folder.

Client only: it sees raw ids, and is the last that does. What it writes is what
``client/data.py`` reads: items of the declared catalogue, users as keyed hashes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from client.identifiers import folder_key, pseudonymise
from common.catalogue import read_catalogue
from common.durable_files import write_durably
from common.errors import ConfigError, DataFormatError
from common.folders import CATALOGUE, INTERACTIONS
from common.readers import read_interactions
from common.repairs import Repairs


@dataclass(frozen=True)
class Imported:
    """What came in, for the owner's eyes.

    Attributes:
        left_out: rows on items outside the declared catalogue.
        reports: what each reader read and repaired.
    """

    rows: int
    users: int
    left_out: int
    reports: tuple[str, ...]


def import_files(
    folder: Path,
    files: list[Path],
    *,
    format: str = "auto",
    repairs: Repairs | None = None,
    unknown_items: str = "error",
    overwrite: bool = False,
) -> Imported:
    """Read files, keep what the catalogue knows, hash the ids, write the folder.

    Args:
        folder: the client's folder; it holds the declared catalogue already.
        files: interaction files in one of the readers' formats.
        unknown_items: ``error``, or ``drop`` rows on items outside the catalogue.
        overwrite: replace rows imported before. The ledger stays as it is: what was
            spent on the folder was spent.

    Raises:
        ConfigError: if there is no catalogue, or rows are there and not to be replaced.
        DataFormatError: if a file is damaged, or an item is outside the catalogue.
    """
    if not (folder / CATALOGUE).is_file():
        raise ConfigError(
            f"Expected the declared {CATALOGUE} in {folder}, found none; the server's "
            "operator publishes it."
        )
    if (folder / INTERACTIONS).exists() and not overwrite:
        raise ConfigError(
            f"{folder} holds rows already; --overwrite replaces them, and leaves the "
            "ledger as it is."
        )
    read = [read_interactions(path, format=format, repairs=repairs) for path in files]
    table = pl.concat([each.frame for each in read])
    items = read_catalogue(folder / CATALOGUE).items
    known = table.filter(pl.col("item").is_in(list(items.ids)))
    left_out = table.height - known.height
    if left_out and unknown_items != "drop":
        raise DataFormatError(
            f"Expected items of the declared catalogue, got {left_out} of "
            f"{table.height} rows on others; --unknown-items drop leaves them out."
        )
    if not known.height:
        raise DataFormatError("Expected at least one row to import, got none.")
    write_rows(folder, known)
    return Imported(
        known.height,
        known["user"].n_unique(),
        left_out,
        tuple(str(each.report) for each in read),
    )


def write_rows(folder: Path, table: pl.DataFrame) -> None:
    """Store a table with outside user ids as the client's rows, ids hashed.

    Args:
        table: columns as in ``interactions.SCHEMA``.
    """
    file = io.BytesIO()
    pseudonymise(table, folder_key(folder)).write_parquet(file)
    write_durably(folder / INTERACTIONS, file.getvalue())
