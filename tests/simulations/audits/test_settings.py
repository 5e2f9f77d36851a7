"""What attacks share: together they refute a true promise as rarely as one would."""

from dataclasses import replace

import pytest

from simulations.audits.conformance import checks
from simulations.audits.conformance.observed import Observed, normal_bounds
from simulations.audits.one_run import audit_canaries, viewpoints_of
from simulations.audits.settings import QUICK


@pytest.mark.parametrize(
    ("attacks", "deciding"),
    [
        (("canaries", "membership", "checks", "leaks", "integrity"), 3),
        (("checks", "checks"), 1),
        (("leaks", "integrity"), 1),
        ((), 1),
    ],
)
def test_attacks_that_may_refute_share_what_confidence_leaves(attacks, deciding):
    assert replace(QUICK, attacks=attacks).deciding == deciding


def test_canaries_leave_room_for_the_other_attacks(sums, tmp_path):
    settings = replace(
        QUICK,
        attacks=("canaries", "checks"),
        designs=("random",),
        num_canaries=20,
        seed=1,
    )
    found = audit_canaries(sums, settings, tmp_path, lambda text: None)
    left = 0.05 / (len(viewpoints_of(sums)) * 2)
    assert {round(1 - each.joint_confidence, 9) for each in found} == {round(left, 9)}


def test_checks_leave_room_for_the_other_attacks(sums, tmp_path, monkeypatch):
    seen = Observed("noise", "A.", "m", 0.0, 0.0, normal_bounds(), "D.")
    monkeypatch.setattr(checks, "observe", lambda world, seed, tell: [seen])
    alone, beside = (
        checks.run_checks(sums, replace(QUICK, attacks=names), tmp_path, print)[0].high
        for names in (("checks",), QUICK.attacks)
    )
    # 1 − 0.05 / 2 and 1 − 0.05 / 6 of the normal distribution.
    assert (alone, beside) == pytest.approx((1.960, 2.394), abs=1e-3)
