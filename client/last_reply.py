"""The last reply of each kind, so that a message delivered twice is answered alike.

Client only. A reply holds a release that was charged once; sending the same bytes
again costs nothing more, training again would. Only the newest of a kind is kept.
"""

from __future__ import annotations

import json
from pathlib import Path

from flwr.app import ArrayRecord
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from client.chain import LedgerEntry
from client.faults import named_faults
from common.durable_files import write_durably
from common.errors import ProtocolError
from common.wire import pack_state, unpack_arrays


def keep_reply(folder: Path, entry: LedgerEntry, record: ArrayRecord) -> None:
    """Keep what this entry paid for, before it leaves.

    Raises:
        LedgerFault: if the disk does not take it.
    """
    # The format sorts tensors; the same bytes need the same order.
    metadata = {"entry": entry.hash, "names": json.dumps(list(record))}
    content = save(unpack_arrays(record), metadata)
    with named_faults():
        write_durably(_path(folder, entry), content)


def kept_reply(folder: Path, entry: LedgerEntry) -> ArrayRecord:
    """What this entry paid for, bit for bit.

    Raises:
        ProtocolError: if it was not finished or is not kept any more; then there is
            no answer, since training again would be a second release.
    """
    try:
        with safe_open(_path(folder, entry), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("entry") == entry.hash:
                names = json.loads(metadata["names"])
                return pack_state({name: file.get_tensor(name) for name in names})
    except (OSError, SafetensorError):
        pass
    raise ProtocolError("Expected a message not charged before.")


def _path(folder: Path, entry: LedgerEntry) -> Path:
    purpose = entry.charge.purpose if entry.charge else "note"
    return folder / f"reply-{purpose}.safetensors"
