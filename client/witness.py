"""The ledger's second place: how far it had come when it was last seen.

Client only. A ledger that is deleted, or put back from a copy, looks sound by
itself. The witness lies elsewhere on the device (the user's state folder, or where
the settings say) and knows better; the server's acknowledgement is a third place.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from platformdirs import user_state_path

from client.faults import Fault, LedgerFault, named_faults
from common.durable_files import write_durably


@dataclass(frozen=True)
class Witness:
    """What is remembered of a ledger.

    Attributes:
        ledger: the ledger's id.
        entries: how many it held.
        head: hash of the last of them, or the id where there was none.
    """

    ledger: str
    entries: int
    head: str


def default_place(folder: Path) -> Path:
    """Where the witness of a folder's ledger lies unless the settings say otherwise."""
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    return user_state_path("tutela") / "witnesses" / f"{digest}.json"


def read_witness(place: Path) -> Witness | None:
    """The witness, or ``None`` where nothing was ever witnessed.

    Raises:
        LedgerFault: ``UNWITNESSED`` if the file is there and damaged.
    """
    with named_faults():
        if not place.exists():
            return None
        text = place.read_text()
    try:
        found = Witness(**json.loads(text))
    except (ValueError, TypeError):
        raise LedgerFault(Fault.UNWITNESSED) from None
    if type(found.entries) is not int or found.entries < 0:
        raise LedgerFault(Fault.UNWITNESSED)
    return found


def write_witness(place: Path, witness: Witness) -> None:
    """Remember how far the ledger is.

    Raises:
        LedgerFault: if the disk does not take it.
    """
    with named_faults():
        write_durably(place, json.dumps(asdict(witness)).encode())
