"""Who takes part in a round: what clients advertise, and what they learn of others.

In ``common`` because clients sign and check, and the server puts cohorts together.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.errors import ProtocolError
from common.secagg.frames import (
    SIGNATURE,
    Kind,
    check_rising,
    check_size,
    cut,
    frame,
    open_frame,
)
from common.secagg.signing import signed_by
from common.secagg.terms import LEAST_MEMBERS, MOST_MEMBERS

_ADVERT, _ENTRY = 4 * 32 + SIGNATURE, 2 * 32
_ADVERT_DOMAIN = b"tutela secagg advert 1\n"
_COHORT_DOMAIN = b"tutela secagg cohort 1\n"


@dataclass(frozen=True)
class Advert:
    """A client's fresh public keys for one round, signed by its identity.

    Attributes:
        identity: its Ed25519 public key, 32 bytes; all others are of 32 bytes too.
        seal_key: X25519, for the shares it is sent.
        mask_key: X25519, for the masks it has with others.
        commitment: to the seed of its own mask.
        signature: of all this and the round's terms, 64 bytes.
    """

    identity: bytes
    seal_key: bytes
    mask_key: bytes
    commitment: bytes
    signature: bytes = bytes(SIGNATURE)

    def sign(self, identity: Ed25519PrivateKey, terms: bytes) -> Advert:
        """The same with its signature."""
        return replace(self, signature=identity.sign(self._signed(terms)))

    def verify(self, terms: bytes) -> None:
        """Check that the identity signed these keys for these terms.

        Raises:
            ProtocolError: if it did not.
        """
        if not signed_by(self.identity, self.signature, self._signed(terms)):
            raise ProtocolError("ADVERT: expected its identity's signature.")

    def digest(self) -> bytes:
        """32 bytes that stand for it in the cohort's list."""
        return hashlib.sha256(_ADVERT_DOMAIN + self.body()).digest()

    def body(self) -> bytes:
        """Its bytes, without a head."""
        return self._fields() + self.signature

    def to_bytes(self, terms: bytes) -> bytes:
        """The message."""
        return frame(Kind.ADVERT, terms, self.body())

    @staticmethod
    def from_bytes(data: bytes, terms: bytes) -> Advert:
        """Read it; the signature is not looked at.

        Raises:
            ProtocolError: see :func:`open_frame`.
        """
        return Advert.from_body(open_frame(data, Kind.ADVERT, terms, _ADVERT))

    @staticmethod
    def from_body(body: memoryview) -> Advert:
        """Read :meth:`body`, of the right size."""
        return Advert(*(bytes(each) for each in struct.unpack("32s32s32s32s64s", body)))

    def _signed(self, terms: bytes) -> bytes:
        return _ADVERT_DOMAIN + terms + self._fields()

    def _fields(self) -> bytes:
        return self.identity + self.seal_key + self.mask_key + self.commitment


@dataclass(frozen=True)
class Cohort:
    """Who takes part, and the keys of one member's neighbours.

    Attributes:
        entries: identity and advert's digest of each member, in rising order of
            identity; a member's number is its place here.
        adverts: of the receiver's neighbours, in rising order of member.
    """

    entries: tuple[tuple[bytes, bytes], ...]
    adverts: tuple[Advert, ...]

    def digest(self, terms: bytes) -> bytes:
        """The cohort's context and its graph's seed; the same for every member."""
        joined = b"".join(map(b"".join, self.entries))
        return hashlib.sha256(_COHORT_DOMAIN + terms + joined).digest()

    def to_bytes(self, terms: bytes) -> bytes:
        """The message."""
        entries = b"".join(map(b"".join, self.entries))
        adverts = b"".join(each.body() for each in self.adverts)
        count = struct.pack(">I", len(self.entries))
        return frame(Kind.COHORT, terms, count + entries + adverts)

    @staticmethod
    def from_bytes(
        data: bytes, terms: bytes, degree_of: Callable[[int], int]
    ) -> Cohort:
        """Read it.

        Args:
            degree_of: how many neighbours a member of a cohort so large has.

        Raises:
            ProtocolError: see :func:`open_frame`; or for members out of order.
        """
        body = open_frame(data, Kind.COHORT, terms, None)
        members = struct.unpack_from(">I", body)[0] if len(body) >= 4 else 0
        if not LEAST_MEMBERS <= members <= MOST_MEMBERS:
            raise ProtocolError(
                f"COHORT: expected {LEAST_MEMBERS} to {MOST_MEMBERS} members, got "
                f"{members}."
            )
        end = 4 + members * _ENTRY
        check_size(Kind.COHORT, body, end + degree_of(members) * _ADVERT)
        entries = tuple(
            (bytes(each[:32]), bytes(each[32:])) for each in cut(body[4:end], _ENTRY)
        )
        check_rising(Kind.COHORT, [identity for identity, _ in entries])
        adverts = tuple(map(Advert.from_body, cut(body[end:], _ADVERT)))
        return Cohort(entries, adverts)
