"""Music: Last.fm listening counts, and who is whose friend (HetRec 2011).

Cantador, Brusilovsky & Kuflik 2011. Counts span six orders of magnitude: they stay
counts, and whoever weighs by them takes ``log1p``. Simulations only.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from common.columns import Columns
from common.readers import read_interactions
from common.repairs import Repairs
from common.text_tables import FieldTable, format_error, read_text, split_fields
from simulations.datasets.dataset import Dataset, assemble, declare


def lastfm(folder: Path) -> Dataset:
    """Listening counts, artists' names; the set ties no tag to an artist.

    ``tags.dat`` lists tags, the file that says whose they are is not published here.
    """
    path = folder / "user_artists.dat"
    read = read_interactions(
        path,
        format="tsv",
        columns=Columns(user=1, item=2, value=3),
        repairs=Repairs(bad_rows="drop", duplicates="keep_first"),
    )
    notes = (*read.report.notes, *_padded(path))
    if (folder / "tags.dat").is_file():
        notes += ("tags.dat is not read: no file says which artist has which tag",)
    artists = _artists(folder / "artists.dat")
    catalogue = declare(artists["0"].to_list(), title=artists["1"].to_list())
    users = _friends(folder / "user_friends.dat", read.frame)
    return assemble(
        folder, read.frame, catalogue, users, (replace(read.report, notes=notes),)
    )


def _padded(path: Path) -> tuple[str, ...]:
    """Rows whose fields carry blanks: stripped on reading, and counted here."""
    lines = read_text(path).lines
    padded = int(lines.str.contains(r" \t|\t |^ | $").sum())
    return (f"blanks stripped around fields of {padded} rows",) if padded else ()


def _artists(path: Path) -> pl.DataFrame:
    table = split_fields(read_text(path), "\t", quoted=False)
    return _even(table, path).frame.slice(1).select("0", pl.col("1").str.strip_chars())


def _even(table: FieldTable, path: Path) -> FieldTable:
    wrong = table.frame.filter(pl.col("num_fields") != table.width)
    if wrong.height or table.width < 2:
        row = wrong["line"][0] if wrong.height else 1
        expected = "as many fields as the first row, two or more."
        raise format_error(path, expected, row=row, unit="line")
    return table


def _friends(path: Path, rows: pl.DataFrame) -> pl.DataFrame | None:
    """Each user's number of friends: a public attribute to deal users by."""
    if not path.is_file():
        return None
    table = _even(split_fields(read_text(path), "\t", quoted=False), path)
    friends = table.frame.slice(1).select(user=pl.col("0").str.strip_chars())
    counts = friends.group_by("user").len("friends")
    users = rows.select("user").unique(maintain_order=True)
    joined = users.join(counts, on="user", how="left", maintain_order="left")
    return joined.with_columns(pl.col("friends").fill_null(0).cast(pl.String))
