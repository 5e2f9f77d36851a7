"""What a data set is, and what every reader of one ends with.

Simulations only: it holds everybody's rows at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from common.catalogue import OPTIONAL, SCHEMA, Catalogue
from common.errors import DataFormatError
from common.repairs import ReadReport


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        interactions: columns of ``interactions.SCHEMA``, each (user, item) once.
        users: ``user`` and attributes, all strings, "" where unknown; None where the
            set has none.
        source: where it came from, one sentence; a generated set says so.
        reports: what was read, a report a file: nothing is repaired silently.
        scale: least and greatest possible value where values are ratings; None where
            they are counts, weights of events, or all one.
    """

    name: str
    interactions: pl.DataFrame
    catalogue: Catalogue
    users: pl.DataFrame | None
    source: str
    reports: tuple[ReadReport, ...] = ()
    scale: tuple[float, float] | None = None


def assemble(
    folder: Path,
    interactions: pl.DataFrame,
    catalogue: Catalogue,
    users: pl.DataFrame | None,
    reports: Sequence[ReadReport],
    scale: tuple[float, float] | None = None,
) -> Dataset:
    """A data set under its folder's name.

    Raises:
        DataFormatError: if a row is on an item that the catalogue does not declare.
    """
    known = set(catalogue.items.ids)
    unknown = set(interactions["item"].unique().to_list()) - known
    if unknown:
        raise DataFormatError(
            f"{folder}: expected every item in the item file, {len(unknown)} are not."
        )
    return Dataset(
        folder.name,
        interactions,
        catalogue,
        users,
        str(folder),
        tuple(reports),
        scale,
    )


def declare(items: Sequence[str], **columns: Sequence[Any]) -> Catalogue:
    """A catalogue of these items; a column that is not named is empty.

    Args:
        items: outside ids, each once.
        columns: by name of ``catalogue.SCHEMA`` or ``OPTIONAL``, one value an item.

    >>> declare(["a"], title=["A"]).table.row(0)[:4]
    ('a', 'A', 0, [])
    """
    empty: Mapping[str, Any] = {"title": "", "year": 0, "categories": []}
    given: dict[str, Any] = {"item": list(items)}
    for name in SCHEMA.names()[1:]:
        given[name] = list(columns.get(name, [empty[name]] * len(items)))
    given |= {name: list(columns[name]) for name in OPTIONAL if name in columns}
    schema = {**SCHEMA, **{k: v for k, v in OPTIONAL.items() if k in columns}}
    return Catalogue(pl.DataFrame(given, schema=schema))


def declare_touched(interactions: pl.DataFrame) -> Catalogue:
    """A catalogue of the items that rows name, where the set describes none.

    A published set's list of items is public; in a deployment the operator declares
    a catalogue, and never by private rows.
    """
    items = interactions["item"].unique().to_list()
    return declare(sorted(items, key=lambda item: (len(item), item)))
