"""A private authority: its profile, and what a TLS client makes of it."""

import ipaddress
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError, DataFormatError
from server.deploy.certificates import (
    AUTHORITY_DAYS,
    Issued,
    issue_server_certificate,
    make_authority,
    parse_names,
    read_authority,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
NAMES = parse_names(["DNS:fleet.example.org,IP:192.0.2.7", "IP:2001:db8::1"])


@pytest.fixture(scope="module")
def authority() -> Issued:
    return make_authority("lab", now=NOW)


@pytest.fixture(scope="module")
def issued(authority) -> Issued:
    return issue_server_certificate(authority, NAMES, days=30, now=NOW)


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def test_the_authority_signs_leaves_only(authority):
    certificate = authority.certificate
    constraints = extension(certificate, x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = extension(certificate, x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign) == (True, True)
    assert usage.value.key_encipherment is False
    assert certificate.issuer == certificate.subject
    assert authority.key.curve.name == "secp384r1"
    end = certificate.not_valid_after_utc
    assert end == NOW + timedelta(days=AUTHORITY_DAYS)


def test_the_server_is_a_server_and_nothing_more(authority, issued):
    certificate = issued.certificate
    constraints = extension(certificate, x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca is False
    usage = extension(certificate, x509.KeyUsage).value
    assert usage.digital_signature is True
    assert (usage.key_cert_sign, usage.crl_sign) == (False, False)
    purposes = list(extension(certificate, x509.ExtendedKeyUsage).value)
    assert purposes == [ExtendedKeyUsageOID.SERVER_AUTH]
    own = extension(authority.certificate, x509.SubjectKeyIdentifier).value.digest
    signer = extension(certificate, x509.AuthorityKeyIdentifier).value.key_identifier
    assert signer == own
    assert extension(certificate, x509.SubjectKeyIdentifier).value.digest != own


def test_the_names_are_those_asked_for(issued):
    names = extension(issued.certificate, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fleet.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("192.0.2.7"),
        ipaddress.ip_address("2001:db8::1"),
    ]


def test_days_are_as_asked_and_clocks_may_run_behind(issued):
    certificate = issued.certificate
    assert certificate.not_valid_after_utc == NOW + timedelta(days=30)
    assert certificate.not_valid_before_utc == NOW - timedelta(hours=1)


def test_no_certificate_outlives_its_authority(authority):
    late = NOW + timedelta(days=AUTHORITY_DAYS - 10)
    issued = issue_server_certificate(authority, NAMES, days=30, now=late)
    end = authority.certificate.not_valid_after_utc
    assert issued.certificate.not_valid_after_utc == end


def verify(authority, issued, name, when=NOW):
    store = Store([authority.certificate])
    builder = PolicyBuilder().store(store).time(when)
    builder.build_server_verifier(name).verify(issued.certificate, [])


def test_a_strict_verifier_takes_it_for_its_names_and_days_only(authority, issued):
    verify(authority, issued, x509.DNSName("fleet.example.org"))
    verify(authority, issued, x509.IPAddress(ipaddress.ip_address("192.0.2.7")))
    for name, when in (
        ("other.example.org", NOW),
        ("fleet.example.org", NOW + timedelta(days=31)),
        ("fleet.example.org", NOW - timedelta(days=1)),
    ):
        with pytest.raises(VerificationError):
            verify(authority, issued, x509.DNSName(name), when)


def test_a_strict_verifier_refuses_a_foreign_authority_of_the_same_name(issued):
    foreign = make_authority("lab", now=NOW)
    with pytest.raises(VerificationError):
        verify(foreign, issued, x509.DNSName("fleet.example.org"))


def handshake(tmp_path, authority, names, called):
    issued = issue_server_certificate(authority, parse_names(names))
    (tmp_path / "s.crt").write_bytes(issued.certificate_pem)
    (tmp_path / "s.key").write_bytes(issued.key_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "s.crt", tmp_path / "s.key")
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.settimeout(10)

    def serve():
        try:
            with server.wrap_socket(theirs, server_side=True) as secure:
                secure.recv(1)
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    trust = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    trust.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        with trust.wrap_socket(ours, server_hostname=called) as secure:
            secure.sendall(b"x")
            return secure.version()
    finally:
        ours.close()
        thread.join(10)


def test_openssl_shakes_hands_in_strict_mode(tmp_path):
    authority = make_authority("lab")
    for called in ("localhost", "127.0.0.1"):
        names = ["DNS:localhost,IP:127.0.0.1"]
        assert handshake(tmp_path, authority, names, called) == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, authority, ["DNS:localhost"], "127.0.0.1")


def test_keys_and_serials_are_drawn_anew(authority):
    one, two = (issue_server_certificate(authority, NAMES) for _ in range(2))
    assert one.key_pem != two.key_pem
    assert one.certificate.serial_number != two.certificate.serial_number


def test_the_authority_is_read_again_and_only_whole(authority):
    pem, key = authority.certificate_pem, authority.key_pem
    assert read_authority(pem, key).key_pem == key
    foreign = make_authority("lab")
    for certificate, private in (
        (foreign.certificate_pem, key),
        (b"nothing", key),
        (pem, b"nothing"),
        (pem, pem),
    ):
        with pytest.raises(DataFormatError, match=r"ca\.(crt|key)"):
            read_authority(certificate, private)


def test_names_are_read_once_each_and_in_order():
    found = parse_names(["IP:10.0.0.1, DNS:A.example", "dns:a.example,ip:10.0.0.1"])
    assert [str(name.value) for name in found] == ["10.0.0.1", "a.example"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fleet.example.org",
        "DNS:",
        "DNS:*.example.org",
        "DNS:-a.example",
        "DNS:a..example",
        "DNS:a b",
        "DNS:10.0.0.1",
        "DNS:" + "a" * 64,
        "DNS:" + "a." * 130 + "a",
        "DNS:fleet.example.org:443",
        "DNS:a;return 200",
        "DNS:a\nb",
        "IP:",
        "IP:fleet.example.org",
        "IP:10.0.0.300",
        "IP:10.0.0.0/8",
        "IP:0.0.0.0",
        "IP:224.0.0.1",
        "IP:::",
        "URI:https://a",
        "DNS:a,,DNS:b",
    ],
)
def test_other_names_are_refused_by_name_of_the_option(text):
    with pytest.raises(ConfigError, match="--san: expected"):
        parse_names([text])


@given(st.text(max_size=40))
def test_what_is_taken_for_a_name_is_one(text):
    try:
        (name,) = parse_names([f"DNS:{text}"])
    except (ConfigError, ValueError) as error:
        assert isinstance(error, ConfigError) or "unpack" in str(error)
        return
    assert set(name.value) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_days_have_bounds(authority, days):
    with pytest.raises(ConfigError, match="--days: expected 1 to 3650"):
        issue_server_certificate(authority, NAMES, days=days)


def test_a_certificate_for_nobody_is_not_issued(authority):
    with pytest.raises(ConfigError, match="--san"):
        issue_server_certificate(authority, ())
