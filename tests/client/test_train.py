"""A client's training: masking, names, steps, randomness."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from client.dp import Mechanism, NoisyOptimizer, PrivateSteps
from client.randomness import secure_stream, seeded_stream
from client.train import Streams, dense, mechanism_of, split, train
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
    history, target = map(dense, split(ROWS, 0.7, seeded_stream(1)))
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
        torch.testing.assert_close((before[name] + update[name]).double(), value)


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
            scored = student(proxy.to(student.encoder.weight))
            return float((scored - torch.from_numpy(scores)).square().mean())

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


def counted(monkeypatch) -> list[int]:
    """Calls of ``add_noise``, one entry each."""
    calls: list[int] = []
    kept = NoisyOptimizer.add_noise

    def counting(self: NoisyOptimizer) -> None:
        calls.append(1)
        kept(self)

    monkeypatch.setattr(NoisyOptimizer, "add_noise", counting)
    return calls


@pytest.mark.parametrize("num_users", [0, 1])
def test_steps_without_users_draw_noise_and_move(monkeypatch, num_users: int) -> None:
    """Mistake 5: one user at rate 0.01 is hardly ever sampled."""
    calls = counted(monkeypatch)
    config = parse(
        FLAT
        | {
            "training.local-steps": 20,
            "privacy.sample-rate": 0.01,
            "privacy.declared-users": 1,
        }
    )
    update = train(
        start(), ROWS[:num_users], None, config, mechanism_of(config, 1.0), streams()
    )
    assert len(calls) == config.training.local_steps == 20
    assert all(bool((value != 0).all()) for value in update.values())


def test_one_user_more_changes_no_public_constant() -> None:
    """Mistake 3: same seeds, same noise and denominator, whatever the rows are."""
    config = parse(FLAT | {"training.local-steps": 3})
    mechanism = mechanism_of(config, 1.0)
    # A clip near zero, and the noise multiplier up by as much: noise alone is left.
    noise_only = Mechanism(1e9, 1e-9, mechanism.sample_rate, mechanism.declared_users)
    updates = [
        train(start(), rows, None, config, noise_only, streams())
        for rows in (ROWS[:9], ROWS, ROWS[:0])
    ]
    for name, value in updates[0].items():
        assert value.any()
        for other in updates[1:]:
            torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-6)


def test_distillation_does_not_look_at_private_rows() -> None:
    scores = np.random.default_rng(1).normal(size=(10, NUM_ITEMS)).astype(np.float32)
    labels = encode(scores, ROWS, NUM_ITEMS)
    other = sp.csr_matrix(1.0 - ROWS.toarray())
    config = parse(FLAT | {"distillation.weight": 0.5, "training.local-steps": 5})
    silent = Mechanism(0.0, 1e-12, 0.5, 8)
    first, second = (
        train(start(), rows, labels, config, silent, streams())
        for rows in (ROWS, other)
    )
    still = train(start(), ROWS, None, config, silent, streams())
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=1e-7)
        assert float(value.abs().max()) > 1e-3
        assert float(still[name].abs().max()) < 1e-9


def test_a_weight_of_zero_distils_nothing() -> None:
    labels = encode(np.ones((10, NUM_ITEMS), np.float32), ROWS, NUM_ITEMS)
    config = parse(FLAT | {"distillation.weight": 0.0})
    mechanism = mechanism_of(config, 1.0)
    first = train(start(), ROWS, labels, config, mechanism, streams())
    second = train(start(), ROWS, None, config, mechanism, streams())
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("chunk", [1, 3, 512])
def test_chunks_of_a_sample_leave_the_update_alone(chunk: int) -> None:
    config = parse(FLAT | {"training.chunk-users": chunk, "training.local-steps": 2})
    whole = parse(FLAT | {"training.chunk-users": 512, "training.local-steps": 2})
    mechanism = mechanism_of(config, 0.0)
    update = train(start(), ROWS, None, config, mechanism, streams())
    expected = train(start(), ROWS, None, whole, mechanism, streams())
    for name, value in update.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def test_masking_treats_empty_and_single_item_users_alike() -> None:
    rows = sp.csr_matrix(np.eye(3, NUM_ITEMS, k=1, dtype=np.float32))
    rows[0, 1] = 0.0
    rows.eliminate_zeros()
    history, target = map(dense, split(rows, 0.5, seeded_stream(3)))
    assert not history[0].any()
    assert not target[0].any()
    assert torch.equal(history + target, torch.from_numpy(rows.toarray()))


def test_mode_local_takes_the_public_constants_of_the_config() -> None:
    config = parse(FLAT | {"privacy.max-grad-norm": 0.3})
    assert mechanism_of(config, 1.7) == Mechanism(1.7, 0.3, 0.5, 8)
    assert mechanism_of(config, 1.7).denominator == 4.0


def test_a_student_that_grew_too_large_learns_from_nobody(monkeypatch) -> None:
    """Near overflow a user's verdict could depend on others, so all are left out."""
    accumulated = []
    kept = PrivateSteps.accumulate
    monkeypatch.setattr(
        PrivateSteps,
        "accumulate",
        lambda self, *rows: (accumulated.append(1), kept(self, *rows))[1],
    )
    config = parse(
        FLAT
        | {
            "training.local-steps": 3,
            "training.learning-rate": 1e8,
            "privacy.max-grad-norm": 1e8,
            "privacy.sample-rate": 1.0,
        }
    )
    update = train(start(), ROWS, None, config, mechanism_of(config, 1.0), streams())
    assert len(accumulated) == 1, "the first step's rows; then none"
    assert all(bool((value != 0).all()) for value in update.values())
