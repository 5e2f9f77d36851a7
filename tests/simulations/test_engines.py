"""The engines run the same apps to the same arrays."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from safetensors.numpy import load_file

from client.app import app as client
from common.config import RunConfig, defaults, parse, to_flat
from common.durable_files import read_or_create_secret
from common.errors import ProtocolError
from common.folders import SERVER_KEY
from common.signature import public_key
from server.app import app as server
from simulations.engine import Job, run_in_process
from simulations.experiment import prepare, run_experiment


def tiny(**overrides) -> RunConfig:
    flat = defaults() | {
        "data.public": "synthetic:num_users=120,num_items=40,interactions_per_user=8",
        "data.private": "synthetic:num_users=120,num_items=40,interactions_per_user=8",
        "run.seed": 5,
        "partition.num-clients": 3,
        "partition.public-users": 20,
        "partition.validation-users": 5,
        "partition.heldout-users": 20,
        "student.dim": 4,
        "training.rounds": 2,
        "privacy.declared-users": 27,
        "privacy.noise-multiplier": 1.0,
        "distillation.weight": 0.1,
        "distillation.top-k": 10,
        "evaluation.baselines": False,
        "evaluation.resamples": 20,
    }
    return parse(flat | overrides)


def test_a_seeded_run_repeats_bit_for_bit(tmp_path: Path) -> None:
    run_experiment(tiny(), tmp_path / "a")
    run_experiment(tiny(), tmp_path / "b")
    first = load_file(tmp_path / "a" / "student.safetensors")
    second = load_file(tmp_path / "b" / "student.safetensors")
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_an_unseeded_run_does_not_repeat(tmp_path: Path) -> None:
    config = tiny(**{"run.seed": -1, "safeguard.enabled": False})
    run_experiment(config, tmp_path / "a")
    run_experiment(config, tmp_path / "b")
    first = load_file(tmp_path / "a" / "student.safetensors")
    second = load_file(tmp_path / "b" / "student.safetensors")
    assert not np.array_equal(first["decoder.weight"], second["decoder.weight"])


@pytest.mark.slow
def test_flowers_ray_engine_gives_the_same_arrays(tmp_path: Path) -> None:
    config = tiny(**{"safeguard.enabled": False})
    here = run_experiment(config, tmp_path / "here")
    ray = run_experiment(config, tmp_path / "ray", engine="ray")
    first = load_file(tmp_path / "here" / "student.safetensors")
    second = load_file(tmp_path / "ray" / "student.safetensors")
    for name, values in first.items():
        # Ray's workers may sum a product in another order: a few last bits.
        np.testing.assert_allclose(values, second[name], rtol=1e-5, atol=1e-7)
    assert [r.survivors for r in ray.rounds] == [3, 3]
    for metric, found in here.models["student_private"].items():
        other = ray.models["student_private"][metric]
        assert found.value == pytest.approx(other.value, abs=0.01)


@pytest.mark.parametrize("trusted", [True, False])
def test_clients_may_consent_to_a_servers_key_alone(tmp_path: Path, trusted) -> None:
    """The server signs with the key in its state folder; nobody named the run."""
    config = tiny(**{"training.rounds": 1})
    prepare(config, tmp_path / "federation")
    out = tmp_path / "out"
    key = public_key(read_or_create_secret(out / "state" / SERVER_KEY))
    clients = tmp_path / "federation" / "clients"
    for path in sorted(clients.glob("*/settings.toml")):
        tree = tomllib.loads(path.read_text()) | {"runs": []}
        tree["servers"] = [key if trusted else "ab" * 32]
        path.write_text(tomli_w.dumps(tree))
    public = tmp_path / "federation" / "server"
    job = Job(7, to_flat(config), 3, clients, public, out)
    if not trusted:
        with pytest.raises(ProtocolError, match="every client failed or refused"):
            run_in_process(server, client, job)
        return
    run_in_process(server, client, job)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    counts = [json.loads(line).get("survivors") for line in lines]
    assert [count for count in counts if count is not None] == [3, 3]
