"""What can be wrong with a ledger, by name, and what its operator should do.

Client only. No text here depends on a row, a path or a host. A fault of the ledger
always means: nothing was trained, nothing leaves.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from common.errors import LedgerError


class Fault(StrEnum):
    """Why a ledger is refused."""

    MISSING = "missing"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    EDITED = "edited"
    ROLLED_BACK = "rolled back"
    UNWITNESSED = "unwitnessed"
    LOCKED = "locked"
    DISK_FULL = "disk full"
    READ_ONLY = "read-only"
    DISK_ERROR = "disk error"
    CLOCK_BACK = "clock moved back"


_RESTORE = (
    "Put back the newest ledger you have of this client. If there is none, what was "
    "spent is not known any more: retire this folder and do not train on its rows."
)

ADVICE = {
    Fault.MISSING: "this client had a ledger, and it is gone. " + _RESTORE,
    Fault.TRUNCATED: "the ledger's file is shorter than it was. " + _RESTORE,
    Fault.DAMAGED: "the ledger's file cannot be read. Check the disk. " + _RESTORE,
    Fault.EDITED: "an entry differs from what was written. " + _RESTORE,
    Fault.ROLLED_BACK: (
        "the ledger is older than the last one seen, as after restoring a backup or "
        "a snapshot. " + _RESTORE + " If this node served another folder before, the "
        "server still has that one's receipt, and its operator has to forget it."
    ),
    Fault.UNWITNESSED: (
        "nothing outside the folder remembers how far this ledger had come, as after "
        "a move to another machine. If you are sure that it is the newest, run "
        "`tutela ledger accept` on the folder; the chain will say that you did."
    ),
    Fault.LOCKED: (
        "another process is training on this folder. Wait for it; two clients must "
        "not share a folder."
    ),
    Fault.DISK_FULL: "the disk is full. Make room; nothing was lost.",
    Fault.READ_ONLY: (
        "the ledger's folder or its witness cannot be written. Allow this user to."
    ),
    Fault.DISK_ERROR: "the disk answered with an error. Check it before going on.",
    Fault.CLOCK_BACK: (
        "the clock is behind the ledger's last entry, as after restoring a snapshot. "
        "Set the clock; if it is the ledger's that was wrong, run `tutela ledger "
        "accept` on the folder; the chain will say that you did."
    ),
}


class LedgerFault(LedgerError):
    """A named refusal.

    Attributes:
        fault: its name.
        entry: sequence of the entry at fault, where one is.
    """

    def __init__(self, fault: Fault, entry: int | None = None) -> None:
        where = "" if entry is None else f" (entry {entry})"
        super().__init__(f"Ledger {fault}{where}: {ADVICE[fault]}")
        self.fault, self.entry = fault, entry


_BY_SQLITE = {
    sqlite3.SQLITE_FULL: Fault.DISK_FULL,
    sqlite3.SQLITE_READONLY: Fault.READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: Fault.READ_ONLY,
    sqlite3.SQLITE_PERM: Fault.READ_ONLY,
    sqlite3.SQLITE_BUSY: Fault.LOCKED,
    sqlite3.SQLITE_LOCKED: Fault.LOCKED,
    sqlite3.SQLITE_IOERR: Fault.DISK_ERROR,
    # There was no room for the shared memory file beside the log.
    sqlite3.SQLITE_IOERR_SHMSIZE: Fault.DISK_FULL,
}
_BY_ERRNO = {
    errno.ENOSPC: Fault.DISK_FULL,
    errno.EDQUOT: Fault.DISK_FULL,
    errno.EFBIG: Fault.DISK_FULL,
    errno.EROFS: Fault.READ_ONLY,
    errno.EACCES: Fault.READ_ONLY,
    errno.EPERM: Fault.READ_ONLY,
}


@contextmanager
def named_faults() -> Iterator[None]:
    """Give an error of SQLite or of the disk its name; its own text goes nowhere."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        # The low byte is SQLite's primary code; the rest is detail.
        fault = _BY_SQLITE.get(code) or _BY_SQLITE.get(code & 0xFF, Fault.DAMAGED)
        raise LedgerFault(fault) from None
    except OSError as error:
        fault = _BY_ERRNO.get(error.errno or 0, Fault.DISK_ERROR)
        raise LedgerFault(fault) from None
