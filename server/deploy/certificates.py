"""A private certificate authority, and the server's certificate under it.

Server only: a device holds the authority's certificate and nothing else of this.
Profiles after RFC 5280: the authority signs leaves only (path length 0), the leaf is
a TLS server and nothing more. NIST P-384 and P-256, since Flower's own TLS stack,
browsers and old OpenSSLs all take them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import ConfigError, DataFormatError

#: The authority outlives many server certificates: it is in every client's folder.
AUTHORITY_DAYS = 3_650
#: A server certificate's, unless the operator says otherwise.
SERVER_DAYS = 397
MOST_DAYS = 3_650
#: Clocks of devices may run this far behind.
SKEW = timedelta(hours=1)

_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key, PEM (PKCS #8), not encrypted: its file must be 0600."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def parse_names(texts: Iterable[str]) -> tuple[x509.GeneralName, ...]:
    """``DNS:name`` and ``IP:address``, commas between them, each once, in order.

    Raises:
        ConfigError: naming the entry at fault.
    """
    found: dict[x509.GeneralName, None] = {}
    for entry in (part.strip() for text in texts for part in text.split(",")):
        kind, _, value = entry.partition(":")
        if kind.upper() not in _KINDS:
            raise ConfigError(f"--san: expected DNS:name or IP:address, got {entry!r}.")
        found[_KINDS[kind.upper()](value)] = None
    return tuple(found)


def _dns(value: str) -> x509.DNSName:
    labels = value.split(".")
    # A wildcard would let any machine of the domain stand for the server.
    if len(value) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ConfigError(f"--san: expected a host's name without *, got {value!r}.")
    if labels[-1].isdigit():
        raise ConfigError(f"--san: expected IP:{value}, got DNS:{value}.")
    return x509.DNSName(value.lower())


def _ip(value: str) -> x509.IPAddress:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise ConfigError(f"--san: expected an IP address, got {value!r}.") from None
    if address.is_unspecified or address.is_multicast:
        raise ConfigError(f"--san: expected one machine's address, got {value}.")
    return x509.IPAddress(address)


_KINDS = {"DNS": _dns, "IP": _ip}


def make_authority(name: str, *, now: datetime | None = None) -> Issued:
    """A fresh authority for one deployment.

    Args:
        name: the deployment's; the authority's common name bears it.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    start = now or datetime.now(UTC)
    subject = _subject(f"{name[:40]} authority")
    builder = (
        _builder(subject, subject, key, start, start + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(_own_id(key), critical=False)
        .add_extension(_authority_id(_own_id(key)), critical=False)
    )
    return Issued(builder.sign(key, hashes.SHA384()), key)


def issue_server_certificate(
    authority: Issued,
    names: tuple[x509.GeneralName, ...],
    *,
    days: int = SERVER_DAYS,
    now: datetime | None = None,
) -> Issued:
    """A certificate with a fresh key for every name that devices call the server by.

    Args:
        names: at least one; from :func:`parse_names`.
        days: how long it holds, 1 to ``MOST_DAYS``; never beyond the authority.

    Raises:
        ConfigError: if there are no names, or too few or many days.
    """
    if not names:
        raise ConfigError("--san: expected at least one name, got none.")
    if not 1 <= days <= MOST_DAYS:
        raise ConfigError(f"--days: expected 1 to {MOST_DAYS}, got {days}.")
    key = ec.generate_private_key(ec.SECP256R1())
    start = now or datetime.now(UTC)
    issuer = authority.certificate
    end = min(start + timedelta(days=days), issuer.not_valid_after_utc)
    builder = (
        _builder(_subject("tutela server"), issuer.subject, key, start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_own_id(key), critical=False)
        .add_extension(_authority_id(_own_id(authority.key)), critical=False)
    )
    return Issued(builder.sign(authority.key, hashes.SHA384()), key)


def read_authority(certificate: bytes, key: bytes) -> Issued:
    """The authority from its two PEM files, to issue or sign again.

    Raises:
        DataFormatError: if either is damaged, or they do not belong together.
    """
    try:
        issued = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        raise DataFormatError(
            "ca.crt, ca.key: expected a PEM certificate and its private key."
        ) from None
    if (
        not isinstance(private, ec.EllipticCurvePrivateKey)
        or issued.public_key() != private.public_key()
    ):
        raise DataFormatError("ca.key: expected the private key of ca.crt.")
    return Issued(issued, private)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    start: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - SKEW)
        .not_valid_after(end)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        # The leaf signs handshakes, the authority the roster of identities as well.
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _own_id(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _authority_id(owner: x509.SubjectKeyIdentifier) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(owner)
