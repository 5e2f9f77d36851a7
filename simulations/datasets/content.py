"""Content: CiteULike bookmarks of papers, visits to areas of a web site.

CiteULike-a: Wang, Chen & Li 2013. Anonymous Microsoft Web Data: Breese, Heckerman &
Kadie 1998 (UCI). Simulations only.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from common.errors import DataFormatError
from common.interactions import SCHEMA
from common.repairs import ReadReport
from common.text_tables import TextFile, format_error, read_text
from simulations.datasets.dataset import Dataset, assemble, declare, declare_touched


def citeulike(folder: Path) -> Dataset:
    """One user a line: how many items, then the items; no titles, no times.

    Raises:
        DataFormatError: if a line's count is not that of its items.
    """
    path = folder / "users.dat"
    text = read_text(path)
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(text.lines.to_list(), start=1):
        count, *items = line.split() or ["0"]
        if count != str(len(items)):
            expected = "the number of items, then as many items."
            raise format_error(path, expected, row=number, unit="line")
        pairs += [(str(number), item) for item in items]
    rows, report = _once(pairs, path, "bookmarks", text.notes)
    return assemble(folder, rows, declare_touched(rows), None, (report,))


def _once(
    pairs: list[tuple[str, str]],
    path: Path,
    format: str,
    notes: tuple[str, ...],
    dropped: dict[str, int] | None = None,
) -> tuple[pl.DataFrame, ReadReport]:
    """Each pair once, in order, as a table of value 1 and no time."""
    unique = list(dict.fromkeys(pairs))
    counts = (dropped or {}) | {"duplicates": len(pairs) - len(unique)}
    columns = {
        "user": [user for user, _ in unique],
        "item": [item for _, item in unique],
        "value": [1.0] * len(unique),
        "timestamp": [0] * len(unique),
    }
    frame = pl.DataFrame(columns, schema=SCHEMA)
    rows = len(pairs) + sum((dropped or {}).values())
    kept = {kind: n for kind, n in counts.items() if n}
    return frame, ReadReport(path, format, rows, len(unique), kept, notes)


@dataclass
class _Records:
    """What the A, C and V records of one file said, as far as it was read."""

    areas: dict[str, tuple[str, str]] = field(default_factory=dict)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)


def web_visits(folder: Path) -> Dataset:
    """Both published files; users of the test file are other people: ``test-`` ids.

    The files number their users from 10,001 both.
    """
    train = _records(read_text(folder / "anonymous-msweb.data"), "")
    test = _records(read_text(folder / "anonymous-msweb.test"), "test-")
    areas = train.areas | test.areas
    tables, reports = [], []
    for name, found in (("data", train), ("test", test)):
        known = [pair for pair in found.pairs if pair[1] in areas]
        path = folder / f"anonymous-msweb.{name}"
        dropped = {"item": len(found.pairs) - len(known)}
        notes = tuple(f"{n} records {kind}" for kind, n in sorted(found.kinds.items()))
        rows, report = _once(known, path, "web-visits", notes, dropped)
        tables.append(rows)
        reports.append(report)
    catalogue = declare(
        list(areas),
        title=[title for title, _ in areas.values()],
        text=[url.strip("/").replace("/", " ") for _, url in areas.values()],
    )
    rows = pl.concat(tables)
    part = pl.col("user").str.starts_with("test-")
    users = rows.select("user").unique(maintain_order=True)
    users = users.with_columns(
        part=pl.when(part).then(pl.lit("test")).otherwise(pl.lit("train"))
    )
    return assemble(folder, rows, catalogue, users, reports)


def _records(text: TextFile, prefix: str) -> _Records:
    """UCI's records: A an area, C a case (user), V a visit of the case before it."""
    found, user = _Records(), ""
    rows = csv.reader(text.lines.to_list(), skipinitialspace=True)
    for number, fields in enumerate(rows, start=1):
        kind = fields[0] if fields else ""
        found.kinds[kind or "blank"] += 1
        try:
            if kind == "A":
                found.areas[fields[1]] = (fields[3].strip(), fields[4].strip())
            elif kind == "C":
                user = prefix + fields[2]
            elif kind == "V":
                found.pairs.append((_open(user), fields[1]))
        except (IndexError, ValueError):
            expected = "A,id,_,title,url or C,_,id or V,area,_ after a C."
            raise format_error(text.path, expected, row=number, unit="line") from None
    if not found.pairs:
        raise DataFormatError(f"{text.path}: expected visits (records V), found none.")
    return found


def _open(user: str) -> str:
    if not user:
        raise ValueError
    return user
