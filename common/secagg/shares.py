"""Shamir's secret sharing of 16 bytes in GF(2^128), by pycryptodome.

In ``common`` because clients split and the server combines. The library draws its
coefficients from the operating system. A share carries no index of its own: it is the
holder's place among the owner's neighbours, from 1, which both sides know.

Shamir, *How to Share a Secret*, CACM 1979.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

#: Bytes of a secret and of a share.
SHARE_BYTES = 16
_DOMAIN = b"tutela secagg share 1\n"


def split(secret: bytes, threshold: int, holders: int) -> list[bytes]:
    """A share for each holder: ``threshold`` give the secret back, fewer nothing."""
    return [share for _, share in Shamir.split(threshold, holders, secret, ssss=False)]


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret, from shares by their place (from 1); the first ``threshold`` count.

    Fewer, or shares of another secret, give 16 bytes that mean nothing.
    """
    chosen = sorted(shares.items())[:threshold]
    secret: bytes = Shamir.combine(chosen, ssss=False)
    return secret


def share_digest(share: bytes) -> bytes:
    """What an owner tells the server, so that it knows a wrong share; hides the share.

    A share has 128 bits nobody else knows, too many to try.
    """
    return hashlib.sha256(_DOMAIN + share).digest()
