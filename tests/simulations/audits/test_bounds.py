"""Lower bounds: published vectors, exact small cases, and what they must never do."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from common.errors import ConfigError
from simulations.audits.bounds import (
    clopper_pearson,
    gdp_delta,
    gdp_epsilon,
    gdp_epsilon_lower,
    gdp_mu,
    gdp_mu_of,
    one_run_epsilon,
    one_run_p_value,
)

DELTA = 1e-5


@pytest.mark.parametrize(
    ("canaries", "guesses", "right", "epsilon"),
    [
        (1000, 100, 95, 2.165),
        (1000, 100, 100, 3.465),
        (5000, 1500, 1500, 6.08),
        (100_000, 1500, 1500, 3.91),
    ],
)
def test_published_vectors(canaries, guesses, right, epsilon):
    found = one_run_epsilon(canaries, guesses, right, DELTA, 0.95)
    assert found == pytest.approx(epsilon, abs=0.005)


def test_without_delta_it_is_the_binomial_test():
    # All of 10 right: p = q^10, so q = 0.05^(1/10) and ε = log(q / (1 − q)).
    rate = 0.05**0.1
    expected = math.log(rate / (1 - rate))
    assert one_run_epsilon(10, 10, 10, 0.0, 0.95) == pytest.approx(expected)


def test_the_p_value_worked_by_hand():
    # m = r = 2, v = 1, ε = 0, q = ½: P[Bin ≥ 1] = ¾; α = P[Bin = 0] / 1 = ¼.
    assert one_run_p_value(2, 2, 1, 0.0, 0.1) == pytest.approx(0.75 + 2 * 2 * 0.1 / 4)


def test_guessing_by_coin_proves_nothing_and_neither_does_silence():
    assert one_run_epsilon(1000, 100, 50, DELTA, 0.95) == 0.0
    assert one_run_epsilon(1000, 0, 0, DELTA, 0.95) == 0.0


def test_more_right_more_proved_and_more_confidence_less():
    bounds = [one_run_epsilon(500, 100, right, DELTA, 0.95) for right in range(50, 101)]
    assert bounds == sorted(bounds)
    strict = [one_run_epsilon(500, 100, right, DELTA, 0.99) for right in range(50, 101)]
    assert all(a <= b for a, b in zip(strict, bounds, strict=True))


@pytest.mark.parametrize("counts", [(10, 11, 5), (10, 5, 6), (10, 5, -1)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ConfigError, match="right guesses"):
        one_run_epsilon(*counts, DELTA, 0.95)


def test_it_holds_for_randomised_response_at_its_own_epsilon():
    # ε-DP exactly: each bit told right with probability q. At most 5 % beyond ε.
    epsilon, size, rng = 1.0, 400, np.random.default_rng(1)
    right = rng.binomial(size, 1 / (1 + math.exp(-epsilon)), size=2000)
    counts, times = np.unique(right, return_counts=True)
    beyond = [one_run_epsilon(size, size, int(v), 0.0, 0.95) > epsilon for v in counts]
    assert times[beyond].sum() / 2000 <= 0.06
    # And with power: typically over three quarters of it is proved.
    typical = one_run_epsilon(size, size, int(np.median(right)), 0.0, 0.95)
    assert typical > 0.75 * epsilon


def test_clopper_pearson_is_the_exact_interval():
    low, high = clopper_pearson(3, 20, 0.95)
    # At its ends the observation is as unlikely as 2.5 %.
    assert binom.sf(2, 20, low) == pytest.approx(0.025)
    assert binom.cdf(3, 20, high) == pytest.approx(0.025)
    assert clopper_pearson(0, 10, 0.95)[0] == 0.0
    assert clopper_pearson(10, 10, 0.95)[1] == 1.0
    assert clopper_pearson(0, 0, 0.95) == (0.0, 1.0)
    with pytest.raises(ConfigError, match="successes"):
        clopper_pearson(5, 4, 0.95)


def test_gaussian_privacy_of_known_values():
    # Dong, Roth, Su: ε = 0 leaves the total variation, 2Φ(μ/2) − 1.
    assert gdp_delta(0.0, 1.0) == pytest.approx(2 * norm.cdf(0.5) - 1)
    assert gdp_epsilon(1.0, DELTA) == pytest.approx(4.377, abs=0.001)
    assert gdp_mu_of(gdp_epsilon(1.3, DELTA), DELTA) == pytest.approx(1.3)
    assert gdp_epsilon(0.0, DELTA) == 0.0
    assert gdp_epsilon(math.inf, DELTA) == math.inf == gdp_mu_of(math.inf, DELTA)


def test_mu_of_the_optimal_test_is_that_of_the_mechanism():
    mu, threshold = 1.7, 0.4
    assert gdp_mu(norm.sf(threshold), norm.cdf(threshold - mu)) == pytest.approx(mu)
    assert gdp_mu(0.5, 0.9) == 0.0


def test_bound_of_independent_trials_is_below_the_mechanism_and_near_it():
    mu, trials, rng = 1.0, 20_000, np.random.default_rng(3)
    outside, inside = rng.normal(size=trials), rng.normal(mu, size=trials)
    false_positives = int((outside > 1.5).sum())
    false_negatives = int((inside <= 1.5).sum())
    found = gdp_epsilon_lower(
        false_positives, trials, false_negatives, trials, DELTA, 0.95
    )
    claimed = gdp_epsilon(mu, DELTA)
    assert 0.85 * claimed < found < claimed
    assert gdp_epsilon_lower(5, 5, 0, 5, DELTA, 0.95) == 0.0
