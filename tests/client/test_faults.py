"""The fault suite: kills at every point, full disks, read-only places."""

import errno
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from client import ledger as module
from client.app import app
from client.faults import Fault, LedgerFault
from client.ledger import inspect_ledger, open_ledger
from client.release import CLOSED
from common import durable_files
from tests.client.conftest import context_of, message_of, rows, spent, write_folder
from tests.client.killed_client import POINTS
from tests.client.test_ledger import charge, charged, fault_of

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}


def killed(trials: int, timing: str, *more: str, seconds: int = 300):
    """The script in a process of its own: only there may a client be forked."""
    command = [sys.executable, "-m", "tests.client.killed_client"]
    command += ["--trials", str(trials), "--timing", timing, *more]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def check(done, trials: int) -> dict[str, int]:
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["trials"] == trials
    assert found["answered again"] + found["refused again"] == trials
    return found


def test_a_client_killed_at_each_point_keeps_its_word() -> None:
    found = check(killed(25, "points"), 25)
    assert all(found[point] >= 2 for point in POINTS)
    assert found["released at first"] == found["after the reply"]
    # Dead before its charge or after it kept its reply: the second message is answered.
    answered = ("before the ledger is open", "before the charge")
    answered += ("before the reply", "after the reply")
    assert found["answered again"] == sum(found[point] for point in answered)


def test_a_client_killed_at_any_time_keeps_its_word() -> None:
    check(killed(25, "random"), 25)


@pytest.mark.slow
def test_a_client_killed_a_thousand_times_keeps_its_word() -> None:
    found = check(killed(1000, "random", seconds=1500), 1000)
    assert found["released at first"] > 0, "some were killed too late"
    assert found["refused again"] > 0, "some were killed in between"


@pytest.mark.parametrize("fault", ["forgets", "retrains"])
def test_a_client_that_breaks_its_word_is_caught(fault: str) -> None:
    """Power: a charge that is not on disk, and training on a message sent again."""
    done = killed(25, "points", "--plant", fault)
    assert done.returncode != 0
    assert "AssertionError" in done.stderr


def in_a_small_room(tmp_path: Path, code: str) -> subprocess.CompletedProcess:
    """Run code with a folder of 200 kB, in a mount namespace of our own."""
    room = tmp_path / "room"
    room.mkdir()
    script = f"mount -t tmpfs -o size=200k none {room} && exec {sys.executable} -c "
    command = ["unshare", "-rm", "sh", "-c", script + '"$0" "$@"', code]
    return subprocess.run(
        [*command, str(room), str(tmp_path / "witness.json")],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )


FILLS = """
import json
import sys
from pathlib import Path
from client.faults import LedgerFault
from client.ledger import inspect_ledger, open_ledger
from tests.client.test_ledger import charge

room, place = map(Path, sys.argv[1:])
home, filler = room / "0000", room / "filler"
home.mkdir()
with open_ledger(home, place) as ledger:
    ledger.append(charge(1))
with filler.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(512)):
            pass
    except OSError:
        pass
done, names = [1], []
for number in range(2, 6):
    try:
        with open_ledger(home, place) as ledger:
            ledger.append(charge(number))
        done.append(number)
    except LedgerFault as error:
        names.append(str(error.fault))
filler.unlink()
kept = [entry.charge.number for entry in inspect_ledger(home, place)[1]]
with open_ledger(home, place) as ledger:
    ledger.append(charge(9))
print(json.dumps([names, done, kept, len(inspect_ledger(home, place)[1])]))
"""


def may_mount() -> bool:
    command = ["unshare", "-rm", "true"]
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="no mount namespace for a small disk")
def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    done = in_a_small_room(tmp_path, FILLS)
    assert done.returncode == 0, done.stderr
    names, succeeded, kept, last = json.loads(done.stdout)
    assert names
    assert set(names) == {"disk full"}
    assert kept == succeeded, "what was charged is there, and nothing else"
    assert last == len(kept) + 1, "and with room again it goes on"


def test_a_database_that_may_not_grow_is_a_full_disk(home, place) -> None:
    """The same, by SQLite's own limit: it needs no mount."""
    with open_ledger(home, place) as ledger:
        ledger.append(charge(1))
        (pages,) = ledger._connection.execute("PRAGMA page_count").fetchone()
        ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
        numbers = iter(range(2, 100))
        fault = fault_of(lambda: [ledger.append(charge(n)) for n in numbers])
        assert fault is Fault.DISK_FULL
        stayed = [entry.hash for entry in ledger.entries]
    assert [entry.hash for entry in inspect_ledger(home, place)[1]] == stayed
    assert len(charged(home, place, 200)) == len(stayed) + 1


NUMBERS = {
    errno.ENOSPC: Fault.DISK_FULL,
    errno.EDQUOT: Fault.DISK_FULL,
    errno.EFBIG: Fault.DISK_FULL,
    errno.EROFS: Fault.READ_ONLY,
    errno.EACCES: Fault.READ_ONLY,
    errno.EIO: Fault.DISK_ERROR,
}


@pytest.mark.parametrize("number", NUMBERS)
def test_an_error_while_the_witness_is_written_is_named(
    home, place, monkeypatch, number: int
) -> None:
    def fails(folder: Path) -> None:
        raise OSError(number, "text of the system")

    charged(home, place, 1)
    with open_ledger(home, place) as ledger, monkeypatch.context() as patch:
        patch.setattr(durable_files, "sync_folder", fails)
        assert fault_of(lambda: ledger.append(charge(2))) is NUMBERS[number]
    # Charged and refused: more is known to be spent than was, never less.
    assert len(inspect_ledger(home, place)[1]) == 2


CODES = {
    sqlite3.SQLITE_FULL: Fault.DISK_FULL,
    sqlite3.SQLITE_READONLY_DIRECTORY: Fault.READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: Fault.READ_ONLY,
    sqlite3.SQLITE_BUSY_SNAPSHOT: Fault.LOCKED,
    sqlite3.SQLITE_IOERR_FSYNC: Fault.DISK_ERROR,
    sqlite3.SQLITE_IOERR_SHMSIZE: Fault.DISK_FULL,
    sqlite3.SQLITE_CORRUPT_INDEX: Fault.DAMAGED,
    sqlite3.SQLITE_NOTADB: Fault.DAMAGED,
}


@pytest.mark.parametrize("code", CODES)
def test_an_error_of_the_database_is_named(code: int) -> None:
    error = sqlite3.OperationalError("text of the database")
    error.sqlite_errorcode = code

    def fails() -> None:
        with module.named_faults():
            raise error

    with pytest.raises(LedgerFault) as refusal:
        fails()
    assert refusal.value.fault is CODES[code]
    assert "text of" not in str(refusal.value)


READS = """
import sys
from pathlib import Path
from client.faults import LedgerFault
from client.ledger import open_ledger
from tests.client.test_ledger import charge

try:
    with open_ledger(*map(Path, sys.argv[1:])) as ledger:
        ledger.append(charge(2))
except LedgerFault as error:
    print(error.fault)
"""


@pytest.mark.skipif(not may_mount(), reason="no mount namespace for a read-only disk")
@pytest.mark.parametrize("which", ["folder", "witness"])
def test_a_read_only_place_is_named(home, place, which: str) -> None:
    charged(home, place, 1)
    target = home if which == "folder" else place.parent
    script = (
        f"mount --bind {target} {target} && mount -o remount,bind,ro {target} && "
        f'exec {sys.executable} -c "$0" "$@"'
    )
    command = ["unshare", "-rm", "sh", "-c", script, READS, str(home), str(place)]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "read-only", done.stderr
    numbers = [e.charge.number for e in inspect_ledger(home, place)[1] if e.charge]
    assert numbers == ([1] if which == "folder" else [1, 2])


def test_no_training_happens_behind_a_fault(tmp_path, monkeypatch) -> None:
    """Whatever the ledger's fault is, no private row is read."""
    folder = write_folder(tmp_path / "0000", rows(8))
    context = context_of(folder)
    assert app(message_of(1), context).has_content()
    content = (folder / "ledger.sqlite").read_bytes()

    def never(place: Path) -> None:
        raise AssertionError("private rows were read")

    monkeypatch.setattr("client.app.read_client_data", never)
    damage = (
        lambda path: path.write_bytes(content[:5000]),
        lambda path: path.write_bytes(bytes(len(content))),
        lambda path: path.write_bytes(content[:4096] + os.urandom(len(content) - 4096)),
        lambda path: path.unlink(),
    )
    for harm in damage:
        harm(folder / "ledger.sqlite")
        assert app(message_of(2), context).error.reason == CLOSED
        (folder / "ledger.sqlite").write_bytes(content)
    assert spent(folder)[0][0] == 1


def test_a_reply_that_cannot_be_kept_does_not_leave(tmp_path, monkeypatch) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("client.last_reply.write_durably", full)
    assert app(message_of(1), context_of(folder)).error.reason == CLOSED
    assert [number for number, _ in spent(folder)] == [1], "and stays charged"


def test_a_secret_others_may_read_stops_an_import(tmp_path) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    (folder / "id.key").chmod(stat.S_IRUSR | stat.S_IRGRP)
    with pytest.raises(Exception, match=r"id\.key: others may read"):
        write_folder(folder, rows(8))
