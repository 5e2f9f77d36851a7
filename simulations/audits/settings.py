"""How much an audit does: quick, or full.

Simulations only. Everything here is fixed before a score is seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

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
        confidence: of bounds and intervals.
        workers: processes for shadow models; 0 for this process.
        seed: repeats an audit, and its noise; ``None``: the operating system's
            randomness, as an audit that counts needs.
    """

    attacks: tuple[str, ...] = ("canaries", "membership")
    designs: tuple[str, ...] = ("random", "rare-item", "dirac", "interaction")
    num_canaries: int = 1000
    num_shadows: int = 16
    confidence: float = 0.95
    workers: int = max(1, os.cpu_count() or 1)
    seed: int | None = None


QUICK = AuditSettings()
FULL = AuditSettings(num_canaries=4000, num_shadows=64)
