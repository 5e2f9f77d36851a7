"""The rotation: orthogonal, its own way back, flat whatever comes in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard

from common.rotation import block, rotate, unrotate

DIMS = st.integers(1, 300)
SEED = b"round 7"


def vector(dim, seed=0):
    return np.random.default_rng(seed).normal(size=dim)


@settings(deadline=None)
@given(DIMS, st.integers(0, 100), st.binary(max_size=40))
def test_it_keeps_norms_and_is_undone(dim, draw, seed):
    given_ = vector(dim, draw)
    turned = rotate(given_, seed)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(given_))
    np.testing.assert_allclose(unrotate(turned, seed), given_, atol=1e-12)


@settings(deadline=None)
@given(DIMS, st.floats(-3, 3))
def test_it_is_linear_so_that_a_sum_can_be_undone(dim, factor):
    one, other = vector(dim, 1), vector(dim, 2)
    together = rotate(one + factor * other, SEED)
    apart = rotate(one, SEED) + factor * rotate(other, SEED)
    np.testing.assert_allclose(together, apart, atol=1e-11)


def test_a_power_of_two_is_hadamards_matrix_with_signs():
    matrix = np.column_stack([rotate(unit, SEED) for unit in np.eye(16)])
    signs = matrix[0] * 4
    assert set(signs) == {-1.0, 1.0}
    np.testing.assert_allclose(matrix, hadamard(16) / 4 * signs)


def test_the_seed_decides():
    assert not np.allclose(rotate(vector(64), b"1"), rotate(vector(64), b"2"))
    np.testing.assert_array_equal(rotate(vector(64), SEED), rotate(vector(64), SEED))


def test_what_comes_in_is_left_as_it_is():
    given_ = vector(100)
    rotate(given_, SEED)
    unrotate(given_, SEED)
    np.testing.assert_array_equal(given_, vector(100))


@pytest.mark.parametrize(("dim", "expected"), [(1, 1), (2, 2), (3, 2), (300, 256)])
def test_block(dim, expected):
    assert block(dim) == expected


@pytest.mark.parametrize("dim", [1024, 1025, 1500, 2047])
@pytest.mark.parametrize("spread", [1, 3, 1000])
def test_no_coordinate_is_beyond_hoeffdings_bound_too_often(dim, spread):
    given_ = np.zeros(dim)
    given_[:spread] = 1 / np.sqrt(spread)
    # 30 seeds × dim coordinates, 3 deviations: at most 2·exp(−9/2) of them.
    height = 3 / np.sqrt(block(dim))
    turned = [np.abs(rotate(given_, bytes([seed]))) for seed in range(30)]
    assert np.mean(np.array(turned) >= height) <= 2 * np.exp(-4.5)
    assert np.max(turned) < 8 / np.sqrt(block(dim))
