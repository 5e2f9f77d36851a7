"""The engines run the same apps to the same arrays."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from common.config import RunConfig, defaults, parse
from simulations.experiment import run_experiment


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
