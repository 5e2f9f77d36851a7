"""ROC figures on cases worked by hand."""

import numpy as np
import pytest

from simulations.audits.bounds import clopper_pearson
from simulations.audits.roc import area_under_curve, curve, operate

SCORES = np.array([9.0, 8.0, 7.0, 6.0, 5.0, 4.0])
MEMBER = np.array([True, True, False, True, False, False])


def test_area_counts_pairs_and_halves_of_ties():
    assert area_under_curve(SCORES, MEMBER) == pytest.approx(8 / 9)
    assert area_under_curve(np.zeros(6), MEMBER) == 0.5
    assert area_under_curve(SCORES, np.ones(6, bool)) == 0.5


def test_a_threshold_lets_no_more_through_than_asked():
    found = operate(SCORES, MEMBER, 1 / 3, 0.95)
    assert (found.fpr, found.tpr, found.resolved) == (1 / 3, 1.0, True)
    none = operate(SCORES, MEMBER, 0.01, 0.95)
    # Fewer than a hundred others: above the first of them is what can be said.
    assert (none.fpr, none.tpr, none.resolved) == (0.0, 2 / 3, False)
    assert (none.low, none.high) == clopper_pearson(2, 3, 0.95)


def test_ties_with_an_other_are_not_counted():
    scores = np.array([1.0, 1.0, 1.0, 1.0])
    found = operate(scores, np.array([True, True, False, False]), 0.5, 0.95)
    assert (found.fpr, found.tpr) == (0.0, 0.0)


def test_a_curve_rises_to_the_corner():
    rng = np.random.default_rng(0)
    member = rng.random(2000) < 0.5
    points = curve(rng.normal(size=2000) + member, member, 0.95)
    assert [p.tpr for p in points] == sorted(p.tpr for p in points)
    assert points[0].fpr == pytest.approx(1 / (~member).sum())
    assert points[-1].tpr == 1.0
    assert all(p.low <= p.tpr <= p.high and p.fpr <= p.target + 1e-9 for p in points)
    assert curve(np.zeros(3), np.ones(3, bool), 0.95) == ()
