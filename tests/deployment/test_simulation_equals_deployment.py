"""The same folders, the same seed: in one process, and as a TLS federation."""

import json
import secrets
import shutil

import pytest
import torch

from client.ledger import inspect_ledger
from client.settings import read_settings, witness_place
from common.config import parse
from common.plan import noise_multiplier, total_statistics_noise
from common.student import load_student
from simulations.engine import Job, run_in_process
from simulations.faults.federation import make

pytestmark = [pytest.mark.slow, pytest.mark.processes]

CLIENTS = ("0000", "0001", "0002")
SEEDED = {
    "run.name": "equal",
    "run.seed": 7,
    "run.round-timeout": 90.0,
    "privacy.noise-multiplier": 1.5,
    "statistics.share": 0.3,
    "statistics.noise-multiplier": 1.5,
    "client-metrics.every": 2,
    "safeguard.enabled": False,  # it may choose the start, which would prove little
}


@pytest.fixture(scope="module")
def worlds(home, small):
    """Two copies of one dealt federation, each after its run: folders by engine."""
    deployed = make(home / "equal", small | SEEDED)
    simulated = home / "simulated"
    # Before either asked anybody anything: the same rows, catalogues and settings.
    for name in ("clients", "witnesses", "server/data"):
        shutil.copytree(deployed.folder / name, simulated / name)
    # The clients consented to the key that signs.
    shutil.copytree(deployed.layout.state, simulated / "out/state")
    deployed.up()
    try:
        submitted = deployed.submit("equal")
        state = deployed.end_of(submitted)
        assert state.status == "completed", state.details
    finally:
        deployed.down()
    config = parse(deployed.config)
    job = Job(
        run_id=secrets.randbits(62),
        config=deployed.config
        | {
            "privacy.noise-multiplier": noise_multiplier(config),
            "statistics.noise-multiplier": total_statistics_noise(config),
        },
        num_clients=len(CLIENTS),
        clients=simulated / "clients",
        public=simulated / "server/data",
        out=simulated / "out",
    )
    from client.app import app as client
    from server.app import app as server

    run_in_process(server, client, job)
    return {
        "simulated": (simulated / "clients", job.out),
        "deployed": (deployed.layout.clients, submitted.out),
    }


def charges(clients, name):
    """What a client's ledger was charged for: all but run ids, times and salts."""
    folder = clients / name
    _, entries = inspect_ledger(folder, witness_place(folder, read_settings(folder)))
    found = [entry.charge for entry in entries]
    return [
        (c.purpose, c.name, c.number, c.nonce, c.event, c.plan, c.seeded) for c in found
    ]


def state(path):
    return load_student(path).state_dict()


class TestBothEngines:
    @pytest.mark.parametrize(
        "file", ["student_transferred.safetensors", "student.safetensors"]
    )
    def test_come_to_the_same_weights_bit_for_bit(self, worlds, file):
        ours, theirs = (state(out / file) for _, out in worlds.values())
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), (
                f"{name} differs by {(ours[name] - theirs[name]).abs().max()}"
            )

    def test_the_weights_moved(self, worlds):
        _, out = worlds["deployed"]
        before = state(out / "student_transferred.safetensors")
        after = state(out / "student.safetensors")
        assert any(not torch.equal(before[name], after[name]) for name in before)

    @pytest.mark.parametrize("client", CLIENTS)
    def test_charge_every_client_the_same_events(self, worlds, client):
        ours, theirs = (charges(clients, client) for clients, _ in worlds.values())
        assert ours == theirs
        assert [(purpose, number) for purpose, _, number, *_ in ours] == [
            ("train.statistics", 1),
            ("train.sketch", 1),
            ("train", 1),
            ("train", 2),
            ("evaluate", 2),
        ]
        assert all(seeded for *_, seeded in ours)

    @pytest.mark.parametrize("client", CLIENTS)
    def test_leave_every_client_the_same_student(self, worlds, client):
        ours, theirs = (
            state(clients / client / "student.safetensors")
            for clients, _ in worlds.values()
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_tell_the_same_of_each_round(self, worlds):
        def rounds(out):
            lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
            return [
                {key: line[key] for key in line if key not in ("time", "seconds")}
                for line in lines
                if line["event"] in ("round", "statistics", "delivery", "refusal")
            ]

        ours, theirs = (rounds(out) for _, out in worlds.values())
        assert ours == theirs
        assert len([line for line in ours if line["event"] == "round"]) == 2
