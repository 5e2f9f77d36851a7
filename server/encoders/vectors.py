"""Vectors of items computed elsewhere, from NumPy or Parquet.

Server only: one file of public vectors describes the catalogue (audio, pictures,
text of another model). Nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from common.errors import ConfigError, DataFormatError
from common.interactions import IdMap, read_table

Matrix = npt.NDArray[np.float32]
Known = npt.NDArray[np.bool_]


def read_vectors(path: Path, items: IdMap) -> tuple[Matrix, Known]:
    """Vectors float32 ``[num_items, dim]``, and which items have one, bool.

    Args:
        path: ``.npy``, ``[num_items, dim]`` in the catalogue's order, a row of NaN
            where an item has none; or ``.parquet`` with a column ``item`` and either
            one column of lists or one column a dimension, rows in any order.
        items: the declared catalogue's.

    Raises:
        ConfigError: if the file is missing or has another ending.
        DataFormatError: naming the file and what of it does not fit.
    """
    if path.suffix not in READERS or not path.is_file():
        raise ConfigError(
            f"features.vectors: expected a {' or '.join(READERS)} file, got {path}."
        )
    return READERS[path.suffix](path, items)


def _from_numpy(path: Path, items: IdMap) -> tuple[Matrix, Known]:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise DataFormatError(f"{path}: expected a NumPy array of numbers.") from None
    if values.ndim != 2 or len(values) != len(items) or values.dtype.kind not in "fiu":
        raise DataFormatError(
            f"{path}: expected numbers [{len(items)}, dim], a row an item of the "
            f"catalogue; got {values.dtype} {list(values.shape)}."
        )
    known = ~np.isnan(values).all(axis=1)
    values = _finite(path, values[known])
    return _placed(values, np.flatnonzero(known), len(items))


def _from_parquet(path: Path, items: IdMap) -> tuple[Matrix, Known]:
    table = read_table(path)
    if "item" not in table.columns:
        raise DataFormatError(f"{path}: expected a column item, got {table.columns}.")
    names = table["item"].cast(pl.String).to_list()
    unknown = [name for name in names if name not in items]
    if unknown:
        raise DataFormatError(
            f"{path}: expected items of the catalogue, got {len(unknown)} others, "
            f"the first {unknown[0]!r}."
        )
    if len(set(names)) != len(names):
        raise DataFormatError(f"{path}: expected each item once.")
    values = _finite(path, _columns(path, table.drop("item")))
    return _placed(values, items.encode(names), len(items))


def _columns(path: Path, table: pl.DataFrame) -> npt.NDArray[np.float64]:
    """One column of lists, or a column a dimension; null becomes NaN."""
    kinds = table.dtypes
    if len(kinds) == 1 and isinstance(kinds[0], pl.List | pl.Array):
        column = table.to_series()
        lengths = set(column.list.len() if isinstance(kinds[0], pl.List) else [0])
        if len(lengths) > 1 or None in lengths:
            raise DataFormatError(f"{path}: expected lists of one length.")
        try:
            values = np.array(column.to_list(), dtype=np.float64)
        except (ValueError, TypeError):
            raise DataFormatError(f"{path}: expected lists of numbers.") from None
        return values.reshape(len(column), -1)
    if not kinds or not all(kind.is_numeric() for kind in kinds):
        raise DataFormatError(
            f"{path}: expected one column of lists or columns of numbers beside "
            f"item, got {dict(table.schema)}."
        )
    return table.select(pl.all().cast(pl.Float64)).to_numpy()


def _finite(path: Path, values: npt.NDArray[np.generic]) -> Matrix:
    wrong = ~np.isfinite(values).all(axis=1)
    if wrong.any():
        raise DataFormatError(
            f"{path}: expected finite numbers, {int(wrong.sum())} items have others."
        )
    return values.astype(np.float32)


def _placed(
    values: Matrix, rows: npt.NDArray[np.int64], num_items: int
) -> tuple[Matrix, Known]:
    full = np.zeros((num_items, values.shape[1]), dtype=np.float32)
    known = np.zeros(num_items, dtype=np.bool_)
    full[rows], known[rows] = values, True
    return full, known


READERS = {".npy": _from_numpy, ".parquet": _from_parquet}
