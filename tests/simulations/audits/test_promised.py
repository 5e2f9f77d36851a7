"""What a promise allows: ε by a second accountant, and the ROC curve of Gaussians."""

import numpy as np
import pytest
from scipy.stats import norm

from common.accounting import epsilon
from common.events import DpEvent
from simulations.audits.promised import Allowed, epsilons

RATES = np.array([1e-3, 1e-2, 0.1, 0.5, 0.9])


@pytest.mark.parametrize(
    "events",
    [
        (DpEvent(1.0, 1.0, 1),),
        (DpEvent(2.0, 0.5, 10),),
        (DpEvent(3.0, 1.0, 1), DpEvent(2.0, 0.3, 5)),
    ],
)
def test_the_two_accountants_agree(events):
    assert Allowed(events).epsilon(1e-5) == pytest.approx(
        epsilon(events, 1e-5), rel=2e-3
    )


def test_the_curve_of_a_gaussian_is_the_known_one():
    sigma = 1.25
    found = Allowed((DpEvent(sigma, 1.0, 1),)).true_positive_rate(RATES)
    exact = norm.cdf(norm.ppf(RATES) + 1 / sigma)
    # An upper bound, and a tight one.
    assert (found >= exact - 1e-9).all()
    assert found == pytest.approx(exact, abs=0.01)


def test_composition_allows_more():
    once = Allowed((DpEvent(2.0, 1.0, 1),)).true_positive_rate(RATES)
    often = Allowed((DpEvent(2.0, 1.0, 9),)).true_positive_rate(RATES)
    assert (often > once).all()


def test_without_noise_all_is_allowed():
    bare = Allowed((DpEvent(1.0, 1.0, 1), DpEvent(0.0, 0.5, 1)))
    assert bare.true_positive_rate(RATES).tolist() == [1.0] * 5
    assert bare.epsilon(1e-5) == bare.replacing(1e-5) == np.inf
    assert bare.delta(3.0) == 1.0


def test_replacing_costs_more_than_twice_and_covers_the_exact_gaussian():
    # A replacement moves a sum by up to 2: a Gaussian of half the noise.
    events, halved = (DpEvent(4.0, 1.0, 1),), (DpEvent(2.0, 1.0, 1),)
    found = Allowed(events).replacing(1e-5)
    assert found > 2 * Allowed(events).epsilon(1e-5)
    assert found >= epsilon(halved, 1e-5)


def test_a_smaller_delta_is_a_larger_epsilon():
    found = epsilons(Allowed((DpEvent(2.0, 1.0, 1),)), (1e-4, 1e-5, 1e-6))
    assert list(found.values()) == sorted(found.values())
