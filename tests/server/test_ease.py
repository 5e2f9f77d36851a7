"""EASE: the closed form against brute force, and its invariants."""

import numpy as np
import pytest
import scipy.sparse as sp

from common.config import defaults, parse
from server.teacher.ease import fit

TEACHER = parse(defaults()).teacher
ROWS = (np.random.default_rng(4).random((30, 6)) < 0.4).astype(np.float32)


def settings(l2: float):
    return TEACHER.model_copy(update={"l2": l2})


def test_two_items_by_hand() -> None:
    """X = [[1,1],[1,0]]: b₁₂ = 1/(2+l2) and b₂₁ = 1/(1+l2)."""
    rows = sp.csr_matrix(np.asarray([[1, 1], [1, 0]], np.float32))
    weights = fit(rows, settings(1.0))
    np.testing.assert_allclose(weights, [[0, 1 / 3], [1 / 2, 0]], rtol=1e-6)


@pytest.mark.parametrize("l2", [0.1, 3.0, 300.0])
def test_each_column_is_ridge_least_squares_without_the_item_itself(l2: float) -> None:
    """Stacked as plain least squares: [X; √l2·I] b ≈ [x; 0], b_item = 0."""
    weights = fit(sp.csr_matrix(ROWS), settings(l2))
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
    weights = fit(sp.csr_matrix(rows), settings(1.0))
    assert not weights[2].any()
    assert not weights[:, 2].any()
    assert np.isfinite(weights).all()
