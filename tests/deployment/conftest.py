"""Federations of real processes on loopback; a home folder of their own."""

import os

import pytest

from client.deploy.node import environment
from simulations.faults.federation import make
from simulations.faults.network import HERE

os.environ.update(environment())

#: Small, without calibration: the budgets have room for every run of a module. A node
#: that is gone is known to be before the deadline.
SMALL = {
    "run.name": "faults",
    "run.round-timeout": 60.0,
    "run.start-timeout": 20.0,
    "data.public": "synthetic:num_users=200,num_items=60,interactions_per_user=10",
    "data.private": "synthetic:num_users=200,num_items=60,interactions_per_user=10",
    "partition.public-users": 30,
    "partition.validation-users": 8,
    "partition.heldout-users": 40,
    "student.dim": 8,
    "training.rounds": 2,
    "privacy.declared-users": 45,
    "privacy.noise-multiplier": 4.0,
    "privacy.target-epsilon": 1000.0,
    "safeguard.enabled": False,
}


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """HOME and the user's data folder, for these tests."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        patch.setenv("FLWR_HOME", str(folder / "flwr"))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder


@pytest.fixture(scope="session")
def small():
    """A small run's settings."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def shared(home, small):
    """Three clients, started once."""
    found = make(home / "deployment", small, names=[f"IP:{HERE}"])
    found.up()
    yield found
    found.down()


@pytest.fixture(scope="module")
def federation(shared):
    """The same, whole again before each module and after it."""
    shared.up()
    yield shared
    shared.up()
