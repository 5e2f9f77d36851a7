"""E-commerce: Amazon instant video ratings, RetailRocket views, carts and purchases.

Simulations only. Neither set describes its items: no titles, no categories, so that
nothing but ids links them to another domain.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from common.columns import Columns
from common.readers import ReadResult, read_interactions
from common.repairs import ReadReport, Repairs
from simulations.datasets.archives import under, unpacked
from simulations.datasets.dataset import Dataset, assemble, declare_touched

REPAIRS = Repairs(bad_rows="drop", duplicates="keep_last")
ARCHIVE = "Retailrocket_Ecommerce.zip"
#: File → value of its event: the strongest event of a visitor on an item counts.
EVENTS = {
    "view_ecommerce.dat": 1.0,
    "add_to_cart_ecommerce.dat": 2.0,
    "purchase_ecommerce.dat": 3.0,
}


def amazon_video(folder: Path) -> Dataset:
    """CSV without header: user, item, stars, Unix seconds."""
    read = read_interactions(
        folder / "ratings.dat",
        format="csv",
        columns=Columns(user=1, item=2, value=3, timestamp=4),
        repairs=REPAIRS,
    )
    catalogue = declare_touched(read.frame)
    return assemble(folder, read.frame, catalogue, None, (read.report,), (1.0, 5.0))


def retailrocket(folder: Path) -> Dataset:
    """Three event files of one zip; value 1 view, 2 cart, 3 purchase; no times.

    The set's README swaps the last two files' descriptions: purchases are the fewer,
    as the files' own names say.
    """
    with unpacked(folder / ARCHIVE, tuple(EVENTS)) as files:
        return _events(folder, files, folder / ARCHIVE)


def retailrocket_unpacked(folder: Path) -> Dataset:
    """The same, unpacked by hand."""
    return _events(folder, folder, folder)


def _events(folder: Path, files: Path, shown: Path) -> Dataset:
    read = {name: _read(files / name) for name in EVENTS}
    tables = [
        found.frame.with_columns(value=pl.lit(EVENTS[name], dtype=pl.Float32))
        for name, found in read.items()
    ]
    stacked = pl.concat(tables)
    strongest = stacked.sort("value", descending=True, maintain_order=True).unique(
        ["user", "item"], keep="first", maintain_order=True
    )
    order = pl.col("user").cast(pl.Int64, strict=False)
    rows = strongest.sort(order, "user", maintain_order=True)
    reports = [under(shown, found.report) for found in read.values()]
    notes = (
        "of a visitor's events on an item the strongest is kept: view, cart, purchase",
        "by the files' names: the README swaps what it says of carts and purchases",
    )
    dropped = {"duplicates": stacked.height - rows.height}
    reports.append(
        ReadReport(shown, "events", stacked.height, rows.height, dropped, notes)
    )
    return assemble(folder, rows, declare_touched(rows), None, reports)


def _read(path: Path) -> ReadResult:
    columns = Columns(user="visitorid", item="itemid")
    return read_interactions(path, format="tsv", columns=columns, repairs=REPAIRS)
