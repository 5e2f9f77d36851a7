"""One-user devices that drop out: a whole run of mode distributed, in one process."""

import json
from collections import Counter
from pathlib import Path

import pytest

from common import wire
from common.config import defaults, parse
from simulations.dropouts import silent_from
from simulations.experiment import run_experiment
from simulations.report import render_report
from simulations.results import Results
from simulations.sum_check import read_checks
from simulations.table import plain_text

SET = "synthetic:num_users=110,num_items=40,interactions_per_user=8"
DEVICES, ROUNDS, DROPOUT, SEED = 20, 2, 0.3, 1


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Results]:
    out = tmp_path_factory.mktemp("devices") / "run"
    settings = {
        "data.public": SET,
        "data.private": SET,
        "run.seed": 5,
        "partition.scheme": "users",
        "partition.num-clients": DEVICES,
        "partition.public-users": 30,
        "partition.validation-users": 5,
        "partition.heldout-users": 40,
        "partition.dropout": DROPOUT,
        "partition.seed": SEED,
        "student.dim": 4,
        "distillation.weight": 0.0,
        "training.rounds": ROUNDS,
        "privacy.mode": "distributed",
        "privacy.declared-users": 1,
        "secagg.clients": DEVICES,
        "secagg.threshold": 0.6,
        "secagg.corrupt": 0.05,
        "secagg.dropped": 0.4,
        "secagg.parameters": 1000,
        "evaluation.baselines": False,
        "evaluation.resamples": 20,
    }
    return out, run_experiment(parse(defaults() | settings), out)


def silent() -> dict[int, Counter]:
    """How many are silent from each phase on, by round."""
    found = {}
    for number in range(1, ROUNDS + 1):
        phases = [
            silent_from(f"{n:04d}", number, DROPOUT, SEED) for n in range(DEVICES)
        ]
        found[number] = Counter(each for each in phases if each is not None)
    return found


def test_drop_outs_in_every_phase_cost_themselves_alone(run) -> None:
    assert set().union(*silent().values()) == set(range(len(wire.SECURE)))
    out, results = run
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    sums = {line["round"]: line for line in lines if line["event"] == "sum"}
    assert sorted(sums) == list(range(1, ROUNDS + 1))
    for number, gone in silent().items():
        steps, left = sums[number]["steps"], DEVICES
        for phase, kind in enumerate(wire.SECURE):
            name = kind.partition(".")[2]
            if name in steps:
                asked, came = steps[name]
                # Who fell silent where nobody was asked is missed at the next step.
                left -= gone[phase] + (gone[phase - 1] if name == "reveal" else 0)
                assert came == left <= asked
        record = results.rounds[number - 1]
        assert record.survivors == steps["masked"][1] >= 12


def test_each_sum_is_the_plain_one_and_everyone_who_reads_is_told(run) -> None:
    out, results = run
    checks = read_checks(out)
    assert [each.survivors for each in checks] == [r.survivors for r in results.rounds]
    assert all(each.equal and each.whole for each in checks)
    assert results.secure_sums.startswith(f"In each of {ROUNDS} rounds,")
    assert "bit for bit" in " ".join(plain_text(results).split())
    assert results.secure_sums in render_report(results)


def test_the_promise_names_threshold_and_trust(run) -> None:
    _, results = run
    sentence = results.promise.sentence
    assert "per user (add or remove one user's rows, the only user of" in sentence
    assert f"provided that 12 of {DEVICES} clients finish a round" in sentence
    assert "trust model: honest-but-curious server" in sentence
    assert results.promise.epsilon <= 8.0
