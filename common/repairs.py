"""What to do with a damaged row: stop and name it, or repair it and count.

In ``common`` because clients import their own files with it too. Nothing is dropped
silently: every default is ``error``, every repair is counted in the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from common.errors import ConfigError
from common.interactions import SCHEMA
from common.text_tables import FieldTable, format_error

#: Kinds of damage a single row can have, and what was expected instead.
ROW_DEFECTS: Mapping[str, str] = {
    "fields": "as many fields as the first row",
    "user": "a user id that is neither blank nor negative",
    "item": "an item id that is neither blank nor negative",
    "value": "a finite number",
    "timestamp": "a time in Unix seconds",
}


@dataclass(frozen=True)
class Repairs:
    """The caller's choice for each kind of damage.

    Attributes:
        bad_rows: ``error``, or ``drop`` rows with a defect of ``ROW_DEFECTS``.
        duplicates: ``error``, or keep the first or last of equal (user, item).
    """

    bad_rows: Literal["error", "drop"] = "error"
    duplicates: Literal["error", "keep_first", "keep_last"] = "error"


def parse_repairs(bad_rows: str, duplicates: str) -> Repairs:
    """The choice as typed on a command line.

    Raises:
        ConfigError: naming the option, what was expected and what came.
    """
    for option, value, choices in (
        ("--bad-rows", bad_rows, ("error", "drop")),
        ("--duplicates", duplicates, ("error", "keep_first", "keep_last")),
    ):
        if value not in choices:
            raise ConfigError(
                f"{option}: expected {', '.join(choices[:-1])} or {choices[-1]}, "
                f"got {value!r}."
            )
    return Repairs(bad_rows, duplicates)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ReadReport:
    """What reading a file met.

    Attributes:
        rows: data rows in the file, blank lines not counted.
        kept: rows returned.
        repaired: kind of damage → rows dropped for it; empty kinds left out.
        notes: encoding, byte order mark, line ends, blank lines.
    """

    path: Path
    format: str
    rows: int
    kept: int
    repaired: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A line of what was read, and one for each thing met on the way."""
        lines = [f"{self.path} ({self.format}): kept {self.kept} of {self.rows} rows"]
        lines += [f"  dropped {n} for {kind}" for kind, n in self.repaired.items()]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


@dataclass(frozen=True)
class Checked:
    """Sound rows with columns of ``interactions.SCHEMA``, and what was dropped."""

    frame: pl.DataFrame
    repaired: dict[str, int]


def check_rows(
    table: FieldTable,
    places: Mapping[str, int],
    repairs: Repairs,
    path: Path,
    unit: str,
) -> Checked:
    """Convert fields to an interaction table, or refuse the first damaged row.

    Args:
        table: the file's rows.
        places: role → index of its field.
        repairs: the caller's choice.
        path: for messages.
        unit: ``line`` or ``row``, for messages.

    Raises:
        DataFormatError: naming file, line and column of the first damage.
    """
    frame = table.frame.select("line", "num_fields", *_converted(places))
    defect = _first_defect(table.width)
    frame = frame.with_columns(defect.alias("defect"))
    bad = frame.filter(pl.col("defect") != "")
    if bad.height and repairs.bad_rows == "error":
        kind = str(bad["defect"][0])
        column = "" if kind == "fields" else f"{places[kind] + 1} ({kind})"
        raise format_error(
            path, f"{ROW_DEFECTS[kind]}.", row=bad["line"][0], column=column, unit=unit
        )
    counts = dict(bad.group_by("defect", maintain_order=True).len().iter_rows())
    return _without_duplicates(
        frame.filter(pl.col("defect") == ""), counts, repairs, path, unit
    )


def _converted(places: Mapping[str, int]) -> list[pl.Expr]:
    """Ids as trimmed strings, numbers as numbers; what does not convert is null."""
    parts = []
    for role in ("user", "item"):
        parts.append(pl.col(str(places[role])).str.strip_chars().alias(role))
    for role, default in (("value", "1"), ("timestamp", "0")):
        text = (
            pl.col(str(places[role])).str.strip_chars()
            if role in places
            else pl.lit(default)
        )
        parts.append(text.cast(pl.Float64, strict=False).alias(role))
    return parts


def _first_defect(width: int) -> pl.Expr:
    def bad_id(role: str) -> pl.Expr:
        negative = pl.col(role).str.contains(r"^-\d")
        return pl.col(role).is_null() | (pl.col(role) == "") | negative

    def bad_number(role: str, limit: float) -> pl.Expr:
        number = pl.col(role)
        return number.is_null() | ~number.is_finite() | (number.abs() > limit)

    return (
        pl.when(pl.col("num_fields") != width)
        .then(pl.lit("fields"))
        .when(bad_id("user"))
        .then(pl.lit("user"))
        .when(bad_id("item"))
        .then(pl.lit("item"))
        .when(bad_number("value", 3e38))
        .then(pl.lit("value"))
        .when(bad_number("timestamp", 9e15))
        .then(pl.lit("timestamp"))
        .otherwise(pl.lit(""))
    )


def _without_duplicates(
    frame: pl.DataFrame,
    counts: dict[str, int],
    repairs: Repairs,
    path: Path,
    unit: str,
) -> Checked:
    again = frame.select(~pl.struct("user", "item").is_first_distinct()).to_series()
    if again.any():
        if repairs.duplicates == "error":
            row = frame.filter(again)["line"][0]
            expected = "each user and item once; this pair stood in the file before."
            raise format_error(path, expected, row=row, unit=unit)
        keep: Literal["first", "last"] = (
            "first" if repairs.duplicates == "keep_first" else "last"
        )
        counts["duplicates"] = int(again.sum())
        frame = frame.unique(["user", "item"], keep=keep, maintain_order=True)
    converted = frame.select(
        "user",
        "item",
        pl.col("value").cast(pl.Float32),
        pl.col("timestamp").floor().cast(pl.Int64),
    )
    return Checked(converted.match_to_schema(SCHEMA), counts)
