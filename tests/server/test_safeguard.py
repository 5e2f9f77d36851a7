"""Do no harm: which weight is chosen, and what the curve says."""

import math
from types import SimpleNamespace

import pytest
import scipy.sparse as sp
import torch

from common.config import defaults, parse
from common.student import interpolate
from server.app import release
from server.safeguard import (
    Choice,
    choose_start,
    choose_weight,
    origin_of,
    validate,
)


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


def test_a_trained_student_that_is_worse_takes_nothing_away(case) -> None:
    choice = choose(case, case.good, case.bad)
    assert choice.weight < 0.5
    state = interpolate(case.good, case.bad, choice.weight)
    assert validate(state, case.spec, case.shown, case.held) == 1.0


def test_a_trained_student_that_is_better_gets_all_and_so_does_a_tie(case) -> None:
    choice = choose(case, case.bad, case.good)
    assert choice.weight == 1.0
    assert "3 public validation users" in choice.reason
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


CHOSEN = Choice(0.5, ((0.0, 0.1), (0.5, 0.2)), "So it was.", "refined")


def between(case, released, transferred):
    return choose_start(CHOSEN, released, transferred, case.spec, case.shown, case.held)


def test_a_refinement_that_harms_is_taken_back(case) -> None:
    choice = between(case, case.bad, case.good)
    assert (choice.weight, choice.start) == (0.0, "transferred")
    assert choice.curve == CHOSEN.curve
    assert "own student ranked better (1.0000)" in choice.reason
    assert "(0.3869)" in choice.reason


def test_a_refinement_that_helps_stands_and_so_does_a_tie(case) -> None:
    for released, transferred in ((case.good, case.bad), (case.good, case.good)):
        choice = between(case, released, transferred)
        assert (choice.weight, choice.start) == (0.5, "refined")
        assert choice.reason.startswith("So it was. ")
        assert "ranked no better" in choice.reason


def test_without_validation_users_a_refinement_stands(case) -> None:
    none = sp.csr_matrix((0, 6), dtype=case.shown.dtype)
    judges = (case.spec, none, none)
    assert choose_start(CHOSEN, case.bad, case.good, *judges) == CHOSEN


def test_validation_users_with_nothing_held_choose_nothing(case) -> None:
    none = sp.csr_matrix(case.held.shape, dtype=case.held.dtype)
    with pytest.warns(RuntimeWarning):
        choice = choose_start(CHOSEN, case.bad, case.good, case.spec, case.shown, none)
    assert (choice.weight, choice.start) == (0.5, "refined")


def test_where_the_start_came_from_is_seen_in_its_numbers(case) -> None:
    assert origin_of(case.good, {n: v.clone() for n, v in case.good.items()}) == (
        "transferred"
    )
    assert origin_of(case.bad, case.good) == "refined"


def released(case, transferred, start, trained, **overrides):
    flat = defaults() | {"statistics.share": 0.5} | overrides
    public = SimpleNamespace(shown=case.shown, held=case.held)
    return release(parse(flat), case.spec, public, transferred, start, trained)


def ndcg(case, state) -> float:
    return validate(state, case.spec, case.shown, case.held)


@pytest.mark.parametrize("rounds", [0, 2])
def test_what_is_released_is_the_best_of_all_candidates(case, rounds) -> None:
    asked = {"training.rounds": rounds}
    student, choice = released(case, case.good, case.bad, case.bad, **asked)
    assert ndcg(case, student) == 1.0
    assert (choice.weight, choice.start) == (0.0, "transferred")
    for name, value in student.items():
        assert torch.equal(value, case.good[name])
    student, choice = released(case, case.bad, case.good, case.good, **asked)
    assert ndcg(case, student) == 1.0
    assert (choice.weight, choice.start) == (1.0, "refined")


def test_without_statistics_nothing_else_is_a_candidate(case) -> None:
    _, choice = released(
        case, case.good, case.good, case.bad, **{"statistics.share": 0}
    )
    assert choice.start == "transferred"
    assert "own student" not in choice.reason


def test_a_safeguard_that_is_off_leaves_what_harms(case) -> None:
    off = {"safeguard.enabled": False}
    student, choice = released(case, case.good, case.bad, case.bad, **off)
    assert ndcg(case, student) < 0.5
    assert (choice.weight, choice.start) == (1.0, "refined")
