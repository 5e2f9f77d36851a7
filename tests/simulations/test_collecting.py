"""What stands behind the figures of a run's results."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import scipy.sparse as sp
import torch

import server.app
from common.folders import STUDENT, STUDENT_TRANSFERRED, SUMMARY
from common.student import load_student
from simulations import collecting
from simulations.experiment import run_experiment
from tests.simulations.test_statistics_run import config


@pytest.mark.parametrize(("judged", "shown"), [(9, False), (10, True)])
def test_held_out_users_with_nothing_to_find_are_behind_no_figure(
    tmp_path: Path, monkeypatch, judged: int, shown: bool
) -> None:
    """Forty are held out, and so many of them have an item to find."""
    read = collecting.read_heldout

    def few_held(federation: Path):
        found = read(federation)
        rows = sp.diags([float(n < judged) for n in range(found.num_users)])
        held = sp.csr_matrix(rows @ found.held, dtype=found.held.dtype)
        held.eliminate_zeros()
        assert (held.getnnz(axis=1) > 0).sum() == judged
        return replace(found, held=held)

    monkeypatch.setattr(collecting, "read_heldout", few_held)
    results = run_experiment(config(), tmp_path / "run")
    assert results.federation.heldout_users == 40
    assert bool(results.models) == shown
    assert ("fewer than 10 users" in results.suppressed) != shown


def test_the_verdict_names_what_the_rest_of_the_weight_is_of(tmp_path: Path) -> None:
    """With statistics the rounds start from the refined student."""
    rounds = {"statistics.share": 0.5, "training.rounds": 1}
    verdict = run_experiment(config(**rounds), tmp_path / "run").verdict
    assert verdict is not None
    assert verdict.text.endswith("refined start.")


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_refinement_that_harms_is_not_served_and_it_is_said(
    tmp_path: Path, monkeypatch, rounds: int
) -> None:
    refine = server.app.refine

    def harmful(*arguments):
        found = refine(*arguments)
        return replace(found, outputs=-found.outputs)

    monkeypatch.setattr(server.app, "refine", harmful)
    asked = {"statistics.share": 0.5 if rounds else 1.0, "training.rounds": rounds}
    results = run_experiment(config(**asked), tmp_path / "run")
    served, public = (
        load_student(tmp_path / "run" / name).state_dict()
        for name in (STUDENT, STUDENT_TRANSFERRED)
    )
    for name, value in public.items():
        assert torch.equal(served[name], value)
    safeguard = json.loads((tmp_path / "run" / SUMMARY).read_text())["safeguard"]
    assert (safeguard["weight"], safeguard["start"]) == (0.0, "transferred")
    assert "ranked better" in safeguard["reason"]
    assert results.interpolation_weight is None
    assert len(results.interpolation_curve) == (11 if rounds else 0)
    assert results.verdict is not None
    assert results.verdict.text.endswith("0% trained and 100% transferred student.")
