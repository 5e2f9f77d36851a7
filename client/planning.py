"""What a budget still buys: rounds at a noise, or the noise for so many rounds.

Client only: it starts from what this client's ledger holds. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from client.budget import exceeds
from client.settings import Budget
from common.accounting import DpEvent, calibrate, epsilon, merged
from common.errors import BudgetExhausted

#: More rounds than this are as good as without end.
MOST_ROUNDS = 1_000_000


@dataclass(frozen=True)
class Plan:
    """Further rounds of one mechanism on top of what was spent.

    Attributes:
        rounds: how many fit, or were asked for.
        epsilon_after: of everything together after them, at the budget's δ.
    """

    rounds: int
    noise_multiplier: float
    sample_rate: float
    steps: int
    epsilon_after: float


def rounds_left(spent: Sequence[DpEvent], one: DpEvent, budget: Budget) -> Plan:
    """How many more rounds of ``one`` the budget allows; 0 is an answer.

    Args:
        one: what a round does.
    """

    def fits(rounds: int) -> bool:
        events = [*spent, _times(one, rounds)] if rounds else list(spent)
        return not exceeds(events, budget.target_epsilon, budget.delta)

    high = 1
    while high < MOST_ROUNDS and fits(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return _plan(spent, one, low, budget)


def noise_for(
    spent: Sequence[DpEvent], one: DpEvent, rounds: int, budget: Budget
) -> Plan:
    """The least noise at which ``rounds`` more rounds of ``one`` fit.

    Args:
        one: what a round does; its own noise does not matter.
        rounds: at least 1.

    Raises:
        BudgetExhausted: if nothing is left to buy them with.
    """
    if spent and exceeds(spent, budget.target_epsilon, budget.delta):
        raise BudgetExhausted(
            f"The budget of ε = {budget.target_epsilon:g} at δ = {budget.delta:g} is "
            "spent; no noise buys another round."
        )
    noise = calibrate(
        budget.target_epsilon,
        budget.delta,
        one.sample_rate,
        rounds * one.steps,
        tuple(merged(spent)),
    )
    found = DpEvent(noise, one.sample_rate, one.steps, unit=one.unit)
    return _plan(spent, found, rounds, budget)


def _times(one: DpEvent, rounds: int) -> DpEvent:
    return DpEvent(
        one.noise_multiplier, one.sample_rate, one.steps * rounds, unit=one.unit
    )


def _plan(spent: Sequence[DpEvent], one: DpEvent, rounds: int, budget: Budget) -> Plan:
    events = [*spent, _times(one, rounds)] if rounds else list(spent)
    return Plan(
        rounds,
        one.noise_multiplier,
        one.sample_rate,
        one.steps,
        epsilon(events, budget.delta),
    )
