"""The noise of a sum: who adds how much, what it costs, in which ring."""

import math
from dataclasses import replace

import numpy as np
import pytest

from client.randomness import secure_stream, seeded_stream
from common.accounting import epsilon
from common.config import defaults, parse
from common.errors import ConfigError
from common.fixed_point import Grid, clipped, decode, encode
from common.integer_noise import (
    Load,
    contribution,
    in_sample,
    policy_of,
    rotation_seed,
    sum_event,
    sum_plan,
    wrap_probability,
)
from common.plan import noise_multiplier
from common.secagg.ring import Ring
from common.skellam import draw, skellam_table

SEED = rotation_seed("7", 1)


def config(**changes):
    keys = {
        "privacy.mode": "distributed",
        "privacy.declared-users": 1,
        "privacy.max-grad-norm": 0.5,
        "secagg.clients": 10,
        "secagg.corrupt": 0.0,
        "secagg.parameters": 2000,
    }
    return parse(defaults() | keys | changes)


def stream(number=0):
    return seeded_stream(3, "client", str(number))


def test_the_event_is_what_the_encoding_is_bounded_by():
    asked = config(**{"privacy.sample-rate": 0.25})
    event, grid = sum_event(asked, 1.5), sum_plan(asked, 1.5, 2000).grid
    assert (event.mechanism, event.unit, event.steps) == ("skellam", "user", 1)
    assert (event.noise_multiplier, event.sample_rate) == (1.5, 0.25)
    assert event.l2_sensitivity**2 == pytest.approx(grid.l2_squared)
    assert event.l1_sensitivity == grid.l1


@pytest.mark.parametrize(("users", "unit"), [(1, "user"), (2, "client")])
def test_the_unit_is_the_client_where_it_has_several_users(users, unit):
    asked = config(**{"privacy.declared-users": users})
    assert sum_event(asked, 1.0).unit == unit


@pytest.mark.parametrize(
    ("clients", "threshold", "corrupt", "least", "honest"),
    [(10, 0.8, 0.0, 8, 8), (10, 0.8, 0.1, 8, 7), (7, 0.9, 0.2, 7, 5)],
)
def test_whose_noise_counts(clients, threshold, corrupt, least, honest):
    keys = {"clients": clients, "threshold": threshold, "corrupt": corrupt}
    asked = config(**{f"secagg.{key}": value for key, value in keys.items()})
    plan, event = sum_plan(asked, 2.0, 2000), sum_event(asked, 2.0)
    assert plan.least == least
    whole = (2.0 * event.l2_sensitivity) ** 2
    assert whole <= honest * plan.share <= whole * (1 + 1e-11)


@pytest.mark.parametrize("survivors", [8, 9, 10])
def test_the_noise_of_survivors_is_the_accounted_one_or_more(survivors):
    asked = config()
    plan, event = sum_plan(asked, 1.2, 2000), sum_event(asked, 1.2)
    shares = [
        contribution(None, 2000, plan, SEED, stream(client))
        for client in range(survivors)
    ]
    total = np.sum(shares, axis=0).astype(float)
    accounted = (1.2 * event.l2_sensitivity) ** 2
    statistic = np.sum(total**2) / (accounted * survivors / 8)
    # Chi-squared with 2,000 degrees; its excess kurtosis is 1 / variance.
    assert abs(statistic - 2000) < 4 * math.sqrt(2 * 2000)
    assert np.mean(total**2) > accounted * (1 - 4 * math.sqrt(2 / 2000))


def test_one_survivor_fewer_would_have_too_little_noise():
    """Hence the round is discarded; with half the noise the test above fails."""
    plan, event = sum_plan(config(), 1.2, 2000), sum_event(config(), 1.2)
    assert 7 * plan.share < 0.9 * (1.2 * event.l2_sensitivity) ** 2


def test_the_decoded_sum_is_that_of_the_sample_and_noise():
    asked = config(**{"secagg.granularity": 64.0})
    plan = sum_plan(asked, 1.0, 1500)
    ring = Ring(plan.bits)
    updates = [np.random.default_rng(n).normal(size=1500) for n in range(4)]
    sent = [
        contribution(update, 1500, plan, SEED, stream(number))
        for number, update in enumerate([*updates, *[None] * 6])
    ]
    noise = [contribution(None, 1500, plan, SEED, stream(n)) for n in range(10)]
    total = ring.zeros(1500)
    for each in sent:
        total += ring.encode(each)
    summed = ring.decode(ring.reduce(total))

    np.testing.assert_array_equal(summed, np.sum(sent, axis=0))
    found = decode(summed - np.sum(noise, axis=0), plan.grid, SEED)
    exact = sum(clipped(update, 0.5) for update in updates)
    assert np.linalg.norm(found - exact) < 0.02 * np.linalg.norm(exact)


def test_noise_is_nobody_elses_in_production():
    plan = sum_plan(config(), 1.0, 2000)
    one, other = (
        contribution(None, 2000, plan, SEED, secure_stream()) for _ in range(2)
    )
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.12


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_the_coin_falls_at_the_accounted_rate(rate):
    plan = sum_plan(config(**{"privacy.sample-rate": rate}), 1.0, 2000)
    tosses = [in_sample(plan, stream(number)) for number in range(3000)]
    assert abs(np.mean(tosses) - rate) <= 4 * math.sqrt(rate * (1 - rate) / 3000)
    assert plan.expected == pytest.approx(rate * 10)
    assert (
        plan.rate == sum_event(config(**{"privacy.sample-rate": rate}), 1).sample_rate
    )


def wraps(load, bits, rounds):
    """How often some coordinate wraps, all updates the same and in one coordinate."""
    grid = Grid(1.0, load.dim, load.norm / math.sqrt(load.dim), 0.6)
    table, found = skellam_table(load.noise / load.clients), 0
    update = np.eye(load.dim)[5]
    for number in range(rounds):
        source, seed = stream(number), bytes([number % 256, number // 256])
        total = draw(table, load.dim * load.clients, source.words)
        total = total.reshape(load.clients, -1).sum(axis=0)
        for _ in range(int(np.sum(source.uniform(load.clients) < load.rate))):
            total += encode(update, grid, seed, source.uniform)
        found += bool(np.any(Ring(bits).decode(Ring(bits).encode(total)) != total))
    return found


@pytest.mark.parametrize(
    ("norm", "noise", "seen"),
    [(10.0, 1000.0, 0.0), (10.0, 1800.0, 0.02), (25.0, 1000.0, 0.005)],
)
def test_sums_wrap_at_most_as_often_as_said(norm, noise, seen):
    load = Load(norm, clients=4, rate=1.0, noise=noise, dim=16)
    rounds, bound = 1000, wrap_probability(load, 8)
    often = wraps(load, 8, rounds) / rounds
    assert seen <= often <= bound + 4 * math.sqrt(bound * (1 - bound) / rounds)
    assert 0 < bound < 1  # so that the bound was put to the test


LOAD = Load(norm=24.0, clients=200, rate=0.05, noise=60.0, dim=48)


def test_a_bit_more_wraps_less_and_more_load_wraps_more():
    found = [wrap_probability(LOAD, bits) for bits in range(6, 14)]
    assert found == sorted(found, reverse=True)
    assert found[-1] <= 2e-12
    base = wrap_probability(LOAD, 11)
    for more in (
        {"norm": 30.0},
        {"clients": 220},
        {"rate": 0.06},
        {"noise": 900.0},
        {"dim": 63},
    ):
        assert base < wrap_probability(replace(LOAD, **more), 11)


def test_the_least_bits_that_do_are_taken():
    asked = config(**{"secagg.wrap": 1e-6})
    plan = sum_plan(asked, 1.0, 2000)
    assert plan.wrap <= 1e-6
    assert sum_plan(config(**{"secagg.bits": plan.bits}), 1.0, 2000) == plan
    with pytest.raises(ConfigError, match=r"secagg\.bits: expected 0 or more bits"):
        sum_plan(config(**{"secagg.bits": plan.bits - 1}), 1.0, 2000)


def test_a_student_larger_than_declared_is_refused():
    with pytest.raises(ConfigError, match=r"secagg\.parameters: .* 2001, got 2000"):
        sum_plan(config(), 1.0, 2001)


def test_a_smaller_student_keeps_to_the_same_event():
    assert sum_plan(config(), 1.0, 700).share == sum_plan(config(), 1.0, 2000).share


def test_a_real_size_fits_into_eighteen_bits_and_costs_what_gaussians_do():
    keys = {
        "secagg.clients": 5440,
        "secagg.corrupt": 0.05,
        "secagg.parameters": 300_000,
        "privacy.sample-rate": 0.1,
    }
    asked = config(**keys)
    noise = noise_multiplier(asked)
    plan, event = sum_plan(asked, noise, 300_000), sum_event(asked, noise)
    assert 14 <= plan.bits <= 18
    whole = replace(event, steps=asked.training.rounds)
    assert 7.99 < epsilon([whole], 1e-5) <= 8.0
    norm = plan.grid.norm
    assert event.l2_sensitivity < 1.01 * norm


def test_a_round_has_a_seed_of_its_own():
    seeds = {rotation_seed(run, number) for run in ("1", "11") for number in (1, 11, 2)}
    assert len(seeds) == 6


@pytest.mark.parametrize("roster", [False, True])
def test_the_policy_is_the_configurations(roster):
    policy = policy_of(config(**{"secagg.roster": roster, "secagg.neighbours": 6}))
    assert (policy.active, policy.degree, policy.dropped) == (roster, 6, 0.1)
    assert policy.security_bits == (80 if roster else 40)


class Counted:
    """Randomness that notes what was asked of it."""

    def __init__(self):
        self.stream, self.asked = stream(), []

    def words(self, count):
        self.asked.append(("words", count))
        return self.stream.words(count)

    def uniform(self, count):
        self.asked.append(("uniform", count))
        return self.stream.uniform(count)


def test_a_client_outside_the_sample_does_the_same_work():
    # What it left out would tell by the clock which way its coin fell.
    plan = sum_plan(config(), 1.0, 2000)
    inside, outside = Counted(), Counted()
    contribution(np.full(2000, 1.0), 2000, plan, SEED, inside)
    vector = contribution(None, 2000, plan, SEED, outside)
    assert outside.asked == inside.asked and ("uniform", 2000) in outside.asked
    noise = draw(skellam_table(plan.share), 2000, stream().words)
    np.testing.assert_array_equal(vector, noise)
