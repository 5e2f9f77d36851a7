"""The declared catalogue: which items exist, their titles, years and categories.

Public by definition: it is declared, never derived from private rows (mistake 6 of
the privacy design). In ``common`` because clients map their item ids by it, the
server builds features from it, and simulations write it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from common.errors import ConfigError, DataFormatError
from common.interactions import IdMap, read_table

#: Columns of ``catalogue.parquet``; ``year`` is 0 where unknown.
SCHEMA = pl.Schema(
    {
        "item": pl.String(),
        "title": pl.String(),
        "year": pl.Int32(),
        "categories": pl.List(pl.String()),
    }
)


@dataclass(frozen=True)
class Catalogue:
    """Items in dense order: row ``i`` of ``table`` is item ``i``."""

    table: pl.DataFrame

    def __post_init__(self) -> None:
        if self.table.schema != SCHEMA:
            raise DataFormatError(
                f"Expected a catalogue with columns {dict(SCHEMA)}, "
                f"got {dict(self.table.schema)}."
            )

    @cached_property
    def items(self) -> IdMap:
        """Outside item id ↔ dense id."""
        return IdMap(tuple(self.table["item"].to_list()))

    @property
    def num_items(self) -> int:
        """How many items are declared."""
        return self.table.height

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the item ids in order: both sides must agree on it."""
        joined = "\n".join(self.items.ids).encode()
        return hashlib.sha256(joined).hexdigest()

    def find(self, title: str) -> int:
        """Dense id of the item with this title or, failing that, this outside id.

        Raises:
            ConfigError: naming up to five titles that contain the text.
        """
        exact = self.table.with_row_index("row").filter(pl.col("title") == title)
        if exact.height:
            return int(exact["row"][0])
        if title in self.items:
            return int(self.items.encode([title])[0])
        needle = title.lower()
        titles = self.table["title"].to_list()
        near = [name for name in titles if needle in name.lower()][:5]
        hint = f" Did you mean: {'; '.join(near)}?" if near else ""
        raise ConfigError(f"Expected a title of the catalogue, got {title!r}.{hint}")


def write_catalogue(catalogue: Catalogue, path: Path) -> None:
    """Write ``catalogue.parquet``."""
    catalogue.table.write_parquet(path)


def read_catalogue(path: Path) -> Catalogue:
    """Read ``catalogue.parquet``.

    Raises:
        DataFormatError: if the file is missing or has other columns.
    """
    if not path.is_file():
        raise DataFormatError(f"Expected a catalogue at {path}, found no file.")
    return Catalogue(read_table(path))
