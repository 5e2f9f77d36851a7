"""What is wrong with a data set, and how the public one differs from the private.

Simulations only. As in ``describing``, no figure stands for fewer than ``min_users``
users: damage that concerns fewer is said to be there, and not counted. Of rows that
readers dropped or merged only their number is known; fewer than ``min_users`` rows
are surely fewer users.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import ks_2samp

from common.catalogue import Catalogue
from simulations.datasets import Dataset
from simulations.describing import MIN_USERS, Fact
from simulations.partition import translate
from simulations.shareable import SUPPRESSED

#: An age outside of this is a mistake or a joke. MovieLens-1M's 1 is its code for
#: under 18.
AGES = (1, 100)
#: Unix seconds of 1973-03-03: a smaller time is a place in a sequence, or a mistake.
EARLIEST = 100_000_000


def assess(
    data: Dataset, *, now: int, min_users: int = MIN_USERS
) -> dict[str, dict[str, Fact]]:
    """Group → fact → figure.

    Args:
        data: as loaded; what its readers repaired is in its reports.
        now: Unix seconds; a later time is impossible.
        min_users: least users behind a figure; 1 shows everything.
    """
    rows = data.interactions
    num_users = rows["user"].n_unique()
    if 0 < num_users < min_users:
        return {"size": {"users": _few(min_users)}}
    return {
        "size": {
            "interactions": rows.height,
            "users": num_users,
            "items declared": data.catalogue.num_items,
        },
        "repaired on reading": repaired(data, min_users),
        "impossible values": impossible(data, now=now, min_users=min_users),
        "cold": cold(rows, data.catalogue, min_users),
        "catalogue": described(data.catalogue),
    }


def repaired(data: Dataset, min_users: int) -> dict[str, Fact]:
    """Kind of damage → rows dropped or merged, over all files; then readers' notes."""
    counts = {"duplicates": 0}
    for report in data.reports:
        for kind, count in report.repaired.items():
            counts[kind] = counts.get(kind, 0) + count
    found: dict[str, Fact] = {
        kind: count if _enough(count, min_users) else _few(min_users)
        for kind, count in counts.items()
    }
    for report in data.reports:
        for number, note in enumerate(report.notes, start=1):
            found[f"{report.path.name}, note {number}"] = note
    return found


def impossible(data: Dataset, *, now: int, min_users: int) -> dict[str, Fact]:
    """Rows and users with values that cannot be; 0 where there are none."""
    value, time = pl.col("value"), pl.col("timestamp")
    low, high = data.scale or (0.0, float("inf"))
    # Implicit rows beside ratings have the value 0 by our readers' convention.
    outside = (value < low) | (value > high)
    if data.scale is not None:
        outside &= value != 0
    marks = {
        "values outside the scale": outside,
        "times missing (zero)": time == 0,
        "times before 1973": (time != 0) & (time < EARLIEST),
        "times in the future": time > now,
    }
    found = {
        name: _rows(data.interactions.filter(mark), min_users)
        for name, mark in marks.items()
    }
    if data.scale is not None:
        implicit = data.interactions.filter(value == 0)
        found["rows without a rating"] = _rows(implicit, min_users)
    if data.users is not None and "age" in data.users.columns:
        found |= _ages(data.users, min_users)
    return found


def _ages(users: pl.DataFrame, min_users: int) -> dict[str, Fact]:
    age = pl.col("age").cast(pl.Int64, strict=False)
    impossible = users.filter(~age.is_between(*AGES))
    return {
        "ages impossible": _rows(impossible, min_users),
        "ages unknown": _rows(users.filter(age.is_null()), min_users),
    }


def cold(rows: pl.DataFrame, catalogue: Catalogue, min_users: int) -> dict[str, Fact]:
    """Items nobody or one user touched, users of one item."""
    touched = rows.group_by("item").agg(
        pl.col("user").n_unique().alias("users"), pl.col("user").first()
    )
    once = touched.filter(pl.col("users") == 1)
    behind = once["user"].n_unique()
    per_user = rows.group_by("user").agg(pl.col("item").n_unique())
    return {
        "items never touched": catalogue.num_items - touched.height,
        "items touched by one user": (
            once.height if _enough(behind, min_users) else _few(min_users)
        ),
        "users of one item": _rows(per_user.filter(pl.col("item") == 1), min_users),
    }


def described(catalogue: Catalogue) -> dict[str, Fact]:
    """Items without title, year, category or text, and titles that stand twice."""
    table = catalogue.table
    titled = table.filter(pl.col("title").fill_null("") != "")
    return {
        "titles missing": table.height - titled.height,
        "titles listed twice": titled.height - titled["title"].n_unique(),
        "years missing": table.filter(pl.col("year") == 0).height,
        "categories missing": table.filter(
            pl.col("categories").list.len().fill_null(0) == 0
        ).height,
        "texts missing": table.filter(pl.col("text") == "").height,
    }


def drift(
    public: Dataset, private: Dataset, min_users: int = MIN_USERS
) -> dict[str, Fact]:
    """How far the public set is from the private one.

    Items are the same where titles are; the same set under its own ids.

    Returns:
        The share of public rows on items of the private catalogue; of private rows
        on items that the public users never touched; the Jensen-Shannon divergence
        of the two popularities in bits, 0 (equal) to 1 (nothing in common); and
        the Kolmogorov-Smirnov distance of the times, where both have times.
    """
    rows = public.interactions
    if public.name != private.name:
        rows, _ = translate(public, private.catalogue)
    tables = (public.interactions, rows, private.interactions)
    if not all(_enough(table["user"].n_unique(), min_users) for table in tables):
        return {"drift": _few(min_users)}
    ours, theirs = (
        _popularity(table, private.catalogue) for table in (private.interactions, rows)
    )
    found: dict[str, Fact] = {
        "public rows on declared items": _share(public.interactions, rows, min_users),
        "private rows on items the public never saw": _share(
            private.interactions,
            private.interactions.filter(~pl.col("item").is_in(_items(rows))),
            min_users,
        ),
        "divergence of popularity (bits)": divergence(ours, theirs),
    }
    times = [_times(data.interactions) for data in (private, public)]
    if all(len(each) for each in times):
        found["distance of times"] = float(ks_2samp(*times).statistic)
    return found


def divergence(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]
) -> float:
    """Jensen-Shannon divergence of two histograms in bits (Lin 1991), in [0, 1].

    Args:
        first: counts, float64 ``[n]``; none at all are as far as can be.
        second: likewise.

    >>> divergence(np.array([1.0, 0.0]), np.array([0.0, 3.0]))
    1.0
    """
    if not first.sum() or not second.sum():
        return 1.0
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2

    def relative(one: npt.NDArray[np.float64]) -> float:
        there = one > 0
        return float((one[there] * np.log2(one[there] / middle[there])).sum())

    return (relative(p) + relative(q)) / 2


def _items(rows: pl.DataFrame) -> list[str]:
    return rows["item"].unique().to_list()


def _share(whole: pl.DataFrame, part: pl.DataFrame, min_users: int) -> Fact:
    """Rows of ``part`` over those of ``whole``, unless few users have either kind.

    The share times the number of rows would else be a count of these few users' own.
    """
    counts = (
        whole.group_by("user")
        .len("all")
        .join(part.group_by("user").len("some"), on="user", how="left")
    )
    some = counts["some"].fill_null(0)
    sides = (int((some > 0).sum()), int((counts["all"] > some).sum()))
    if not all(_enough(each, min_users) for each in sides):
        return _few(min_users)
    return part.height / max(whole.height, 1)


def _popularity(rows: pl.DataFrame, catalogue: Catalogue) -> npt.NDArray[np.float64]:
    items = catalogue.items.encode(rows["item"].to_list())
    return np.bincount(items, minlength=catalogue.num_items).astype(np.float64)


def _times(rows: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Real times; places in a sequence are none."""
    return rows.filter(pl.col("timestamp") >= EARLIEST)["timestamp"].to_numpy()


def _rows(frame: pl.DataFrame, min_users: int) -> Fact:
    """How many rows, unless too few users stand behind them."""
    return (
        frame.height
        if _enough(frame["user"].n_unique(), min_users)
        else _few(min_users)
    )


def _enough(num_users: int, min_users: int) -> bool:
    return num_users == 0 or num_users >= min_users


def _few(min_users: int) -> str:
    return f"{SUPPRESSED}: fewer than {min_users} users"
