"""A client's two keys: one for Flower's door, one that other clients know it by.

Client only: the private halves never leave the device that they speak for. The node
key is a NIST P-384 key in OpenSSH's form, the only one that Flower's SuperNode reads;
the identity key is Ed25519 (RFC 8032), for what clients sign to each other. Both are
kept without a passphrase, since a node starts without a person: their files are 0600.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.durable_files import write_durably
from common.errors import ConfigError


def make_node_key(private: Path, public: Path, name: str) -> None:
    """Draw the key that authenticates a SuperNode, and write both halves.

    Args:
        private: for ``flower-supernode --auth-supernode-private-key``; 0600.
        public: for ``flwr supernode register``; readable by all.
        name: the public half's comment, for people.

    Raises:
        ConfigError: if either is there already.
    """
    _refuse_to_replace(private, public)
    key = ec.generate_private_key(ec.SECP384R1())
    public_half = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    write_durably(private, _private_bytes(key, serialization.PrivateFormat.OpenSSH))
    write_durably(public, public_half + f" {name}\n".encode(), mode=0o644)


def make_identity_key(private: Path, public: Path) -> str:
    """Draw a client's identity and write both halves.

    Args:
        private: PEM (PKCS #8); 0600.
        public: 64 hexadecimal digits and a line's end; readable by all.

    Returns:
        The public half: what the roster lists.

    Raises:
        ConfigError: if either is there already.
    """
    _refuse_to_replace(private, public)
    key = Ed25519PrivateKey.generate()
    identity = key.public_key().public_bytes_raw().hex()
    write_durably(private, _private_bytes(key, serialization.PrivateFormat.PKCS8))
    write_durably(public, f"{identity}\n".encode(), mode=0o644)
    return identity


def _refuse_to_replace(*paths: Path) -> None:
    """A key that is written over is lost with all that it was known by."""
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path.name}: there is a key already; move it away.")


def _private_bytes(
    key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey,
    form: serialization.PrivateFormat,
) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, form, serialization.NoEncryption()
    )
