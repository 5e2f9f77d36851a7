"""A run of noisy sums alone, end to end: two answers a client, and not one round."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client.ledger import inspect_ledger
from client.settings import read_settings, witness_place
from common.accounting import epsilon
from common.config import RunConfig, defaults, parse
from common.events import DpEvent
from common.folders import (
    METRICS,
    RESULTS,
    STUDENT,
    STUDENT_TRANSFERRED,
    TEACHER_REFINED,
)
from common.plan import statistics_noise
from common.student import load_student
from common.wire import SKETCH, STATISTICS
from server.teacher.checkpoint import load_teacher
from server.teacher.factors import Factors
from simulations.experiment import run_experiment
from simulations.results import read_results

SET = "synthetic:num_users=200,num_items=60,interactions_per_user=10"
TARGET = 4.0


def config(**overrides) -> RunConfig:
    small = {
        "data.public": SET,
        "data.private": SET,
        "partition.num-clients": 2,
        "partition.public-users": 30,
        "partition.validation-users": 8,
        "partition.heldout-users": 40,
        "student.dim": 8,
        "statistics.share": 1.0,
        "statistics.rank": 8,
        "statistics.directions": 4,
        "training.rounds": 0,
        "privacy.target-epsilon": TARGET,
        "privacy.declared-users": 65,
        "evaluation.baselines": False,
        "evaluation.resamples": 50,
    }
    return parse(defaults() | small | overrides)


def charges(run: Path) -> list[list]:
    """Each client's ledger, which has to be sound and witnessed."""
    found = []
    for client in sorted((run / "federation" / "clients").iterdir()):
        place = witness_place(client, read_settings(client))
        _, entries = inspect_ledger(client, place)
        found.append([entry.charge for entry in entries])
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("statistics") / "run"
    run_experiment(config(), out)
    return out


def test_each_ledger_holds_the_two_events_and_no_other(run: Path) -> None:
    noise = statistics_noise(config())
    ledgers = charges(run)
    assert len(ledgers) == 2
    for made in ledgers:
        assert [charge.purpose for charge in made] == [STATISTICS, SKETCH]
        assert [charge.number for charge in made] == [1, 1]
        expected = [DpEvent(noise.pairs, 1.0, 1), DpEvent(noise.sketch, 1.0, 1)]
        for charge, event in zip(made, expected, strict=True):
            assert charge.event.noise_multiplier == pytest.approx(
                event.noise_multiplier, rel=1e-6
            )
            assert (charge.event.sample_rate, charge.event.steps) == (1.0, 1)
        assert epsilon([charge.event for charge in made], 1e-5) <= TARGET


def test_the_promise_is_kept_to_the_target(run: Path) -> None:
    promise = read_results(run / RESULTS).promise
    assert TARGET - 0.01 <= promise.epsilon <= TARGET
    assert promise.unit == "user"
    assert "noised sums of items and of pairs of items" in promise.released
    assert "student updates" not in promise.released


def test_the_traffic_of_both_sums_is_in_the_results(run: Path) -> None:
    pairs, sketch = read_results(run / RESULTS).statistics
    assert (pairs.question, sketch.question) == ("pairs", "sketch")
    for found in (pairs, sketch):
        assert (found.survivors, found.num_clients) == (2, 2)
        assert found.bytes_down_per_client >= 60 * 4
    # Counts of 60 items and 1,770 pairs; 60 times 4 directions.
    assert pairs.bytes_up_per_client >= (60 + 1770) * 4
    assert 60 * 4 * 4 <= sketch.bytes_up_per_client < pairs.bytes_up_per_client


def test_nothing_was_trained_and_something_was_learnt(run: Path) -> None:
    results = read_results(run / RESULTS)
    assert results.rounds == ()
    assert {"teacher", "teacher_refined", "student_private"} <= set(results.models)
    assert isinstance(load_teacher(run / TEACHER_REFINED, None), Factors)
    student, before = (
        load_student(run / STUDENT),
        load_student(run / STUDENT_TRANSFERRED),
    )
    assert not torch.equal(student.encoder.weight, before.encoder.weight)


def test_every_client_got_the_student(run: Path) -> None:
    chosen = load_student(run / STUDENT).state_dict()
    for client in (run / "federation" / "clients").iterdir():
        got = load_student(client / STUDENT).state_dict()
        assert all(torch.equal(got[name], chosen[name]) for name in chosen)


def test_without_a_sketch_there_is_one_event_of_less_noise(tmp_path: Path) -> None:
    """The whole budget goes into the first question, which is then less noisy."""
    alone = config(**{"statistics.sketch-share": 0.0})
    results = run_experiment(alone, tmp_path / "run")
    for made in charges(tmp_path / "run"):
        assert [charge.purpose for charge in made] == [STATISTICS]
        noise = made[0].event.noise_multiplier
        assert noise == pytest.approx(statistics_noise(alone).pairs, rel=1e-6)
        assert noise < statistics_noise(config()).pairs
    assert results.promise.epsilon <= TARGET


def test_a_client_that_sends_huge_sums_is_refused_and_the_run_goes_on(
    tmp_path: Path, monkeypatch
) -> None:
    import client.app as wiring

    honest, asked = wiring.pair_sums, []

    def first_is_huge(*arguments):
        asked.append(honest(*arguments))
        huge = replace(asked[-1], pairs=asked[-1].pairs + np.float32(1e30))
        return huge if len(asked) == 1 else asked[-1]

    monkeypatch.setattr(wiring, "pair_sums", first_is_huge)
    results = run_experiment(config(), tmp_path / "run")
    assert results.status == "complete"
    assert [each.survivors for each in results.statistics] == [1, 2]
    told = (tmp_path / "run" / METRICS).read_text()
    assert told.count("privacy.declared-users") == 1
    assert "teacher_refined" in results.models


def test_statistics_that_make_no_teacher_leave_the_public_one(
    tmp_path: Path, monkeypatch
) -> None:
    def diverges(*arguments):
        raise np.linalg.LinAlgError

    monkeypatch.setattr("server.refinement.find_tastes", diverges)
    results = run_experiment(config(), tmp_path / "run")
    assert results.status == "complete"
    assert "teacher_refined" not in results.models
    assert "public teacher stays" in (tmp_path / "run" / METRICS).read_text()
    student, before = (
        load_student(tmp_path / "run" / name) for name in (STUDENT, STUDENT_TRANSFERRED)
    )
    assert torch.equal(student.encoder.weight, before.encoder.weight)
