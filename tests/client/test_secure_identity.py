"""By which key a client is known in a secure sum, and by which roster it goes."""

import copy
from pathlib import Path

import numpy as np
import pytest

import client.secure_round as module
from client.deploy.keys import make_identity_key
from client.release import FAILED, MISFIT
from client.secure_round import kept_state
from common import wire
from common.roster import Roster, sign_roster
from server.deploy.certificates import make_authority
from tests.client.conftest import rows, spent, write_folder
from tests.client.secure_parts import (
    ANSWERS,
    MINE,
    Cohort,
    reason,
    secure_context,
    step_message,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "0000", rows(1))


@pytest.fixture
def vectors(monkeypatch) -> list[np.ndarray]:
    """What the client puts into sums."""
    found, made = [], module.contribution

    def contribution(*arguments):
        found.append(made(*arguments))
        return found[-1]

    monkeypatch.setattr(module, "contribution", contribution)
    return found


def with_identity(folder: Path) -> bytes:
    keys = folder / "keys"
    keys.mkdir()
    public = make_identity_key(keys / "identity.key", keys / "identity.pub")
    return bytes.fromhex(public)


def write_roster(folder: Path, authority, version: int, *identities: bytes) -> None:
    clients = {f"{n:04d}": each.hex() for n, each in enumerate(identities)}
    roster = Roster("test", version, clients)
    (folder / "roster.json").write_bytes(sign_roster(roster, authority.key))
    (folder / "ca.crt").write_bytes(authority.certificate_pem)


@pytest.fixture
def rostered(folder):
    """A cohort whose clients are on a roster; the authority beside."""
    mine, authority = with_identity(folder), make_authority("test")
    overrides = {"secagg.roster": True}
    cohort = Cohort(secure_context(folder, **overrides), roster=frozenset())
    others = [key.public_key().public_bytes_raw() for key in cohort.keys]
    cohort.roster = frozenset([mine, *others])
    cohort.__post_init__()
    write_roster(folder, authority, 2, mine, *others)
    return cohort, authority, [mine, *others]


def test_with_a_roster_the_identity_of_the_folder_signs(rostered, vectors) -> None:
    cohort, _, _ = rostered
    np.testing.assert_array_equal(cohort.whole(), vectors[0])
    assert set(cohort.replies) == set(ANSWERS)
    assert "identity" not in cohort.context.state["secagg"]


def test_no_second_list_is_confirmed_by_a_process_beside(rostered) -> None:
    cohort, _, _ = rostered
    told = cohort.until(wire.CONFIRM)
    stale = copy.deepcopy(cohort.context)
    message = step_message(wire.CONFIRM, told=told)
    assert reason(message, cohort.context) is None
    assert reason(message, stale) == MISFIT


def test_a_member_that_the_roster_lacks_is_refused(rostered, folder) -> None:
    cohort, authority, identities = rostered
    write_roster(folder, authority, 3, *identities[:2])
    told = cohort.until(wire.SHARES)
    assert reason(step_message(wire.SHARES, told=told), cohort.context) == MISFIT


def test_an_older_roster_than_was_seen_is_refused(rostered, folder) -> None:
    cohort, authority, identities = rostered
    cohort.advertise()
    write_roster(folder, authority, 1, *identities)
    told = cohort.server.to_share()[MINE]
    assert reason(step_message(wire.SHARES, told=told), cohort.context) == FAILED


@pytest.mark.parametrize("name", ["keys/identity.key", "roster.json", "ca.crt"])
def test_what_a_roster_needs_is_missed_at_the_first_step(
    rostered, folder, name
) -> None:
    (folder / name).unlink()
    message = step_message(wire.ADVERTS)
    assert reason(message, rostered[0].context) == FAILED
    assert spent(folder) == []


def test_an_identity_that_others_may_read_is_refused(rostered, folder) -> None:
    (folder / "keys" / "identity.key").chmod(0o644)
    assert reason(step_message(wire.ADVERTS), rostered[0].context) == FAILED


def test_a_key_of_another_kind_is_refused(folder) -> None:
    from client.deploy.keys import make_node_key

    (folder / "keys").mkdir()
    path = folder / "keys" / "identity.key"
    make_node_key(path, folder / "keys" / "node.pub", "x")
    assert reason(step_message(wire.ADVERTS), secure_context(folder)) == FAILED
    path.write_bytes(b"nothing")
    assert reason(step_message(wire.ADVERTS), secure_context(folder)) == FAILED


def test_without_one_an_identity_lasts_for_the_run_and_no_longer(folder) -> None:
    context = secure_context(folder)
    Cohort(context, 1).whole()
    first = kept_state(context).identity
    Cohort(context, 2).advertise()
    assert kept_state(context).identity == first
    other = secure_context(folder)
    other.run_config = dict(other.run_config)
    Cohort(other, 2).advertise()
    assert kept_state(other).identity != first
