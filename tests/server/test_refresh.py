"""Refresh: what students teach, in closed form and by descent, and doing no harm."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from common.config import defaults, parse
from common.errors import ConfigError
from common.student import StateDict, StudentSpec
from server.distillation import StudentTables
from server.refresh import (
    descend,
    draw_from,
    learn,
    refit,
    refresh,
    student_targets,
    validate_teacher,
)
from server.teacher.ease import Ease, fit_gram
from server.teacher.scoring import SequentialTeacher
from server.teacher.sequential import Encoder, Shape

CONFIG = parse(defaults() | {"teacher.l2": 2.0, "refresh.weight": 1.0})
NUM_ITEMS = 8
RNG = np.random.default_rng(0)
TEACHING = sp.csr_matrix((RNG.random((30, NUM_ITEMS)) < 0.4).astype(np.float32))
#: Full rank: the student can hold any item-item weights.
SPEC = StudentSpec(NUM_ITEMS, NUM_ITEMS, 2.0, 0.5)


@dataclass(frozen=True)
class Public:
    """As much of the server's public data as a refresh looks at."""

    ordered: sp.csr_matrix
    shown: sp.csr_matrix
    held: sp.csr_matrix

    @property
    def known(self) -> np.ndarray:
        return np.asarray(self.ordered.sum(axis=0)).ravel() > 0


def student_of(weights: np.ndarray, bias: float = 0.0) -> StateDict:
    """A student whose scores, in a teacher's units, are those of the weights."""
    return {
        "encoder.weight": torch.from_numpy(weights.T.astype(np.float32)),
        "decoder.weight": torch.eye(NUM_ITEMS),
        "decoder.bias": torch.full((NUM_ITEMS,), bias),
    }


def ease(rows: sp.csr_matrix, l2: float = 2.0) -> Ease:
    return Ease(fit_gram((rows.T @ rows).toarray().astype(np.float64), l2))


def test_refit_is_the_constrained_minimiser() -> None:
    proxies = sp.csr_matrix((RNG.random((10, NUM_ITEMS)) < 0.5).astype(np.float32))
    target = RNG.normal(size=(10, NUM_ITEMS)).astype(np.float32)
    weights = refit(TEACHING, proxies, target, l2=2.0, weight=0.5)
    pull = 0.5 * TEACHING.nnz / proxies.nnz
    x, p = TEACHING.toarray().astype(np.float64), proxies.toarray()
    assert not np.diag(weights).any()
    for item in range(NUM_ITEMS):
        others = [i for i in range(NUM_ITEMS) if i != item]
        left = x[:, others].T @ x[:, others] + pull * p[:, others].T @ p[:, others]
        right = x[:, others].T @ x[:, item] + pull * p[:, others].T @ target[:, item]
        best = np.linalg.solve(left + 2.0 * np.eye(NUM_ITEMS - 1), right)
        np.testing.assert_allclose(weights[others, item], best, rtol=1e-4, atol=1e-6)


def test_a_vanishing_weight_leaves_ease_as_it_was() -> None:
    target = np.ones((5, NUM_ITEMS), dtype=np.float32)
    weights = refit(TEACHING, TEACHING[:5], target, l2=2.0, weight=1e-9)
    np.testing.assert_allclose(weights, ease(TEACHING).weights, atol=1e-5)


def test_targets_undo_the_students_units_and_fit_scale_and_offset() -> None:
    teacher = ease(TEACHING)
    proxies = TEACHING[:6]
    everything = np.ones(NUM_ITEMS, dtype=bool)
    student = StudentTables.of(student_of(5.0 * teacher.weights, 3.0), SPEC)
    target = student_targets(teacher, student, proxies, everything)
    np.testing.assert_allclose(target, teacher.score(proxies), atol=1e-5)


def test_a_student_that_contradicts_the_teacher_everywhere_teaches_no_order() -> None:
    teacher = ease(TEACHING)
    proxies = TEACHING[:6]
    student = StudentTables.of(student_of(-teacher.weights), SPEC)
    target = student_targets(teacher, student, proxies, np.ones(NUM_ITEMS, dtype=bool))
    for row, seen in zip(target, proxies.toarray() > 0, strict=True):
        assert np.ptp(row[~seen]) < 1e-6


def test_items_the_teacher_never_saw_do_not_set_the_scale() -> None:
    teacher = ease(TEACHING)
    known = np.arange(NUM_ITEMS) != 7
    changed = teacher.weights.copy()
    changed[:, 7] = 9.0
    student = StudentTables.of(student_of(changed), SPEC)
    target = student_targets(teacher, student, TEACHING[:6], known)
    expected = teacher.score(TEACHING[:6])
    np.testing.assert_allclose(target[:, :7], expected[:, :7], atol=1e-5)
    unseen = TEACHING[:6].toarray()[:, 7] == 0
    assert (target[unseen, 7] > expected[:, :7].max()).all()


def public_case() -> Public:
    """Public users never saw item 7, which validation users all want."""
    teaching = TEACHING.toarray()
    teaching[:, 7] = 0
    shown = np.zeros((4, NUM_ITEMS), dtype=np.float32)
    shown[:, :3] = 1
    held = np.zeros((4, NUM_ITEMS), dtype=np.float32)
    held[:, 7] = 1
    return Public(*map(sp.csr_matrix, (teaching, shown, held)))


def test_a_student_who_knows_better_makes_the_teacher_better() -> None:
    public = public_case()
    teacher = ease(public.ordered)
    knowing = teacher.weights.copy()
    knowing[:7, 7] = knowing.max() + 1
    student = student_of(knowing)
    found = refresh(teacher, student, SPEC, public, public.ordered, CONFIG)
    assert found.after == 1.0 > found.before
    assert found.gain == pytest.approx(found.after - found.before)
    assert isinstance(found.teacher, Ease)
    assert found.teacher.score(public.shown).argmax(axis=1).tolist() == [7] * 4


def test_a_refresh_that_does_harm_is_reported_and_not_taken() -> None:
    public = public_case()
    teacher = Ease(np.float32(ease(public.ordered).weights))
    teacher.weights[:7, 7] = 5.0
    student = student_of(ease(public.ordered).weights)
    found = refresh(teacher, student, SPEC, public, public.ordered, CONFIG)
    assert found.teacher is teacher
    assert found.gain is None
    assert found.after < found.before == 1.0


def test_without_anyone_to_judge_nothing_is_taken() -> None:
    public = public_case()
    public = replace(public, shown=public.shown[:0], held=public.held[:0])
    teacher = ease(public.ordered)
    student = student_of(teacher.weights)
    found = refresh(teacher, student, SPEC, public, public.ordered, CONFIG)
    assert found.teacher is teacher
    assert found.gain is None
    assert np.isnan(found.after)
    assert np.isnan(validate_teacher(teacher, public.shown, public.held))


def sequential() -> SequentialTeacher:
    torch.manual_seed(0)
    encoder = Encoder(Shape(NUM_ITEMS, 8, 1, 1, 5)).eval().requires_grad_(False)
    return SequentialTeacher(torch.randn(NUM_ITEMS, 8), encoder)


def divergence(lesson: np.ndarray, teacher: SequentialTeacher, rows) -> float:
    log_p = torch.from_numpy(lesson).log_softmax(1)
    log_q = torch.from_numpy(teacher.score(rows)).log_softmax(1)
    return float((log_p.exp() * (log_p - log_q)).sum(1).mean())


def test_a_sequential_teacher_descends_towards_the_student() -> None:
    teacher = sequential()
    old = {name: values.copy() for name, values in teacher.tensors().items()}
    rows = sp.csr_matrix(TEACHING.astype(np.int32))
    student = StudentTables.of(student_of(2 * ease(TEACHING).weights), SPEC)
    with torch.no_grad():
        lesson = student.logits(rows).numpy()
    learned = descend(teacher, student, rows, weight=3.0, epochs=30)
    assert divergence(lesson, learned, rows) < divergence(lesson, teacher, rows)
    for name, values in teacher.tensors().items():
        np.testing.assert_array_equal(values, old[name])
    assert not learned.items.requires_grad
    assert not any(p.requires_grad for p in learned.encoder.parameters())


def test_descent_passes_over_empty_histories_and_windows_long_ones() -> None:
    rows = sp.csr_matrix(np.array([[0] * 8, [1, 2, 3, 4, 5, 6, 7, 0]], dtype=np.int32))
    student = StudentTables.of(student_of(np.eye(NUM_ITEMS)), SPEC)
    learned = descend(sequential(), student, rows, weight=1.0, epochs=1)
    assert np.isfinite(learned.score(rows)).all()
    unchanged = descend(sequential(), student, rows[:1], weight=1.0)
    np.testing.assert_array_equal(unchanged.items, sequential().items)


def test_other_teachers_are_refused() -> None:
    public = public_case()
    student = StudentTables.of(student_of(np.eye(NUM_ITEMS)), SPEC)
    with pytest.raises(ConfigError, match="got object"):
        learn(object(), student, public.ordered, public, CONFIG)


def test_histories_drawn_from_a_student_hold_what_it_knows() -> None:
    pairs = np.kron(np.eye(4), np.ones((2, 2)) - np.eye(2))
    student = StudentTables.of(student_of(pairs), SPEC)
    like = sp.csr_matrix(np.int32([[1, 2] + [0] * 6] * 30))
    drawn = draw_from(student, like)
    assert np.diff(drawn.indptr).tolist() == [2] * 30
    together = (drawn > 0).astype(int).toarray()
    mates = sum(row[0::2] @ row[1::2] for row in together)
    assert mates > 15  # one other item in seven is the mate: 4 by chance
    assert set(drawn.indices) == set(range(NUM_ITEMS))
