"""Skellam noise: its distribution, its sums, its last words."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ive

from client.randomness import secure_stream, seeded_stream
from common.errors import ConfigError
from common.skellam import SkellamTable, draw, skellam_table, tail_exponent


def exact(table):
    """P[X ≤ k] as fractions, k from −most to most − 1."""
    pairs = zip(table.high.tolist(), table.low.tolist(), strict=True)
    return [Fraction((high << 64) + low, 1 << 128) for high, low in pairs]


def words_of(*numbers):
    """A source that gives these words, one after another."""
    left = list(numbers)
    return lambda count: np.array([left.pop(0) for _ in range(count)], np.uint64)


@pytest.mark.parametrize("variance", [2.0**-40, 0.01, 0.7, 3.0, 90.0, 2e4])
def test_the_table_is_the_distribution_function(variance):
    table = skellam_table(variance)
    found = np.array([float(each) for each in exact(table)])
    k = np.arange(-table.most, table.most)
    # P[X = k] = e^−v I_k(v)
    expected = np.cumsum(ive(np.abs(k), variance))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@settings(deadline=None, max_examples=10)
@given(st.floats(1e-6, 3e3))
def test_it_is_symmetric_to_its_last_bit_and_has_its_variance(variance):
    cumulative = exact(skellam_table(variance))
    most = len(cumulative) // 2
    mass = np.diff([Fraction(0), *cumulative, Fraction(1)])
    slack = Fraction(2, 1 << 128)
    assert all(abs(a - b) <= slack for a, b in zip(mass, mass[::-1], strict=True))
    assert all(each >= 0 for each in mass)
    second = sum(p * k * k for k, p in zip(range(-most, most + 1), mass, strict=True))
    assert float(second) == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("variance", [0.3, 8.0, 5000.0])
def test_what_is_left_out_is_less_than_two_to_the_minus_140(variance):
    most = skellam_table(variance).most
    assert 2 * math.exp(-tail_exponent(most, variance)) < 2.0**-140


@pytest.mark.parametrize("variance", [0.4, 6.0, 300.0])
def test_draws_fit_the_distribution(variance):
    """Chi-squared over cells of at least 20 expected draws."""
    count = 100_000
    found = draw(skellam_table(variance), count, seeded_stream(1, "fit").words)
    k = np.arange(-200, 201)
    expected = ive(np.abs(k), variance) * count
    edges = k[expected >= 20]
    inner = [np.sum(found == each) for each in edges]
    seen = np.array([np.sum(found < edges[0]), *inner, np.sum(found > edges[-1])])
    tail = ive(np.arange(edges[-1] + 1, edges[-1] + 3000), variance).sum() * count
    wanted = np.array([tail, *expected[expected >= 20], tail])
    statistic = np.sum((seen - wanted) ** 2 / np.maximum(wanted, 1e-9))
    assert stats.chi2.sf(statistic, len(seen) - 1) > 1e-3


@pytest.mark.parametrize("survivors", [7, 8, 10])
def test_a_sum_of_shares_is_the_whole_noise_or_more(survivors):
    """Seven shares are planned for: their sum has exactly the planned distribution."""
    planned, count = 40.0, 60_000
    share = skellam_table(planned / 7)
    shares = [
        draw(share, count, seeded_stream(5, str(client)).words)
        for client in range(survivors)
    ]
    total = np.sum(shares, axis=0)
    whole = planned * survivors / 7
    statistic = np.sum(total.astype(float) ** 2) / whole
    # Var[X²] = 2v² + v: the statistic is chi-squared but for that last term.
    deviation = math.sqrt(count * (2 + 1 / whole))
    assert abs(statistic - count) < 4 * deviation
    assert total.var() > planned * (1 - 4 * math.sqrt(2.1 / count))
    seen = np.bincount(np.abs(total), minlength=8)[:8] / count
    once = ive(np.arange(8), whole) * np.where(np.arange(8), 2, 1)
    np.testing.assert_allclose(seen, once, atol=4 * math.sqrt(0.25 / count))


def test_the_lower_word_decides_where_the_upper_one_does_not():
    table = SkellamTable(
        2, np.array([5, 9, 9, 20], np.uint64), np.array([7, 3, 8, 0], np.uint64)
    )

    def drawn(*words):
        return int(draw(table, 1, words_of(*words))[0])

    assert [drawn(4), drawn(6), drawn(10), drawn(21)] == [-2, -1, 1, 2]
    assert [drawn(5, 6), drawn(5, 7)] == [-2, -1]
    assert [drawn(9, 2), drawn(9, 3), drawn(9, 7), drawn(9, 8)] == [-1, 0, 0, 1]
    assert drawn(20, 0) == 2


def test_the_largest_and_the_smallest_word_are_in_the_table():
    table = skellam_table(3.0)
    for word in (0, 2**64 - 1):
        found = draw(table, 1, words_of(word, 2**63))
        assert abs(int(found[0])) <= table.most


def test_ties_are_drawn_within_a_batch():
    table = SkellamTable(1, np.array([5, 9], np.uint64), np.array([7, 3], np.uint64))
    found = draw(table, 3, words_of(4, 9, 10, 2))
    assert found.tolist() == [-1, 0, 1]


def test_the_operating_systems_words_never_repeat():
    table = skellam_table(1e6)
    one, other = (draw(table, 5000, secure_stream().words) for _ in range(2))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.08
    assert np.mean(one == other) < 0.01


@pytest.mark.parametrize("variance", [0.0, -1.0, 2.0**-41, 2.0**33, math.inf, math.nan])
def test_variances_that_no_table_is_made_for(variance):
    with pytest.raises(ConfigError, match=r"variance of 2\^-40 to 2\^32"):
        skellam_table(variance)
