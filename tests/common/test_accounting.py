"""ε: known vectors, Opacus' accountants, composition, calibration."""

import math
import time
from dataclasses import replace

import dp_accounting
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant

from common import accounting
from common.accounting import (
    BY_RENYI,
    accountant_of,
    calibrate,
    epsilon,
    epsilon_bound,
    epsilon_path,
    epsilon_rdp,
)
from common.errors import ConfigError
from common.events import DpEvent, merged
from common.renyi import epsilon_renyi

DELTA = 1e-5


def opacus(accountant, events):
    accountant.history = [
        (event.noise_multiplier, event.sample_rate, event.steps) for event in events
    ]
    return accountant.get_epsilon(DELTA)


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "expected"),
    [(1.0, 0.1, 50, 5.148), (3.32, 0.5, 100, 7.384), (7.6, 0.5, 100, 2.754)],
)
def test_known_values(noise, rate, steps, expected):
    assert epsilon([DpEvent(noise, rate, steps)], DELTA) == pytest.approx(
        expected, abs=1e-2
    )


@pytest.mark.parametrize("noise", [1.0, 4.0])
@pytest.mark.parametrize("rate", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 20])
def test_the_quick_bound_is_above_and_near(noise, rate, steps):
    events = [DpEvent(noise, rate, steps), DpEvent(5.0, 1.0, 2)]
    exact = epsilon(events, DELTA)
    assert exact <= epsilon_bound(events, DELTA) <= exact * 1.001


def test_one_gaussian_release_is_the_closed_form():
    """Balle and Wang 2018, theorem 8, at σ = 2 without sampling."""
    found = epsilon([DpEvent(2.0, 1.0, 1)], DELTA)

    def phi(x):
        return math.erfc(-x / math.sqrt(2)) / 2

    mu = 1 / 2.0
    delta = phi(-found / mu + mu / 2) - math.exp(found) * phi(-found / mu - mu / 2)
    assert delta == pytest.approx(DELTA, rel=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "events",
    [
        [DpEvent(1.0, 0.1, 50)],
        [DpEvent(3.32, 0.5, 100)],
        [DpEvent(7.6, 0.5, 100)],
        [DpEvent(1.0, 0.1, 20), DpEvent(2.0, 0.5, 10)],
    ],
)
def test_agrees_with_opacus_prv(events):
    prv = opacus(PRVAccountant(), events)
    assert epsilon(events, DELTA) == pytest.approx(prv, rel=0.01)


@pytest.mark.filterwarnings("ignore")
def test_is_tighter_than_opacus_rdp():
    events = [DpEvent(1.0, 0.1, 10)] * 5
    rdp = opacus(RDPAccountant(), events)
    assert rdp == pytest.approx(5.881, abs=1e-3)
    assert epsilon_rdp(events, DELTA) == pytest.approx(rdp, rel=1e-3)
    assert epsilon(events, DELTA) == pytest.approx(5.148, abs=1e-3)
    assert epsilon(events, DELTA) < rdp - 0.5


def test_five_rounds_of_ten_steps_cost_fifty_steps():
    five = epsilon([DpEvent(1.0, 0.1, 10)] * 5, DELTA)
    assert five == pytest.approx(epsilon([DpEvent(1.0, 0.1, 50)], DELTA), abs=1e-3)
    assert five > 1.5 * epsilon([DpEvent(1.0, 0.1, 10)], DELTA)


EVENTS = st.builds(
    DpEvent, st.floats(2.0, 20.0), st.sampled_from([0.01, 0.5, 1.0]), st.integers(0, 20)
)


@settings(max_examples=8, deadline=None)
@given(st.lists(EVENTS, max_size=2), EVENTS)
def test_epsilon_never_falls_when_an_event_is_added(events, more):
    before, after = epsilon(events, DELTA), epsilon([*events, more], DELTA)
    assert 0 <= before <= after + 1e-9


@settings(max_examples=5, deadline=None)
@given(st.floats(3.0, 10.0), st.floats(1.1, 3.0))
def test_more_noise_never_costs_more(noise, factor):
    less = epsilon([DpEvent(noise * factor, 0.5, 10)], DELTA)
    assert less <= epsilon([DpEvent(noise, 0.5, 10)], DELTA)


def test_full_batches_cost_more_than_samples():
    full = epsilon([DpEvent(5.0, 1.0, 10)], DELTA)
    assert epsilon([DpEvent(5.0, 0.5, 10)], DELTA) < full < math.inf
    # Ten full-batch steps at σ are one release at σ/√10.
    one = epsilon([DpEvent(5.0 / math.sqrt(10), 1.0, 1)], DELTA)
    assert full == pytest.approx(one, abs=1e-3)


def test_nothing_done_costs_nothing():
    assert epsilon([], DELTA) == 0.0
    assert epsilon([DpEvent(1.0, 0.1, 0), DpEvent(0.0, 0.1, 0)], DELTA) == 0.0


def test_one_step_without_noise_costs_everything():
    events = [DpEvent(10.0, 0.01, 1), DpEvent(0.0, 0.01, 1)]
    assert epsilon(events, DELTA) == math.inf
    assert epsilon_rdp(events, DELTA) == math.inf
    assert epsilon_path([[events[1]]] * 3, DELTA) == [math.inf] * 3
    path = epsilon_path([[events[0]], events, [events[0]]], DELTA)
    assert path[0] < path[1] == path[2] == math.inf


def test_units_never_add_up():
    events = [DpEvent(1.0, 0.1, 1), DpEvent(1.0, 0.1, 1, unit="interaction")]
    for total in (epsilon, epsilon_rdp):
        with pytest.raises(ConfigError, match="one privacy unit"):
            total(events, DELTA)


@pytest.mark.parametrize(("rate", "steps"), [(0.5, 20), (1.0, 10)])
def test_calibrated_noise_meets_its_target(rate, steps):
    noise = calibrate(2.0, DELTA, rate, steps)
    assert 2.0 - 0.01 <= epsilon([DpEvent(noise, rate, steps)], DELTA) <= 2.0
    assert epsilon([DpEvent(noise - 2e-3, rate, steps)], DELTA) > 2.0


def test_calibration_never_goes_below_the_least_noise():
    noise = calibrate(500.0, DELTA, 0.01, 1)
    assert noise == accounting.LEAST_NOISE
    assert epsilon([DpEvent(noise, 0.01, 1)], DELTA) <= 500.0


def test_a_target_beyond_reach_is_refused_by_its_key(monkeypatch):
    monkeypatch.setattr(accounting, "MOST_NOISE", 8.0)
    with pytest.raises(ConfigError, match=r"^privacy\.target-epsilon: .*0\.001"):
        calibrate(0.001, DELTA, 1.0, 10)


def test_calibration_leaves_room_for_what_is_beside():
    beside = (DpEvent(4.0, 1.0, 2),)
    noise = calibrate(4.0, DELTA, 1.0, 5, beside)
    assert 4.0 - 0.01 <= epsilon([DpEvent(noise, 1.0, 5), *beside], DELTA) <= 4.0
    assert noise > calibrate(4.0, DELTA, 1.0, 5)


def test_no_noise_makes_room_beside_what_costs_more_than_the_target():
    beside = (DpEvent(0.5, 1.0, 1),)
    assert epsilon(beside, DELTA) > 4.0
    with pytest.raises(ConfigError, match=r"^privacy\.target-epsilon"):
        calibrate(4.0, DELTA, 1.0, 5, beside)


def test_calibration_of_the_longest_run_takes_seconds():
    start = time.monotonic()
    noise = calibrate(8.0, DELTA, 0.5, 100_000)
    assert time.monotonic() - start < 30
    assert 7.99 <= epsilon([DpEvent(noise, 0.5, 100_000)], DELTA) <= 8.0


def test_the_path_is_an_upper_bound_and_ends_at_the_whole():
    path = epsilon_path([[DpEvent(3.32, 0.5, 2)]] * 10, DELTA)
    whole = epsilon([DpEvent(3.32, 0.5, 20)], DELTA)
    assert len(path) == 10
    assert path == sorted(path)
    assert whole <= path[-1] <= whole + 1e-3


def test_the_path_counts_every_release_of_a_round():
    train, metrics = DpEvent(5.0, 0.5, 1), DpEvent(6.0, 1.0, 1)
    path = epsilon_path([[train], [train, metrics]], DELTA)
    whole = epsilon([train, train, metrics], DELTA)
    assert whole <= path[-1] <= whole + 1e-3
    assert path[0] < epsilon([train, train], DELTA)


def test_merging_keeps_what_the_composition_costs():
    """Against dp-accounting composing the events one by one."""
    events = [DpEvent(3.0, 0.5, 2), DpEvent(4.0, 1.0, 1), DpEvent(3.0, 0.5, 3)]
    assert merged(events) == (DpEvent(3.0, 0.5, 5), DpEvent(4.0, 1.0, 1))
    accountant = dp_accounting.pld.PLDAccountant()
    for event in events:
        gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        step = dp_accounting.PoissonSampledDpEvent(event.sample_rate, gaussian)
        accountant.compose(step, event.steps)
    one_by_one = accountant.get_epsilon(DELTA)
    assert epsilon(events, DELTA) == pytest.approx(one_by_one, abs=1e-6)


SKELLAM = DpEvent(
    1.5, 0.1, 20, "skellam", l2_sensitivity=4000.0, l1_sensitivity=4_000_000.0
)


def test_with_integer_noise_everything_is_counted_by_renyi():
    mixed = [SKELLAM, DpEvent(4.0, 0.5, 10)]
    assert epsilon(mixed, DELTA) == epsilon_renyi(mixed, DELTA)
    assert epsilon(mixed[::-1], DELTA) == epsilon(mixed, DELTA)
    assert epsilon_bound(mixed, DELTA) == epsilon_rdp(mixed, DELTA)
    assert epsilon_rdp(mixed, DELTA) == epsilon(mixed, DELTA)
    apart = [epsilon([event], DELTA) for event in mixed]
    assert max(apart) < epsilon(mixed, DELTA) < sum(apart)
    assert accountant_of(mixed) == BY_RENYI != accountant_of(mixed[1:])


def test_integer_noise_never_costs_less_than_the_same_gaussian():
    gaussian = DpEvent(1.5, 0.1, 20)
    assert epsilon([gaussian], DELTA) < epsilon([SKELLAM], DELTA)
    assert epsilon([SKELLAM], DELTA) < 1.25 * epsilon([gaussian], DELTA)


def test_integer_noise_of_zero_costs_everything():
    bare = replace(SKELLAM, noise_multiplier=0.0)
    assert epsilon([bare], DELTA) == epsilon_rdp([bare], DELTA) == math.inf


def test_the_path_of_mixed_events_ends_at_their_epsilon():
    batches = [[DpEvent(4.0, 0.5, 2)], [SKELLAM], [SKELLAM, DpEvent(4.0, 0.5, 2)]]
    path = epsilon_path(batches, DELTA)
    flat = [event for batch in batches for event in batch]
    assert path == sorted(path)
    assert path[-1] == pytest.approx(epsilon(flat, DELTA), rel=1e-12)
    bare = [[replace(SKELLAM, noise_multiplier=0.0)]]
    assert epsilon_path([*batches, *bare, *batches], DELTA) == [*path, *[math.inf] * 4]


@pytest.mark.parametrize("target", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("beside", [(), (DpEvent(20.0, 1.0, 3),)])
def test_integer_noise_is_calibrated_to_the_target(target, beside):
    noise = calibrate(target, DELTA, 0.1, 20, beside, SKELLAM)
    bought = replace(SKELLAM, noise_multiplier=noise)
    less = replace(SKELLAM, noise_multiplier=noise - 2e-4)
    assert epsilon([bought, *beside], DELTA) <= target
    assert epsilon([less, *beside], DELTA) > target


def test_a_smaller_target_or_more_rounds_take_more_integer_noise():
    found = [calibrate(t, DELTA, 0.1, 20, (), SKELLAM) for t in (8.0, 4.0, 2.0, 1.0)]
    assert found == sorted(found)
    assert calibrate(4.0, DELTA, 0.1, 80, (), SKELLAM) > found[1]
    assert calibrate(4.0, DELTA, 0.4, 20, (), SKELLAM) > found[1]
    gaussian = calibrate(4.0, DELTA, 0.1, 20)
    assert gaussian < found[1] < 1.15 * gaussian


def test_counting_an_absurd_sum_takes_no_time():
    start = time.process_time()
    absurd = replace(
        SKELLAM, noise_multiplier=0.25, l2_sensitivity=1.0, steps=1_000_000
    )
    assert epsilon([absurd, DpEvent(0.25, 1.0, 1_000_000)], DELTA) > 1e5
    assert time.process_time() - start < 5
