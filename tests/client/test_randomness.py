"""Streams: open interval, normal, repeatable by seed, separate by label, secure."""

import itertools
import math

import numpy as np
import pytest
import torch

from client.randomness import secure_stream, seeded_stream, stream

COUNT = 10_000


class _Words:
    """A key stream of chosen words."""

    def __init__(self, words: list[int]) -> None:
        self.words = words

    def update(self, zeros: bytes) -> bytes:
        del zeros
        return np.asarray(self.words, dtype=np.uint64).tobytes()


def test_uniform_numbers_never_reach_zero_or_one() -> None:
    """The smallest and the largest word of the cipher stay inside (0, 1)."""
    drawn = seeded_stream(0)
    drawn._key_stream = _Words([0, 2**64 - 1])
    low, high = drawn.uniform(2)
    assert low == 2.0**-54
    assert 1 - 2.0**-52 < high < 1.0


def test_the_extreme_words_give_finite_normal_numbers() -> None:
    drawn = seeded_stream(0)
    drawn._key_stream = _Words([0, 2**64 - 1])
    low, high = drawn.normal((2,)).tolist()
    assert -8.4 < low < -8.0
    assert 8.0 < high < 8.4


def test_uniform_numbers_fill_the_interval_evenly() -> None:
    counts, _ = np.histogram(
        seeded_stream(1).uniform(20 * COUNT), bins=20, range=(0, 1)
    )
    chi_square = ((counts - COUNT) ** 2 / COUNT).sum()
    assert chi_square < 45.3, "the 99.94 % point of chi-square with 19 degrees"


def test_normal_numbers_have_normal_moments_and_tails() -> None:
    drawn = seeded_stream(5, "noise").normal((20 * COUNT,)).double()
    n = len(drawn)
    assert abs(float(drawn.mean())) < 5 / math.sqrt(n)
    assert float(drawn.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / n))
    assert abs(float((drawn**3).mean())) < 5 * math.sqrt(15 / n)
    assert float((drawn**4).mean()) == pytest.approx(3, abs=5 * math.sqrt(96 / n))
    beyond = int((drawn.abs() > 3).sum())
    assert beyond == pytest.approx(n * 0.0027, abs=5 * math.sqrt(n * 0.0027))


@pytest.mark.parametrize("shape", [(3, 4), (7,), (0,), ()])
def test_normal_numbers_come_in_the_shape_asked_for(shape) -> None:
    drawn = seeded_stream(2).normal(shape)
    assert (tuple(drawn.shape), drawn.dtype) == (shape, torch.float64)


def test_a_seed_and_its_labels_repeat_the_stream() -> None:
    first, second = (stream(4, "0001", "2", "noise").uniform(COUNT) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_draws_continue_the_stream_and_never_rewind_it() -> None:
    whole = seeded_stream(9).uniform(100)
    parts = seeded_stream(9)
    np.testing.assert_array_equal(
        np.concatenate([parts.uniform(40), parts.uniform(60)]), whole
    )


def test_other_seeds_clients_rounds_and_purposes_have_other_streams() -> None:
    """Mistake 9; labels are kept apart, not merely joined."""
    places = [
        (1, "0000", "1", "noise"),
        (2, "0000", "1", "noise"),
        (1, "0001", "1", "noise"),
        (1, "0000", "2", "noise"),
        (1, "0000", "1", "sampling"),
        (1, "0000", "1", "masking"),
        (1, "00001", "noise"),
        (1, "000", "01", "noise"),
    ]
    draws = [seeded_stream(*place).normal((COUNT,)) for place in places]
    for first, second in itertools.combinations(draws, 2):
        correlation = float(torch.corrcoef(torch.stack([first, second]))[0, 1])
        assert abs(correlation) < 0.05
        assert float((first == second).double().mean()) < 0.01


def test_secure_streams_do_not_repeat() -> None:
    draws = [secure_stream().uniform(COUNT), stream(None, "a").uniform(COUNT)]
    draws += [stream(None, "a").uniform(COUNT), seeded_stream(0, "a").uniform(COUNT)]
    for first, second in itertools.combinations(draws, 2):
        assert not (first == second).any()
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert len(np.unique(draws[0])) == COUNT
