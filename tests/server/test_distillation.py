"""Server-side distillation: values by hand, and students that learn their teacher."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from common.config import defaults, parse
from common.student import StudentSpec, build, random_state
from server.distillation import (
    FULL_LOSSES,
    Recipe,
    StudentTables,
    distil,
    project,
    teacher_logits,
    thin,
)
from server.teacher.ease import Ease

SETTINGS = parse(defaults()).distillation
RNG = np.random.default_rng(0)
NUM_ITEMS = 12
SPEC = StudentSpec(NUM_ITEMS, 4, 2.0, 0.5)
START = random_state(SPEC, torch.Generator().manual_seed(0))
HISTORIES = sp.csr_matrix(
    np.where(RNG.random((64, NUM_ITEMS)) < 0.4, 1, 0).astype(np.int32)
)


def low_rank_teacher() -> Ease:
    """Three tastes of four items: what a student of four dimensions can learn."""
    block = np.ones((4, 4)) - np.eye(4)
    steps = np.linspace(1.0, 0.7, 4)
    return Ease(np.kron(np.eye(3), block * steps).astype(np.float32))


@dataclass(frozen=True)
class Logits:
    additive: bool = False

    def score(self, history: sp.csr_matrix) -> np.ndarray:
        return np.full(history.shape, 7.0, dtype=np.float32)


def settings(**changes):
    return SETTINGS.model_copy(update={"temperature": 1.0, "top_k": 3} | changes)


def test_additive_scores_become_the_students_units() -> None:
    weights = np.zeros((NUM_ITEMS, NUM_ITEMS), dtype=np.float32)
    weights[[0, 1, 2, 3], 5] = 1.0
    history = sp.csr_matrix(([3, 1, 2, 4], ([0] * 4, [0, 1, 2, 3])), (1, NUM_ITEMS))
    # four items say 1 each; over √4, times 2
    assert teacher_logits(Ease(weights), history, SPEC)[0, 5] == pytest.approx(4.0)
    assert (teacher_logits(Logits(), history, SPEC) == 7.0).all()


def test_an_empty_history_has_finite_logits() -> None:
    empty = sp.csr_matrix((1, NUM_ITEMS), dtype=np.int32)
    assert not teacher_logits(low_rank_teacher(), empty, SPEC).any()
    assert StudentTables.of(START, SPEC).logits(empty).isfinite().all()


def test_tables_score_as_the_student_does() -> None:
    state = START | {"decoder.bias": torch.arange(float(NUM_ITEMS))}
    tables = StudentTables.of(state, SPEC)
    binary = torch.from_numpy((HISTORIES > 0).toarray().astype(np.float32))
    with torch.no_grad():
        expected = build(SPEC, state)(binary)
        torch.testing.assert_close(tables.logits(HISTORIES), expected)
    for name, tensor in tables.state().items():
        assert torch.equal(tensor, state[name])
        assert tensor.is_contiguous()


TEACHER = torch.log(torch.tensor([[8.0, 1.0, 3.0, 2.0]]))
STUDENT = torch.log(torch.tensor([[5.0, 2.0, 2.0, 4.0]]))
SEEN = torch.tensor([[True, False, False, False]])
GAIN = 1 / math.log2(3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # over the unseen: teacher (1, 3, 2)/6, student (2, 2, 4)/8
        (
            "kl",
            math.log(4 / 6) / 6 + math.log(2) / 2 + math.log(2 / 3) / 3,
        ),
        ("mse", (math.log(2) ** 2 + math.log(1.5) ** 2 + math.log(2) ** 2) / 6),
        # the teacher's two best are items 2 and 3; item 1 is the rest
        ("rank", (math.log(8 / 2) + GAIN * math.log(6 / 4)) / (1 + GAIN)),
    ],
)
def test_full_losses_by_hand_leave_out_what_was_seen(name: str, expected: float):
    student = STUDENT.clone().requires_grad_()
    loss = FULL_LOSSES[name](TEACHER, student, SEEN, settings(top_k=2))
    assert loss.tolist() == pytest.approx([expected], rel=1e-5)
    loss.sum().backward()
    assert student.grad[0, 0] == 0
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize("name", FULL_LOSSES)
def test_a_user_who_saw_everything_breaks_nothing(name: str) -> None:
    student = STUDENT.clone().requires_grad_()
    seen = torch.ones(1, 4, dtype=torch.bool)
    loss = FULL_LOSSES[name](TEACHER, student, seen, settings(top_k=2))
    loss.sum().backward()
    assert bool(loss.isfinite().all())
    assert bool(student.grad.isfinite().all())


def top_agreement(teacher: Ease, state, k: int = 2) -> float:
    """Share of the teacher's k best unseen items among the student's."""
    wide = HISTORIES[np.diff(HISTORIES.indptr) <= NUM_ITEMS - k]
    seen = wide.toarray() > 0
    with torch.no_grad():
        student = StudentTables.of(state, SPEC).logits(wide).numpy()
    best = [
        np.argsort(-np.where(seen, -np.inf, scores), axis=1, kind="stable")[:, :k]
        for scores in (teacher.score(wide), student)
    ]
    shared = [len(set(a) & set(b)) for a, b in zip(*best, strict=True)]
    return sum(shared) / (k * len(shared))


@pytest.mark.parametrize("name", FULL_LOSSES)
def test_a_student_learns_its_teachers_ranking(name: str) -> None:
    teacher = low_rank_teacher()
    recipe = Recipe(learning_rate=0.06, batch_users=32)
    learned = distil(teacher, START, SPEC, HISTORIES, settings(loss=name), 60, recipe)
    assert top_agreement(teacher, START) < 0.5
    assert top_agreement(teacher, learned) > 0.75


def test_distilling_is_repeatable_and_leaves_the_start_alone() -> None:
    before = {name: tensor.clone() for name, tensor in START.items()}
    recipe = Recipe(batch_users=16)
    chosen = settings(augmentation="crop")
    first, second = (
        distil(low_rank_teacher(), START, SPEC, HISTORIES, chosen, 2, recipe)
        for _ in range(2)
    )
    for name in START:
        assert torch.equal(first[name], second[name])
        assert torch.equal(START[name], before[name])
        assert not torch.equal(first[name], START[name])


def test_no_epoch_and_no_history_change_nothing() -> None:
    for histories, epochs in ((HISTORIES, 0), (HISTORIES[:0], 3)):
        state = distil(low_rank_teacher(), START, SPEC, histories, settings(), epochs)
        assert all(torch.equal(state[name], START[name]) for name in START)


def test_thinning_shows_a_random_share_and_keeps_places() -> None:
    wide = sp.csr_matrix(np.arange(1, 1001, dtype=np.int32)[None].repeat(50, axis=0))
    thinned = thin(wide, 0.5, np.random.default_rng(0))
    share = np.diff(thinned.indptr) / 1000
    assert 0.45 < share.min() < 0.6 < 0.9 < share.max() <= 1.0
    assert thinned.multiply(wide != thinned.maximum(0)).nnz == 0
    assert wide.nnz == 50_000


def rows_of_the_space(scores: np.ndarray, rank: int) -> np.ndarray:
    """The best approximation of rank ``rank``."""
    left, values, right = np.linalg.svd(scores, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def test_projecting_fits_the_teachers_logits_best_at_its_rank() -> None:
    teacher = Ease(RNG.normal(size=(NUM_ITEMS, NUM_ITEMS)).astype(np.float32))
    state = project(teacher, SPEC, HISTORIES, l2=1e-9)
    with torch.no_grad():
        student = StudentTables.of(state, SPEC).logits(HISTORIES).numpy()
    best = rows_of_the_space(teacher_logits(teacher, HISTORIES, SPEC), SPEC.dim)
    np.testing.assert_allclose(student, best, rtol=1e-3, atol=1e-3)


def test_projecting_a_few_proxies_leaves_other_dimensions_empty() -> None:
    state = project(low_rank_teacher(), SPEC, HISTORIES[:2])
    assert state["encoder.weight"].shape == (SPEC.dim, NUM_ITEMS)
    assert not state["encoder.weight"][2:].any()
    assert not state["decoder.weight"][:, 2:].any()
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())


def test_projecting_a_teacher_without_an_opinion_is_finite() -> None:
    silent = Ease(np.zeros((NUM_ITEMS, NUM_ITEMS), dtype=np.float32))
    state = project(silent, SPEC, HISTORIES)
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())
