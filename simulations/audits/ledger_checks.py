"""Clients' ledgers against what the promise assumes of them.

Simulations only: it sees every client's. A ledger is what a client's device wrote
before it answered; the plan is what the server announced.
"""

from __future__ import annotations

from collections.abc import Callable

from common.accounting import epsilon
from common.events import merged
from common.folders import LEDGER
from simulations.audits.evidence import Evidence, Said, check, said
from simulations.audits.findings import CheckRecord, finite
from simulations.audits.spending import VERIFIED, ClientLedger

#: Relative difference of ε that was calculated twice.
_SAME = 1e-6


def _verified(seen: Evidence) -> CheckRecord:
    wrong = [each for each in seen.ledgers if each.state != VERIFIED]
    vouched = sum(each.notes > 0 for each in seen.ledgers)
    states = ", ".join(sorted({each.state for each in wrong}))
    detail = (
        "Every chain is whole and as long as its witness saw it."
        if not wrong
        else f"{len(wrong)} of {len(seen.ledgers)} are not as they were left: {states}."
    )
    if vouched:
        detail += f" {vouched} hold a note that their owner vouched for by hand."
    return check(
        "ledgers",
        "No client's ledger was edited, rolled back or lost.",
        f"{LEDGER}, witnesses",
        said(holds=not wrong and not vouched),
        detail,
        numbers=("ledgers that are not verified", 0, len(wrong)),
    )


def _as_planned(seen: Evidence) -> CheckRecord:
    planned, delta = merged(seen.world.events), seen.world.config.privacy.delta
    known = _known(seen)
    other = [each for each in known if set(each.events(seen.run)) != set(planned)]
    most = max((epsilon(each.events(seen.run), delta) for each in known), default=0.0)
    plan = epsilon(planned, delta)
    over = most > plan * (1 + _SAME)
    finding: Said = said(holds=not other) if known else "unknown"
    return check(
        "charges",
        "Each client was charged for what the run planned, neither more nor less.",
        LEDGER,
        finding,
        _charges(len(other), len(known), over=over),
        refutes=over,
        numbers=("most ε of a client in this run", finite(plan), finite(most)),
    )


def _charges(other: int, known: int, *, over: bool) -> str:
    if not known:
        return "No ledger could be verified."
    if not other:
        return f"All {known} verified ledgers hold exactly the planned events."
    text = f"{other} of {known} verified ledgers hold other events than planned; "
    if over:
        return text + "at least one client spent more than is promised."
    return text + "none of them spent more, as where a client missed a round."


def _several_runs(seen: Evidence) -> CheckRecord:
    known, delta = _known(seen), seen.world.config.privacy.delta
    several = [each for each in known if len(each.runs) > 1]
    most = max((epsilon(each.events(), delta) for each in known), default=0.0)
    plan = epsilon(merged(seen.world.events), delta)
    return check(
        "other-runs",
        "A client's rows were in this run alone; other runs' ε adds to it.",
        LEDGER,
        said(holds=not several) if known else "unknown",
        f"{len(several)} of {len(known)} clients took part in more than one run."
        + (" What they released in all costs more than this run's promise."
           if most > plan * (1 + _SAME) else ""),
        numbers=("most ε of a client in all runs", finite(plan), finite(most)),
    )  # fmt: skip


def _budgets(seen: Evidence) -> CheckRecord:
    beyond = 0
    known = [each for each in _known(seen) if each.settings is not None]
    for each in known:
        budget = each.settings.budget.get(each.unit) if each.settings else None
        noisy = [event for event in each.events() if event.noise_multiplier]
        spent = 0.0 if budget is None else epsilon(noisy, budget.delta)
        beyond += budget is None or spent > budget.target_epsilon * (1 + _SAME)
    return check(
        "budgets",
        "No client spent more than its owner allowed.",
        f"{LEDGER}, settings",
        said(holds=not beyond) if known else "unknown",
        f"{beyond} of {len(known)} clients are beyond their lifetime budget."
        if beyond
        else f"All {len(known)} are within their lifetime budgets, or consented to "
        "releases without noise.",
        numbers=("clients beyond their budget", 0, beyond if known else None),
    )


def _known(seen: Evidence) -> list[ClientLedger]:
    return [each for each in seen.ledgers if each.state == VERIFIED]


#: Name → check of clients' ledgers.
LEDGER_CHECKS: dict[str, Callable[[Evidence], CheckRecord]] = {
    "ledgers": _verified,
    "charges": _as_planned,
    "other-runs": _several_runs,
    "budgets": _budgets,
}
