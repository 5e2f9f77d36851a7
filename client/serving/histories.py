"""The stored users' histories while they are served, and feedback that adds to them.

Client only: raw rows in memory. A row counts once it is on disk (``feedback.py``);
readers see a user's whole history as it was before or after a call, never between.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from client.data import ClientData, read_client_data
from client.feedback import Feedback, FeedbackRow, encode_feedback, open_feedback
from client.sealed_log import NoRoom
from client.serving.limits import Limits
from client.vault import Key
from common.errors import ConfigError
from common.folders import INTERACTIONS
from common.interactions import IntArray


class Histories:
    """Dense ids by pseudonym; one process alone may hold a folder's.

    Attributes:
        catalogue: whose dense ids they are; the same for good.
    """

    def __init__(self, folder: Path, key: Key | None, limits: Limits) -> None:
        """Read the folder's rows, and open its feedback for appending.

        Args:
            limits: bound what is added.

        Raises:
            ConfigError, DataFormatError: as ``read_client_data`` and
                ``open_feedback``.
        """
        self._folder, self._lock = folder, threading.Lock()
        self._most_users = limits.most_users
        self._log = open_feedback(folder, key, limits.most_stored)
        try:
            data = read_client_data(folder)
            self._imported = _imported_users(folder)
        except BaseException:
            self._log.close()
            raise
        self.catalogue = data.catalogue
        self._by_user = _by_user(data)

    def of(self, user: str) -> IntArray | None:
        """A stored user's items, distinct int64 ``[n]``; ``None`` for nobody's."""
        return self._by_user.get(user)

    def add(self, user: str, rows: Sequence[FeedbackRow]) -> int:
        """Keep what is new of a user's rows, on disk before this returns; how many.

        Args:
            user: a pseudonym, of a stored user or a new one.
            rows: on items of the catalogue.

        Raises:
            NoRoom: if they, or their user, are more than may be stored; none is kept
                then.
            OSError: if the disk does not take them; none is kept then.
        """
        with self._lock:
            before = self._by_user.get(user, np.empty(0, dtype=np.int64))
            dense = self.catalogue.items.encode([row.item for row in rows]).tolist()
            known, new = set(before.tolist()), dict[int, FeedbackRow]()
            for item, row in zip(dense, rows, strict=True):
                if item not in known:
                    new.setdefault(item, row)
            if new:
                self._check_room(user)
                self._append(Feedback(user, tuple(new.values())))
                added = np.fromiter(new, dtype=np.int64)
                self._by_user[user] = np.concatenate([before, added])
            return len(new)

    def reload(self) -> None:
        """Take rows imported since; calls see the old ones until all are read.

        Raises:
            ConfigError: if the catalogue has changed: that takes a restart.
            ConfigError, DataFormatError: as ``read_client_data``.
        """
        with self._lock:
            data = read_client_data(self._folder)
            if data.catalogue.digest != self.catalogue.digest:
                raise ConfigError(
                    "Expected the catalogue as it was when serving began, got "
                    "another; start again."
                )
            self._imported = _imported_users(self._folder)
            self._by_user = _by_user(data)

    def close(self) -> None:
        """Let others append to the folder's feedback; waits for a call at it."""
        with self._lock:
            self._log.close()

    def _check_room(self, user: str) -> None:
        """Those with rows here are heard for as long as the log has room."""
        brought = len(self._by_user) - self._imported
        if user not in self._by_user and brought >= self._most_users:
            raise NoRoom(
                f"Expected at most {self._most_users} users beside the imported ones, "
                "got another; import their rows, or serve with a larger --most-users."
            )

    def _append(self, feedback: Feedback) -> None:
        try:
            self._log.append(encode_feedback(feedback))
        except NoRoom as error:
            raise NoRoom(f"{error} Serve with a larger --most-stored.") from None


def _imported_users(folder: Path) -> int:
    path = folder / INTERACTIONS
    if not path.is_file():
        return 0
    users = pl.scan_parquet(path).select(pl.col("user").n_unique())
    return int(users.collect().item())


def _by_user(data: ClientData) -> dict[str, IntArray]:
    rows = data.histories
    items = np.split(rows.indices.astype(np.int64), rows.indptr[1:-1])
    return dict(zip(data.users.ids, items, strict=False))
