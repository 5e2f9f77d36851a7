"""What a budget still buys, against the budget itself."""

from dataclasses import replace

import pytest

from client.planning import noise_for, rounds_left
from client.settings import Budget
from common.accounting import epsilon
from common.errors import BudgetExhausted
from common.events import DpEvent

ONE = DpEvent(3.0, 0.5, 2)
BEFORE = (DpEvent(2.0, 0.5, 4),)
BUDGET = Budget(**{"target-epsilon": 4.0})


@pytest.mark.parametrize("spent", [(), BEFORE])
def test_one_round_more_than_planned_would_not_fit(spent) -> None:
    plan = rounds_left(spent, ONE, BUDGET)
    assert plan.rounds > 1
    fits = [*spent, replace(ONE, steps=2 * plan.rounds)]
    beyond = [*spent, replace(ONE, steps=2 * plan.rounds + 2)]
    assert epsilon(fits, 1e-5) <= 4.0 < epsilon(beyond, 1e-5)
    assert plan.epsilon_after == epsilon(fits, 1e-5)
    assert (plan.noise_multiplier, plan.sample_rate, plan.steps) == (3.0, 0.5, 2)


def test_what_was_spent_buys_fewer_rounds() -> None:
    assert rounds_left(BEFORE, ONE, BUDGET).rounds < rounds_left((), ONE, BUDGET).rounds


def test_nothing_left_buys_no_round() -> None:
    spent = (DpEvent(1.0, 0.5, 50),)
    plan = rounds_left(spent, ONE, BUDGET)
    assert plan.rounds == 0
    assert plan.epsilon_after == epsilon(spent, 1e-5)
    with pytest.raises(BudgetExhausted, match="is spent"):
        noise_for(spent, ONE, 3, BUDGET)


def test_a_budget_without_privacy_buys_nothing() -> None:
    assert rounds_left((DpEvent(0.0, 0.5, 1),), ONE, BUDGET).rounds == 0


@pytest.mark.parametrize("spent", [(), BEFORE])
def test_the_noise_for_so_many_rounds_is_the_least(spent) -> None:
    plan = noise_for(spent, ONE, 5, BUDGET)
    bought = DpEvent(plan.noise_multiplier, 0.5, 10)
    assert epsilon([*spent, bought], 1e-5) <= 4.0
    less = replace(bought, noise_multiplier=plan.noise_multiplier - 1e-3)
    assert epsilon([*spent, less], 1e-5) > 4.0
    assert plan.epsilon_after == pytest.approx(4.0, abs=1e-2)
    assert plan.rounds == 5


def test_the_two_questions_answer_each_other() -> None:
    plan = noise_for(BEFORE, ONE, 7, BUDGET)
    again = rounds_left(
        BEFORE, replace(ONE, noise_multiplier=plan.noise_multiplier), BUDGET
    )
    assert again.rounds == 7


SUM = DpEvent(1.5, 0.1, 1, "skellam", l2_sensitivity=4e3, l1_sensitivity=4e6)


def test_secure_sums_are_planned_as_such() -> None:
    plan = rounds_left(BEFORE, SUM, BUDGET)
    assert plan.rounds > 1
    fits, beyond = (
        [*BEFORE, replace(SUM, steps=plan.rounds + more)] for more in (0, 1)
    )
    assert epsilon(fits, 1e-5) <= 4.0 < epsilon(beyond, 1e-5)
    noise = noise_for(BEFORE, SUM, plan.rounds, BUDGET).noise_multiplier
    assert noise <= SUM.noise_multiplier
    assert (plan.mechanism, plan.epsilon_after) == ("skellam", epsilon(fits, 1e-5))
