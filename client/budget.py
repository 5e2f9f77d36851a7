"""Whether a charge fits: the client's consent, floor and lifetime budgets.

Client only: settings and the record of what was spent are the client's. Pure
functions of ledger entries and public constants; no private row is in sight. Budgets
of different privacy units are different columns and never added: a release is counted
in its own unit, and refused if the client has no budget for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from client.chain import Charge, LedgerEntry
from client.settings import ANY, Budget, ClientSettings
from common.accounting import LEAST_NOISE, epsilon, epsilon_bound, epsilon_rdp
from common.errors import BudgetExhausted, NoConsent
from common.events import DpEvent, Unit, merged
from common.wire import EVALUATE, SKETCH, STATISTICS

HOPELESS = 4

#: Sums that a run may ask for once. A plan merges equal events: where both cost the
#: same, it would have room for one of them twice.
ONCE = (STATISTICS, SKETCH)


def check_consent(settings: ClientSettings, name: str, server: str) -> None:
    """Whether this client's owner named the run, or the key of its server.

    Args:
        name: the run's name.
        server: the public key that signed the message, checked; "" without one.

    Raises:
        NoConsent: if neither.
    """
    by_name = ANY in settings.runs or name in settings.runs
    by_key = server != "" and server in {key.lower() for key in settings.servers}
    if not by_name and not by_key:
        raise NoConsent(
            "Neither the run's name is in the settings' runs nor its server's key "
            "in their servers; add one of them to take part."
        )


def check_charge(
    charge: Charge, entries: Sequence[LedgerEntry], settings: ClientSettings
) -> None:
    """Whether the charge may be made; refused before a private row is looked at.

    A run is refused at its first charge if all of it would not fit, so that a client
    never spends on a run it could not finish; later charges of it are refused if what
    others spent meanwhile leaves no room.

    Raises:
        BudgetExhausted: saying which limit it would break.
    """
    budget = settings.budget.get(charge.event.unit)
    if budget is None:
        raise BudgetExhausted(f"This client has no budget per {charge.event.unit}.")
    charges = [entry.charge for entry in entries if entry.charge is not None]
    earlier = [each for each in charges if each.run == charge.run]
    _check_plan(charge, earlier)
    others = _events([c for c in charges if c.run != charge.run], charge.event.unit)
    _check_noise(charge, settings)
    _check_metrics(charge, charges, budget)
    plan = [each for each in charge.plan if each.unit == charge.event.unit]
    # The whole plan costs at least what was done of it, and is the same each round.
    if not _beyond([*others, *plan], charge, budget):
        return
    wanted = [*_events(earlier, charge.event.unit), charge.event]
    if not earlier or _beyond([*others, *wanted], charge, budget):
        raise BudgetExhausted(
            f"The {'round' if earlier else 'run'} would exceed the client's budget "
            f"per {charge.event.unit}."
        )


def _beyond(events: Sequence[DpEvent], charge: Charge, budget: Budget) -> bool:
    """Whether the budget forbids it; without noise only the consent to that counts."""
    if charge.event.noise_multiplier == 0:
        return False
    return exceeds(events, budget.target_epsilon, budget.delta)


def spent(entries: Sequence[LedgerEntry], unit: Unit) -> tuple[DpEvent, ...]:
    """Everything charged in one unit, equal mechanisms merged."""
    return _events([e.charge for e in entries if e.charge is not None], unit)


def exceeds(events: Sequence[DpEvent], target: float, delta: float) -> bool:
    """Whether the events cost more than ``target`` at ``delta``.

    A loss distribution far beyond the target takes minutes and gigabytes, and a
    server may ask for it. So what Rényi divergences put beyond ``HOPELESS`` times the
    target (plus as much) is refused by them; they are loose, never so loose there.
    """
    noisy = [
        replace(event, noise_multiplier=max(event.noise_multiplier, LEAST_NOISE))
        for event in events
        if event.noise_multiplier
    ]
    if len(noisy) < len(events):
        return True
    if epsilon_rdp(noisy, delta) > HOPELESS * (target + 1):
        return True
    if noisy != list(events) and epsilon(noisy, delta) > target:
        return True
    return epsilon_bound(events, delta) > target and epsilon(events, delta) > target


def _events(charges: Sequence[Charge], unit: Unit) -> tuple[DpEvent, ...]:
    return merged([each.event for each in charges if each.event.unit == unit])


def _check_plan(charge: Charge, earlier: Sequence[Charge]) -> None:
    """Every charge of a run keeps to what the run declared at its first."""
    if charge.purpose in ONCE and any(e.purpose == charge.purpose for e in earlier):
        raise BudgetExhausted("The run asked for this sum before.")
    # The same nonce is answered from what was kept, and comes not here.
    if any((e.number, e.purpose) == (charge.number, charge.purpose) for e in earlier):
        raise BudgetExhausted("The run asked for this round before, and paid for it.")
    declared = earlier[0].plan if earlier else charge.plan
    done = merged([*(each.event for each in earlier), charge.event])
    allowed = {replace(event, steps=0): event.steps for event in merged(declared)}
    if charge.plan != declared or any(
        event.steps > allowed.get(replace(event, steps=0), 0) for event in done
    ):
        raise BudgetExhausted("The run goes beyond what it declared.")


def _check_noise(charge: Charge, settings: ClientSettings) -> None:
    for event in (charge.event, *charge.plan):
        if event.noise_multiplier == 0:
            if not settings.allow_non_private:
                raise BudgetExhausted("This client does not train without noise.")
        elif event.noise_multiplier < settings.least_noise_multiplier:
            raise BudgetExhausted("The run asks for less noise than this client has.")


def _check_metrics(charge: Charge, charges: Sequence[Charge], budget: Budget) -> None:
    """Metrics have a share of their own within the budget, none by default."""
    if charge.purpose != EVALUATE:
        return
    if budget.metrics_epsilon == 0:
        raise BudgetExhausted("This client releases no metrics.")
    metrics = [each for each in charges if each.purpose == EVALUATE]
    events = [*_events(metrics, charge.event.unit), charge.event]
    if charge.event.noise_multiplier and exceeds(
        events, budget.metrics_epsilon, budget.delta
    ):
        raise BudgetExhausted("Metrics would exceed their share of the budget.")
