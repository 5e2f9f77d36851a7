"""What this client has spent: charged before training, never refunded.

Client only: the record of what *this* device did is private state, and outlives
runs, restarts and servers. SQLite in WAL mode with ``synchronous=FULL``: an entry
whose charge returned is on disk. Nothing here updates or deletes; opening verifies
the chain and compares it with the witness, and every fault has a name.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from client.chain import Charge, LedgerEntry, check_chain, head_of
from client.faults import Fault, LedgerFault, named_faults
from client.witness import Witness, read_witness, write_witness
from common.durable_files import sync_folder
from common.errors import ConfigError
from common.folders import LEDGER

#: A clock may be set back so far without a word, as time servers do.
TOLERANCE = timedelta(seconds=5)

#: Kept by SQLite as ``user_version``; 0 is version 1 from before it was written down.
#: A ledger is of version 1 until it holds an event that version 1 has no word for.
FIRST_VERSION, LEDGER_VERSION = 1, 2

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS ledger (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY,
    body TEXT NOT NULL,
    hash TEXT NOT NULL,
    charge TEXT UNIQUE
);
CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS entries_remain BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'append-only'); END;
"""


class OtherVersion(LedgerFault):
    """A ledger that a newer Tutela wrote; nothing in it is touched."""

    def __init__(self, found: int) -> None:
        super().__init__(Fault.DAMAGED)
        self.args = (
            f"Expected a ledger of version {LEDGER_VERSION} at most, got one of "
            f"version {found}: a newer Tutela wrote it. Update this one; nothing was "
            "lost.",
        )


def utc_now() -> datetime:
    """The device's clock."""
    return datetime.now(UTC)


class Ledger:
    """An open ledger, verified; the only state is its growing list of entries."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        place: Path,
        clock: Callable[[], datetime],
    ) -> None:
        self._connection, self._place, self._clock = connection, place, clock
        self.id, self.entries = _read(connection)

    @property
    def witness(self) -> Witness:
        """What a witness of this moment says."""
        return Witness(self.id, len(self.entries), head_of(self.id, self.entries))

    def find(self, key: str) -> LedgerEntry | None:
        """The entry that charged ``key``, if one did."""
        for entry in self.entries:
            if entry.charge is not None and entry.charge.key == key:
                return entry
        return None

    def append(self, charge: Charge) -> LedgerEntry:
        """Charge; when this returns, the entry is on disk and witnessed.

        Raises:
            LedgerFault: if it could not be, or the clock is behind the last entry.
        """
        now = self._clock()
        if self.entries and now < self.entries[-1].utc - TOLERANCE:
            raise LedgerFault(Fault.CLOCK_BACK)
        return self._append(now, charge, "")

    def accept(self, note: str) -> LedgerEntry:
        """Write down what an operator vouches for; the clock is taken as it is."""
        return self._append(self._clock(), None, note)

    def acknowledge(self, receipt: str) -> None:
        """Check that an entry this client once gave a receipt for is still here.

        Raises:
            LedgerFault: ``ROLLED_BACK`` if it is not.
        """
        if receipt and all(entry.hash != receipt for entry in self.entries):
            raise LedgerFault(Fault.ROLLED_BACK)

    def _append(self, now: datetime, charge: Charge | None, note: str) -> LedgerEntry:
        # Stored to the millisecond: what is kept in memory must be what is on disk.
        utc = now.replace(microsecond=now.microsecond // 1000 * 1000)
        entry = LedgerEntry(
            len(self.entries) + 1,
            utc,
            head_of(self.id, self.entries),
            secrets.token_hex(16),
            charge,
            note,
        )
        key = None if charge is None else charge.key
        row = (entry.sequence, entry.body, entry.hash, key)
        with named_faults():
            if charge is not None and charge.is_integer:
                self._connection.execute(f"PRAGMA user_version = {LEDGER_VERSION}")
            self._connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", row)
        self.entries.append(entry)
        write_witness(self._place, self.witness)
        return entry


@contextmanager
def open_ledger(
    folder: Path, place: Path, clock: Callable[[], datetime] = utc_now
) -> Iterator[Ledger]:
    """The client's ledger, to charge: verified, compared with its witness, locked.

    Args:
        folder: the client's folder; the ledger is begun there if it never had one.
        place: the witness's file.
        clock: for tests.

    Raises:
        LedgerFault: named, for anything that is not as it was left.
        ConfigError: if there is no such folder.
    """
    with _opened(folder, place, clock) as ledger:
        witness = read_witness(place)
        compare(ledger.id, ledger.entries, witness)
        if witness != ledger.witness:
            write_witness(place, ledger.witness)
        yield ledger


def accept(
    folder: Path, place: Path, clock: Callable[[], datetime] = utc_now
) -> LedgerEntry | None:
    """Vouch for a ledger that lost its witness, or whose clock ran ahead.

    Nothing else can be vouched for. Returns the note, ``None`` if all is well.

    Raises:
        LedgerFault: for any other fault.
        ConfigError: if no ledger was ever begun here.
    """
    _check_begun(folder, place)
    with _opened(folder, place, clock) as ledger:
        last = ledger.entries[-1].utc if ledger.entries else clock()
        note = f"accepted: {Fault.CLOCK_BACK}" if clock() < last - TOLERANCE else ""
        try:
            compare(ledger.id, ledger.entries, read_witness(place))
        except LedgerFault as error:
            if error.fault is not Fault.UNWITNESSED:
                raise
            note = f"accepted: {error.fault}"
        return ledger.accept(note) if note else None


def compare(ledger: str, entries: list[LedgerEntry], witness: Witness | None) -> None:
    """Hold a sound chain against its witness; it may be ahead of it, never behind.

    Raises:
        LedgerFault: ``UNWITNESSED``, ``ROLLED_BACK`` or ``EDITED``.
    """
    if witness is None:
        if entries:
            raise LedgerFault(Fault.UNWITNESSED)
        return
    if witness.ledger != ledger or witness.entries > len(entries):
        raise LedgerFault(Fault.ROLLED_BACK)
    if head_of(ledger, entries[: witness.entries]) != witness.head:
        raise LedgerFault(Fault.EDITED, witness.entries)


def inspect_ledger(folder: Path, place: Path) -> tuple[str, list[LedgerEntry]]:
    """The ledger's id and entries, verified, without a lock: to look at.

    Raises:
        LedgerFault: named, for anything that is not as it was left.
        ConfigError: if no ledger was ever begun here.
    """
    # First the witness: a charge in between only puts the ledger ahead of it.
    _check_begun(folder, place)
    path, witness = folder / LEDGER, read_witness(place)
    with _truncation_named(path), named_faults():
        address = f"{path.resolve().as_uri()}?mode=ro"
        connection = sqlite3.connect(address, uri=True, timeout=5)
        with closing(connection):
            ledger, entries = _read(connection)
    compare(ledger, entries, witness)
    return ledger, entries


def _check_begun(folder: Path, place: Path) -> None:
    if not (folder / LEDGER).is_file():
        if _is_witnessed(place):
            raise LedgerFault(Fault.MISSING)
        raise ConfigError(
            "Expected a ledger in this folder, found none; it begins with the first "
            "round."
        )


@contextmanager
def _opened(
    folder: Path, place: Path, clock: Callable[[], datetime]
) -> Iterator[Ledger]:
    """Lock, begin where there is nothing yet, verify the chain."""
    if not folder.is_dir():
        raise ConfigError("Expected the client's folder, found none.")
    path = folder / LEDGER
    with _only_writer(folder), ExitStack() as stack:
        with _truncation_named(path):
            connection = _connect(path, begun=_is_witnessed(place))
            stack.enter_context(closing(connection))
            ledger = Ledger(connection, place, clock)
        yield ledger


def _is_witnessed(place: Path) -> bool:
    """Whether a witness says that there is a ledger, even a damaged witness."""
    with named_faults():
        return place.exists()


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    # Held while a client trains; SQLite's own lock would keep readers out as well.
    lock = FileLock(folder / f"{LEDGER}.lock", timeout=0)
    with named_faults():
        try:
            lock.acquire()
        except Timeout:
            raise LedgerFault(Fault.LOCKED) from None
    try:
        yield
    finally:
        lock.release()


def _connect(path: Path, *, begun: bool) -> sqlite3.Connection:
    with named_faults():
        if begun and not path.exists():
            raise LedgerFault(Fault.MISSING)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        if begun and path.stat().st_size == 0:
            # SQLite would begin anew in an empty file.
            raise LedgerFault(Fault.TRUNCATED)
        connection = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            _check_version(connection)
            if not begun:
                _begin(connection)
                sync_folder(path.parent)
        except (sqlite3.Error, LedgerFault):
            connection.close()
            raise
    return connection


def _check_version(connection: sqlite3.Connection) -> None:
    """Before anything else is read, and before a table is made."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if not 0 <= found <= LEDGER_VERSION:
        raise OtherVersion(found)


def _begin(connection: sqlite3.Connection) -> None:
    """The tables and an id, unless an interrupted start made them already."""
    connection.executescript(_SCHEMA)
    if connection.execute("SELECT count(*) FROM ledger").fetchone() == (0,):
        row = (secrets.token_hex(32),)
        connection.execute("INSERT INTO ledger VALUES (?)", row)
        connection.execute(f"PRAGMA user_version = {FIRST_VERSION}")
    connection.execute("COMMIT")
    # The witness comes next: what it vouches for must be in the file itself.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _read(connection: sqlite3.Connection) -> tuple[str, list[LedgerEntry]]:
    with named_faults():
        _check_version(connection)
        if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise LedgerFault(Fault.DAMAGED)
        ids = connection.execute("SELECT id FROM ledger").fetchall()
        rows = connection.execute(
            "SELECT body, hash FROM entries ORDER BY sequence"
        ).fetchall()
    if len(ids) != 1:
        raise LedgerFault(Fault.EDITED)
    return ids[0][0], check_chain(ids[0][0], rows)


@contextmanager
def _truncation_named(path: Path) -> Iterator[None]:
    """Damage to a file shorter than it says it is has a name of its own."""
    try:
        yield
    except LedgerFault as error:
        if error.fault is Fault.DAMAGED and _is_short(path):
            raise LedgerFault(Fault.TRUNCATED) from None
        raise


def _is_short(path: Path) -> bool:
    """Whether the file is shorter than its own header says (SQLite's file format).

    By itself this is no fault: killed while it copies its log into the file, SQLite
    leaves it so, and mends it from the log when it is opened again.
    """
    with named_faults(), path.open("rb") as file:
        header = file.read(100)
        size = os.fstat(file.fileno()).st_size
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    return len(header) < 100 or size < page_size * int.from_bytes(header[28:32], "big")
