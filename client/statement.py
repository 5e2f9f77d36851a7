"""An account of what a ledger holds: spent and left, by unit, run and round.

Client only: it reads the client's own ledger and settings. Pure functions; nothing
here is stored, and no ε is without its unit, relation, δ, trust and sampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from client.budget import spent
from client.chain import Charge, LedgerEntry
from client.settings import Budget, ClientSettings
from common.accounting import BY_RENYI, epsilon, epsilon_path, epsilon_rdp
from common.config import RunConfig
from common.events import Unit
from common.plan import noise_multiplier
from common.promise import NOT_PRIVATE, SEEDED, promise_of

UNITS: tuple[Unit, ...] = get_args(Unit)

#: Beside mode local, where a run summed this client's updates with others'.
SUMMED = (
    "or mode distributed: of its updates only sums are seen, under what the run's own "
    "promise assumes of the server and of other clients; "
)

#: ε over time is computed at so many points at most.
MAX_POINTS = 200


@dataclass(frozen=True)
class Spent:
    """What a unit's releases cost together at one δ; ``inf`` without noise.

    Attributes:
        pld: by privacy loss distributions, the figure that counts; the same as
            ``rdp`` where integer noise is among the releases.
        rdp: by Rényi divergences, for comparison: valid and looser.
    """

    delta: float
    pld: float
    rdp: float


@dataclass(frozen=True)
class Column:
    """A unit's account.

    Attributes:
        budget: ``None`` where the settings have none for this unit.
        releases: how many charges.
        left: what the budget has left at its own δ.
    """

    unit: Unit
    budget: Budget | None
    releases: int
    spent: tuple[Spent, ...]
    left: float | None


@dataclass(frozen=True)
class RunLine:
    """A run's charges, and what they cost by themselves."""

    run: str
    name: str
    unit: Unit
    rounds: int
    releases: int
    first: str
    last: str
    epsilon: float


@dataclass(frozen=True)
class ChargeLine:
    """A charge, and the ε of its unit after it (an upper bound)."""

    sequence: int
    utc: str
    run: str
    name: str
    number: int
    purpose: str
    unit: Unit
    noise_multiplier: float
    sample_rate: float
    steps: int
    epsilon_after: float


@dataclass(frozen=True)
class Statement:
    """All of it.

    Attributes:
        delta: at which runs and charges are counted.
        notes: what an operator vouched for, with its time.
    """

    ledger: str
    entries: int
    delta: float
    columns: tuple[Column, ...]
    runs: tuple[RunLine, ...]
    charges: tuple[ChargeLine, ...]
    notes: tuple[str, ...]
    sentence: str


def make_statement(
    ledger: str,
    entries: Sequence[LedgerEntry],
    settings: ClientSettings,
    deltas: Sequence[float],
) -> Statement:
    """The account of a verified ledger.

    Args:
        ledger: its id.
        deltas: each in (0, 1), at which to say what was spent; the budget's own δ
            comes first in any case.
    """
    delta = budget_of(settings).delta
    charges = [entry.charge for entry in entries if entry.charge is not None]
    used = [unit for unit in UNITS if any(c.event.unit == unit for c in charges)]
    shown = [unit for unit in UNITS if unit in settings.budget or unit in used]
    return Statement(
        ledger=ledger,
        entries=len(entries),
        delta=delta,
        columns=tuple(_column(unit, entries, settings, deltas) for unit in shown),
        runs=tuple(_runs(entries, delta)),
        charges=tuple(_charges(entries, delta)),
        notes=tuple(f"{_when(e)} {e.note}" for e in entries if e.charge is None),
        sentence=f"{sentence(charges)} {code_sentence(settings)}",
    )


def budget_of(settings: ClientSettings) -> Budget:
    """The budget whose δ is used throughout: per user, or the only one."""
    return settings.budget.get("user") or next(iter(settings.budget.values()), Budget())


def sentence(charges: Sequence[Charge]) -> str:
    """What the figures promise, whole."""
    if any(charge.event.noise_multiplier == 0 for charge in charges):
        return (
            f"{NOT_PRIVATE}: a run without noise has trained on these rows, so nothing "
            "is promised about them any more."
        )
    integer = any(charge.event.mechanism == "skellam" for charge in charges)
    accountant = f", or, in a column with such sums, {BY_RENYI}" if integer else ""
    text = (
        "Everything this client ever released is together (ε, δ)-differentially "
        "private in the unit of each column (add or remove one unit's rows at this "
        "client), mode local: nobody else is trusted, the server and other clients "
        f"included; {SUMMED if integer else ''}accountant: privacy loss distributions "
        f"(dp-accounting PLD; the RDP figure is for comparison){accountant}; sampling: "
        "Poisson at each charge's own rate, none at rate 1. Releases in another unit "
        "are not in a column: columns never add up."
    )
    if any(charge.seeded for charge in charges):
        text += f" {SEEDED}"
    return text


def run_sentence(config: RunConfig, settings: ClientSettings) -> str:
    """What one run promised this client, and whose code read the rows."""
    noise, seeded = noise_multiplier(config), settings.seed is not None
    promise = promise_of(config, noise, seeded=seeded)
    return f"{promise.sentence} {code_sentence(settings)}"


def code_sentence(settings: ClientSettings) -> str:
    """Whose code reads the rows: the figures hold only for code that keeps to them."""
    count = len(settings.bundles)
    if not count:
        return (
            "Code: no bundle is pinned, so this client's own node runs none; under "
            "another node the server chooses the code, and nothing of this is promised "
            "against a server that ships other code."
        )
    return (
        f"Code: this client's own node runs only the {count} pinned "
        f"bundle{'s' if count > 1 else ''}; under another node the server chooses it."
    )


def _column(
    unit: Unit,
    entries: Sequence[LedgerEntry],
    settings: ClientSettings,
    deltas: Sequence[float],
) -> Column:
    budget, events = settings.budget.get(unit), spent(entries, unit)
    own = (budget or budget_of(settings)).delta
    found = tuple(
        Spent(delta, epsilon(events, delta), epsilon_rdp(events, delta))
        for delta in dict.fromkeys((own, *deltas))
    )
    releases = sum(
        entry.charge is not None and entry.charge.event.unit == unit
        for entry in entries
    )
    left = None if budget is None else max(0.0, budget.target_epsilon - found[0].pld)
    return Column(unit, budget, releases, found, left)


def _runs(entries: Sequence[LedgerEntry], delta: float) -> list[RunLine]:
    groups: dict[tuple[str, Unit], list[LedgerEntry]] = {}
    for entry in entries:
        if entry.charge is not None:
            key = (entry.charge.run, entry.charge.event.unit)
            groups.setdefault(key, []).append(entry)
    return [_run(run, unit, members, delta) for (run, unit), members in groups.items()]


def _run(run: str, unit: Unit, members: list[LedgerEntry], delta: float) -> RunLine:
    charges = [entry.charge for entry in members if entry.charge is not None]
    return RunLine(
        run=run,
        name=charges[0].name,
        unit=unit,
        rounds=len({charge.number for charge in charges}),
        releases=len(charges),
        first=_when(members[0]),
        last=_when(members[-1]),
        epsilon=epsilon(spent(members, unit), delta),
    )


def _charges(entries: Sequence[LedgerEntry], delta: float) -> list[ChargeLine]:
    lines = []
    for unit in UNITS:
        members = [
            (entry, entry.charge)
            for entry in entries
            if entry.charge is not None and entry.charge.event.unit == unit
        ]
        # A point may stand for several charges; each gets the ε after the last.
        size = max(1, math.ceil(len(members) / MAX_POINTS))
        starts = range(0, len(members), size)
        groups = [[c.event for _, c in members[i : i + size]] for i in starts]
        path = epsilon_path(groups, delta)
        for place, (entry, charge) in enumerate(members):
            lines.append(_charge(entry, charge, path[place // size]))
    return sorted(lines, key=lambda line: line.sequence)


def _charge(entry: LedgerEntry, charge: Charge, after: float) -> ChargeLine:
    return ChargeLine(
        sequence=entry.sequence,
        utc=_when(entry),
        run=charge.run,
        name=charge.name,
        number=charge.number,
        purpose=charge.purpose,
        unit=charge.event.unit,
        noise_multiplier=charge.event.noise_multiplier,
        sample_rate=charge.event.sample_rate,
        steps=charge.event.steps,
        epsilon_after=after,
    )


def _when(entry: LedgerEntry) -> str:
    return entry.utc.strftime("%Y-%m-%d %H:%M:%S")
