"""User ids become keyed hashes before they are stored: pseudonyms of one device.

Client only. HMAC-SHA256 (RFC 2104) under a key that never leaves the device: without
it, nobody can test a guess of an id against a stored one, and two clients' pseudonyms
of one person have nothing in common. Rows stay linkable on the device, as they must.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path

import polars as pl

from common.durable_files import read_or_create_secret
from common.errors import DataFormatError
from common.folders import ID_KEY, INTERACTIONS

#: Hexadecimal digits of a pseudonym: 128 bits, so that no two users meet.
DIGITS = 32


def pseudonym(user: str, key: bytes) -> str:
    """The keyed hash of one id."""
    return hmac.new(key, user.encode(), sha256).hexdigest()[:DIGITS]


def pseudonymise(table: pl.DataFrame, key: bytes) -> pl.DataFrame:
    """The table with keyed hashes in ``user``, rows in their order."""
    users = table["user"].unique(maintain_order=True)
    names = [pseudonym(user, key) for user in users.to_list()]
    return table.with_columns(
        pl.col("user").replace_strict(users, names, return_dtype=pl.String)
    )


def folder_key(folder: Path) -> bytes:
    """The key of a client's folder, drawn at its first import."""
    return read_or_create_secret(folder / ID_KEY)


def check_pseudonyms(table: pl.DataFrame) -> None:
    """Whether every user is a keyed hash.

    Raises:
        DataFormatError: counting the rows where not, and naming none.
    """
    fits = table["user"].str.contains(f"^[0-9a-f]{{{DIGITS}}}$")
    wrong = table.height - int(fits.fill_null(value=False).sum())
    if wrong:
        raise DataFormatError(
            f"{INTERACTIONS}: expected users as keyed hashes, got {wrong} rows of "
            "others; write the file with `tutela import`."
        )
