"""Which column of a data file holds the user, the item, the rating, the time.

In ``common`` because client and simulations read the same kinds of file; the code
sees a header, never a row. Its errors name the roles it looked for, and no text of
the file: a file without a header has data in its first line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError, DataFormatError

#: Role → names it goes by, in lower case without blanks, dots and underscores.
KNOWN_NAMES: Mapping[str, tuple[str, ...]] = {
    "user": ("user", "userid", "uid", "visitorid", "customerid", "reviewerid"),
    "item": (
        "item",
        "itemid",
        "iid",
        "movieid",
        "productid",
        "artistid",
        "bookid",
        "trackid",
        "isbn",
        "asin",
    ),
    "value": ("value", "rating", "weight", "score", "count", "bookrating"),
    "timestamp": ("timestamp", "time", "ts", "unixtime", "unixreviewtime"),
    "title": ("title", "movietitle", "name", "booktitle"),
    "categories": ("categories", "category", "genres", "genre", "class"),
    "year": ("year", "releaseyear", "yearofpublication"),
}

#: Roles of an interaction file, in the order of headerless files.
INTERACTION_ROLES = ("user", "item", "value", "timestamp")


@dataclass(frozen=True)
class Columns:
    """Where an interaction file keeps what: all by name, or all by position.

    Attributes:
        user, item: a header name; or a position from 1, for a file without header.
        value: as above; None gives every interaction the value 1.0.
        timestamp: as above; None gives every interaction the time 0.

    Raises:
        ConfigError: if names and positions are mixed or a position is below 1.

    Example:
        >>> Columns(user=1, item=2).by_position
        True
    """

    user: str | int = "user"
    item: str | int = "item"
    value: str | int | None = None
    timestamp: str | int | None = None

    def __post_init__(self) -> None:
        places = list(self.places.values())
        if len({type(place) for place in places}) > 1:
            raise ConfigError("Expected columns all by name or all by position.")
        if any(isinstance(place, int) and place < 1 for place in places):
            raise ConfigError("Expected column positions from 1.")

    @property
    def places(self) -> dict[str, str | int]:
        """Role → name or position, of the roles that the file has."""
        return {
            role: place
            for role in INTERACTION_ROLES
            if (place := getattr(self, role)) is not None
        }

    @property
    def by_position(self) -> bool:
        """Whether the file has no header."""
        return isinstance(self.user, int)


def find_columns(
    header: Sequence[str], columns: Columns | None, path: Path
) -> dict[str, int]:
    """Role → index from 0 in ``header``, for the roles of an interaction file.

    Args:
        header: names in the file's order.
        columns: exact names or positions; None recognises ``KNOWN_NAMES``.
        path: for the message.

    Raises:
        DataFormatError: if a column is missing, or stands there twice.
    """
    if columns is None:
        return recognise(header, ("user", "item"), ("value", "timestamp"), path)
    found = {}
    for role, place in columns.places.items():
        hits = [i for i, name in enumerate(header) if place in (name, i + 1)]
        if len(hits) != 1:
            raise DataFormatError(
                f"{path}, line 1: expected one column {place!r} for the {role}, "
                f"found {len(hits)} among {len(header)} columns."
            )
        found[role] = hits[0]
    return found


def recognise(
    header: Sequence[str],
    required: Sequence[str],
    optional: Sequence[str],
    path: Path,
) -> dict[str, int]:
    """Role → index from 0 in ``header``, by ``KNOWN_NAMES``.

    Raises:
        DataFormatError: if a required role has no column, or any role has two.
    """
    plain = [re.sub(r"[\s._-]", "", name.lower()) for name in header]
    found = {}
    for role in (*required, *optional):
        hits = [i for i, name in enumerate(plain) if name in KNOWN_NAMES[role]]
        if len(hits) > 1 or (role in required and not hits):
            raise DataFormatError(
                f"{path}, line 1: expected one column for the {role}, named one of "
                f"{', '.join(KNOWN_NAMES[role])}; found {len(hits)} among "
                f"{len(header)} columns. Name them: "
                f'Columns(user="…", item="…", value="…", timestamp="…").'
            )
        found.update({role: hits[0]} if hits else {})
    return found
