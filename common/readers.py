"""Readers of interaction files: a path in, a table of checked rows out.

In ``common`` because clients and simulations read the same kinds of file. Formats:
RecBole's atomic ``.inter``, MovieLens' ``u.data`` and ``ratings.dat``, CSV, TSV and
Parquet with named columns, and one user a line. Adding one is a function and an
entry in ``READERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from common.columns import Columns, find_columns
from common.errors import DataFormatError
from common.repairs import ReadReport, Repairs, check_rows
from common.text_tables import FieldTable, read_bytes, read_text, split_fields


@dataclass(frozen=True)
class ReadResult:
    """A table with columns of ``interactions.SCHEMA``, and how it came about."""

    frame: pl.DataFrame
    report: ReadReport


Reader = Callable[[Path, Columns | None, Repairs], ReadResult]


def read_interactions(
    path: Path,
    *,
    format: str = "auto",
    columns: Columns | None = None,
    repairs: Repairs | None = None,
) -> ReadResult:
    """Read one interaction file.

    Args:
        path: the file.
        format: a key of ``READERS``, or ``auto`` to go by the file's name.
        columns: where user, item, value and timestamp stand; None recognises
            common names.
        repairs: what to do with damaged rows; None stops at the first.

    Raises:
        DataFormatError: naming file, line and column, and what was expected.
    """
    name = recognise_format(path) if format == "auto" else format
    if name not in READERS:
        raise DataFormatError(
            f"{path}: expected a format of {', '.join(READERS)}, got {name!r}."
        )
    return READERS[name](path, columns, repairs or Repairs())


#: How a file's name ends → its format.
ENDINGS = {
    ".inter": "recbole",
    "u.data": "movielens",
    "ratings.dat": "movielens-1m",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    "input.txt": "sequences",
    ".seq": "sequences",
}


def recognise_format(path: Path) -> str:
    """The format that a file's name tells.

    Raises:
        DataFormatError: if it tells none.
    """
    for ending, name in ENDINGS.items():
        if path.name.lower().endswith(ending):
            return name
    raise DataFormatError(
        f"{path}: the name tells no format; name one of {', '.join(READERS)}."
    )


def _finish(
    path: Path,
    format: str,
    table: FieldTable,
    places: dict[str, int],
    repairs: Repairs,
    notes: tuple[str, ...],
    unit: str = "line",
) -> ReadResult:
    checked = check_rows(table, places, repairs, path, unit)
    blank = (f"{table.num_blank} blank lines passed over",) if table.num_blank else ()
    report = ReadReport(
        path,
        format,
        table.frame.height,
        checked.frame.height,
        checked.repaired,
        notes + blank,
    )
    return ReadResult(checked.frame, report)


def _delimited(format: str, separator: str) -> Reader:
    """Named columns after a header line."""

    def read(path: Path, columns: Columns | None, repairs: Repairs) -> ReadResult:
        text = read_text(path)
        table = split_fields(text, separator, quoted=True)
        places = find_columns(table.header(), columns, path)
        by_position = columns is not None and columns.by_position
        body = table if by_position else table.body()
        return _finish(path, format, body, places, repairs, text.notes)

    return read


def _headerless(format: str, separator: str) -> Reader:
    """MovieLens: user, item, rating, time, and no header."""

    def read(path: Path, columns: Columns | None, repairs: Repairs) -> ReadResult:
        text = read_text(path)
        table = split_fields(text, separator, quoted=False)
        where = columns or Columns(user=1, item=2, value=3, timestamp=4)
        places = find_columns([""] * table.width, where, path)
        return _finish(path, format, table, places, repairs, text.notes)

    return read


def _recbole(path: Path, columns: Columns | None, repairs: Repairs) -> ReadResult:
    """A tab-separated atomic file whose header says ``name:type``."""
    text = read_text(path)
    table = split_fields(text, "\t", quoted=False)
    header = [name.partition(":")[0] for name in table.header()]
    if not all(":" in name for name in table.header()):
        raise DataFormatError(f"{path}, line 1: expected a header of name:type fields.")
    places = find_columns(header, columns, path)
    return _finish(path, "recbole", table.body(), places, repairs, text.notes)


def _sequences(path: Path, columns: Columns | None, repairs: Repairs) -> ReadResult:
    """One user a line, ids by blanks in time order; the user is the line number."""
    if columns is not None:
        raise DataFormatError(f"{path}: sequences have no columns to name.")
    text = read_text(path)
    rows = text.lines.to_frame().with_row_index("line", offset=1)
    filled = rows.filter(pl.col("text").str.strip_chars() != "")
    long = (
        filled.with_columns(pl.col("text").str.strip_chars().str.split(" "))
        .explode("text")
        .filter(pl.col("text") != "")
        .select(
            pl.col("line").cast(pl.Int64),
            num_fields=pl.lit(3, dtype=pl.Int64),
            user=pl.col("line").cast(pl.String),
            item="text",
            position=pl.int_range(pl.len()).over("line").cast(pl.String),
        )
        .rename({"user": "0", "item": "1", "position": "2"})
    )
    table = FieldTable(long, 3, rows.height - filled.height)
    places = {"user": 0, "item": 1, "timestamp": 2}
    return _finish(path, "sequences", table, places, repairs, text.notes)


def _parquet(path: Path, columns: Columns | None, repairs: Repairs) -> ReadResult:
    raw = read_bytes(path)
    try:
        frame = pl.read_parquet(raw)
    # A panic inside polars, as damaged bytes can cause, is no Exception.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataFormatError(f"{path}: expected a Parquet file.") from error
    if not frame.height:
        raise DataFormatError(f"{path}: expected data, found an empty file.")
    names = frame.columns
    places = find_columns(names, columns, path)
    rows = frame.select(
        pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("line"),
        pl.lit(len(names), dtype=pl.Int64).alias("num_fields"),
        *(_as_text(frame[names[i]]).alias(str(i)) for i in places.values()),
    )
    table = FieldTable(rows, len(names), 0)
    return _finish(path, "parquet", table, places, repairs, (), unit="row")


def _as_text(column: pl.Series) -> pl.Series:
    """A Parquet column as the strings that the checks read; times as Unix seconds."""
    if column.dtype in (pl.Date, pl.Datetime):
        column = column.dt.epoch("s")
    if column.dtype.is_nested():
        return pl.Series(column.name, [None] * len(column), dtype=pl.String)
    return column.cast(pl.String)


READERS: dict[str, Reader] = {
    "recbole": _recbole,
    "movielens": _headerless("movielens", "\t"),
    "movielens-1m": _headerless("movielens-1m", "::"),
    "csv": _delimited("csv", ","),
    "tsv": _delimited("tsv", "\t"),
    "parquet": _parquet,
    "sequences": _sequences,
}
