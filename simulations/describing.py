"""Facts of an interaction table that a researcher wants first.

Simulations only: these are exact figures of the rows, for public data or for the
owner's own eyes; none of them leaves a client.
"""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

Fact = int | float | str


def describe_table(frame: pl.DataFrame) -> dict[str, Fact]:
    """Users, items, density, ranges, and how skewed the table is.

    Args:
        frame: columns of ``interactions.SCHEMA``.
    """
    facts: dict[str, Fact] = {"interactions": frame.height}
    if not frame.height:
        return facts
    per_user = frame.group_by("user").len()["len"]
    per_item = frame.group_by("item").len()["len"].sort(descending=True)
    top = max(1, len(per_item) // 10)
    more: dict[str, Fact] = {
        "users": len(per_user),
        "items": len(per_item),
        "density": frame.height / (len(per_user) * len(per_item)),
        "interactions_per_user": _quartiles(per_user),
        "interactions_per_item": _quartiles(per_item),
        "share_of_top_tenth_of_items": float(per_item[:top].sum()) / frame.height,
        "items_seen_once": int((per_item == 1).sum()),
        "values": f"{frame['value'].min()!s} … {frame['value'].max()!s}",
        "times": f"{_date(frame['timestamp'].min())} … "
        f"{_date(frame['timestamp'].max())}",
    }
    return facts | more


def _quartiles(counts: pl.Series) -> str:
    points = [counts.quantile(q, "nearest") for q in (0.0, 0.25, 0.5, 0.75, 1.0)]
    names = ("min", "25 %", "median", "75 %", "max")
    pairs = zip(names, points, strict=True)
    return ", ".join(f"{name} {int(point or 0)}" for name, point in pairs)


def _date(seconds: object) -> str:
    if not isinstance(seconds, int) or not 0 < seconds < 253402300800:
        return str(seconds)
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
