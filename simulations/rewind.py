"""A simulated client that was cut off at its work is put back to before the message.

Simulations only: a real device killed while it trains has spent the round, and rightly
does not train again. In a simulation the whole world stops with the process, nothing
had left, and a run that goes on must come to what it would have come to. So what a
message may change of a client's ledger is copied first, and copied back if the message
never came to its end.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.settings import read_settings, witness_place
from common.errors import ConfigError
from common.folders import LEDGER

_LEFT, _DONE = ".left", ".done"


@contextmanager
def rewindable(client: Path, place: Path) -> Iterator[None]:
    """Let a client answer one message; only what is answered stays.

    Args:
        client: its folder.
        place: a folder for copies; emptied again unless the process is killed.
    """
    copy = place / client.name
    # Whole only under its last name: a rename is one step.
    new = copy.with_suffix(_LEFT)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for number, path in enumerate(_files(client)):
        if path.exists():
            shutil.copy2(path, new / str(number))
    new.rename(copy)
    try:
        yield
    except BaseException:
        _put_back(client, copy)
        raise
    _discard(copy)


def rewind(client: Path, place: Path) -> None:
    """Put a client back if a message to it never came to its end."""
    copy = place / client.name
    if copy.is_dir():
        _put_back(client, copy)


def _put_back(client: Path, copy: Path) -> None:
    for number, path in enumerate(_files(client)):
        path.unlink(missing_ok=True)
        if (copy / str(number)).exists():
            shutil.copy2(copy / str(number), path)
    _discard(copy)


def _discard(copy: Path) -> None:
    done = copy.with_suffix(_DONE)
    shutil.rmtree(done, ignore_errors=True)
    copy.rename(done)
    shutil.rmtree(done)


def _files(client: Path) -> tuple[Path, ...]:
    """The ledger with SQLite's own files, and its witness."""
    ledger = [client / f"{LEDGER}{suffix}" for suffix in ("", "-wal", "-shm")]
    try:
        return (*ledger, witness_place(client, read_settings(client)))
    except ConfigError:
        # A client with damaged settings charges nothing.
        return tuple(ledger)
