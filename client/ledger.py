"""What this client has spent: charged before training, never refunded.

Client only: the record of what *this* device did is private state. Events are kept,
not ε, since ε depends on the accountant. They live in Flower's ``Context.state``,
which lasts one run on one running node; a ledger that outlives runs and restarts
belongs on the client's disk and replaces this store behind the same functions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from flwr.app import ConfigRecord, Context

from client.settings import ClientSettings
from common.accounting import LEAST_NOISE, DpEvent, epsilon
from common.errors import BudgetExhausted, ProtocolError

LEDGER = "ledger"


def spent(context: Context) -> list[tuple[int, DpEvent]]:
    """Pairs (round, event) charged so far in this run, oldest first."""
    record = context.state.config_records.get(LEDGER)
    if record is None:
        return []
    event = DpEvent(
        cast(float, record["noise_multiplier"]), cast(float, record["sample_rate"]), 0
    )
    rounds, steps = cast(list[int], record["rounds"]), cast(list[int], record["steps"])
    return [
        (number, replace(event, steps=count))
        for number, count in zip(rounds, steps, strict=True)
    ]


def charge(
    context: Context,
    number: int,
    event: DpEvent,
    planned: DpEvent,
    settings: ClientSettings,
) -> None:
    """Charge round ``number``, or refuse before a private row is looked at.

    A run is refused at its first round if all of it would exceed the budget, so a
    client never spends on a run it could not finish.

    Args:
        event: what this round is about to do.
        planned: the same mechanism over the whole run.

    Raises:
        BudgetExhausted: if the plan exceeds the client's ε, has no noise without
            the client's consent, changed during the run, or is used up.
        ProtocolError: if this round, or a later one, was charged before: a message
            delivered twice is never trained twice.
    """
    entries = spent(context)
    if entries and number <= entries[-1][0]:
        raise ProtocolError("Expected a round after those already charged.")
    if planned.noise_multiplier == 0 and not settings.allow_non_private:
        raise BudgetExhausted("This client does not train without noise.")
    steps = [entry.steps for _, entry in entries] + [event.steps]
    if sum(steps) > planned.steps or any(
        replace(entry, steps=0) != replace(planned, steps=0) for _, entry in entries
    ):
        raise BudgetExhausted("The run goes beyond what it declared.")
    if planned.noise_multiplier > 0 and _exceeds(planned, settings):
        raise BudgetExhausted("The run would exceed the client's budget.")
    context.state[LEDGER] = ConfigRecord(
        {
            "rounds": [earlier for earlier, _ in entries] + [number],
            "steps": steps,
            "noise_multiplier": event.noise_multiplier,
            "sample_rate": event.sample_rate,
        }
    )


def _exceeds(planned: DpEvent, settings: ClientSettings) -> bool:
    """Whether the plan costs more than the client allows.

    An ε at next to no noise takes minutes and gigabytes. More noise never costs
    more, so that a plan too dear at ``LEAST_NOISE`` is refused without it.
    """
    noise = max(planned.noise_multiplier, LEAST_NOISE)
    return any(
        epsilon([event], settings.delta) > settings.max_epsilon
        for event in (replace(planned, noise_multiplier=noise), planned)
    )
