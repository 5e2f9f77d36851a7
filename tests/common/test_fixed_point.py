"""Encoding: bounds that hold of the integers, no bias, the way back."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from client.randomness import seeded_stream
from common import fixed_point
from common.fixed_point import Grid, clipped, decode, encode
from common.rotation import rotate, unrotate

SEED = b"a round"


def grid_of(parameters=64, *, clip=0.5, granularity=4.0, beta=0.6):
    return Grid(clip, parameters, granularity, beta)


def uniform_of(seed=0):
    return seeded_stream(seed, "test").uniform


ANY = arrays(
    np.float64,
    st.integers(1, 64),
    elements=st.floats(allow_nan=True, allow_infinity=True),
)
FINITE = arrays(np.float64, st.integers(1, 64), elements=st.floats(-10, 10))


@settings(deadline=None)
@given(ANY, st.sampled_from([0.5, 1.0, 4.0]), st.integers(0, 5))
def test_no_update_whatever_it_holds_is_beyond_the_sensitivities(update, fine, draw):
    grid = grid_of(granularity=fine)
    found = encode(update, grid, SEED, uniform_of(draw))
    assert found.dtype == np.int64
    assert found.shape == update.shape
    assert sum(int(x) ** 2 for x in found) <= grid.l2_squared
    assert sum(abs(int(x)) for x in found) <= grid.l1
    assert grid.l2**2 >= grid.l2_squared


def adversary(fraction, grid):
    """The update that is, once rotated, as near to rounding up as it can be."""
    turned = np.full(grid.parameters, fraction)
    # A last coordinate fills the norm up to the clip.
    turned[-1] = math.sqrt(grid.norm**2 - (len(turned) - 1) * fraction**2)
    return unrotate(turned / grid.scale, SEED)


def low(count):
    """The most unlucky draw: everything is rounded up."""
    return np.full(count, 1e-9)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5])
def test_an_unlucky_draw_cannot_break_the_bound(fraction):
    grid = grid_of(granularity=1.0, beta=0.9)
    update = adversary(fraction, grid)
    up = np.ceil(rotate(update * grid.scale, SEED) - 1e-6)
    assert up @ up > grid.l2_squared  # what is to be prevented

    found = encode(update, grid, SEED, low)

    assert found @ found <= grid.l2_squared
    np.testing.assert_array_equal(
        found, np.trunc(rotate(clipped(update, grid.clip) * grid.scale, SEED))
    )


def test_the_bound_is_the_papers():
    """Kairouz, Liu & Steinke 2021, with n = 100, c = 50, β = e^−1/2."""
    grid = grid_of(100, granularity=5.0, beta=math.exp(-0.5))
    assert grid.norm == 50.0
    assert grid.l2_squared == 2500 + 25 + 50 + 5
    # √d·|z|₂ = 507.9
    assert grid.l1 == 507


def test_the_coarse_bounds_take_over_where_they_are_smaller():
    grid = Grid(1.0, 4, 0.5, 1e-6)
    assert grid.l2_squared == 9  # (1 + √4)²
    assert grid.l1 == 6  # √4 · 3
    coarse = Grid(1.0, 10_000, 0.5, 0.9)
    assert coarse.l1 == coarse.l2_squared == 5045  # |z|₁ ≤ |z|₂²


@pytest.mark.parametrize("beta", [0.1, 0.6, 0.9])
def test_a_rounding_is_within_the_bound_at_least_so_often(beta):
    grid = grid_of(256, granularity=2.0, beta=beta)
    exact = rotate(adversary(0.5, grid) * grid.scale, SEED)
    floor, tries = np.floor(exact), 2000
    draws = uniform_of()(tries * len(exact)).reshape(tries, -1)
    rounded = floor + (draws < exact - floor)
    within = np.mean((rounded**2).sum(axis=1) <= grid.l2_squared)
    assert within >= 1 - beta


@settings(deadline=None)
@given(FINITE, st.integers(0, 5))
def test_the_way_back_is_off_by_less_than_a_step_a_coordinate(update, draw):
    grid = grid_of()
    found = decode(encode(update, grid, SEED, uniform_of(draw)), grid, SEED)
    error = np.linalg.norm(found - clipped(update, grid.clip))
    assert error <= math.sqrt(len(update)) / grid.scale * (1 + 1e-9)


def test_it_is_unbiased_and_its_error_a_quarter_step_at_most():
    grid = grid_of(50, granularity=3.0)
    update = clipped(np.random.default_rng(3).normal(size=50), grid.clip)
    uniform, times = uniform_of(), 4000
    errors = [
        decode(encode(update, grid, SEED, uniform), grid, SEED) - update
        for _ in range(times)
    ]
    steps = np.array(errors) * grid.scale
    # Each mean has a deviation of at most 1/2 / √times; 50 of them within 4.5.
    assert np.abs(steps.mean(axis=0)).max() < 4.5 * 0.5 / math.sqrt(times)
    assert (steps**2).sum(axis=1).mean() <= 50 / 4


def test_sums_decode_to_sums_of_updates():
    grid = grid_of(1000, clip=2.0, granularity=16.0)
    updates = np.random.default_rng(1).normal(size=(40, 700))
    total = sum(encode(u, grid, SEED, uniform_of(i)) for i, u in enumerate(updates))
    exact = sum(clipped(update, 2.0) for update in updates)
    error = np.linalg.norm(decode(total, grid, SEED) - exact)
    assert error < 1.1 * math.sqrt(40 * 700 / 4) / grid.scale
    assert error < 0.05 * np.linalg.norm(exact)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_counts_as_nothing(bad):
    update = np.array([1.0, bad, 2.0])
    assert not encode(update, grid_of(), SEED, uniform_of()).any()


def test_zeros_stay_zeros():
    assert not encode(np.zeros(33), grid_of(), SEED, uniform_of()).any()


@pytest.mark.parametrize("size", [1e-320, 1e-8, 1.0, 1e200, 1.7e308])
def test_clipping_keeps_directions_and_overflows_nowhere(size):
    update = np.array([3.0, -4.0]) / 5 * size
    found = clipped(update, 0.5)
    assert np.linalg.norm(found) == pytest.approx(min(0.5, size), rel=1e-2)
    assert found[0] <= 0 or found[0] / found[1] == pytest.approx(-0.75, rel=1e-2)


def test_a_rounding_is_made_anew_until_it_fits():
    grid = grid_of(granularity=1.0, beta=0.9)
    calls = []

    def unlucky_twice(count):
        calls.append(count)
        return low(count) if len(calls) < 3 else np.full(count, 1 - 1e-9)

    found = encode(adversary(0.5, grid), grid, SEED, unlucky_twice)
    assert len(calls) == 3 < fixed_point.TRIES
    assert found @ found <= grid.l2_squared
