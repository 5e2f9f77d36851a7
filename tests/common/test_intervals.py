"""Intervals over users: against closed forms, brute force, and their bounds."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import common.intervals
from common.beyond_accuracy import coverage, gini
from common.errors import DataFormatError
from common.intervals import Estimate, bootstrap_interval, catalogue_interval, estimate

NO_ITEM = -1


def test_doctests():
    result = doctest.testmod(common.intervals)

    assert result.attempted >= 2
    assert result.failed == 0


def test_bootstrap_depends_on_the_seed_alone():
    values = np.random.default_rng(0).random(200)

    first = bootstrap_interval(values, seed=5)
    bootstrap_interval(values[::-1], seed=9)

    assert bootstrap_interval(values, seed=5) == first
    assert bootstrap_interval(values, seed=6) != first
    assert first.value == pytest.approx(values.mean())


def test_bootstrap_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(0.3, 0.1, size=2000)

    found = bootstrap_interval(values, seed=0)

    margin = 1.96 * values.std() / math.sqrt(2000)
    assert found.low == pytest.approx(values.mean() - margin, abs=margin / 8)
    assert found.high == pytest.approx(values.mean() + margin, abs=margin / 8)


def test_bootstrap_needs_a_user():
    with pytest.raises(DataFormatError, match="user with held items"):
        bootstrap_interval(np.array([np.nan]), seed=0)


@pytest.mark.parametrize(("family", "figure"), [("coverage", coverage), ("gini", gini)])
def test_interval_of_all_lists_equals_the_jackknife(family, figure):
    lists = np.random.default_rng(2).integers(0, 40, size=(30, 1))
    without = [figure(np.delete(lists, user, axis=0), 50) for user in range(30)]
    error = math.sqrt(29 * np.var(without))

    found = catalogue_interval(family, lists, 50)

    assert found.value == figure(lists, 50)
    assert found.value - found.low == pytest.approx(1.959964 * error)


@pytest.mark.parametrize("family", ["coverage", "gini"])
def test_one_user_has_no_spread(family):
    found = catalogue_interval(family, np.array([[0, 1]]), 4)

    assert found == Estimate(0.5, 0.5, 0.5)


def test_bootstrap_leaves_users_without_a_value_out():
    assert bootstrap_interval(np.array([np.nan, 1.0]), seed=0) == Estimate(1, 1, 1)


def test_coverage_interval_stays_within_bounds():
    assert catalogue_interval("coverage", np.array([[0, 1]]), 2) == Estimate(1, 1, 1)
    spread = catalogue_interval("coverage", np.array([[0], [NO_ITEM], [NO_ITEM]]), 1)
    assert (spread.low, spread.high) == (0.0, 1.0)


def test_estimate_handles_each_kind():
    lists = np.array([[0], [1]])
    found = {"hr@1": np.array([1.0, np.nan]), "coverage@1": lists, "gini@1": lists}

    estimates = estimate(found, 4, seed=1, num_resamples=10)

    assert estimates["hr@1"] == Estimate(1.0, 1.0, 1.0)
    assert estimates["coverage@1"].value == estimates["gini@1"].value == 0.5


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_interval_holds_its_value(seed, num_users):
    values = np.random.default_rng(seed).random(num_users)

    found = bootstrap_interval(values, seed=seed, num_resamples=200)

    assert found.low <= found.value <= found.high
