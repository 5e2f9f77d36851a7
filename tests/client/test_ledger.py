"""Charged once, for ever: whatever is not as it was left has a name."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.chain import Charge, hash_of
from client.faults import ADVICE, Fault, LedgerFault
from client.ledger import _is_short, accept, inspect_ledger, open_ledger
from client.witness import Witness, read_witness, write_witness
from common.errors import ConfigError, LedgerError
from common.events import DpEvent
from tests.client.conftest import nonce_of

EVENT = DpEvent(2.0, 0.5, 2)
NOON = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


def charge(number: int = 1, **changes) -> Charge:
    whole = replace(EVENT, steps=20)
    made = Charge("7", "movies", number, nonce_of(number), "train", EVENT, (whole,))
    return replace(made, **changes)


def charged(home: Path, place: Path, *numbers: int) -> list[str]:
    """Charge these rounds, each under a new opening; the hashes of all entries."""
    for number in numbers:
        with open_ledger(home, place) as ledger:
            ledger.append(charge(number))
    return [entry.hash for entry in inspect_ledger(home, place)[1]]


def fault_of(call) -> Fault:
    with pytest.raises(LedgerFault) as refusal:
        call()
    assert ADVICE[refusal.value.fault] in str(refusal.value), "it says what to do"
    return refusal.value.fault


def opens(home: Path, place: Path) -> None:
    with open_ledger(home, place):
        pass


def both(home: Path, place: Path) -> Fault:
    """The fault that opening finds; looking finds the same."""
    found = fault_of(lambda: opens(home, place))
    assert fault_of(lambda: inspect_ledger(home, place)) == found
    return found


def change(home: Path, *statements: str) -> None:
    """Edit the database behind the ledger's back."""
    connection = sqlite3.connect(home / "ledger.sqlite", isolation_level=None)
    connection.execute("DROP TRIGGER entries_stay")
    connection.execute("DROP TRIGGER entries_remain")
    for statement in statements:
        connection.execute(statement)
    connection.close()


def copied(source: Path, target: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


def test_charges_stand_in_order_through_every_opening(home, place) -> None:
    charged(home, place, 1, 2, 5)
    _, entries = inspect_ledger(home, place)
    assert [entry.charge for entry in entries] == [charge(1), charge(2), charge(5)]
    assert [entry.sequence for entry in entries] == [1, 2, 3]
    assert all(entry.utc.tzinfo is not None for entry in entries)


def test_a_charge_is_on_disk_and_witnessed_when_it_returns(home, place) -> None:
    with open_ledger(home, place) as ledger:
        entry = ledger.append(charge())
        path = home / "ledger.sqlite"
        other = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        assert other.execute("SELECT hash FROM entries").fetchall() == [(entry.hash,)]
        other.close()
        assert read_witness(place) == Witness(ledger.id, 1, entry.hash)


def test_the_disk_is_asked_to_keep_every_commit(home, place) -> None:
    with open_ledger(home, place) as ledger:
        pragma = ledger._connection.execute
        assert pragma("PRAGMA journal_mode").fetchone() == ("wal",)
        assert pragma("PRAGMA synchronous").fetchone() == (2,), "FULL"


def test_an_entry_is_found_by_what_was_charged(home, place) -> None:
    with open_ledger(home, place) as ledger:
        entry = ledger.append(charge(3))
        assert ledger.find(charge(3).key) == entry
        for other in (
            charge(4),
            charge(3, nonce=nonce_of(9)),
            charge(3, run="8"),
            charge(3, purpose="evaluate"),
        ):
            assert ledger.find(other.key) is None


def test_the_database_itself_refuses_a_second_charge_of_one_key(home, place) -> None:
    with open_ledger(home, place) as ledger:
        ledger.append(charge())
        with pytest.raises(LedgerFault):
            ledger.append(charge())
        assert len(ledger.entries) == 1


@pytest.mark.parametrize(
    "statement", ["UPDATE entries SET body = ''", "DELETE FROM entries"]
)
def test_nothing_is_changed_or_removed(home, place, statement: str) -> None:
    charged(home, place, 1)
    connection = sqlite3.connect(home / "ledger.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


def test_files_are_their_owners_alone(home, place) -> None:
    charged(home, place, 1)
    for path in (home / "ledger.sqlite", place):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_missing_ledger_is_missed(home, place) -> None:
    charged(home, place, 1)
    (home / "ledger.sqlite").unlink()
    assert both(home, place) is Fault.MISSING
    assert not (home / "ledger.sqlite").exists(), "and no new one is begun"


@pytest.mark.parametrize("keep", [0, 50, 4096, 9000])
def test_a_truncated_file_is_named(home, place, keep: int) -> None:
    charged(home, place, *range(1, 12))
    path = home / "ledger.sqlite"
    assert path.stat().st_size > 9000
    with path.open("r+b") as file:
        file.truncate(keep)
    assert both(home, place) is Fault.TRUNCATED


def test_a_file_that_its_log_completes_is_whole(home, place) -> None:
    """Killed while the log is copied: the header is new, the last pages to come."""
    charged(home, place, *range(1, 12))
    path = home / "ledger.sqlite"
    with open_ledger(home, place) as ledger:
        for number in range(12, 24):
            ledger.append(charge(number))
        log = (home / "ledger.sqlite-wal").read_bytes()
        before = path.stat().st_size
    assert path.stat().st_size > before
    with path.open("r+b") as file:
        file.truncate(before)
    assert _is_short(path)
    (home / "ledger.sqlite-wal").write_bytes(log)
    assert len(charged(home, place, 99)) == 24


def test_a_corrupted_page_is_found(home, place) -> None:
    charged(home, place, *range(1, 30))
    path = home / "ledger.sqlite"
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 4] = os.urandom(8192)
    path.write_bytes(content)
    assert both(home, place) in (Fault.DAMAGED, Fault.EDITED)


@pytest.mark.parametrize("seed", range(20))
def test_no_flipped_byte_of_an_entry_passes(home, place, seed: int) -> None:
    charged(home, place, 1, 2, 3)
    path = home / "ledger.sqlite"
    content = bytearray(path.read_bytes())
    bodies = [e.body.encode() for e in inspect_ledger(home, place)[1]]
    body = bodies[seed % 3]
    content[content.index(body) + (37 * seed) % len(body)] ^= 1 << seed % 7
    path.write_bytes(content)
    assert both(home, place) in (Fault.DAMAGED, Fault.EDITED)


def rewritten(home: Path) -> None:
    """A smaller noise claimed, and every hash after it made to fit."""
    path = home / "ledger.sqlite"
    connection = sqlite3.connect(path)
    (previous,) = connection.execute("SELECT id FROM ledger").fetchone()
    rows = connection.execute("SELECT sequence, body FROM entries").fetchall()
    connection.close()
    statements = []
    for sequence, body in rows:
        facts = json.loads(body)
        facts["previous"] = previous
        facts["event"]["count"] = 1
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        previous = hash_of(text)
        statements.append(
            f"UPDATE entries SET body = '{text}', hash = '{previous}' "
            f"WHERE sequence = {sequence}"
        )
    change(home, *statements)


EDITS = {
    "an event": "UPDATE entries SET body = replace(body, '2.0', '9.0')",
    "a hash": "UPDATE entries SET hash = upper(hash) WHERE sequence = 2",
    "one in the middle gone": "DELETE FROM entries WHERE sequence = 2",
    "the first gone": "DELETE FROM entries WHERE sequence = 1",
    "two swapped": "UPDATE entries SET sequence = 4 - sequence + 10",
    "one more": "INSERT INTO entries SELECT 4, body, hash, 'x' FROM entries LIMIT 1",
    "another id": "UPDATE ledger SET id = 'ab'",
    "no id": "DELETE FROM ledger",
    "not JSON": "UPDATE entries SET body = 'x' WHERE sequence = 3",
}


@pytest.mark.parametrize("how", EDITS)
def test_an_edited_entry_is_named(home, place, how: str) -> None:
    charged(home, place, 1, 2, 3)
    change(home, EDITS[how])
    assert both(home, place) is Fault.EDITED


def test_a_history_written_anew_is_found_by_the_witness(home, place) -> None:
    charged(home, place, 1, 2, 3)
    rewritten(home)
    assert both(home, place) is Fault.EDITED


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_cut_tail_is_a_rollback(home, place, cut: int) -> None:
    charged(home, place, 1, 2, 3)
    change(home, f"DELETE FROM entries WHERE sequence > {3 - cut}")
    assert both(home, place) is Fault.ROLLED_BACK


def test_an_older_copy_put_back_is_a_rollback(home, place, tmp_path) -> None:
    charged(home, place, 1)
    shutil.copytree(home, tmp_path / "backup")
    charged(home, place, 2)
    copied(tmp_path / "backup", home)
    assert both(home, place) is Fault.ROLLED_BACK


def test_another_clients_ledger_is_a_rollback(home, place, tmp_path) -> None:
    charged(home, place, 1)
    other, there = tmp_path / "0001", tmp_path / "other.json"
    other.mkdir()
    charged(other, there, 1, 2)
    copied(other, home)
    assert both(home, place) is Fault.ROLLED_BACK


def test_a_lost_log_is_a_rollback(home, place, tmp_path) -> None:
    """Entries still in SQLite's write-ahead log, and the log deleted."""
    with open_ledger(home, place) as ledger:
        ledger.append(charge())
        shutil.copytree(home, tmp_path / "killed")
    (tmp_path / "killed" / "ledger.sqlite-wal").unlink()
    copied(tmp_path / "killed", home)
    assert both(home, place) is Fault.ROLLED_BACK


def test_a_rollback_of_both_places_is_told_by_the_servers_receipt(
    home, place, tmp_path
) -> None:
    charged(home, place, 1)
    shutil.copytree(home, tmp_path / "backup")
    shutil.copy(place, tmp_path / "witness.json")
    receipt = charged(home, place, 2)[-1]
    with open_ledger(home, place) as ledger:
        ledger.acknowledge(receipt)
        ledger.acknowledge("")
    copied(tmp_path / "backup", home)
    shutil.copy(tmp_path / "witness.json", place)
    with open_ledger(home, place) as ledger:
        assert fault_of(lambda: ledger.acknowledge(receipt)) is Fault.ROLLED_BACK


def test_a_lost_witness_has_to_be_vouched_for(home, place) -> None:
    charged(home, place, 1)
    place.unlink()
    assert both(home, place) is Fault.UNWITNESSED
    note = accept(home, place)
    assert note is not None
    assert note.note == "accepted: unwitnessed"
    assert len(charged(home, place, 2)) == 3
    assert accept(home, place) is None, "nothing is left to accept"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"ledger": "x"}', "\x00"])
def test_a_damaged_witness_is_none(home, place, text: str) -> None:
    charged(home, place, 1)
    place.write_text(text)
    assert both(home, place) is Fault.UNWITNESSED


def test_nothing_else_can_be_vouched_for(home, place) -> None:
    charged(home, place, 1, 2)
    change(home, "DELETE FROM entries WHERE sequence = 2")
    assert fault_of(lambda: accept(home, place)) is Fault.ROLLED_BACK
    (home / "ledger.sqlite").unlink()
    assert fault_of(lambda: accept(home, place)) is Fault.MISSING


def test_a_ledger_ahead_of_its_witness_is_sound(home, place) -> None:
    """As after a kill between the two writes: more is known to be spent, not less."""
    charged(home, place, 1)
    before = read_witness(place)
    charged(home, place, 2)
    write_witness(place, before)
    assert len(inspect_ledger(home, place)[1]) == 2
    opens(home, place)
    assert read_witness(place).entries == 2, "the witness catches up"


def test_a_second_writer_is_locked_out_and_a_reader_is_not(home, place) -> None:
    with open_ledger(home, place) as ledger:
        ledger.append(charge())
        assert fault_of(lambda: opens(home, place)) is Fault.LOCKED
        assert len(inspect_ledger(home, place)[1]) == 1
    opens(home, place)


def test_another_process_is_locked_out(home, place) -> None:
    code = (
        "import sys; from pathlib import Path; from client.ledger import open_ledger\n"
        "try:\n"
        "    with open_ledger(Path(sys.argv[1]), Path(sys.argv[2])): pass\n"
        "except Exception as error: print(error.fault)\n"
    )
    command = [sys.executable, "-c", code, str(home), str(place)]
    with open_ledger(home, place):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "locked"


def test_a_clock_behind_the_last_entry_is_refused(home, place) -> None:
    with open_ledger(home, place, clock=lambda: NOON) as ledger:
        ledger.append(charge(1))
    late = NOON - timedelta(minutes=1)
    with open_ledger(home, place, clock=lambda: late) as ledger:
        assert fault_of(lambda: ledger.append(charge(2))) is Fault.CLOCK_BACK
        assert len(ledger.entries) == 1
    note = accept(home, place, clock=lambda: late)
    assert note is not None
    assert note.note == "accepted: clock moved back"
    with open_ledger(home, place, clock=lambda: late) as ledger:
        ledger.append(charge(2))


def test_a_clock_that_is_merely_corrected_is_not(home, place) -> None:
    with open_ledger(home, place, clock=lambda: NOON) as ledger:
        ledger.append(charge(1))
    with open_ledger(home, place, clock=lambda: NOON - timedelta(seconds=2)) as ledger:
        ledger.append(charge(2))


def test_a_folder_that_is_not_there_is_no_ledger(home, place) -> None:
    with pytest.raises(ConfigError, match="folder"):
        opens(home / "nowhere", place)
    with pytest.raises(ConfigError, match="begins with the first"):
        inspect_ledger(home, place)


def test_a_start_cut_short_is_begun_again(home, place) -> None:
    (home / "ledger.sqlite").touch()
    assert len(charged(home, place, 1)) == 1


def test_every_fault_is_one_of_our_errors_and_names_no_place(home, place) -> None:
    assert set(ADVICE) == set(Fault)
    for fault in Fault:
        text = str(LedgerFault(fault, 3))
        assert text.startswith(f"Ledger {fault} (entry 3): ")
        assert isinstance(LedgerFault(fault), LedgerError)
        assert "/" not in text


def test_a_receipt_tells_nothing_of_what_it_pays_for(tmp_path) -> None:
    """The same charge under another salt has another hash: guesses cannot be tried."""
    hashes = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with open_ledger(
            tmp_path / name, tmp_path / f"{name}.json", clock=lambda: NOON
        ) as ledger:
            hashes.add(ledger.append(charge()).hash)
            assert len(ledger.entries[0].salt) == 32
    assert len(hashes) == 2
