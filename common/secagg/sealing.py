"""Shares on their way: encrypted from one client to another, through the server.

In ``common`` as the other half of the wire, and alike at both ends. ChaCha20-Poly1305
(RFC 8439) under a key for one sender, one receiver and one cohort; it seals one
message, so its nonce may be zero.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from common.secagg.keys import SEAL, derive, exchange
from common.secagg.shares import SHARE_BYTES

_NONCE = bytes(12)


def seal_key(
    mine: X25519PrivateKey, theirs: bytes, cohort: bytes, sender: bytes, receiver: bytes
) -> bytes:
    """The key from one identity to another in this cohort.

    Raises:
        ProtocolError: for a public key of low order.
    """
    return derive(exchange(mine, theirs), SEAL, cohort, sender, receiver)


def seal(key: bytes, cohort: bytes, self_share: bytes, mask_share: bytes) -> bytes:
    """Both shares, encrypted and bound to the cohort."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, self_share + mask_share, cohort)


def unseal(key: bytes, cohort: bytes, sealed: bytes) -> tuple[bytes, bytes] | None:
    """Both shares; ``None`` for what was not sealed so."""
    try:
        opened = ChaCha20Poly1305(key).decrypt(_NONCE, sealed, cohort)
    except InvalidTag:
        return None
    return opened[:SHARE_BYTES], opened[SHARE_BYTES:]
