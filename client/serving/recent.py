"""Scores of the users who asked last: the same history and model give the same.

Client only: raw scores of stored users, in memory alone. It belongs to one model and
goes with it; a history that has grown is another array, and is scored anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from common.interactions import FloatArray, IntArray

#: A user's scores over 3,416 items are 14 kB, over 60,000 items 240 kB.
MOST_BYTES = 32 * 1024 * 1024


class Recent:
    """Scores by user, the least recently used dropped first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[IntArray, FloatArray]] = OrderedDict()

    def get(self, user: str, items: IntArray) -> FloatArray | None:
        """A copy of the scores kept for this very history, the caller's to change."""
        with self._lock:
            found = self._kept.get(user)
            if found is None or found[0] is not items:
                return None
            self._kept.move_to_end(user)
        return found[1].copy()

    def put(self, user: str, items: IntArray, scores: FloatArray) -> None:
        """Keep a copy of scores, in the place of the user's older ones."""
        with self._lock:
            self._drop(user)
            self._kept[user] = (items, scores.copy())
            self._bytes += scores.nbytes
            while self._bytes > self._most_bytes:
                self._drop(next(iter(self._kept)))

    def _drop(self, user: str) -> None:
        found = self._kept.pop(user, None)
        if found is not None:
            self._bytes -= found[1].nbytes
