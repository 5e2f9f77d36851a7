"""How much an audit does: quick, or full.

Simulations only. Everything here is fixed before a score is seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

#: Attacks whose findings may refute a promise, and by chance a true one.
DECIDING = frozenset({"canaries", "membership", "checks"})
#: Hears, in a few words, what is being done.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class AuditSettings:
    """What an audit runs.

    Attributes:
        attacks: keys of ``audit.ATTACKS``.
        designs: keys of ``canaries.DESIGNS``, a run each.
        num_canaries: of each design; interactions are at most one a real user.
        num_shadows: runs over random halves of the real users; each is attacked with
            the others as shadow models.
        integrity: key of ``integrity.grid.GRIDS``: how many attacks by lying clients.
        leak_users: real users whose items are inferred; held-out ones likewise.
        leak_devices: of them, users who get a client each for reconstruction.
        leak_profiles: users whose attributes are inferred.
        leak_rounds: updates that such attacks read, evenly over the rounds.
        confidence: of bounds and intervals.
        workers: processes for shadow models; 0 for this process.
        seed: repeats an audit, and its noise; ``None``: the operating system's
            randomness, as an audit that counts needs.
    """

    attacks: tuple[str, ...] = (
        "canaries",
        "membership",
        "checks",
        "leaks",
        "integrity",
    )
    designs: tuple[str, ...] = ("random", "rare-item", "dirac", "interaction")
    num_canaries: int = 1000
    num_shadows: int = 16
    integrity: str = "quick"
    leak_users: int = 200
    leak_devices: int = 24
    leak_profiles: int = 1000
    leak_rounds: int = 12
    confidence: float = 0.95
    workers: int = max(1, os.cpu_count() or 1)
    seed: int | None = None

    @property
    def deciding(self) -> int:
        """Attacks that share what ``confidence`` leaves to chance (Bonferroni).

        So that all of an audit together refute a true promise as rarely as one would.
        """
        return max(1, len(set(self.attacks) & DECIDING))


QUICK = AuditSettings()
FULL = AuditSettings(
    num_canaries=4000,
    num_shadows=64,
    integrity="full",
    leak_users=2000,
    leak_devices=100,
    leak_profiles=10_000,
    leak_rounds=1000,
)
