"""The teacher's scores in the student's units, on public users alone."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from common.config import defaults, parse
from common.soft_labels import decode
from common.student import StudentSpec, build
from server.distillation import teacher_logits
from server.soft_labels import label_proxy_set
from server.teacher.ease import Ease

RNG = np.random.default_rng(2)
ROWS = sp.csr_matrix((RNG.random((8, 7)) < 0.5).astype(np.float32))
WEIGHTS = RNG.normal(size=(7, 7)).astype(np.float32)


def test_scores_by_hand() -> None:
    """Four items of weight ½ each, scale 20, exponent ½: 20 · 2 / 2."""
    history = sp.csr_matrix(np.asarray([[1, 1, 1, 1, 0]], np.float32))
    weights = np.full((5, 5), 0.5, np.float32)
    logits = teacher_logits(Ease(weights), history, StudentSpec(5, 2, 20.0, 0.5))
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
    expected = teacher_logits(Ease(WEIGHTS), ROWS, spec)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_labels_are_the_teachers_best_items_and_tell_no_order() -> None:
    spec = StudentSpec(7, 2, 20.0, 0.5)
    settings = parse(defaults() | {"distillation.top-k": 3}).distillation
    ordered = ROWS.copy()
    ordered.data = np.arange(1, ROWS.nnz + 1).astype(np.int32)
    teacher = Ease(WEIGHTS)
    labels = label_proxy_set(teacher, ordered, spec, settings)
    np.testing.assert_array_equal(labels.proxy.toarray(), ROWS.toarray())
    scores = teacher_logits(teacher, ROWS, spec)
    exact = np.take_along_axis(scores, labels.item.astype(np.int64), axis=1)
    best = -np.sort(-scores, axis=1)[:, :3]
    np.testing.assert_allclose(-np.sort(-exact, axis=1), best)
    np.testing.assert_allclose(decode(labels).numpy(), exact, atol=0.3)
