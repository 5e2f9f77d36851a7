"""What a budget still buys: rounds at a noise, or the noise for so many rounds.

Client only: it starts from what this client's ledger holds. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from client.budget import exceeds
from client.settings import Budget
from common.accounting import calibrate, epsilon, epsilon_bound
from common.config import MOST_STEPS
from common.errors import BudgetExhausted
from common.events import DpEvent, Mechanism, merged


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
    mechanism: Mechanism = "gaussian"


def rounds_left(spent: Sequence[DpEvent], one: DpEvent, budget: Budget) -> Plan:
    """How many more rounds of ``one`` the budget allows; 0 is an answer.

    Args:
        one: what a round does.
    """

    def fits(rounds: int) -> bool:
        return not exceeds(_after(spent, one, rounds), target, delta)

    def fits_surely(rounds: int) -> bool:
        return epsilon_bound(_after(spent, one, rounds), delta) <= target

    target, delta = budget.target_epsilon, budget.delta
    if any(event.noise_multiplier == 0 for event in (*spent, one)):
        return _plan(spent, one, 0, budget)
    # The quick bound never promises too much, and rarely too little.
    most = MOST_STEPS // one.steps
    low = _most(fits, _most(fits_surely, 0, most), most)
    return _plan(spent, one, low, budget)


def _most(fits: Callable[[int], bool], low: int, most: int) -> int:
    """The most rounds that fit, up to ``most``; ``low`` is known to, or is 0."""
    step = 1
    while low + step <= most and fits(low + step):
        low, step = low + step, 2 * step
    high = min(low + step, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


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
        one,
    )
    return _plan(spent, replace(one, noise_multiplier=noise), rounds, budget)


def _after(spent: Sequence[DpEvent], one: DpEvent, rounds: int) -> list[DpEvent]:
    more = replace(one, steps=one.steps * rounds)
    return [*spent, more] if rounds else list(spent)


def _plan(spent: Sequence[DpEvent], one: DpEvent, rounds: int, budget: Budget) -> Plan:
    return Plan(
        rounds,
        one.noise_multiplier,
        one.sample_rate,
        one.steps,
        epsilon(_after(spent, one, rounds), budget.delta),
        one.mechanism,
    )
