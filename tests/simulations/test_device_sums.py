"""A cohort done at once is the cohort done device by device."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from client.dp import Mechanism
from client.randomness import seeded_stream
from client.train import Streams, split, train
from common.config import defaults, parse
from common.fixed_point import centred, clipped, decode, encode, wrapped
from common.integer_noise import contribution, rotation_seed, sum_plan
from common.rotation import rotate
from common.secure_round import num_parameters, vector_of
from common.student import StudentSpec, build, random_state, shapes
from simulations.device_sums import Cohort, clipped_sum, decoded_sum, noise, rounded

SPEC = StudentSpec(num_items=60, dim=8, logit_scale=20.0, history_exponent=0.8)
DIM = num_parameters(shapes(SPEC).values())
DEVICES, CLIP = 20, 0.1
SEED = rotation_seed("1", 3)


def config(**overrides):
    return parse(
        defaults()
        | {
            "privacy.mode": "distributed",
            "privacy.declared-users": 1,
            "privacy.max-grad-norm": CLIP,
            "secagg.clients": DEVICES,
            "secagg.parameters": DIM,
        }
        | overrides
    )


PLAN = sum_plan(config(), 1.0, DIM)


@pytest.fixture(scope="module")
def rows() -> sp.csr_matrix:
    """Users of very different sizes; one has nothing, one a single item."""
    rng = np.random.default_rng(0)
    dense = rng.random((DEVICES, SPEC.num_items)) < rng.random((DEVICES, 1)) * 0.6
    dense[3], dense[4] = False, np.arange(SPEC.num_items) == 7
    return sp.csr_matrix(dense.astype(np.float32))


@pytest.fixture(scope="module")
def student():
    state = random_state(SPEC, torch.Generator().manual_seed(0))
    return {name: value * 5 for name, value in state.items()}


def one_by_one(rows, student, steps=1, rate=1.0, clip=CLIP) -> list[np.ndarray]:
    """What each device's own code makes of its row, clipped as it is encoded."""
    plain, found = Mechanism(0.0, math.inf, 1.0, 1), []
    settings = config(**{"training.local-steps": steps, "training.learning-rate": rate})
    for user in range(rows.shape[0]):
        streams = Streams(*(seeded_stream(user, each) for each in "smn"))
        update = train(build(SPEC, student), rows[user], None, settings, plain, streams)
        found.append(clipped(vector_of(update, SPEC), clip))
    return found


@pytest.fixture(scope="module")
def updates(rows, student) -> list[np.ndarray]:
    return one_by_one(rows, student)


def at_once(rows, student, steps=1, rate=1.0, clip=CLIP) -> np.ndarray:
    fraction = config().training.target_fraction
    streams = [seeded_stream(user, "m") for user in range(rows.shape[0])]
    masked = []
    for _ in range(steps):
        parts = [
            split(row, fraction, each) for row, each in zip(rows, streams, strict=True)
        ]
        histories, targets = zip(*parts, strict=True)
        masked.append((sp.vstack(histories, "csr"), sp.vstack(targets, "csr")))
    return clipped_sum(SPEC, student, masked, rate, clip)


def test_the_clipped_sum_is_that_of_the_devices_own_code(
    rows, student, updates, monkeypatch
) -> None:
    expected = sum(updates)
    assert max(map(np.linalg.norm, updates)) == pytest.approx(CLIP)
    assert min(map(np.linalg.norm, updates)) == 0
    np.testing.assert_allclose(at_once(rows, student), expected, atol=2e-6)
    # Whatever blocks it is done in.
    monkeypatch.setattr("simulations.device_sums.BLOCK", 7)
    np.testing.assert_allclose(at_once(rows, student), expected, atol=2e-6)


@pytest.mark.parametrize(("rate", "apart"), [(1e-2, 0.1), (1e-4, 2e-3)])
def test_several_steps_are_those_of_the_devices_own_code_to_first_order(
    rows, student, rate: float, apart: float
) -> None:
    steps = (4, rate, CLIP * rate)
    expected = sum(one_by_one(rows, student, *steps))
    off = np.linalg.norm(at_once(rows, student, *steps) - expected)
    assert off < apart * np.linalg.norm(expected)


def test_the_roundings_of_a_cohort_are_never_less_than_the_devices_own(
    updates,
) -> None:
    stream = seeded_stream(1, "roundings")
    exact = rotate(sum(updates) * PLAN.grid.scale, SEED)
    own, ours = [], []
    for _ in range(20):
        parts = [encode(each, PLAN.grid, SEED, stream.uniform) for each in updates]
        own.append(sum(parts) - exact)
        ours.append(rounded(exact, DEVICES, stream) - exact)
    spread = np.std(own) ** 2, np.std(ours) ** 2
    error = math.sqrt(2 / (20 * DIM))
    # A fraction's variance is at most ¼, and 1/6 where all fractions are as likely.
    assert DEVICES / 8 < spread[0] < DEVICES / 4 * (1 + 5 * error)
    assert spread[1] == pytest.approx((DEVICES + 1) / 4, rel=0.05)
    assert abs(np.mean(own)) < 5 * math.sqrt(spread[0] / (20 * DIM))
    assert abs(np.mean(ours)) < 5 * math.sqrt(spread[1] / (20 * DIM))


@pytest.mark.parametrize("finished", [DEVICES, 16])
def test_the_decoded_mean_has_the_devices_own_mean_and_noise(
    rows, student, updates, finished: int
) -> None:
    """Those outside the sample add noise alone; the silent ones add nothing."""
    sampled = finished - 5
    stream, exact = seeded_stream(2, "sums"), sum(updates[:sampled]) / PLAN.expected
    devices = [*updates[:sampled], *[None] * (finished - sampled)]
    own, ours = [], []
    for _ in range(30):
        vectors = [contribution(u, DIM, PLAN, SEED, stream) for u in devices]
        total = centred(wrapped(sum(vectors), PLAN.bits), PLAN.bits)
        own.append(decode(total, PLAN.grid, SEED) / PLAN.expected - exact)
        cohort = Cohort(finished, sampled)
        mean = decoded_sum(exact * PLAN.expected, cohort, PLAN, SEED, stream)
        ours.append(mean - exact)
    unit = PLAN.grid.scale * PLAN.expected
    planned = math.sqrt(PLAN.share * finished) / unit
    error = math.sqrt(1 / (2 * 30 * DIM))
    for found in (own, ours):
        assert abs(np.mean(found)) < 5 * planned / math.sqrt(30 * DIM)
        # The roundings' variance beside that of the noise.
        most = math.sqrt(PLAN.share * finished + (sampled + 1) / 4) / unit
        assert planned * (1 - 5 * error) < np.std(found) < most * (1 + 5 * error)


def test_large_noise_is_drawn_in_pieces(monkeypatch) -> None:
    monkeypatch.setattr("simulations.device_sums.MOST_VARIANCE", 30.0)
    found = noise(100.0, 40_000, seeded_stream(3, "noise"))
    assert found.var() == pytest.approx(100.0, rel=0.05)
    assert abs(found.mean()) < 5 * math.sqrt(100 / 40_000)


def test_a_sum_beyond_the_ring_wraps() -> None:
    tiny = sum_plan(config(**{"privacy.max-grad-norm": 0.01}), 1.0, DIM)
    large = np.zeros(DIM)
    large[0] = 2.0 ** (tiny.bits + 2) * tiny.grid.clip
    stream = seeded_stream(4, "wrapped")
    mean = decoded_sum(large, Cohort(DEVICES, 1), tiny, SEED, stream)
    assert np.linalg.norm(mean) < np.linalg.norm(large) / tiny.expected / 2
