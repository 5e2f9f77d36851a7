"""What a run left that a check may look at, read once; and a check as stored.

Simulations only: it reads every file of a run, clients' ledgers included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from common.errors import ConfigError, DataFormatError
from common.folders import CHECKPOINT, METRICS, RESULTS
from common.promise import Promise, promise_of
from server.run_journal import NAMES, RunFacts, read_facts
from simulations.audits.findings import CheckRecord
from simulations.audits.spending import ClientLedger, read_ledgers
from simulations.audits.world import World
from simulations.results import Results, read_results

Said = Literal["holds", "deviates", "unknown"]

RUN_FILE = f"{CHECKPOINT}/{NAMES[0]}"


@dataclass(frozen=True)
class Evidence:
    """A run's files, read once.

    Attributes:
        ledgers: every client's.
        results: None where there are none that can be read.
        facts: the journal's, None likewise.
        log: events of ``metrics.jsonl``.
        unreadable: lines of it that are none.
    """

    world: World
    ledgers: tuple[ClientLedger, ...]
    results: Results | None
    facts: RunFacts | None
    log: tuple[dict[str, Any], ...]
    unreadable: int

    @cached_property
    def promise(self) -> Promise:
        """As the run's configuration gives it, calculated again."""
        config = self.world.config
        return promise_of(config, self.world.noise, seeded=config.run.seed >= 0)

    @property
    def run(self) -> str | None:
        """The run's id in ledgers: the journal's, or the only one that there is."""
        if self.facts is not None:
            return self.facts.run
        found = {run for ledger in self.ledgers for run in ledger.runs}
        return found.pop() if len(found) == 1 else None


def gather(world: World) -> Evidence:
    """Read what there is; what cannot be read is missing, and found so."""
    try:
        results = read_results(world.run / RESULTS)
    except ConfigError:
        results = None
    try:
        facts = read_facts(world.run)
    except DataFormatError:
        facts = None
    log, unreadable = _log(world)
    return Evidence(world, read_ledgers(world), results, facts, log, unreadable)


def _log(world: World) -> tuple[tuple[dict[str, Any], ...], int]:
    path = world.run / METRICS
    lines = path.read_bytes().splitlines() if path.is_file() else []
    events: list[dict[str, Any]] = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            events.append(event)
    return tuple(events), len(lines) - len(events)


def check(
    name: str,
    assumption: str,
    source: str,
    finding: Said,
    detail: str,
    *,
    refutes: bool = False,
    numbers: tuple[str, float | None, float | None] = ("", None, None),
) -> CheckRecord:
    """A check as stored.

    Args:
        numbers: what they are, the one expected, and the one found.
    """
    return CheckRecord(
        check=name,
        assumption=assumption,
        source=source,
        finding=finding,
        measure=numbers[0],
        expected=numbers[1],
        measured=numbers[2],
        low=None,
        high=None,
        detail=detail,
        refutes=refutes,
    )


def said(*, holds: bool) -> Said:
    """The finding of a yes or no."""
    return "holds" if holds else "deviates"
