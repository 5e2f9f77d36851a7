"""What one caller may ask for: how much, how often, how many at once.

Client only: a device has other things to do. The token bucket is Turner's (1986).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from common.errors import ConfigError

#: Calls may come at once as many as a second brings, but so many in any case.
LEAST_BURST = 10.0


_LEAST = {
    "most_items": 1,
    "most_bytes": 1,
    "concurrency": 1,
    "threads": 1,
    "most_users": 0,
    "most_stored": 0,
}


@dataclass(frozen=True)
class Limits:
    """Bounds of the service.

    Attributes:
        most_items: the largest ``k``, and of interactions in one Feedback.
        most_bytes: of a request's message.
        rate: calls a second; 0 for no bound.
        concurrency: calls at work or waiting.
        threads: calls at work.
        most_users: new users that feedback may bring, beside those with imported rows.
        most_stored: bytes of the log of feedback.

    Raises:
        ConfigError: naming the option at fault.
    """

    most_items: int = 200
    most_bytes: int = 256 * 1024
    rate: float = 5000.0
    concurrency: int = 64
    threads: int = 4
    most_users: int = 10_000
    most_stored: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise ConfigError(
                    f"--{option}: expected at least {least}, got {getattr(self, name)}."
                )
        if not 0 <= self.rate < 1e9:
            raise ConfigError(f"--rate: expected calls a second, got {self.rate}.")


class TokenBucket:
    """Lets ``rate`` calls a second through, and short bursts of a second's worth."""

    def __init__(
        self, rate: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._clock = rate, clock
        self._most = max(rate, LEAST_BURST)
        self._tokens, self._then = self._most, clock()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether a call may go on now."""
        if not self._rate:
            return True
        with self._lock:
            now = self._clock()
            earned = (now - self._then) * self._rate
            self._tokens, self._then = min(self._most, self._tokens + earned), now
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True
