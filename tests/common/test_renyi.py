"""Rényi accounting: against Skellam noise summed up term by term, and dp-accounting."""

import math
from dataclasses import replace

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ive, logsumexp

from common.events import DpEvent
from common.renyi import ORDERS, curve, divergence, epsilon_renyi

DELTA = 1e-5


def skellam(noise, rate=1.0, steps=1, *, l2=1.0, l1=None):
    return DpEvent(
        noise,
        rate,
        steps,
        "skellam",
        l2_sensitivity=l2,
        l1_sensitivity=l2 * l2 if l1 is None else l1,
    )


def log_mass(variance, shift, most):
    """log P[X + shift = k] for k from −most to most."""
    with np.errstate(divide="ignore"):
        return np.log(ive(np.abs(np.arange(-most, most + 1) - shift), variance))


def masses(event):
    """Without and with the unit, noise in one dimension, an integer shift."""
    variance = (event.noise_multiplier * event.l2_sensitivity) ** 2
    shift = round(event.l2_sensitivity)
    most = shift + math.ceil(40 * math.sqrt(variance) + 60)
    without = log_mass(variance, 0, most)
    moved = log_mass(variance, shift, most)
    rate = event.sample_rate
    if rate < 1:
        moved = np.logaddexp(math.log(rate) + moved, math.log1p(-rate) + without)
    # Where a probability is too small for a float, so is its share of any sum.
    kept = np.isfinite(without) & np.isfinite(moved)
    return without[kept], moved[kept]


def exactly(order, upper, lower):
    """The Rényi divergence, summed up."""
    return logsumexp(order * upper - (order - 1) * lower) / (order - 1)


SMALL = [(1.0, 1), (2.0, 1), (0.7, 3), (3.0, 2), (1.5, 10), (6.0, 5), (0.5, 40)]


@pytest.mark.parametrize(("noise", "shift"), SMALL)
def test_the_bound_holds_and_is_near_without_sampling(noise, shift):
    event = skellam(noise, l2=float(shift))
    event = replace(event, l1_sensitivity=float(shift))
    orders = np.array([2, 3, 4, 8, 16])
    bound = divergence(event, orders)
    found = np.array([exactly(int(a), *masses(event)[::-1]) for a in orders])
    assert (found <= bound * (1 + 1e-12)).all()
    if noise * shift > 10:
        np.testing.assert_allclose(bound[:2], found[:2], rtol=0.02)


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.9])
@pytest.mark.parametrize(("noise", "shift"), SMALL[:5])
def test_the_bound_holds_in_both_directions_with_sampling(noise, shift, rate):
    event = replace(skellam(noise, rate, l2=float(shift)), l1_sensitivity=float(shift))
    without, moved = masses(event)
    bound = dict(zip(ORDERS.tolist(), curve(event), strict=True))
    for order in (2, 3, 5, 12):
        adding = exactly(order, moved, without)
        removing = exactly(order, without, moved)
        assert removing <= adding * (1 + 1e-9)
        assert adding <= bound[order] * (1 + 1e-9)


def true_epsilon(event, delta):
    """By privacy loss distributions of the summed-up masses, losses rounded down."""
    found = []
    for lower, upper in [masses(event), masses(event)[::-1]]:
        loss = pld.from_two_probability_mass_functions(
            dict(enumerate(lower)),
            dict(enumerate(upper)),
            pessimistic_estimate=False,
            value_discretization_interval=1e-3,
        )
        found.append(loss.self_compose(event.steps).get_epsilon_for_delta(delta))
    return max(found)


@pytest.mark.parametrize(
    ("noise", "shift", "rate", "steps"),
    [
        (1.0, 3, 0.1, 20),
        (2.0, 5, 0.5, 20),
        (0.8, 4, 0.05, 50),
        (4.0, 1, 1.0, 10),
        (1.5, 8, 0.2, 30),
    ],
)
def test_epsilon_is_above_the_true_one_and_not_far(noise, shift, rate, steps):
    event = skellam(noise, rate, steps, l2=float(shift))
    event = replace(event, l1_sensitivity=float(shift))
    true = true_epsilon(event, DELTA)
    assert true <= epsilon_renyi([event], DELTA) <= 1.7 * true


@pytest.mark.parametrize(
    ("noise", "rate", "steps"),
    [(1.0, 0.1, 50), (3.32, 0.5, 100), (20.0, 1.0, 10), (30.0, 0.01, 10**5)],
)
def test_gaussians_cost_what_dp_accounting_says_at_the_same_orders(noise, rate, steps):
    accountant = RdpAccountant(orders=ORDERS[ORDERS < 1000].tolist())
    event = dp_accounting.GaussianDpEvent(noise)
    if rate < 1:
        event = dp_accounting.PoissonSampledDpEvent(rate, event)
    accountant.compose(event, steps)
    found = epsilon_renyi([DpEvent(noise, rate, steps)], DELTA)
    assert found == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-6)


@pytest.mark.parametrize(
    ("noise", "rate", "steps"), [(1.0, 0.1, 50), (0.9, 1.0, 1), (8.0, 0.5, 300)]
)
def test_a_fine_grid_costs_what_a_gaussian_does(noise, rate, steps):
    """4 steps of the grid a coordinate, in 300,000 coordinates."""
    l2 = 4.0 * math.sqrt(3e5)
    fine = skellam(noise, rate, steps, l2=l2, l1=l2 * math.sqrt(3e5))
    gaussian = epsilon_renyi([DpEvent(noise, rate, steps)], DELTA)
    assert gaussian < epsilon_renyi([fine], DELTA) < gaussian * (1 + 1e-5)


def test_a_coarse_grid_costs_more():
    coarse = [skellam(1.0, 0.1, 50, l2=l2) for l2 in (1.0, 2.0, 5.0, 50.0)]
    found = [epsilon_renyi([event], DELTA) for event in coarse]
    assert found == sorted(found, reverse=True)
    assert found[0] > 1.2 * found[-1]


def test_the_papers_formula_by_hand():
    """α = 3, Δ₂ = 2, Δ₁ = 4, μ = 16: 3·4/32 + min((5·4 + 24)/1024, 12/32)."""
    event = skellam(2.0, l2=2.0, l1=4.0)
    assert divergence(event, np.array([3]))[0] == pytest.approx(0.375 + 44 / 1024)


EVENTS = st.builds(
    skellam,
    st.floats(0.5, 20.0),
    st.sampled_from([0.01, 0.5, 1.0]),
    st.integers(0, 50),
    l2=st.sampled_from([1.0, 30.0, 4000.0]),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(EVENTS, max_size=2), EVENTS)
def test_epsilon_never_falls_when_an_event_is_added(events, more):
    before = epsilon_renyi(events, DELTA)
    assert 0 <= before <= epsilon_renyi([*events, more], DELTA)


@settings(max_examples=8, deadline=None)
@given(EVENTS, st.floats(1.0, 3.0))
def test_more_noise_and_finer_grids_never_cost_more(event, factor):
    cost = epsilon_renyi([event], DELTA)
    quieter = replace(event, noise_multiplier=event.noise_multiplier * factor)
    rarer = replace(event, sample_rate=event.sample_rate / factor)
    for better in (quieter, rarer):
        assert epsilon_renyi([better], DELTA) <= cost * (1 + 1e-9)


def test_nothing_costs_nothing():
    assert epsilon_renyi([], DELTA) == 0
    assert epsilon_renyi([skellam(1.0, 0.5, 0)], DELTA) == 0


@pytest.mark.parametrize("noise", [1e-3, 0.25, 1e8])
@pytest.mark.parametrize("rate", [1e-12, 0.5, 1.0])
def test_absurd_events_cost_a_number(noise, rate):
    found = epsilon_renyi([skellam(noise, rate, 10**6, l2=1e3)], DELTA)
    assert found >= 0
    assert not math.isnan(found)
