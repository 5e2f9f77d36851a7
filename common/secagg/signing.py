"""Signatures of clients' identities: Ed25519 (RFC 8032).

In ``common`` because clients check each other's and the server checks all.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def signed_by(identity: bytes, signature: bytes, signed: bytes) -> bool:
    """Whether the identity signed this; a key that is none signed nothing."""
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True
