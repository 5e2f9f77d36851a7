"""What clients and the server send each other once a cohort is known.

In ``common`` because one side writes what the other reads; ``frames.py`` says how
messages are laid out, ``cohort.py`` has the first two kinds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.errors import ProtocolError
from common.secagg.frames import SIGNATURE, Kind, frame, open_frame, records
from common.secagg.shares import SHARE_BYTES

#: Two shares and their authentication tag.
SEALED = 2 * SHARE_BYTES + 16
_PARCEL = SEALED + 2 * 32
_LIST_DOMAIN = b"tutela secagg survivors 1\n"


@dataclass(frozen=True)
class Parcel:
    """What a client sends one neighbour through the server.

    Attributes:
        sealed: the neighbour's shares of self seed and mask seed, encrypted.
        digests: of the two shares in clear, so that the server knows wrong ones.
    """

    sealed: bytes
    digests: tuple[bytes, bytes]


def parcels_to_bytes(parcels: Iterable[Parcel], cohort: bytes) -> bytes:
    """A parcel for each neighbour, in rising order of member."""
    body = b"".join(each.sealed + b"".join(each.digests) for each in parcels)
    return frame(Kind.PARCELS, cohort, body)


def parcels_from_bytes(data: bytes, cohort: bytes, degree: int) -> tuple[Parcel, ...]:
    """Read :func:`parcels_to_bytes`.

    Raises:
        ProtocolError: see :func:`open_frame`.
    """
    body = open_frame(data, Kind.PARCELS, cohort, degree * _PARCEL)
    fields = struct.Struct(f"{SEALED}s32s32s")
    return tuple(
        Parcel(sealed, (first, second))
        for sealed, first, second in fields.iter_unpack(body)
    )


def deliveries_to_bytes(sealed: Mapping[int, bytes], cohort: bytes) -> bytes:
    """What each neighbour that sent parcels has for one member."""
    layout = struct.Struct(f">I{SEALED}s")
    body = b"".join(layout.pack(*each) for each in sorted(sealed.items()))
    return frame(Kind.DELIVERIES, cohort, body)


def deliveries_from_bytes(data: bytes, cohort: bytes, degree: int) -> dict[int, bytes]:
    """Read :func:`deliveries_to_bytes`; members are not looked up.

    Raises:
        ProtocolError: see :func:`open_frame`; for more than ``degree``; for an order.
    """
    body = open_frame(data, Kind.DELIVERIES, cohort, None)
    return records(Kind.DELIVERIES, body, f">I{SEALED}s", degree)


def masked_to_bytes(packed: bytes, cohort: bytes) -> bytes:
    """A masked vector."""
    return frame(Kind.MASKED, cohort, packed)


def masked_from_bytes(data: bytes, cohort: bytes, size: int) -> memoryview:
    """The packed vector of ``size`` bytes.

    Raises:
        ProtocolError: see :func:`open_frame`.
    """
    return open_frame(data, Kind.MASKED, cohort, size)


def survivors_to_bytes(survivors: Iterable[int], members: int, cohort: bytes) -> bytes:
    """Whose masked vectors are in the sum: a bit each."""
    bits = bytearray(-(-members // 8))
    for member in survivors:
        bits[member // 8] |= 1 << member % 8
    return frame(Kind.SURVIVORS, cohort, bytes(bits))


def survivors_from_bytes(data: bytes, cohort: bytes, members: int) -> frozenset[int]:
    """Read :func:`survivors_to_bytes`.

    Raises:
        ProtocolError: see :func:`open_frame`; for bits of nobody.
    """
    body = open_frame(data, Kind.SURVIVORS, cohort, -(-members // 8))
    if members % 8 and body[-1] >> members % 8:
        raise ProtocolError("SURVIVORS: expected members of the cohort, got others.")
    return frozenset(m for m in range(members) if body[m // 8] >> m % 8 & 1)


def survivors_signed(survivors: Iterable[int], members: int, cohort: bytes) -> bytes:
    """What members sign to say that they were told this list, and no other."""
    return _LIST_DOMAIN + survivors_to_bytes(survivors, members, cohort)


def confirmation_to_bytes(signature: bytes, cohort: bytes) -> bytes:
    """One member's signature of a list of survivors."""
    return frame(Kind.CONFIRMATION, cohort, signature)


def confirmation_from_bytes(data: bytes, cohort: bytes) -> bytes:
    """Read it; the signature is not looked at.

    Raises:
        ProtocolError: see :func:`open_frame`.
    """
    return bytes(open_frame(data, Kind.CONFIRMATION, cohort, SIGNATURE))


def confirmations_to_bytes(signatures: Mapping[int, bytes], cohort: bytes) -> bytes:
    """All members' signatures of the list."""
    layout = struct.Struct(f">I{SIGNATURE}s")
    body = b"".join(layout.pack(*each) for each in sorted(signatures.items()))
    return frame(Kind.CONFIRMATIONS, cohort, body)


def confirmations_from_bytes(
    data: bytes, cohort: bytes, members: int
) -> dict[int, bytes]:
    """Read them; no signature is looked at.

    Raises:
        ProtocolError: see :func:`open_frame`; for more than ``members``; for an order.
    """
    layout = f">I{SIGNATURE}s"
    body = open_frame(data, Kind.CONFIRMATIONS, cohort, None)
    return records(Kind.CONFIRMATIONS, body, layout, members)


@dataclass(frozen=True)
class Reveal:
    """What a survivor tells once it has accepted the list of survivors.

    Attributes:
        seed: of its own mask, 16 bytes: the server needs no shares of it then.
        shares: one of each neighbour by number; of which secret, the list says.
    """

    seed: bytes
    shares: Mapping[int, bytes]

    def to_bytes(self, cohort: bytes) -> bytes:
        """The message."""
        layout = struct.Struct(f">I{SHARE_BYTES}s")
        body = b"".join(layout.pack(*each) for each in sorted(self.shares.items()))
        return frame(Kind.REVEAL, cohort, self.seed + body)

    @staticmethod
    def from_bytes(data: bytes, cohort: bytes, degree: int) -> Reveal:
        """Read it; members are not looked up.

        Raises:
            ProtocolError: see :func:`open_frame`; for more than ``degree`` shares.
        """
        body = open_frame(data, Kind.REVEAL, cohort, None)
        layout = f">I{SHARE_BYTES}s"
        if len(body) < SHARE_BYTES:
            raise ProtocolError("REVEAL: expected a seed first, got too few bytes.")
        shares = records(Kind.REVEAL, body[SHARE_BYTES:], layout, degree)
        return Reveal(bytes(body[:SHARE_BYTES]), shares)
