"""Who touched what: interactions with dense ids, and maps from outside ids.

In ``common`` because clients, the server and simulations all hold interactions;
the code knows only its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from common.errors import DataFormatError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

#: Columns of an interaction table with outside ids, as readers return it and as
#: ``interactions.parquet`` in a client's folder stores it.
SCHEMA = pl.Schema(
    {
        "user": pl.String(),
        "item": pl.String(),
        "value": pl.Float32(),
        "timestamp": pl.Int64(),
    }
)


def read_table(path: Path) -> pl.DataFrame:
    """A Parquet file by its very name.

    Raises:
        DataFormatError: if it cannot be read; its text names the file alone.
    """
    try:
        # Polars would take brackets in a folder's name for a pattern, and read others.
        return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError):
        raise DataFormatError(
            f"{path.name}: expected a readable Parquet file."
        ) from None


@dataclass(frozen=True)
class IdMap:
    """Outside ids ↔ ``0..n-1``, in the order given.

    Attributes:
        ids: distinct outside ids; position is the dense id.
    """

    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self._index) != len(self.ids):
            raise DataFormatError("Expected distinct ids, got a repeated one.")

    @cached_property
    def _index(self) -> dict[str, int]:
        return {external: dense for dense, external in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, external: str) -> bool:
        return external in self._index

    def encode(self, external: Sequence[str]) -> IntArray:
        """Dense ids int64 ``[n]``.

        Raises:
            DataFormatError: if an id is not in the map. The message counts the
                unknown ids and names none, since ids may be private.
        """
        dense = [self._index.get(name, -1) for name in external]
        unknown = dense.count(-1)
        if unknown:
            raise DataFormatError(
                f"Expected ids of the declared catalogue ({len(self)} ids), got "
                f"{unknown} of {len(dense)} rows with an id outside it."
            )
        return np.asarray(dense, dtype=np.int64)

    def decode(self, dense: IntArray) -> list[str]:
        """Outside ids of ``dense`` (int64 ``[n]``, each in ``0..len-1``)."""
        return [self.ids[i] for i in dense.tolist()]


@dataclass(frozen=True)
class Interactions:
    """Interactions with dense ids; row order carries no meaning.

    Attributes:
        user, item: int64 ``[n]`` in ``0..num_users-1`` and ``0..num_items-1``.
        value: float32 ``[n]``, a rating or count.
        timestamp: int64 ``[n]``, Unix seconds, 0 where unknown.
    """

    user: IntArray
    item: IntArray
    value: FloatArray
    timestamp: IntArray
    num_users: int
    num_items: int

    def __len__(self) -> int:
        return len(self.user)

    def matrix(self) -> sp.csr_matrix:
        """Binary multi-hot rows, float32 CSR ``[num_users, num_items]``."""
        ones = np.ones(len(self), dtype=np.float32)
        shape = (self.num_users, self.num_items)
        rows = sp.csr_matrix((ones, (self.user, self.item)), shape=shape)
        rows.sum_duplicates()
        rows.data[:] = 1.0
        return rows

    def ordered(self) -> sp.csr_matrix:
        """The same rows, each entry an item's place in time, int32 from 1.

        An item touched twice stands where it was touched first; rows of one time
        stand in the table's order.
        """
        order = np.lexsort((self.timestamp, self.user))
        pairs = self.user[order] * self.num_items + self.item[order]
        first = np.sort(np.unique(pairs, return_index=True)[1])
        users, items = self.user[order][first], self.item[order][first]
        lengths = np.bincount(users, minlength=self.num_users)
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = (np.arange(len(users)) - starts + 1).astype(np.int32)
        shape = (self.num_users, self.num_items)
        return sp.csr_matrix((places, (users, items)), shape=shape)

    def where(self, keep: npt.NDArray[np.bool_]) -> Interactions:
        """Only the rows that ``keep`` (bool ``[n]``) marks; users stay numbered."""
        return Interactions(
            user=self.user[keep],
            item=self.item[keep],
            value=self.value[keep],
            timestamp=self.timestamp[keep],
            num_users=self.num_users,
            num_items=self.num_items,
        )


@dataclass(frozen=True)
class EncodedTable:
    """An interaction table with dense ids, and the map back to its users."""

    interactions: Interactions
    users: IdMap = field(repr=False)


def encode_table(table: pl.DataFrame, items: IdMap) -> EncodedTable:
    """Give dense ids to a table with outside ids.

    Users are numbered in order of first appearance, so a row more never renumbers
    the users before it.

    Args:
        table: columns as in ``SCHEMA``.
        items: the declared catalogue.

    Raises:
        DataFormatError: if an item is not in ``items``.
    """
    users = IdMap(tuple(table["user"].unique(maintain_order=True).to_list()))
    interactions = Interactions(
        user=users.encode(table["user"].to_list()),
        item=items.encode(table["item"].to_list()),
        value=table["value"].to_numpy().astype(np.float32),
        timestamp=table["timestamp"].to_numpy().astype(np.int64),
        num_users=len(users),
        num_items=len(items),
    )
    return EncodedTable(interactions, users)


def encode_held(
    table: pl.DataFrame, items: IdMap
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Items shown and items to find, CSR ``[users, items]`` both.

    Args:
        table: columns as in ``SCHEMA``, and ``held``: whether a row is to find.
        items: the declared catalogue.

    Raises:
        DataFormatError: if an item is not in ``items``.
    """
    users = encode_table(table.drop("held"), items).interactions
    held = table["held"].to_numpy()
    return users.where(~held).matrix(), users.where(held).matrix()


def sound_csr(
    data: npt.NDArray[Any],
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[Any],
    *,
    shape: tuple[int, int],
) -> sp.csr_matrix:
    """A CSR matrix of arrays that came from outside: nothing is read beyond them.

    SciPy's own check looks at no pointer where the last one says that there is nothing.

    Raises:
        ValueError, TypeError: if the arrays do not form a matrix of this shape.
    """
    if indptr.ndim != 1 or len(indptr) != shape[0] + 1:
        raise ValueError("Expected a pointer a row, and one more.")
    if indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any() or indptr[-1] != len(indices):
        raise ValueError("Expected pointers that rise from 0 to the number of indices.")
    matrix = sp.csr_matrix((data, indices, indptr), shape=shape)
    matrix.check_format(full_check=True)
    return matrix
