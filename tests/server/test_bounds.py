"""What one client's sums can hold: all that honest users give, and not much more."""

import math

import numpy as np
import pytest
from flwr.app import RecordDict
from hypothesis import given
from hypothesis import strategies as st

from common import wire
from common.config import defaults, parse
from common.errors import ProtocolError
from common.plan import StatisticsNoise, statistics_noise
from common.statistics import Pairs, pack_pairs, pack_sketch
from server.bounds import DEVIATIONS, Bounds, bounds_of

USERS, SHARE, NOISE = 10, 0.36, StatisticsNoise(3.0, 2.0)
BOUNDS = Bounds(USERS, SHARE, NOISE)
EXACT = Bounds(USERS, SHARE, StatisticsNoise(0.0, 0.0))


def pairs(counts, upper) -> RecordDict:
    found = Pairs(np.float32(counts), np.float32(upper))
    return RecordDict({wire.PAIRS: pack_pairs(found)})


def sketch(values) -> RecordDict:
    return RecordDict({wire.SKETCH_SUM: pack_sketch(np.float32(values))})


def test_they_come_from_public_numbers_of_the_run() -> None:
    flat = {"statistics.share": 0.5, "privacy.declared-users": 77}
    config = parse(defaults() | flat)
    found = bounds_of(config)
    assert (found.users, found.noise) == (77, statistics_noise(config))
    assert found.counts_share == config.statistics.counts_share


def test_users_of_one_item_or_of_one_pair_are_the_most_there_can_be() -> None:
    """Ten users who touched the first item alone, and ten the first two alone."""
    found = EXACT.pairs_of(pairs([10 * 0.6, 0, 0], [10 * 0.8, 0, 0]), 3)
    np.testing.assert_allclose(found.counts, [6, 0, 0])
    for counts, upper in (([6.1, 0, 0], [0] * 3), ([0] * 3, [0, 0, -8.1])):
        with pytest.raises(ProtocolError, match="declared-users"):
            EXACT.pairs_of(pairs(counts, upper), 3)


def test_many_numbers_that_each_could_be_are_too_much_together() -> None:
    """Six in one number is all of ten users; they cannot be in each of three."""
    with pytest.raises(ProtocolError, match="declared-users"):
        EXACT.pairs_of(pairs([6, 6, 6], [0, 0, 0]), 3)
    EXACT.pairs_of(pairs([6 / math.sqrt(3)] * 3, [0, 0, 0]), 3)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_noise_is_let_pass_and_what_is_beyond_it_is_not(sign) -> None:
    most = USERS + NOISE.sketch * DEVIATIONS
    values = np.zeros((3, 2))
    values[1, 1] = sign * most
    assert BOUNDS.sketch_of(sketch(values), 3, 2).shape == (3, 2)
    values[1, 1] = sign * (most + 1)
    with pytest.raises(ProtocolError, match="declared-users"):
        BOUNDS.sketch_of(sketch(values), 3, 2)


@given(st.integers(0, 2**31), st.integers(0, USERS))
def test_honest_answers_pass(seed: int, num_users: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(num_users, 20, 4))
    vectors /= np.linalg.norm(vectors, axis=(1, 2), keepdims=True)
    total = vectors.sum(axis=0) + NOISE.sketch * rng.normal(size=(20, 4))
    BOUNDS.sketch_of(sketch(total), 20, 4)


@pytest.mark.parametrize("value", [1e30, -3e38, 1e6])
def test_huge_but_finite_sums_are_refused(value) -> None:
    with pytest.raises(ProtocolError, match="declared-users"):
        BOUNDS.pairs_of(pairs([value] * 3, [0] * 3), 3)
    with pytest.raises(ProtocolError, match="declared-users"):
        BOUNDS.sketch_of(sketch(np.full((3, 2), value)), 3, 2)
