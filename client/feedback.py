"""Feedback of a device's users: kept durably, and rows of the next round.

Client only. What the serving interface is told goes into an append-only log in the
client's folder (``sealed_log``), sealed where the store has a key, under the keyed
pseudonyms that imported rows have. ``data.py`` adds its rows to the imported ones:
for training and its ledger a row is a row, wherever it came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from client.sealed_log import SealedLog, read_log
from client.store_key import FEEDBACK
from client.vault import Key
from common.errors import DataFormatError
from common.interactions import SCHEMA

LABEL = "tutela-feedback-1"
#: Beyond, a time is none in seconds: the year 5138.
LATEST = 10**11
#: The largest 32-bit float.
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class FeedbackRow:
    """One interaction of one user.

    Attributes:
        item: its outside id.
        value: finite in 32 bits, a rating or count.
        timestamp: Unix seconds, from 0.
    """

    item: str = field(repr=False)
    value: float = 1.0
    timestamp: int = 0


@dataclass(frozen=True)
class Feedback:
    """What one call said of one user.

    Attributes:
        user: a pseudonym, see ``identifiers.py``.
    """

    user: str = field(repr=False)
    rows: tuple[FeedbackRow, ...] = field(repr=False)


def encode_feedback(feedback: Feedback) -> bytes:
    """A record's bytes."""
    rows = [[row.item, row.value, row.timestamp] for row in feedback.rows]
    tree = {"user": feedback.user, "rows": rows}
    return json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()


def decode_feedback(record: bytes) -> Feedback:
    """What :func:`encode_feedback` was given.

    Raises:
        DataFormatError: if it is something else; its text names nothing of it.
    """
    try:
        tree = json.loads(record)
        rows = tuple(FeedbackRow(*row) for row in tree["rows"])
        found = Feedback(tree["user"], rows)
        sound = isinstance(found.user, str) and all(map(is_sound, rows))
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise DataFormatError(f"{FEEDBACK}: expected records of feedback.")
    return found


def is_sound(row: FeedbackRow) -> bool:
    """Whether a row is such as may be kept."""
    value, time = row.value, row.timestamp
    return (
        isinstance(row.item, str)
        and isinstance(value, float)
        and abs(value) <= LARGEST
        and type(time) is int
        and 0 <= time < LATEST
    )


def open_feedback(
    folder: Path, key: Key | None, most_bytes: int | None = None
) -> SealedLog:
    """The folder's log, for appending :func:`encode_feedback`'s records.

    Args:
        most_bytes: beyond which the log may not grow.

    Raises:
        ConfigError, DataFormatError: as ``sealed_log.SealedLog``.
    """
    return SealedLog(folder / FEEDBACK, LABEL, key, most_bytes)


def read_feedback(folder: Path, key: Key | None) -> pl.DataFrame:
    """All rows of a folder's log, columns as in ``interactions.SCHEMA``.

    Raises:
        ConfigError, DataFormatError: as ``sealed_log.read_log``, or if a record is no
            feedback.
    """
    records = read_log(folder / FEEDBACK, LABEL, key).records
    return feedback_table(map(decode_feedback, records))


def feedback_table(feedback: Iterable[Feedback]) -> pl.DataFrame:
    """Rows in their order, columns as in ``interactions.SCHEMA``."""
    rows = [
        (each.user, row.item, row.value, row.timestamp)
        for each in feedback
        for row in each.rows
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def merge(imported: pl.DataFrame, feedback: pl.DataFrame) -> pl.DataFrame:
    """Imported rows and, behind them, feedback on pairs not yet known, each once."""
    pair = ["user", "item"]
    new = feedback.unique(pair, keep="first", maintain_order=True).join(
        imported.select(pair).unique(), on=pair, how="anti", maintain_order="left"
    )
    return pl.concat([imported, new])
