"""The teacher's scores in the student's units, on public users alone."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from common.student import StudentSpec, build
from server.soft_labels import teacher_logits

RNG = np.random.default_rng(2)
ROWS = sp.csr_matrix((RNG.random((8, 7)) < 0.5).astype(np.float32))
WEIGHTS = RNG.normal(size=(7, 7)).astype(np.float32)


def test_scores_by_hand() -> None:
    """Four items of weight ½ each, scale 20, exponent ½: 20 · 2 / 2."""
    history = sp.csr_matrix(np.asarray([[1, 1, 1, 1, 0]], np.float32))
    weights = np.full((5, 5), 0.5, np.float32)
    logits = teacher_logits(weights, history, StudentSpec(5, 2, 20.0, 0.5))
    np.testing.assert_allclose(logits, np.full((1, 5), 20.0))
    assert logits.dtype == np.float32


@pytest.mark.parametrize("exponent", [0.0, 0.5, 0.8, 1.0])
def test_a_student_that_holds_the_teacher_scores_alike(exponent: float) -> None:
    spec = StudentSpec(7, 7, 20.0, exponent)
    state = {
        "encoder.weight": torch.from_numpy(WEIGHTS.T.copy()),
        "decoder.weight": torch.eye(7),
        "decoder.bias": torch.zeros(7),
    }
    with torch.no_grad():
        scores = build(spec, state)(torch.from_numpy(ROWS.toarray())).numpy()
    expected = teacher_logits(WEIGHTS, ROWS, spec)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
