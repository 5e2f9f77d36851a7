"""A client's training: masking, names, steps, randomness."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from client.dp import Mechanism, NoisyOptimizer
from client.randomness import secure_stream, seeded_stream
from client.train import Streams, mechanism_of, split, train
from common.config import parse
from common.soft_labels import encode
from common.student import build, random_state, shapes
from tests.client.conftest import FLAT, NUM_ITEMS, SPEC

ROWS = sp.csr_matrix(
    (np.random.default_rng(0).random((10, NUM_ITEMS)) < 0.5).astype(np.float32)
)


def streams(seed: int = 0) -> Streams:
    names = ("sampling", "masking", "noise")
    return Streams(*(seeded_stream(seed, name) for name in names))


def start():
    return build(SPEC, random_state(SPEC, torch.Generator().manual_seed(0)))


def test_history_and_target_share_a_users_items_between_them() -> None:
    history, target = split(ROWS, 0.7, seeded_stream(1))
    assert torch.equal(history + target, torch.from_numpy(ROWS.toarray()))
    assert not bool((history * target).any())
    assert 0.5 < float(target.sum() / ROWS.nnz) < 0.9
    assert float(ROWS.sum()) == ROWS.nnz, "the caller's rows are left alone"


@pytest.mark.parametrize("local_steps", [1, 3])
def test_every_local_step_adds_noise_once_and_names_stay(
    monkeypatch, local_steps: int
) -> None:
    calls = []
    kept = NoisyOptimizer.add_noise
    monkeypatch.setattr(
        NoisyOptimizer, "add_noise", lambda self: (calls.append(1), kept(self))[1]
    )
    config = parse(FLAT | {"training.local-steps": local_steps})
    student = start()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    update = train(student, ROWS, None, config, mechanism_of(config, 1.0), streams())
    assert len(calls) == local_steps
    assert {n: tuple(v.shape) for n, v in update.items()} == shapes(SPEC)
    for name, value in student.state_dict().items():
        torch.testing.assert_close(before[name] + update[name], value)


def test_an_empty_client_still_sends_noise() -> None:
    config = parse(FLAT)
    none = sp.csr_matrix((0, NUM_ITEMS), dtype=np.float32)
    update = train(start(), none, None, config, mechanism_of(config, 1.0), streams())
    assert all(bool((value != 0).all()) for value in update.values())


def test_distillation_pulls_towards_the_teacher() -> None:
    config = parse(
        FLAT
        | {
            "distillation.weight": 0.05,
            "distillation.loss": "mse",
            "training.local-steps": 200,
        }
    )
    scores = np.random.default_rng(1).normal(size=(10, NUM_ITEMS)).astype(np.float32)
    labels = encode(scores, ROWS, NUM_ITEMS)
    silent = Mechanism(0.0, 1e-12, 0.5, 8)
    student = start()
    proxy = torch.from_numpy(ROWS.toarray())

    def distance() -> float:
        with torch.no_grad():
            return float((student(proxy) - torch.from_numpy(scores)).square().mean())

    far = distance()
    train(student, ROWS, labels, config, silent, streams())
    assert distance() < 0.8 * far


def test_mode_off_neither_clips_nor_adds_noise() -> None:
    mechanism = mechanism_of(parse(FLAT | {"privacy.mode": "off"}), 3.0)
    assert mechanism.noise_multiplier == 0.0
    assert mechanism.max_grad_norm == float("inf")


def test_streams_repeat_by_seed_and_differ_by_label() -> None:
    first = seeded_stream(1, "a").uniform(1000)
    assert (first == seeded_stream(1, "a").uniform(1000)).all()
    for other in (seeded_stream(2, "a"), seeded_stream(1, "b"), secure_stream()):
        assert not (first == other.uniform(1000)).any()
    assert 0.0 < first.min() < first.max() < 1.0


def test_normal_numbers_have_normal_moments() -> None:
    drawn = seeded_stream(5).normal((200_000,)).double()
    assert abs(float(drawn.mean())) < 5 / 200_000**0.5
    assert float(drawn.var()) == pytest.approx(1.0, abs=0.02)
    assert float((drawn**4).mean()) == pytest.approx(3.0, abs=0.15)
