"""The roster: who the clients of a deployment are, by their identity public keys.

In ``common`` because the operator signs it, every client checks it, and the server
may read it. The deployment's certificate authority signs: its certificate is what a
client trusts already and its key lies offline, so a server that is taken over can
add nobody. What is signed begins with words that no certificate begins with, so that
neither signature passes for the other. ECDSA on P-384 with SHA-384 (FIPS 186-5).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import DataFormatError

SCHEMA = 1
#: Bytes of a roster of ten thousand clients are below this.
MOST_BYTES = 4_000_000

_DOMAIN = b"tutela roster\n"
_IDENTITY = re.compile(r"[0-9a-f]{64}")
_KEYS = {"schema", "deployment", "version", "clients", "signature"}


@dataclass(frozen=True)
class Roster:
    """A deployment's clients.

    Attributes:
        deployment: its name.
        version: rises by one with each change; an older one is refused where a newer
            was seen.
        clients: a client's name → its Ed25519 public key, 64 hexadecimal digits.
    """

    deployment: str
    version: int
    clients: Mapping[str, str]

    @property
    def identities(self) -> frozenset[bytes]:
        """All public keys, 32 bytes each."""
        return frozenset(bytes.fromhex(each) for each in self.clients.values())


def sign_roster(roster: Roster, authority: ec.EllipticCurvePrivateKey) -> bytes:
    """The roster's file: its facts and the authority's signature over them.

    Raises:
        DataFormatError: if the roster is not one that :func:`verify_roster` takes.
    """
    _check(roster)
    signature = authority.sign(_signed_bytes(roster), ec.ECDSA(hashes.SHA384()))
    tree = _tree(roster) | {"signature": base64.b64encode(signature).decode()}
    return (json.dumps(tree, indent=2) + "\n").encode()


def verify_roster(content: bytes, authority: bytes, *, at_least: int = 1) -> Roster:
    """Read a roster and check that the authority signed all of it.

    Args:
        content: the file.
        authority: the authority's certificate, PEM.
        at_least: the newest version seen before; an older roster is a replay.

    Raises:
        DataFormatError: if it is damaged, changed, older, or signed by another.
    """
    try:
        tree = json.loads(content[:MOST_BYTES])
        if set(tree) != _KEYS or tree["schema"] != SCHEMA:
            raise ValueError
        roster = Roster(tree["deployment"], tree["version"], tree["clients"])
        signature = base64.b64decode(tree["signature"], validate=True)
    except (ValueError, TypeError, RecursionError):
        raise DataFormatError(
            f"roster.json: expected a roster of schema {SCHEMA}, got something else."
        ) from None
    _check(roster)
    try:
        _public_key(authority).verify(
            signature, _signed_bytes(roster), ec.ECDSA(hashes.SHA384())
        )
    except InvalidSignature:
        raise DataFormatError(
            "roster.json: expected the signature of this deployment's authority; "
            "take the roster from the operator again."
        ) from None
    if roster.version < at_least:
        raise DataFormatError(
            f"roster.json: expected version {at_least} or newer, got {roster.version}."
        )
    return roster


def read_roster(path: Path, authority: Path, *, at_least: int = 1) -> Roster:
    """:func:`verify_roster` on files.

    Raises:
        DataFormatError: as there, and if either file is missing.
    """
    for file in (path, authority):
        if not file.is_file():
            raise DataFormatError(f"Expected {file.name} beside the keys, found none.")
    return verify_roster(path.read_bytes(), authority.read_bytes(), at_least=at_least)


def _check(roster: Roster) -> None:
    """Types and forms; two clients with one identity would be one client twice."""
    if not isinstance(roster.deployment, str) or not roster.deployment:
        raise DataFormatError("roster.json: deployment: expected a name.")
    if type(roster.version) is not int or roster.version < 1:
        raise DataFormatError("roster.json: version: expected a number from 1.")
    clients = roster.clients
    if not isinstance(clients, Mapping) or not clients:
        raise DataFormatError("roster.json: clients: expected at least one.")
    if not all(
        isinstance(each, str) and _IDENTITY.fullmatch(each) for each in clients.values()
    ):
        raise DataFormatError(
            "roster.json: clients: expected identities of 64 hexadecimal digits."
        )
    if len(set(clients.values())) < len(clients):
        raise DataFormatError("roster.json: clients: expected identities that differ.")


def _tree(roster: Roster) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "deployment": roster.deployment,
        "version": roster.version,
        "clients": dict(sorted(roster.clients.items())),
    }


def _signed_bytes(roster: Roster) -> bytes:
    return _DOMAIN + json.dumps(_tree(roster), separators=(",", ":")).encode()


def _public_key(authority: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = x509.load_pem_x509_certificate(authority).public_key()
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise DataFormatError("ca.crt: expected the authority's certificate in PEM.")
    return key
