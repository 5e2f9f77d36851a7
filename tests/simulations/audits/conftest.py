"""Small finished runs to audit: sums alone, rounds, and neither clipped nor noised."""

from pathlib import Path

import pytest

from common.config import defaults, parse
from simulations.audits.world import World, read_world
from simulations.experiment import run_experiment

SET = "synthetic:num_users=130,num_items=60,interactions_per_user=8"
SMALL = {
    "run.seed": 1,
    "data.public": SET,
    "data.private": SET,
    "partition.num-clients": 2,
    "partition.public-users": 20,
    "partition.validation-users": 6,
    "partition.heldout-users": 20,
    "student.dim": 8,
    "statistics.rank": 8,
    "statistics.directions": 4,
    "privacy.declared-users": 45,
    "privacy.target-epsilon": 3.0,
    "evaluation.baselines": False,
    "evaluation.resamples": 20,
}
SUMS = {"statistics.share": 1.0, "training.rounds": 0}
ROUNDS = {"training.rounds": 3, "distillation.weight": 0.01}

#: Clients of one user each, whose server sees sums alone.
DEVICES = {
    "data.public": "synthetic:num_users=52,num_items=30,interactions_per_user=8",
    "data.private": "synthetic:num_users=52,num_items=30,interactions_per_user=8",
    "partition.num-clients": 12,
    "partition.public-users": 20,
    "partition.validation-users": 5,
    "partition.heldout-users": 20,
    "student.dim": 4,
    "training.rounds": 2,
    "training.learning-rate": 0.5,
    "distillation.weight": 0.0,
    "safeguard.enabled": False,
    "privacy.mode": "distributed",
    "privacy.declared-users": 1,
    "privacy.noise-multiplier": 1.0,
    "secagg.clients": 12,
    "secagg.threshold": 0.75,
    "secagg.parameters": 400,
}


def finished(out: Path, **overrides) -> Path:
    """A run's folder."""
    run_experiment(parse(defaults() | SMALL | overrides), out)
    return out


@pytest.fixture(scope="session")
def sums_run(tmp_path_factory) -> Path:
    return finished(tmp_path_factory.mktemp("sums") / "run", **SUMS)


@pytest.fixture(scope="session")
def rounds_run(tmp_path_factory) -> Path:
    return finished(tmp_path_factory.mktemp("rounds") / "run", **ROUNDS)


@pytest.fixture(scope="session")
def open_run(tmp_path_factory) -> Path:
    """NOT PRIVATE: sums and rounds in mode off."""
    off = {"privacy.mode": "off", "statistics.share": 0.5}
    return finished(tmp_path_factory.mktemp("off") / "run", **(ROUNDS | off))


@pytest.fixture(scope="session")
def everything_run(tmp_path_factory) -> Path:
    """Sums, rounds of several steps, and metrics: all that a client can be asked."""
    more = {"statistics.share": 0.5, "client-metrics.every": 1}
    more |= {"training.local-steps": 2, "training.rounds": 2}
    return finished(tmp_path_factory.mktemp("all") / "run", **(ROUNDS | more))


@pytest.fixture(scope="session")
def devices_run(tmp_path_factory) -> Path:
    return finished(tmp_path_factory.mktemp("devices") / "run", **DEVICES)


@pytest.fixture
def devices(devices_run) -> World:
    return read_world(devices_run)


@pytest.fixture
def sums(sums_run) -> World:
    return read_world(sums_run)


@pytest.fixture
def rounds(rounds_run) -> World:
    return read_world(rounds_run)


@pytest.fixture
def unprotected(open_run) -> World:
    return read_world(open_run)
