"""How a message of a round is laid out: what every kind of it has in common.

In ``common`` because one side writes what the other reads. Every message begins with
the protocol's version, its kind, and 32 bytes that say of which round: the digest of
the terms before a cohort is known, that of the cohort afterwards. Sizes follow from
public numbers and are compared before anything is read, so a message that is cut,
padded, of another kind or round is refused and costs nothing. Numbers are big-endian,
lists are in rising order of member and hold nobody twice.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TypeVar

from common.errors import ProtocolError

_MAGIC = b"TSA1"
HEAD = len(_MAGIC) + 1 + 32
SIGNATURE = 64

K = TypeVar("K", int, bytes)


class Kind(IntEnum):
    """What a message is."""

    ADVERT = 1
    COHORT = 2
    PARCELS = 3
    DELIVERIES = 4
    MASKED = 5
    SURVIVORS = 6
    CONFIRMATION = 7
    CONFIRMATIONS = 8
    REVEAL = 9


def frame(kind: Kind, context: bytes, body: bytes) -> bytes:
    """A message of this kind in the round that ``context`` stands for."""
    return b"".join((_MAGIC, bytes((kind,)), context, body))


def open_frame(data: bytes, kind: Kind, context: bytes, size: int | None) -> memoryview:
    """The body of a message.

    Args:
        size: bytes that it must have; ``None``: the caller looks.

    Raises:
        ProtocolError: for another kind, another round or run, or another size.
    """
    if len(data) < HEAD or data[:4] != _MAGIC or data[4] != kind:
        raise ProtocolError(f"Expected a message of kind {kind.name}, got another.")
    if data[5:HEAD] != context:
        raise ProtocolError(f"{kind.name}: expected this round, got another.")
    body = memoryview(data)[HEAD:]
    if size is not None:
        check_size(kind, body, size)
    return body


def records(kind: Kind, body: memoryview, layout: str, most: int) -> dict[int, bytes]:
    """What a body holds of each member, at most so many, in rising order.

    Raises:
        ProtocolError: for more, for part of one, for another order.
    """
    fields = struct.Struct(layout)
    count, rest = divmod(len(body), fields.size)
    if rest or count > most:
        raise ProtocolError(
            f"{kind.name}: expected at most {most} records, got {len(body)} bytes."
        )
    found = [(int(member), bytes(each)) for member, each in fields.iter_unpack(body)]
    check_rising(kind, [member for member, _ in found])
    return dict(found)


def check_size(kind: Kind, body: memoryview, size: int) -> None:
    """Refuse a body of another size."""
    if len(body) != size:
        raise ProtocolError(
            f"{kind.name}: expected {size} bytes of body, got {len(body)}."
        )


def check_rising(kind: Kind, keys: list[K]) -> None:
    """Refuse members that are out of order or named twice."""
    if sorted(set(keys)) != keys:
        raise ProtocolError(
            f"{kind.name}: expected members in rising order, once each."
        )


def cut(body: memoryview, size: int) -> list[memoryview]:
    """Pieces of one size."""
    return [body[start : start + size] for start in range(0, len(body), size)]
