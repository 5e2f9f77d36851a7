"""Who asks: a server signs what it sends, so that clients may consent by its key.

In ``common`` because both ends must hash the same bytes. Ed25519 (RFC 8032) over a
digest of the message's kind, its header, its arrays and the run's public
configuration: none of them can be swapped for another's. What differs from client
to client (the acknowledgement of the last receipt) is not signed; it opens nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from flwr.app import RecordDict

from common.config import FlatConfig
from common.errors import ProtocolError
from common.wire import RoundHeader


def public_key(secret: bytes) -> str:
    """The public key of a 32-byte secret, as 64 hexadecimal digits."""
    key = Ed25519PrivateKey.from_private_bytes(secret).public_key()
    return key.public_bytes_raw().hex()


def signed(
    header: RoundHeader,
    kind: str,
    content: RecordDict,
    config: FlatConfig,
    secret: bytes,
) -> RoundHeader:
    """The header with the server's public key and its signature.

    Args:
        header: the round's facts.
        kind: Flower's message type.
        content: the records sent beside the header.
        config: the run's whole flat configuration.
        secret: the server's 32-byte Ed25519 secret.
    """
    named = replace(header, server=public_key(secret))
    key = Ed25519PrivateKey.from_private_bytes(secret)
    return replace(
        named, signature=key.sign(_digest(named, kind, content, config)).hex()
    )


def check_signature(
    header: RoundHeader, kind: str, content: RecordDict, config: FlatConfig
) -> None:
    """Whether the header's key signed this very message.

    Raises:
        ProtocolError: if it did not.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(header.server))
        digest = _digest(header, kind, content, config)
        key.verify(bytes.fromhex(header.signature), digest)
    except (InvalidSignature, ValueError):
        raise ProtocolError("Expected a message signed by the key it names.") from None


def _digest(
    header: RoundHeader, kind: str, content: RecordDict, config: FlatConfig
) -> bytes:
    facts = [kind, header.run, header.name, header.number, header.nonce]
    facts += [header.catalogue, header.server]
    digest = hashlib.sha256(json.dumps([facts, sorted(config.items())]).encode())
    for record in sorted(content.array_records):
        for name, array in sorted(content.array_records[record].items()):
            place = [record, name, array.dtype, list(array.shape), array.stype]
            digest.update(json.dumps([*place, len(array.data)]).encode())
            digest.update(array.data)
    return digest.digest()
