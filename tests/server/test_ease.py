"""EASE: the closed form against brute force, and its invariants."""

import numpy as np
import pytest
import scipy.sparse as sp

from common.config import defaults, parse
from common.errors import ConfigError
from server.teacher.ease import Ease, fit, fit_gram

ROWS = (np.random.default_rng(4).random((30, 6)) < 0.4).astype(np.float32)


def config(l2: float):
    return parse(defaults() | {"teacher.l2": l2})


def weights_of(rows: np.ndarray, l2: float) -> np.ndarray:
    return fit(sp.csr_matrix(rows), None, config(l2)).weights


def test_two_items_by_hand() -> None:
    """X = [[1,1],[1,0]]: b₁₂ = 1/(2+l2) and b₂₁ = 1/(1+l2)."""
    rows = np.asarray([[1, 1], [1, 0]], np.float32)
    np.testing.assert_allclose(
        weights_of(rows, 1.0), [[0, 1 / 3], [1 / 2, 0]], rtol=1e-6
    )


@pytest.mark.parametrize("l2", [0.1, 3.0, 300.0])
def test_each_column_is_ridge_least_squares_without_the_item_itself(l2: float) -> None:
    """Stacked as plain least squares: [X; √l2·I] b ≈ [x; 0], b_item = 0."""
    weights = weights_of(ROWS, l2)
    for item in range(6):
        others = [other for other in range(6) if other != item]
        design = np.vstack([ROWS[:, others], np.sqrt(l2) * np.eye(5)])
        wanted = np.concatenate([ROWS[:, item], np.zeros(5)])
        best, *_ = np.linalg.lstsq(design.astype(np.float64), wanted, rcond=None)
        np.testing.assert_allclose(weights[others, item], best, rtol=1e-4, atol=1e-6)
        assert weights[item, item] == 0.0


def test_an_item_nobody_touched_neither_gives_nor_takes() -> None:
    rows = ROWS.copy()
    rows[:, 2] = 0.0
    teacher = fit(sp.csr_matrix(rows), None, config(1.0))
    alone = np.eye(rows.shape[1], dtype=np.float32)
    scores = teacher.score(sp.csr_matrix(alone))
    assert not scores[2].any()
    assert not scores[:, 2].any()
    assert np.isfinite(scores).all()
    # It costs nothing either, and a checkpoint keeps it so.
    assert len(teacher.weights) == rows.shape[1] - 1
    inputs, outputs = teacher.tables()
    assert inputs.shape[0] == outputs.shape[0] == rows.shape[1]
    assert not inputs[2].any()
    assert teacher.tensors()["touched"].tolist()[2] == 0.0


def test_positions_in_time_count_as_ones() -> None:
    ordered = sp.csr_matrix(np.cumsum(ROWS, axis=1).astype(np.int32) * (ROWS > 0))
    teacher = fit(ordered, None, config(2.0))
    np.testing.assert_array_equal(teacher.weights, weights_of(ROWS, 2.0))
    np.testing.assert_array_equal(
        teacher.score(ordered), teacher.score(sp.csr_matrix(ROWS))
    )


def test_the_scores_of_a_history_are_the_sum_of_its_items_rows() -> None:
    teacher = Ease(weights_of(ROWS, 2.0))
    history = sp.csr_matrix(np.asarray([[1, 0, 0, 2, 0, 0], [0] * 6], np.int32))
    expected = teacher.weights[0] + teacher.weights[3]
    scores = teacher.score(history)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [expected, np.zeros(6)], rtol=1e-6)
    assert teacher.additive


def test_the_gram_matrix_is_all_that_is_learned_from_and_stays_as_it_is() -> None:
    gram = (ROWS.T @ ROWS).astype(np.float64)
    before = gram.copy()
    np.testing.assert_allclose(fit_gram(gram, 2.0), weights_of(ROWS, 2.0), rtol=1e-6)
    np.testing.assert_array_equal(gram, before)


def test_a_gram_matrix_with_too_negative_eigenvalues_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"teacher\.l2.*positive definite"):
        fit_gram(np.diag([1.0, -5.0]), 2.0)


def test_tables_are_the_best_factors_of_every_rank() -> None:
    teacher = Ease(weights_of(ROWS, 2.0))
    left, values, right = np.linalg.svd(teacher.weights.astype(np.float64))
    into, out = teacher.tables()
    assert into.shape == out.shape == (6, 5)
    for rank in (1, 3, 5):
        best = (left[:, :rank] * values[:rank]) @ right[:rank]
        np.testing.assert_allclose(into[:, :rank] @ out[:, :rank].T, best, atol=1e-6)
    few, _ = teacher.tables(rank=2)
    assert few.shape == (6, 2)
    np.testing.assert_array_equal(teacher.tables()[0], into)
