"""The roster: whole, signed by the authority, and none older than the one known."""

import base64
import copy
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import DataFormatError
from common.roster import Roster, read_roster, sign_roster, verify_roster
from server.deploy.certificates import make_authority

CLIENTS = {f"{n:04d}": f"{n + 1:064x}" for n in range(3)}
ROSTER = Roster("lab", 2, CLIENTS)


@pytest.fixture(scope="module")
def authority():
    return make_authority("lab")


@pytest.fixture(scope="module")
def signed(authority):
    return sign_roster(ROSTER, authority.key)


def test_what_was_signed_is_read(authority, signed):
    assert verify_roster(signed, authority.certificate_pem) == ROSTER


def test_files_are_read_and_their_lack_is_named(tmp_path, authority, signed):
    with pytest.raises(DataFormatError, match=r"roster\.json"):
        read_roster(tmp_path / "roster.json", tmp_path / "ca.crt")
    (tmp_path / "roster.json").write_bytes(signed)
    with pytest.raises(DataFormatError, match=r"ca\.crt"):
        read_roster(tmp_path / "roster.json", tmp_path / "ca.crt")
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)
    assert read_roster(tmp_path / "roster.json", tmp_path / "ca.crt") == ROSTER


def changed(signed, *path_and_value):
    *path, value = path_and_value
    tree = copy.deepcopy(json.loads(signed))
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(tree).encode()


@pytest.mark.parametrize(
    "change",
    [
        ("deployment", "other"),
        ("version", 3),
        ("clients", "0000", "f" * 64),
        ("clients", "0003", "f" * 64),
        ("clients", {"0000": CLIENTS["0000"]}),
        ("clients", {"0000": CLIENTS["0001"], "0001": CLIENTS["0000"]}),
        ("signature", base64.b64encode(b"0" * 104).decode()),
        ("signature", ""),
    ],
)
def test_any_change_breaks_the_signature(authority, signed, change):
    with pytest.raises(DataFormatError, match="signature of this deployment"):
        verify_roster(changed(signed, *change), authority.certificate_pem)


@pytest.mark.parametrize(
    "change",
    [
        ("schema", 2),
        ("version", 0),
        ("version", True),
        ("version", 1.0),
        ("deployment", ""),
        ("deployment", 5),
        ("clients", {}),
        ("clients", []),
        ("clients", "0000", "F" * 64),
        ("clients", "0000", "1" * 63),
        ("clients", "0000", 7),
        ("clients", "0000", ["1" * 64]),
        ("clients", "0000", CLIENTS["0001"]),
        ("signature", 5),
        ("signature", "not base64!"),
        ("more", 1),
    ],
)
def test_other_forms_are_refused(authority, signed, change):
    with pytest.raises(DataFormatError, match=r"roster\.json"):
        verify_roster(changed(signed, *change), authority.certificate_pem)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"7", b"\xff\xfe", b"{" * 9, b"[" * 10**6]
)
def test_other_files_are_refused(authority, content):
    with pytest.raises(DataFormatError, match=r"roster\.json: expected a roster"):
        verify_roster(content, authority.certificate_pem)


def test_another_authority_of_the_same_name_is_refused(signed):
    with pytest.raises(DataFormatError, match="signature"):
        verify_roster(signed, make_authority("lab").certificate_pem)


def test_something_else_than_a_certificate_is_named(signed):
    with pytest.raises(DataFormatError, match=r"ca\.crt"):
        verify_roster(signed, b"nothing")


def test_an_older_roster_is_a_replay(authority, signed):
    pem = authority.certificate_pem
    assert verify_roster(signed, pem, at_least=2) == ROSTER
    with pytest.raises(DataFormatError, match="expected version 3 or newer, got 2"):
        verify_roster(signed, pem, at_least=3)


def test_a_signature_made_for_something_else_does_not_pass(authority, signed):
    tree = json.loads(signed)
    del tree["signature"]
    for words in (json.dumps(tree), json.dumps(tree, separators=(",", ":"))):
        other = authority.key.sign(words.encode(), ec.ECDSA(hashes.SHA384()))
        forged = changed(signed, "signature", base64.b64encode(other).decode())
        with pytest.raises(DataFormatError, match="signature"):
            verify_roster(forged, authority.certificate_pem)


def test_what_nobody_would_take_is_not_signed(authority):
    with pytest.raises(DataFormatError, match="identities that differ"):
        sign_roster(Roster("lab", 1, {"0": "1" * 64, "1": "1" * 64}), authority.key)
