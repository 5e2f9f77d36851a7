"""A user's taste: what the own items say beyond the scores so far."""

import numpy as np
import scipy.sparse as sp
import torch

from client.taste import OUTPUT_LENGTH, RIDGE, directions, fit_taste
from common.student import StudentSpec, build, random_state
from tests.client.conftest import NUM_ITEMS, SPEC, catalogue


def csr(rows) -> sp.csr_matrix:
    return sp.csr_matrix(np.asarray(rows, dtype=np.float32))


def test_nobody_without_items_has_a_taste() -> None:
    axes = np.eye(3, dtype=np.float32)
    found = fit_taste(np.zeros((1, 3), np.float32), csr([[0, 0, 0]]), axes)
    np.testing.assert_array_equal(found, np.zeros((1, 3), np.float32))


def test_the_optimum_satisfies_its_own_equation() -> None:
    # Stationary: 2·RIDGE·v = Aᵀ(x − n·softmax(offset + A v)).
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(6, 2)).astype(np.float32)
    offset = rng.normal(size=(2, 6)).astype(np.float32)
    own = csr([[1, 1, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0]])
    found = fit_taste(offset, own, axes)
    chance = torch.softmax(torch.from_numpy(offset + found @ axes.T), dim=1).numpy()
    x = own.toarray()
    pull = (x - x.sum(axis=1, keepdims=True) * chance) @ axes
    np.testing.assert_allclose(2 * RIDGE * found, pull, atol=1e-3)


def test_the_own_items_rise() -> None:
    axes = np.eye(4, dtype=np.float32)
    found = fit_taste(np.zeros((1, 4), np.float32), csr([[1, 0, 0, 0]]), axes)
    assert found[0].argmax() == 0 and found[0, 0] > 0 > found[0, 1]


def test_directions_are_public_and_of_known_length() -> None:
    student = build(SPEC, random_state(SPEC, torch.Generator().manual_seed(1)))
    axes = directions(student, catalogue())
    assert axes.dtype == np.float32 and len(axes) == NUM_ITEMS
    features, output = axes[:, : -SPEC.dim], axes[:, -SPEC.dim :]
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, atol=1e-6)
    mean = np.linalg.norm(output, axis=1).mean()
    np.testing.assert_allclose(mean, OUTPUT_LENGTH, atol=1e-6)


def test_a_student_of_zeros_divides_by_nothing() -> None:
    spec = StudentSpec(NUM_ITEMS, 2, 1.0, 0.5)
    empty = random_state(spec, torch.Generator().manual_seed(0))
    student = build(spec, {name: value * 0 for name, value in empty.items()})
    assert np.isfinite(directions(student, catalogue())).all()
