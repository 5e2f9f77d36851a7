"""Which state of a secure sum is the last: an older one is never answered from.

Client only. Flower hands each message's process a copy of the run's state, and starts
as many at once as messages come. A server that lies could send two lists of survivors
together, and both processes would answer from the same state; each answer tells other
shares, and together they tell too much. So the last state's digest stands in the
client's folder, written under the lock that the ledger gives to one message at a time.
It need not survive a crash: the states themselves do not.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from common.errors import ProtocolError

#: In the client's folder: a run's id and the digest of its last state.
LINEAGE = "secagg.json"
#: Runs at a time; the one that was quiet longest is forgotten, and answers no more.
MOST_RUNS = 64


def check_last(folder: Path, run: str, state: bytes) -> None:
    """Refuse a state that another message has gone on from.

    Raises:
        ProtocolError: if this is not the last one that was kept.
    """
    if _read(folder / LINEAGE).get(run) != _digest(state):
        raise ProtocolError(
            "Expected the last state of this run, got one that was answered from, or "
            "of a client that was restarted or copied."
        )


def remember(folder: Path, run: str, state: bytes) -> None:
    """This is the last state now; before anything that follows from it leaves."""
    path = folder / LINEAGE
    runs = _read(path)
    runs.pop(run, None)
    runs[run] = _digest(state)
    text = json.dumps(dict(list(runs.items())[-MOST_RUNS:]))
    new = path.with_name(f".{path.name}.new")
    opened = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(opened, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


def _read(path: Path) -> dict[str, str]:
    """What is there; nothing, where it is missing or damaged: then none is the last."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(state: bytes) -> str:
    return hashlib.sha256(state).hexdigest()
