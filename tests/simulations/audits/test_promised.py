"""What a promise allows: ε by a second accountant, and the ROC curve of Gaussians."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, skellam

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


def test_where_group_privacy_says_nothing_more_nothing_is_promised():
    """ε near 14: the δ′ that would be needed is below what the accountant resolves."""
    little = Allowed((DpEvent(0.4, 1.0, 1),))
    assert 10 < little.epsilon(1e-5) < 20
    assert little.replacing(1e-5) == math.inf


#: One coordinate, a unit that adds up to 3: what can be summed up term by term.
INTEGER = DpEvent(4.0, 1.0, 1, "skellam", l2_sensitivity=3.0, l1_sensitivity=3.0)


def masses(shift, reach=400):
    variance = (INTEGER.noise_multiplier * INTEGER.l2_sensitivity) ** 2
    places = np.arange(-reach, reach + 1) - shift
    return skellam.pmf(places, variance / 2, variance / 2)


def mixed(rate):
    return (1 - rate) * masses(0) + rate * masses(3)


@pytest.mark.parametrize("rate", [1.0, 0.3])
@pytest.mark.parametrize("steps", [1, 20])
def test_of_integer_noise_what_is_promised_is_what_is_claimed(rate, steps):
    events = (replace(INTEGER, sample_rate=rate, steps=steps),)
    allowed = Allowed(events)
    assert allowed.epsilon(1e-5) == epsilon(events, 1e-5)
    # There and back: the least ε of that δ.
    assert allowed.delta(allowed.epsilon(1e-5)) == pytest.approx(1e-5, rel=1e-6)
    assert allowed.epsilon(1e-5) < allowed.replacing(1e-5) < np.inf


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_no_attack_on_integer_noise_passes_its_curve(rate):
    """The best test of all (Neyman and Pearson) on the very masses, either way."""
    events = (replace(INTEGER, sample_rate=rate),)
    for absent, present in ((masses(0), mixed(rate)), (mixed(rate), masses(0))):
        order = np.argsort(-present / np.maximum(absent, 1e-300))
        fpr, tpr = np.cumsum(absent[order]), np.cumsum(present[order])
        seen = (fpr > 1e-6) & (fpr < 1)
        most = Allowed(events).true_positive_rate(fpr[seen])
        assert (tpr[seen] <= most + 1e-12).all()
        # And not so high that nothing could ever be found above it.
        if rate == 1.0:
            assert (most - tpr[seen]).max() < 0.2


def test_integer_noise_beside_other_events_is_composed_with_them():
    beside = (DpEvent(2.0, 0.5, 10), INTEGER)
    allowed = Allowed(beside)
    assert allowed.epsilon(1e-5) == epsilon(beside, 1e-5)
    assert allowed.epsilon(1e-5) > Allowed((INTEGER,)).epsilon(1e-5)
    assert Allowed((replace(INTEGER, steps=0),)).epsilon(1e-5) == 0.0
    assert Allowed((replace(INTEGER, steps=0),)).delta(0.0) == 0.0
    assert Allowed((INTEGER, DpEvent(0.0, 1.0, 1))).delta(1.0) == 1.0
