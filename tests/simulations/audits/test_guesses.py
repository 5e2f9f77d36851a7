"""Numbers of guesses: fixed beforehand, false alarms as rare as said, and with power.

The level of scores alone: no run, so that hundreds of draws are cheap.
"""

import numpy as np
import pytest

from simulations.audits.bounds import gdp_epsilon, gdp_mu_of, one_run_epsilon
from simulations.audits.guesses import (
    Guesses,
    candidates,
    chosen_afterwards,
    num_right,
    plan_guesses,
)
from simulations.audits.one_run import bound, estimate, gaussian

DELTA, CLAIM = 1e-5, 3.0


def drawn(size, mu, rng):
    """Scores of a Gaussian mechanism with canaries ``mu`` deviations apart."""
    included = rng.random(size) < 0.5
    return rng.normal(size=size) + mu * included, included


def test_right_guesses_are_counted_at_both_ends():
    scores = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    included = np.array([True, False, True, False, True])
    assert num_right(scores, included, Guesses(2, 2)) == 2
    assert num_right(scores, included, Guesses(1, 0)) == 1
    assert num_right(scores, included, Guesses(0, 0)) == 0


def test_a_plan_is_made_of_public_numbers_and_repeats():
    assert plan_guesses(500, 1.0, DELTA, 0.95) == plan_guesses(500, 1.0, DELTA, 0.95)
    plan = plan_guesses(500, 1.0, DELTA, 0.95)
    assert plan.guesses in candidates(500)
    assert 0 < plan.as_claimed < gdp_epsilon(1.0, DELTA)
    assert plan.half_noise > plan.as_claimed
    # What separates perfectly is guessed nearly whole; the weak at its ends alone.
    assert plan_guesses(500, 1e9, DELTA, 0.95).guesses.total > 400 > plan.guesses.total


@pytest.mark.parametrize("size", [2, 3, 10])
def test_few_canaries_have_plans_too(size):
    plan = plan_guesses(size, 2.0, DELTA, 0.95)
    assert 2 <= plan.guesses.total <= size and plan.as_claimed >= 0


def test_false_alarms_without_any_leak_are_as_rare_as_said():
    rng = np.random.default_rng(0)
    found = [
        bound(*drawn(300, 0.0, rng), CLAIM, delta=DELTA, confidence=0.95)
        for _ in range(300)
    ]
    alarms = sum(each.epsilon_lower > 0 for each in found)
    assert alarms / 300 <= 0.05 + 2 * 0.0126


def test_a_choice_afterwards_is_paid_for():
    rng = np.random.default_rng(5)
    paid, unpaid = 0, 0
    choices = candidates(300)
    for _ in range(300):
        scores, included = drawn(300, 0.0, rng)
        paid += chosen_afterwards(scores, included, choices, DELTA, 0.95)[1] > 0
        unpaid += any(
            one_run_epsilon(
                300, each.total, num_right(scores, included, each), DELTA, 0.95
            )
            for each in choices
        )
    assert paid / 300 <= 0.05 + 2 * 0.0126
    # Uncorrected it would be far beyond: the correction is not for show.
    assert unpaid / 300 > 0.1


def test_a_mechanism_that_keeps_its_promise_is_not_refuted():
    rng = np.random.default_rng(7)
    mu = gdp_mu_of(CLAIM, DELTA)
    found = [
        bound(*drawn(1000, mu, rng), CLAIM, delta=DELTA, confidence=0.95)
        for _ in range(60)
    ]
    assert not any(each.exceeds for each in found)
    assert np.median([each.epsilon_lower for each in found]) > 0.5


def test_halved_noise_is_caught_with_canaries_enough():
    """Half the noise is twice μ: 32,000 canaries see it in 9 of 10 runs at ε = 1."""
    rng = np.random.default_rng(11)
    mu = 2 * gdp_mu_of(1.0, DELTA)
    found = [
        bound(*drawn(32_000, mu, rng), 1.0, delta=DELTA, confidence=0.95)
        for _ in range(20)
    ]
    assert np.mean([each.exceeds for each in found]) >= 0.9
    assert found[0].epsilon_half_noise > 1.0 > found[0].epsilon_power


@pytest.mark.parametrize("claim", [1.0, 3.0, 8.0])
def test_a_gaussian_assumption_sees_halved_noise_with_far_fewer(claim):
    rng = np.random.default_rng(13)
    mu = gdp_mu_of(claim, DELTA)

    def share_beyond(actual):
        found = [gaussian(*centred(1000, actual, rng), DELTA, 0.95) for _ in range(60)]
        return np.mean([each > claim for each in found])

    assert share_beyond(2 * mu) >= (0.9 if claim > 1 else 0.7)
    assert share_beyond(mu) <= 0.05


def centred(size, mu, rng):
    """As a likelihood ratio: as far above 0 with a canary as below it without."""
    scores, included = drawn(size, mu, rng)
    return scores - mu / 2, included


def test_a_joint_bound_is_weaker_and_says_so():
    scores, included = drawn(1000, 2.0, np.random.default_rng(2))
    one = bound(scores, included, CLAIM, delta=DELTA, confidence=0.95)
    many = bound(scores, included, CLAIM, delta=DELTA, confidence=0.95, num_bounds=20)
    assert one.epsilon_lower == one.epsilon_lower_joint
    assert many.epsilon_lower > many.epsilon_lower_joint
    assert many.joint_confidence == pytest.approx(0.9975)
    assert many.epsilon_ceiling >= many.epsilon_lower_joint


def test_nothing_claimed_is_never_exceeded_but_is_proved_large():
    scores, included = drawn(1000, 50.0, np.random.default_rng(2))
    found = bound(scores, included, np.inf, delta=DELTA, confidence=0.95)
    assert not found.exceeds
    assert found.epsilon_lower > 4


def test_the_estimate_is_near_the_mechanism_and_no_bound():
    scores, included = drawn(20_000, 1.2, np.random.default_rng(4))
    expected = gdp_epsilon(1.2, DELTA)
    assert estimate(scores, included, DELTA) == pytest.approx(expected, rel=0.05)
    assert estimate(-scores, included, DELTA) == 0.0
    assert estimate(scores[:1], included[:1], DELTA) == 0.0
    assert estimate(included.astype(float), included, DELTA) == np.inf
