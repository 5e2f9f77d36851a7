"""Facts of an interaction table that a researcher wants first.

Simulations only. What is printed may be passed on, so that no figure is that of
fewer than ``min_users`` users: extremes are those of the ``min_users``-th user from
either end, items touched by fewer are only counted, and a table of fewer users gets
no figure at all.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from common.repairs import ReadReport
from simulations.shareable import SUPPRESSED

Fact = int | float | str

#: Fewer users than this make no group, unless a caller says otherwise.
MIN_USERS = 10


def describe_table(frame: pl.DataFrame, min_users: int = MIN_USERS) -> dict[str, Fact]:
    """Users, items, density, ranges, and how skewed the table is.

    Args:
        frame: columns of ``interactions.SCHEMA``.
        min_users: the least number of users behind a figure; 1 shows everything.
    """
    facts: dict[str, Fact] = {"interactions": frame.height}
    if not frame.height:
        return facts
    per_user = frame.group_by("user").len()["len"]
    if len(per_user) < min_users:
        few = f"{SUPPRESSED}: fewer than {min_users} users"
        return {"interactions": few, "users": few}
    per_item = frame.group_by("item").agg(pl.col("user").n_unique(), pl.len())
    counts = per_item["len"].sort(descending=True)
    top = max(1, len(counts) // 10)
    more: dict[str, Fact] = {
        "users": len(per_user),
        "items": len(counts),
        "density": frame.height / (len(per_user) * len(counts)),
        "interactions_per_user": _spread(per_user, min_users),
        "interactions_per_item": _spread(
            per_item.filter(pl.col("user") >= min_users)["len"], 1
        ),
        "share_of_top_tenth_of_items": float(counts[:top].sum()) / frame.height,
        "items_of_too_few_users": int((per_item["user"] < min_users).sum()),
        "values": _range(frame, "value", min_users),
        "times": _range(frame, "timestamp", min_users),
    }
    return facts | more


def report_text(report: ReadReport, min_users: int = MIN_USERS) -> str:
    """What reading a file met, without its folder and without small counts.

    Fewer rows than ``min_users`` are fewer users. Where one count is left out so is
    the number of rows in the file, from which it would follow.
    """
    dropped = report.repaired
    if all(count >= min_users for count in dropped.values()):
        return str(replace(report, path=Path(report.path.name)))
    few = f"{SUPPRESSED}: fewer than {min_users} rows"
    lines = [f"{report.path.name} ({report.format}): kept {report.kept} rows"]
    lines += [
        f"  dropped for {kind}: {count if count >= min_users else few}"
        for kind, count in dropped.items()
    ]
    return "\n".join([*lines, *(f"  {note}" for note in report.notes)])


def _spread(counts: pl.Series, from_ends: int) -> str:
    """Quartiles, and the ``from_ends``-th count from either end.

    The two groups at the ends must not meet, or each would show the other's extreme.
    """
    if len(counts) < max(1, 2 * from_ends - 1):
        return SUPPRESSED
    ordered = counts.sort()
    low, high = ordered[from_ends - 1], ordered[-from_ends]
    inner = [ordered.quantile(q, "nearest") for q in (0.25, 0.5, 0.75)]
    points = [min(max(int(p or 0), low), high) for p in inner]
    names = ("min", "25 %", "median", "75 %", "max")
    if from_ends > 1:
        names = (f"{from_ends}th least", *names[1:4], f"{from_ends}th most")
    pairs = zip(names, (low, *points, high), strict=True)
    return ", ".join(f"{name} {count}" for name, count in pairs)


def _range(frame: pl.DataFrame, column: str, min_users: int) -> str:
    """From what ``min_users`` users stay below, to what as many stay above."""
    per_user = frame.group_by("user").agg(
        pl.col(column).min().alias("low"), pl.col(column).max().alias("high")
    )
    if per_user.height < 2 * min_users - 1:
        return SUPPRESSED
    low = per_user["low"].sort()[min_users - 1]
    high = per_user["high"].sort()[-min_users]
    show = _date if column == "timestamp" else str
    return f"{show(low)} … {show(high)}"


def _date(seconds: object) -> str:
    if not isinstance(seconds, int) or not 0 < seconds < 253402300800:
        return str(seconds)
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
