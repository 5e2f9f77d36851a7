"""What this client tells its operator of itself, as Prometheus metrics on loopback.

Client only, and it reads no row: the ledger's charges are public numbers, the rest is
whether the ledger is sound and how old the student is. No path, id or run's name is in
a label. The ledger is read without its lock, so that a round never waits for a scrape.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from client.budget import spent
from client.chain import LedgerEntry
from client.faults import Fault, LedgerFault
from client.ledger import inspect_ledger
from client.settings import Budget, ClientSettings, witness_place
from client.statement import UNITS, budget_of
from common.accounting import epsilon
from common.errors import ConfigError
from common.events import DpEvent, Unit
from common.exposition import HOST, Site
from common.folders import LEDGER, STUDENT
from common.wire import TRAIN


@dataclass(frozen=True)
class Account:
    """A privacy unit's spending at ``delta``; ``inf`` without noise."""

    unit: Unit
    delta: float
    budget: Budget | None
    spent: float


@dataclass(frozen=True)
class ClientFacts:
    """A client as its ledger and its folder show it.

    Attributes:
        fault: why the ledger is refused, ``None`` where it is sound or not begun.
        charges: by purpose.
        rounds: rounds of training that were charged, over all runs.
        last_charge, student: Unix seconds, ``None`` where there was none.
    """

    begun: bool
    fault: Fault | None
    charges: dict[str, int]
    rounds: int
    accounts: tuple[Account, ...]
    last_charge: float | None
    student: float | None


def read_facts(folder: Path, settings: ClientSettings) -> ClientFacts:
    """The facts now; a ledger that is refused has its fault for its account."""
    fault, entries = None, list[LedgerEntry]()
    begun = (folder / LEDGER).is_file()
    try:
        _, entries = inspect_ledger(folder, witness_place(folder, settings))
    except LedgerFault as error:
        fault = error.fault
    except ConfigError:
        # Nothing was charged yet: the ledger begins with the first round.
        begun = False
    charges = [entry.charge for entry in entries if entry.charge is not None]
    trained = {(each.run, each.number) for each in charges if each.purpose == TRAIN}
    return ClientFacts(
        begun,
        fault,
        dict(Counter(each.purpose for each in charges)),
        len(trained),
        () if fault else tuple(_accounts(entries, settings)),
        entries[-1].utc.timestamp() if charges else None,
        _written(folder / STUDENT),
    )


def metrics_of(facts: ClientFacts, now: float) -> Iterator[Metric]:
    """All families; ``now`` in Unix seconds."""
    yield _gauge("ledger_begun", "1 once anything was charged.", float(facts.begun))
    yield _gauge(
        "ledger_sound",
        "0 if the ledger is refused: nothing is trained then.",
        float(facts.fault is None),
    )
    faults = GaugeMetricFamily(
        "tutela_client_ledger_fault", "1 for the ledger's fault.", labels=("fault",)
    )
    for each in Fault:
        faults.add_metric([str(each)], float(facts.fault is each))
    yield faults
    yield from _counts(facts)
    yield from _money(facts.accounts)
    yield from _since("last_charge", "Since the last charge.", facts.last_charge, now)
    yield from _since("student", "Since the student came.", facts.student, now)


def open_site(
    folder: Path, settings: ClientSettings, host: str = HOST, port: int = 0
) -> Site:
    """``/metrics`` of a client's folder.

    Raises:
        ConfigError: if the address is not a loopback one.
    """

    def collect() -> Iterable[Metric]:
        return list(metrics_of(read_facts(folder, settings), time.time()))

    return Site(collect, host=host, port=port)


def _counts(facts: ClientFacts) -> Iterator[Metric]:
    # A refused ledger says nothing: a counter that fell to 0 would be a lie.
    if facts.fault is not None:
        return
    rounds = CounterMetricFamily(
        "tutela_client_rounds_charged", "Rounds of training that were charged."
    )
    rounds.add_metric([], facts.rounds)
    charges = CounterMetricFamily(
        "tutela_client_charges", "Charges by message type.", labels=("purpose",)
    )
    for purpose, times in sorted(facts.charges.items()):
        charges.add_metric([purpose], times)
    yield from (rounds, charges)


def _money(accounts: Sequence[Account]) -> Iterator[Metric]:
    labels = ("unit", "delta")
    families = [
        GaugeMetricFamily(f"tutela_client_epsilon_{name}", text, labels=labels)
        for name, text in (
            ("spent", "All releases of this client together; Inf: no promise."),
            ("left", "What the client's lifetime budget has left."),
            ("budget", "The client's lifetime budget."),
        )
    ]
    for each in accounts:
        row = [each.unit, f"{each.delta:g}"]
        families[0].add_metric(row, each.spent)
        if each.budget is not None:
            left = max(0.0, each.budget.target_epsilon - each.spent)
            families[1].add_metric(row, left)
            families[2].add_metric(row, each.budget.target_epsilon)
    yield from families


def _accounts(
    entries: Sequence[LedgerEntry], settings: ClientSettings
) -> Iterator[Account]:
    for unit in UNITS:
        events, budget = spent(entries, unit), settings.budget.get(unit)
        if events or budget is not None:
            delta = (budget or budget_of(settings)).delta
            yield Account(unit, delta, budget, _cost(events, delta))


@lru_cache(maxsize=8)
def _cost(events: tuple[DpEvent, ...], delta: float) -> float:
    """ε takes up to a second; between two rounds it stays the same."""
    return epsilon(events, delta)


def _since(name: str, text: str, time: float | None, now: float) -> Iterator[Metric]:
    if time is not None:
        yield _gauge(f"{name}_timestamp_seconds", "When, in Unix time.", time)
        yield _gauge(f"{name}_age_seconds", text, max(0.0, now - time))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"tutela_client_{name}", text, value=value)


def _written(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
