"""A client's secrets of one round, and every key that is derived from them.

In ``common`` because the server derives again what it may unmask. A seed has 128 bits,
the strength of X25519 and the size that Shamir shares in one piece; it is drawn by the
operating system. HKDF-SHA256 (RFC 5869) separates what comes of it by the round's terms
(run and round are in their digest), the purpose, and whose it is, so that no key serves
twice and a guess at one client's seed says nothing about another's.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import ProtocolError
from common.secagg.shares import SHARE_BYTES

KEY_BYTES = 32
SELF, PAIR, PRIVATE, SEAL = "self mask", "pair mask", "mask private key", "sealed share"
_DOMAIN = b"tutela secagg key 1\n"
_COMMITMENT = b"tutela secagg self seed 1\n"


def draw_seed() -> bytes:
    """16 bytes from the operating system: of a self mask, or of a mask key."""
    return os.urandom(SHARE_BYTES)


def derive(secret: bytes, purpose: str, context: bytes, *whose: bytes) -> bytes:
    """A key of 32 bytes for one purpose in one round; ``whose`` are identities."""
    info = b"".join((_DOMAIN, purpose.encode(), b"\n", context, *whose))
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(secret)


def mask_private_key(seed: bytes, context: bytes, identity: bytes) -> X25519PrivateKey:
    """The key that makes pair masks: shared as its seed, so one share is 16 bytes."""
    return X25519PrivateKey.from_private_bytes(derive(seed, PRIVATE, context, identity))


def self_mask_key(seed: bytes, context: bytes, identity: bytes) -> bytes:
    """The key stream's key of a client's own mask."""
    return derive(seed, SELF, context, identity)


def pair_mask_key(
    mine: X25519PrivateKey, theirs: bytes, context: bytes, *whose: bytes
) -> bytes:
    """The key stream's key of a pair's mask; the same from either side.

    Args:
        theirs: the other's public mask key.
        whose: both identities, in any order.
    """
    return derive(exchange(mine, theirs), PAIR, context, *sorted(whose))


def exchange(mine: X25519PrivateKey, theirs: bytes) -> bytes:
    """What X25519 agrees on.

    Raises:
        ProtocolError: for a public key of low order, which would agree on zero.
    """
    try:
        return mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:
        raise ProtocolError("Expected an X25519 public key of full order.") from None


def commitment(seed: bytes, context: bytes, identity: bytes) -> bytes:
    """What a client advertises of its self mask's seed: binds it and hides it."""
    return hashlib.sha256(_COMMITMENT + context + identity + seed).digest()


def check_public(key: bytes) -> None:
    """Refuse a public key that agrees on zero with anybody.

    Raises:
        ProtocolError: for such a key.
    """
    exchange(X25519PrivateKey.generate(), key)
