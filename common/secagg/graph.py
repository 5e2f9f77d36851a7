"""Who is whose neighbour: a circle in an order that a public seed draws.

In ``common`` because clients and the server must find the same graph. The seed is the
digest of the whole cohort, fresh keys included, so nobody knows it before all have
advertised theirs. Bell et al. 2020, section 3 (Harary graphs on permuted members).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from common.secagg.bounds import Shape

_DOMAIN = b"tutela secagg graph 1\n"


@dataclass(frozen=True)
class Graph:
    """A cohort's graph; members are numbered ``0..shape.members - 1``."""

    shape: Shape
    seed: bytes

    @cached_property
    def circle(self) -> tuple[int, ...]:
        """Members in the order in which they stand on the circle."""
        start = hashlib.sha256(_DOMAIN + self.seed)

        def draw(member: int) -> bytes:
            drawn = start.copy()
            drawn.update(member.to_bytes(4, "big"))
            return drawn.digest()

        return tuple(sorted(range(self.shape.members), key=draw))

    @cached_property
    def _places(self) -> dict[int, int]:
        return {member: place for place, member in enumerate(self.circle)}

    def neighbours(self, member: int) -> tuple[int, ...]:
        """In rising order; the relation is symmetric, nobody neighbours themselves."""
        n = self.shape.members
        if self.shape.complete:
            return tuple(each for each in range(n) if each != member)
        place, half = self._places[member], self.shape.degree // 2
        steps = (*range(-half, 0), *range(1, half + 1))
        return tuple(sorted(self.circle[(place + step) % n] for step in steps))

    def confirmed_by(self, members: frozenset[int], least: int) -> bool:
        """Whether a list that these confirmed is the only one, all round the circle.

        Args:
            least: survivors that the terms ask for. A list may name some who are not
                there; who confirmed it is.
        """
        shape = self.shape
        return len(members) >= max(shape.quorum, least) and (
            not shape.window or self.thinnest_window(members) >= shape.window
        )

    def thinnest_window(self, members: frozenset[int]) -> int:
        """Least of these members in any ``degree / 2`` places in a row."""
        half = self.shape.degree // 2
        alive = [int(member in members) for member in self.circle]
        count = sum(alive[:half])
        thinnest = count
        for place in range(1, len(alive)):
            count += alive[(place + half - 1) % len(alive)] - alive[place - 1]
            thinnest = min(thinnest, count)
        return thinnest
