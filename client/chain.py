"""The ledger's entries and their chain: pure functions, no storage.

Client only. Each entry is canonical JSON that holds the hash of the one before it,
so that none can be changed, dropped or put in between without breaking the rest
(Haber and Stornetta 1991). Events are kept as ``dp-accounting`` writes them, with
unit and relation, not as ε: ε depends on the accountant.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from client.faults import Fault, LedgerFault
from common.errors import DataFormatError
from common.events import DpEvent, event_record, read_event
from common.versions import check_format

#: The second where integer noise is among the events, the first otherwise.
EXPORT_FORMATS = ("tutela-ledger-1", "tutela-ledger-2")


@dataclass(frozen=True)
class Charge:
    """What one release is about to do, public numbers all of them.

    Attributes:
        run: the run's id.
        name: the run's name.
        number: the round, from 1.
        nonce: the server's, 32 hexadecimal digits.
        purpose: the message type that asks for it.
        event: what it costs.
        plan: what the whole run declared, one event a mechanism.
        seeded: the noise came from a seed, as only simulations allow.
    """

    run: str
    name: str
    number: int
    nonce: str
    purpose: str
    event: DpEvent
    plan: tuple[DpEvent, ...]
    seeded: bool = False

    @property
    def is_integer(self) -> bool:
        """Whether integer noise is in it, which older versions cannot read."""
        return any(each.mechanism == "skellam" for each in (self.event, *self.plan))

    @property
    def key(self) -> str:
        """What is charged only once."""
        return f"{self.run}/{self.number}/{self.nonce}/{self.purpose}"


@dataclass(frozen=True)
class LedgerEntry:
    """One line of the ledger: a charge, or an operator's note.

    Attributes:
        sequence: from 1, without gaps.
        utc: when it was written.
        previous: hash of the entry before, the ledger's id for the first.
        salt: random, so that the hash tells nothing of the rest.
        charge: ``None`` for a note.
        note: what an operator vouched for, else "".
    """

    sequence: int
    utc: datetime
    previous: str
    salt: str
    charge: Charge | None
    note: str = ""

    @cached_property
    def body(self) -> str:
        """The entry as canonical JSON, which is what is stored and hashed."""
        facts: dict[str, Any] = {
            "sequence": self.sequence,
            "utc": self.utc.astimezone(UTC).isoformat(timespec="milliseconds"),
            "previous": self.previous,
            "salt": self.salt,
        }
        if self.charge is None:
            return canonical(facts | {"note": self.note})
        return canonical(facts | _charge_record(self.charge))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the body, 64 hexadecimal digits."""
        return hash_of(self.body)


def canonical(facts: dict[str, Any]) -> str:
    """JSON in one way only: sorted keys, no blanks."""
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def hash_of(body: str) -> str:
    """SHA-256 of a body."""
    return hashlib.sha256(body.encode()).hexdigest()


def head_of(ledger: str, entries: Sequence[LedgerEntry]) -> str:
    """Hash of the last entry; the ledger's id where there is none."""
    return entries[-1].hash if entries else ledger


def check_chain(ledger: str, rows: Sequence[tuple[str, str]]) -> list[LedgerEntry]:
    """Entries of stored (body, hash) pairs, every link checked.

    Args:
        ledger: the ledger's id, on which the first entry is chained.
        rows: in order.

    Raises:
        LedgerFault: ``EDITED``, with the first entry that does not fit.
    """
    entries: list[LedgerEntry] = []
    for sequence, (body, stored) in enumerate(rows, start=1):
        previous = head_of(ledger, entries)
        try:
            entry = read_entry(body)
            fits = entry.body == body and hash_of(body) == stored
            fits &= (entry.sequence, entry.previous) == (sequence, previous)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            fits = False
        if not fits:
            raise LedgerFault(Fault.EDITED, sequence)
        entries.append(entry)
    return entries


def read_entry(body: str) -> LedgerEntry:
    """The entry of a body.

    Raises:
        KeyError, TypeError, ValueError: if it is none.
    """
    facts = json.loads(body)
    charge = None if "note" in facts else _read_charge(facts)
    return LedgerEntry(
        facts["sequence"],
        datetime.fromisoformat(facts["utc"]),
        facts["previous"],
        facts["salt"],
        charge,
        facts.get("note", ""),
    )


def _charge_record(charge: Charge) -> dict[str, Any]:
    return {
        "run": charge.run,
        "name": charge.name,
        "round": charge.number,
        "nonce": charge.nonce,
        "purpose": charge.purpose,
        "seeded": charge.seeded,
        **_typed_event(charge.event),
        "plan": [_typed_event(event) for event in charge.plan],
    }


def _read_charge(facts: dict[str, Any]) -> Charge:
    return Charge(
        facts["run"],
        facts["name"],
        facts["round"],
        facts["nonce"],
        facts["purpose"],
        _read_typed(facts),
        tuple(map(_read_typed, facts["plan"])),
        facts["seeded"],
    )


def _typed_event(event: DpEvent) -> dict[str, Any]:
    return {
        "unit": event.unit,
        "relation": event.relation,
        "event": event_record(event),
    }


def _read_typed(facts: dict[str, Any]) -> DpEvent:
    return read_event(facts["event"], facts["unit"], facts["relation"])


def export_text(ledger: str, entries: Sequence[LedgerEntry]) -> str:
    """The chain as JSON lines: the ledger's id, then a line for each entry."""
    integer = any(e.charge is not None and e.charge.is_integer for e in entries)
    head = canonical({"format": EXPORT_FORMATS[integer], "ledger": ledger})
    lines = [canonical({"body": e.body, "hash": e.hash}) for e in entries]
    return "\n".join([head, *lines]) + "\n"


def read_export(text: str) -> tuple[str, list[LedgerEntry]]:
    """Id and entries of an export, every link checked.

    A cut tail cannot be seen in an export alone: compare its head with a receipt.

    Raises:
        LedgerFault: ``EDITED``, with the first entry that does not fit.
        DataFormatError: if the text is no export.
    """
    lines = text.splitlines()
    try:
        head = json.loads(lines[0])
        check_format("The export", head["format"], EXPORT_FORMATS)
        rows = [(row["body"], row["hash"]) for row in map(json.loads, lines[1:])]
        ledger = str(head["ledger"])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise DataFormatError(
            "Expected an exported ledger (JSON lines, format "
            f"{' or '.join(EXPORT_FORMATS)})."
        ) from None
    return ledger, check_chain(ledger, rows)
