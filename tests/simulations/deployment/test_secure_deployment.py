"""A secure sum over real processes: TLS, a roster, a node that dies between rounds."""

import pytest

from client.known_roster import SEEN
from simulations.deployment.processes import living
from tests.simulations.deployment.test_end_to_end import Life

pytestmark = [pytest.mark.slow, pytest.mark.processes]

CLIENTS = tuple(f"{number:04d}" for number in range(5))
CONFIG = """
[run]
name = "devices"
round-timeout = 40.0
[data]
public = "synthetic:num_users=75,num_items=60,interactions_per_user=10"
private = "synthetic:num_users=75,num_items=60,interactions_per_user=10"
[partition]
public-users = 30
validation-users = 8
heldout-users = 40
[student]
dim = 8
[training]
rounds = 2
[distillation]
weight = 0.0
[privacy]
mode = "distributed"
declared-users = 1
target-epsilon = 50.0
[secagg]
clients = 5
threshold = 0.8
corrupt = 0.0
roster = true
parameters = 2000
"""


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    home = tmp_path_factory.mktemp("devices")
    (home / "life.toml").write_text(CONFIG)
    found = Life(home)
    found("init", "--clients", "5", "--config", str(home / "life.toml"))
    yield found
    if found.layout.processes.is_file():
        found("down")


def test_devices_of_a_roster_give_their_sum_and_nothing_else(life):
    life("up")
    run = life.begin("run", "--name", "sums")
    life.wait_for(lambda: life.events("sums", "round"), run, seconds=240)
    living(life.layout)["node-0004"].kill()
    life.finish(run, seconds=400)
    first, second = life.events("sums", "sum")
    steps = ("adverts", "shares", "masked", "confirm", "reveal")
    assert first["steps"] == {step: [5, 5] for step in steps}
    assert second["steps"]["reveal"] == [4, 4]
    assert [line["survivors"] for line in life.events("sums", "round")] == [5, 4]
    assert life.events("sums", "discarded") == []
    for client in CLIENTS[:4]:
        folder = life.layout.client(client).folder
        assert (folder / "student.safetensors").is_file()
        assert (folder / SEEN).is_file(), "the roster's version is remembered"
        charged = [(c.number, c.purpose) for c in life.charges(client)]
        assert charged == [(1, "train"), (2, "train")]
    assert [charge.number for charge in life.charges("0004")] == [1]
