"""Membership attacks on drawn statistics: they find what is there, and nothing else."""

import numpy as np
import pytest

from simulations.audits.membership import MEMBERSHIP, Trials
from simulations.audits.roc import area_under_curve, operate

RUNS, USERS, OTHERS = 16, 400, 150


def trials(shift: float, seed: int = 0) -> Trials:
    """Users of very different difficulty, known better by ``shift`` if they are in."""
    rng = np.random.default_rng(seed)
    member = rng.random((RUNS, USERS)) < 0.5
    hard = rng.normal(-5, 3, size=USERS)
    noise = rng.normal(size=(RUNS, USERS))
    others = rng.normal(-5, 3, size=OTHERS) + rng.normal(size=(RUNS, OTHERS))
    return Trials(hard + shift * member + noise, member, others)


def measured(name, found):
    scores = MEMBERSHIP[name](found).ravel()
    return scores, found.member.ravel()


@pytest.mark.parametrize("name", MEMBERSHIP)
def test_nothing_is_found_where_nothing_is(name):
    scores, member = measured(name, trials(0.0))
    assert area_under_curve(scores, member) == pytest.approx(0.5, abs=0.03)
    point = operate(scores, member, 0.01, 0.999)
    assert point.low <= point.fpr_high


@pytest.mark.parametrize("name", ["lira-online", "lira-offline", "rmia"])
def test_a_shift_is_found_whatever_a_user_is_like(name):
    scores, member = measured(name, trials(2.0))
    plain, _ = measured("threshold", trials(2.0))
    # The best possible test of two deviations has 0.921.
    assert area_under_curve(scores, member) > 0.85
    assert area_under_curve(scores, member) > area_under_curve(plain, member) + 0.15


def test_more_of_a_shift_is_more_true_positives():
    rates = []
    for shift in (0.5, 1.5, 3.0):
        scores, member = measured("lira-online", trials(shift))
        rates.append(operate(scores, member, 0.01, 0.95).tpr)
    assert rates[0] < rates[1] < rates[2]
    assert rates[2] > 0.6


def test_a_user_who_is_in_all_shadows_has_a_score():
    found = trials(1.0)
    found.member[:, 0] = True
    found.member[:, 1] = False
    for name in MEMBERSHIP:
        assert np.isfinite(MEMBERSHIP[name](found)).all()


def test_the_attacked_run_is_none_of_its_shadows():
    """Changing one run's statistics changes what the others say of it, not of them."""
    found = trials(1.0)
    before = MEMBERSHIP["lira-offline"](found)
    moved = found.statistic.copy()
    moved[0] += 1.0
    after = MEMBERSHIP["lira-offline"](Trials(moved, found.member, found.population))
    rest = slice(1, None)
    deviation = (after[0] - before[0]).std()
    assert deviation < 1e-9
    assert not np.allclose(after[rest], before[rest])
