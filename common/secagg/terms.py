"""The public numbers of one round of secure aggregation; every client checks them.

In ``common`` because both sides derive the same ones from the run's configuration.
Their digest is in every signature, key and message, so that nothing fits another run,
another round, or other terms.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property

from common.errors import ConfigError, ProtocolError
from common.secagg.ring import MOST_BITS, Ring

#: A cohort's members, a vector's length and a run's name at most: sizes are checked
#: against these before anything is allocated.
MOST_MEMBERS, MOST_LENGTH, MOST_NAME = 20_000, 1 << 28, 256
#: Below three, a sum and one's own vector give away the other's.
LEAST_MEMBERS = 3
_DOMAIN = b"tutela secagg terms 1\n"


@dataclass(frozen=True)
class Policy:
    """Against whom, and how surely, a round is protected.

    Attributes:
        active: the server may lie: identities come from a roster, clients confirm one
            list of survivors to each other. Else it is honest but curious.
        corrupt: share of a cohort that may collude with the server.
        dropped: share of a cohort that may fall silent without the round failing.
        security_bits: a graph lets the server see more than the sum with probability
            at most 2 to the minus this. A server that lies may try graphs, and gains
            a factor of its tries. 0: 80 against such a one, else 40.
        availability_bits: where no more than ``dropped`` fall silent, by chance, the
            round fails with probability at most 2 to the minus this.
        degree: neighbours of a client, an even number; 0: the least that keeps both.
        complete_up_to: cohorts of so many have everybody as neighbours.
    """

    active: bool = False
    corrupt: float = 0.1
    dropped: float = 0.1
    security_bits: int = 0
    availability_bits: int = 10
    degree: int = 0
    complete_up_to: int = 32

    def __post_init__(self) -> None:
        most = 1 / 3 if self.active else 1 / 2
        if not 0 <= self.corrupt < most:
            raise ConfigError(
                f"secagg: corrupt: expected a share below {most:.3f}, got "
                f"{self.corrupt}."
            )
        if not 0 <= self.dropped < 1:
            raise ConfigError(
                f"secagg: dropped: expected a share below 1, got {self.dropped}."
            )
        if self.security_bits < 0 or self.availability_bits < 1:
            raise ConfigError("secagg: bits of a bound: expected 1 or more.")
        if self.degree % 2 or self.degree < 0:
            raise ConfigError(
                f"secagg: degree: expected 0 or an even number, got {self.degree}."
            )

    @property
    def bits(self) -> int:
        """``security_bits``, or what stands for 0."""
        return self.security_bits or (80 if self.active else 40)


@dataclass(frozen=True)
class Terms:
    """What a round sums, and when it counts.

    Attributes:
        run: the run's name or number, as both sides know it.
        round: from 0; a client never serves one twice or goes back.
        length: integers of a vector.
        bits: the sum is modulo 2 to this.
        least: survivors below which nothing is unmasked: what the noise was planned
            for. Where the policy is ``active``, so many must confirm.
        most: members of a cohort; of more, more could be corrupt than the noise was
            planned for.
        agreed: stands for all else that every client has to go by, such as how much
            noise: a server could tell each of them another configuration.
    """

    run: str
    round: int
    length: int
    bits: int
    least: int
    policy: Policy = field(default_factory=Policy)
    most: int = MOST_MEMBERS
    agreed: str = ""

    def __post_init__(self) -> None:
        _check(0 < len(self.run) <= MOST_NAME, "run: expected a name")
        _check(0 <= self.round < 1 << 32, "round: expected a number from 0")
        _check(0 < self.length <= MOST_LENGTH, f"length: expected 1 to {MOST_LENGTH}")
        _check(0 < self.bits <= MOST_BITS, f"bits: expected 1 to {MOST_BITS}")
        _check(2 <= self.least <= MOST_MEMBERS, "least: expected 2 or more survivors")
        fits = max(self.least, LEAST_MEMBERS) <= self.most <= MOST_MEMBERS
        _check(fits, f"most: expected at least the survivors, to {MOST_MEMBERS}")
        _check(len(self.agreed) <= MOST_NAME, "agreed: expected a digest")

    @property
    def ring(self) -> Ring:
        """The integers that are summed."""
        return Ring(self.bits)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that stand for all of this."""
        return hashlib.sha256(_DOMAIN + self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """One form only, so that both sides have the same digest."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Terms:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            ProtocolError: if it is anything else.
        """
        try:
            tree = json.loads(data)
            return Terms(**tree | {"policy": Policy(**tree["policy"])})
        except (ValueError, TypeError, KeyError, ConfigError):
            raise ProtocolError("Expected the terms of a round, got others.") from None


def _check(holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(f"secagg: {expected}, got another.")
