"""Do no harm: which weight is chosen, and what the curve says."""

import math

import pytest
import scipy.sparse as sp
import torch

from common.student import interpolate
from server.safeguard import choose_weight, validate


def choose(case, transferred, trained, grid=10):
    return choose_weight(
        transferred, trained, case.spec, case.shown, case.held, grid=grid
    )


def test_ndcg_by_hand(case) -> None:
    """Each user has five unseen items; item 5 is ranked first, or fifth."""
    first = validate(case.good, case.spec, case.shown, case.held)
    last = validate(case.bad, case.spec, case.shown, case.held)
    assert first == pytest.approx(1.0)
    assert last == pytest.approx(1 / math.log2(6))


def test_a_trained_student_that_is_garbage_gets_no_weight(case) -> None:
    garbage = case.bad | {"decoder.bias": -1e6 * torch.arange(6.0)}
    choice = choose(case, case.good, garbage)
    assert choice.weight == 0.0
    assert choice.curve[0][1] > max(value for _, value in choice.curve[1:])


def test_a_trained_student_that_is_better_gets_all_and_so_does_a_tie(case) -> None:
    choice = choose(case, case.bad, case.good)
    assert choice.weight == 1.0
    assert choice.curve[-1] == (1.0, pytest.approx(1.0))
    assert choose(case, case.good, case.good).weight == 1.0


@pytest.mark.parametrize("grid", [1, 4, 10])
def test_the_curve_runs_from_transferred_to_trained(case, grid: int) -> None:
    choice = choose(case, case.bad, case.good, grid)
    assert [w for w, _ in choice.curve] == [s / grid for s in range(grid + 1)]
    for weight, value in choice.curve:
        state = interpolate(case.bad, case.good, weight)
        assert validate(state, case.spec, case.shown, case.held) == value


def test_without_validation_users_the_trained_student_stands(case) -> None:
    none = sp.csr_matrix((0, 6), dtype=case.shown.dtype)
    choice = choose_weight(case.good, case.bad, case.spec, none, none, grid=10)
    assert (choice.weight, choice.curve) == (1.0, ())
    assert "No public validation users" in choice.reason
    assert math.isnan(validate(case.good, case.spec, none, none))
