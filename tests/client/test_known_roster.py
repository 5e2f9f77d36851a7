"""A roster that goes back is refused, whoever signed it."""

import json
from dataclasses import replace

import pytest

from client.known_roster import SEEN, newest_roster
from common.errors import DataFormatError
from common.roster import Roster, sign_roster
from server.deploy.certificates import make_authority

ROSTER = Roster("lab", 2, {f"{n:04d}": f"{n + 1:064x}" for n in range(3)})


@pytest.fixture(scope="module")
def authority():
    return make_authority("lab")


@pytest.fixture
def place(tmp_path, authority):
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)

    def read(roster):
        (tmp_path / "roster.json").write_bytes(sign_roster(roster, authority.key))
        return newest_roster(tmp_path / "roster.json", tmp_path / "ca.crt")

    return read


def test_identities_are_the_keys_themselves():
    assert ROSTER.identities == {(n + 1).to_bytes(32, "big") for n in range(3)}


def test_newer_and_the_same_are_read_older_is_refused(place, tmp_path):
    assert place(ROSTER) == ROSTER
    assert place(ROSTER) == ROSTER
    newer = replace(ROSTER, version=3, clients={"0001": ROSTER.clients["0001"]})
    assert place(newer) == newer
    with pytest.raises(DataFormatError, match="version 3 or newer, got 2"):
        place(ROSTER)
    assert place(newer) == newer
    assert (tmp_path / SEEN).stat().st_mode & 0o777 == 0o600


def test_a_roster_that_is_refused_is_not_remembered(place, tmp_path):
    place(ROSTER)
    other = make_authority("lab")
    forged = sign_roster(replace(ROSTER, version=9), other.key)
    (tmp_path / "roster.json").write_bytes(forged)
    with pytest.raises(DataFormatError, match="authority"):
        newest_roster(tmp_path / "roster.json", tmp_path / "ca.crt")
    assert place(ROSTER) == ROSTER


def test_another_deployments_roster_is_refused(place):
    place(ROSTER)
    with pytest.raises(DataFormatError, match="deployment"):
        place(replace(ROSTER, deployment="other", version=5))


@pytest.mark.parametrize(
    "memory", ["", "[]", "{}", json.dumps({"deployment": "lab", "version": "2"})]
)
def test_a_damaged_memory_is_an_error(place, tmp_path, memory):
    place(ROSTER)
    (tmp_path / SEEN).write_text(memory)
    with pytest.raises(DataFormatError, match="roster-seen"):
        place(ROSTER)
