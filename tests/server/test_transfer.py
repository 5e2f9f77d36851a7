"""Teacher and transfer, on cases small enough to check."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from common.config import defaults, parse
from common.student import StudentSpec, build
from server.soft_labels import label_proxy_set, teacher_logits
from server.teacher import TEACHERS
from server.transfer import TRANSFERS, content_map

CONFIG = parse(defaults())
RNG = np.random.default_rng(0)
ROWS = sp.csr_matrix((RNG.random((40, 9)) < 0.4).astype(np.float32))


def teacher(l2: float = 3.0) -> np.ndarray:
    return TEACHERS["ease"](ROWS, CONFIG.teacher.model_copy(update={"l2": l2}))


def test_ease_solves_the_ridge_with_a_zero_diagonal() -> None:
    weights = teacher()
    dense = ROWS.toarray()
    assert not np.diag(weights).any()
    for item in range(9):
        others = [i for i in range(9) if i != item]
        x = dense[:, others].astype(np.float64)
        best = np.linalg.solve(x.T @ x + 3.0 * np.eye(8), x.T @ dense[:, item])
        np.testing.assert_allclose(weights[others, item], best, rtol=1e-4, atol=1e-6)


def transferred(dim: int, method: str = "svd", **changes):
    spec = StudentSpec(9, dim, 2.0, 0.0)
    settings = CONFIG.transfer.model_copy(update={"content": False} | changes)
    known = np.asarray(ROWS.sum(axis=0)).ravel() > 0
    features = np.eye(9, dtype=np.float32)
    state = TRANSFERS[method](teacher(), features, known, spec, settings)
    return spec, state


@pytest.mark.parametrize("dim", [8, 20])
def test_svd_keeps_the_teachers_scores_when_the_rank_allows(dim: int) -> None:
    spec, state = transferred(dim)
    student = build(spec, state)
    rows = torch.from_numpy(ROWS.toarray())
    with torch.no_grad():
        scores = student(rows).numpy()
    expected = teacher_logits(teacher(), ROWS, spec)
    if dim < 9:
        left, values, right = np.linalg.svd(teacher().astype(np.float64))
        best = (left[:, :dim] * values[:dim]) @ right[:dim]
        expected = ROWS.toarray() @ best * 2.0
    np.testing.assert_allclose(scores, expected, atol=0.3 if dim > 8 else 1e-4)


def test_unknown_items_are_predicted_from_features_and_known_ones_kept() -> None:
    features = np.asarray([[1, 0], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    vectors = np.asarray([[2.0], [4.0], [-6.0], [99.0]])
    known = np.asarray([True, True, True, False])
    mapped = content_map(features, vectors, known, 1e-9)
    np.testing.assert_allclose(mapped.ravel(), [2.0, 4.0, -6.0, 3.0], atol=1e-6)


def test_a_random_start_ignores_the_teacher_and_repeats() -> None:
    _, first = transferred(4, "random")
    _, second = transferred(4, "random", content=True)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["encoder.weight"].std() > 0


def test_soft_labels_are_the_teachers_best_on_public_users() -> None:
    spec = StudentSpec(9, 4, 2.0, 0.5)
    settings = CONFIG.distillation.model_copy(update={"top_k": 3, "proxy_users": 5})
    labels = label_proxy_set(teacher(), ROWS, spec, settings)
    scores = teacher_logits(teacher(), ROWS[:5], spec)
    assert labels.proxy.shape == (5, 9)
    np.testing.assert_array_equal(labels.item[:, 0], scores.argmax(axis=1))


@pytest.mark.parametrize("dim", [1, 3])
def test_a_teacher_of_rank_d_is_kept_whole_by_d_dimensions(dim: int) -> None:
    left, right = np.random.default_rng(1).normal(size=(2, 9, dim))
    weights = (left @ right.T).astype(np.float32)
    settings = CONFIG.transfer.model_copy(update={"content": False})
    state = TRANSFERS["svd"](
        weights,
        np.eye(9, dtype=np.float32),
        np.ones(9, dtype=bool),
        StudentSpec(9, dim, 2.0, 0.0),
        settings,
    )
    rebuilt = state["encoder.weight"].T @ state["decoder.weight"].T
    np.testing.assert_allclose(rebuilt.numpy(), weights, atol=1e-5)


def test_more_dimensions_than_items_are_left_at_zero() -> None:
    _, state = transferred(20)
    assert state["encoder.weight"].shape == (20, 9)
    assert not state["encoder.weight"][8:].any()
    assert not state["decoder.weight"][:, 8:].any()
