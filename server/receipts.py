"""The last receipt of each client, sent back with the next message.

Server only. A receipt is the hash of a ledger entry and tells nothing; a client that
was put back from a backup does not know it any more, and then refuses by itself. The
receipts outlive the run, as ledgers do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from common.durable_files import write_durably
from common.errors import DataFormatError
from common.folders import RECEIPTS
from common.wire import RECEIPT


class Receipts:
    """By Flower's node id; each change is on disk before the next message."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RECEIPTS
        self._last = _read(self._path)

    def of(self, node: int) -> str:
        """The last receipt of a node, "" if it never gave one."""
        return self._last.get(str(node), "")

    @property
    def last(self) -> dict[str, str]:
        """Every node's last receipt."""
        return dict(self._last)

    def restore(self, earlier: Mapping[str, str]) -> None:
        """Take a checkpoint's receipts of those nodes of which none is known.

        An older receipt is as good as a newer one: a client looks whether the entry
        is in its ledger.
        """
        unknown = earlier.keys() - self._last.keys()
        self.keep({int(node): earlier[node] for node in unknown})

    def keep(self, receipts: dict[int, str]) -> None:
        """Remember what these nodes gave."""
        if not receipts:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Another run of this server may keep receipts here too.
        with FileLock(self._path.with_suffix(".lock")):
            new = {str(node): receipt for node, receipt in receipts.items()}
            self._last = _read(self._path) | new
            write_durably(self._path, json.dumps(self._last, indent=1).encode())


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        found: dict[str, str] = json.loads(path.read_text())
        sound = all(map(RECEIPT.fullmatch, found.values()))
    except (ValueError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise DataFormatError(
            f"{path}: expected receipts by node; remove the file to go on without."
        )
    return found
