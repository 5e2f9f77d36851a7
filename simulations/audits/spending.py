"""What each client spent, by its own ledger: not what the run's configuration plans.

Simulations only: it reads every client's folder. A ledger is verified (its chain, its
witness) before a figure is taken from it, and ε is of its events composed. What holds
for a federation is the most that any client spent, never a mean over clients.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from client.chain import Charge
from client.faults import LedgerFault
from client.ledger import inspect_ledger
from client.settings import ClientSettings, read_settings, witness_place
from common.accounting import epsilon
from common.errors import ConfigError
from common.events import DpEvent, Unit, merged
from simulations.audits.findings import finite
from simulations.audits.records import ClientSpending, MostSpent, SpentRecord
from simulations.audits.world import World
from simulations.collecting import FEDERATION
from simulations.partition import CLIENTS

VERIFIED = "verified"


@dataclass(frozen=True)
class ClientLedger:
    """A client's settings and ledger, as found.

    Attributes:
        name: of its folder.
        state: ``verified``; or what is wrong with ledger or settings.
        settings: None where they cannot be read.
        unit: of the promise; charges in another are no part of it, and never add up.
        charges: in order; empty where the ledger could not be verified.
        notes: what an operator vouched for by hand, how often.
    """

    name: str
    state: str
    settings: ClientSettings | None
    charges: tuple[Charge, ...]
    unit: Unit = "user"
    notes: int = 0

    def events(self, run: str | None = None) -> tuple[DpEvent, ...]:
        """Everything charged in the unit, or of one run; equal mechanisms merged."""
        return merged(
            [
                each.event
                for each in self.charges
                if each.event.unit == self.unit and run in (None, each.run)
            ]
        )

    @property
    def runs(self) -> list[str]:
        """Ids of the runs that charged it, in order."""
        return list(dict.fromkeys(each.run for each in self.charges))


def read_ledgers(world: World) -> tuple[ClientLedger, ...]:
    """Every client's ledger, verified."""
    unit: Unit = next((event.unit for event in world.events), "user")
    return tuple(_read(world, client.name, unit) for client in world.clients)


def _read(world: World, name: str, unit: Unit) -> ClientLedger:
    folder = world.run / FEDERATION / CLIENTS / name
    try:
        settings = read_settings(folder)
    except (ConfigError, OSError):
        return ClientLedger(name, "settings cannot be read", None, ())
    try:
        _, entries = inspect_ledger(folder, witness_place(folder, settings))
    except LedgerFault as error:
        return ClientLedger(name, str(error.fault), settings, ())
    except ConfigError:
        return ClientLedger(name, "no ledger", settings, ())
    charges = [entry.charge for entry in entries]
    kept = tuple(each for each in charges if each is not None)
    return ClientLedger(name, VERIFIED, settings, kept, unit, len(charges) - len(kept))


def spent_by_clients(
    ledgers: Sequence[ClientLedger], run: str | None, deltas: Sequence[float]
) -> tuple[ClientSpending, ...]:
    """Each client's ε at several δ: of the audited run, and of all that it released.

    Args:
        run: the run's id in the ledgers; None where it is not known, so that all that
            was charged is taken for it.
    """
    return tuple(
        ClientSpending(
            client=ledger.name,
            ledger=ledger.state,
            runs=len(ledger.runs),
            releases=len(ledger.charges),
            spent=tuple(
                SpentRecord(
                    delta=delta,
                    epsilon_run=finite(epsilon(ledger.events(run), delta)),
                    epsilon_all=finite(epsilon(ledger.events(), delta)),
                )
                for delta in deltas
                if ledger.state == VERIFIED
            ),
        )
        for ledger in ledgers
    )


def most_spent(
    clients: Sequence[ClientSpending],
    planned: Sequence[DpEvent],
    deltas: Sequence[float],
) -> tuple[MostSpent, ...]:
    """The most that any client spent at each δ, beside what the run planned.

    Empty where no ledger could be verified: nothing is known then.
    """
    found: list[MostSpent] = []
    if not any(each.spent for each in clients):
        return ()
    for place, delta in enumerate(deltas):
        spent = [each.spent[place] for each in clients if each.spent]
        found.append(
            MostSpent(
                delta=delta,
                epsilon_planned=finite(epsilon(planned, delta)),
                epsilon_run=_most(each.epsilon_run for each in spent),
                epsilon_all=_most(each.epsilon_all for each in spent),
            )
        )
    return tuple(found)


def _most(values: Iterable[float | None]) -> float | None:
    """The largest; null is infinite, and 0 where nothing was spent."""
    return finite(
        max((math.inf if each is None else each for each in values), default=0.0)
    )
