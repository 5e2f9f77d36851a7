"""The declared catalogue: which items exist, and what is publicly known of each.

Public by definition: it is declared, never derived from private rows (mistake 6 of
the privacy design). In ``common`` because clients map their item ids by it, the
server builds features from it, and simulations write it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from common.errors import ConfigError, DataFormatError
from common.interactions import IdMap, read_table

#: Columns every catalogue has; ``year`` is 0 where unknown.
SCHEMA = pl.Schema(
    {
        "item": pl.String(),
        "title": pl.String(),
        "year": pl.Int32(),
        "categories": pl.List(pl.String()),
    }
)


#: Columns it may have besides: tags or a description, "" where there is none; and
#: numbers such as a price, as many for each item, NaN where one is missing.
OPTIONAL = pl.Schema({"text": pl.String(), "numbers": pl.List(pl.Float32())})
_EMPTY = {"text": "", "numbers": []}


@dataclass(frozen=True)
class Catalogue:
    """Items in dense order: row ``i`` of ``table`` is item ``i``.

    Attributes:
        table: columns of ``SCHEMA``, then of ``OPTIONAL``; a table without the
            latter is completed, so that what declares no more than titles need not
            know of them.

    Raises:
        DataFormatError: if columns differ, or items have unlike counts of numbers.
    """

    table: pl.DataFrame

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", _complete(self.table))

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

    @cached_property
    def numbers(self) -> npt.NDArray[np.float32]:
        """The items' numbers, float32 ``[num_items, k]``, NaN where missing."""
        rows = self.table["numbers"].to_list()
        values = np.array(rows, dtype=np.float32)
        return values.reshape(self.num_items, -1) if rows else values.reshape(0, 0)

    def with_text(self, text: Mapping[str, str]) -> Catalogue:
        """The same items with these texts, by outside id; "" for the others."""
        column = [text.get(item, "") for item in self.items.ids]
        return Catalogue(
            self.table.with_columns(text=pl.Series(column, dtype=pl.String))
        )


def _complete(table: pl.DataFrame) -> pl.DataFrame:
    """All columns in order, no null where nothing is known."""
    declared = pl.Schema(
        {**SCHEMA, **{k: v for k, v in OPTIONAL.items() if k in table.columns}}
    )
    if dict(table.schema) != dict(declared):
        raise DataFormatError(
            f"Expected a catalogue with columns {dict(SCHEMA)} and perhaps "
            f"{dict(OPTIONAL)}, got {dict(table.schema)}."
        )
    added = [
        pl.lit(_EMPTY[name], dtype=kind).alias(name)
        for name, kind in OPTIONAL.items()
        if name not in table.columns
    ]
    full = table.with_columns(added).select(*SCHEMA.names(), *OPTIONAL.names())
    return _even(full.with_columns(pl.col("text").fill_null("")))


def _even(table: pl.DataFrame) -> pl.DataFrame:
    """As many numbers for each item; an item without any has all of them missing."""
    width = max([0, *table["numbers"].list.len().drop_nulls().to_list()])
    missing = pl.lit([float("nan")] * width, dtype=pl.List(pl.Float32))
    given = pl.col("numbers").list.eval(pl.element().fill_null(float("nan")))
    none = pl.col("numbers").list.len().fill_null(0) == 0
    even = table.with_columns(numbers=pl.when(none).then(missing).otherwise(given))
    wrong = even.filter(pl.col("numbers").list.len() != width)
    if wrong.height:
        raise DataFormatError(
            f"Expected {width} numbers for each item of the catalogue or none, got "
            f"another count for {wrong.height} items."
        )
    return even


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
