"""Losses: values worked by hand, and users that never touch each other."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.losses import DISTILLATION, kl, mse, multinomial, order_loss, rank

LOGITS = hnp.arrays(np.float32, (3, 4), elements=st.floats(-5, 5, width=32))


def test_multinomial_by_hand():
    logits = torch.log(torch.tensor([[1.0, 2.0, 1.0], [1.0, 1.0, 2.0]]))
    target = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    # −(log ¼ + log ½)/2 and −log ½
    expected = torch.tensor([1.5 * math.log(2), math.log(2)])
    torch.testing.assert_close(multinomial(logits, target), expected)


def test_without_targets_loss_and_gradient_are_zero():
    logits = torch.randn(2, 4, requires_grad=True)
    target = torch.tensor([[0.0] * 4, [0.0, 1.0, 0.0, 0.0]])
    loss = multinomial(logits, target)
    loss.sum().backward()
    assert loss[0].item() == 0.0
    assert torch.equal(logits.grad[0], torch.zeros(4))
    assert logits.grad[1].abs().sum() > 0


def test_kl_by_hand():
    teacher = torch.log(torch.tensor([[0.5, 0.5]]))
    student = torch.log(torch.tensor([[0.25, 0.75]]))
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert kl(teacher, student, 1.0).item() == pytest.approx(expected, rel=1e-5)
    # at T the logits are divided and the loss multiplied by T²
    twice = kl(2 * teacher, 2 * student, 2.0).item()
    assert twice == pytest.approx(4 * expected, rel=1e-5)


def test_mse_by_hand_ignores_the_temperature():
    teacher, student = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    for temperature in (1.0, 7.0):
        assert mse(teacher, student, temperature).tolist() == [1.25]


@settings(max_examples=30)
@given(LOGITS, st.floats(0.5, 10), st.floats(-3, 3, width=32))
def test_kl_is_zero_for_equals_and_blind_to_a_constant(values, temperature, constant):
    logits = torch.from_numpy(values)
    assert kl(logits, logits, temperature).tolist() == [0.0] * 3
    shifted = kl(logits, logits + constant, temperature)
    torch.testing.assert_close(shifted, torch.zeros(3), atol=2e-3, rtol=0)


GAINS = [1.0, 1 / math.log2(3), 0.5]


def test_rank_by_hand():
    # The teacher's order is items 2, 0, 1; the student's odds are 1, 2 and 4.
    teacher = torch.tensor([[0.0, -1.0, 5.0]])
    student = torch.log(torch.tensor([[1.0, 2.0, 4.0]]))
    places = [math.log(7 / 4), math.log(3 / 1), math.log(2 / 2)]
    expected = sum(g * p for g, p in zip(GAINS, places, strict=True)) / sum(GAINS)
    assert rank(teacher, student, 1.0).item() == pytest.approx(expected, rel=1e-5)
    # at T the logits are divided and the loss multiplied by T
    twice = rank(teacher, 2 * student, 2.0).item()
    assert twice == pytest.approx(2 * expected, rel=1e-5)


def test_rank_puts_the_rest_below_the_top_in_whatever_order():
    best = torch.log(torch.tensor([[2.0, 1.0]]))
    rest = torch.log(torch.tensor([[3.0, 4.0]]))
    places = [math.log(10 / 2), math.log(8 / 1)]
    expected = sum(g * p for g, p in zip(GAINS[:2], places, strict=True))
    expected /= sum(GAINS[:2])
    for others in (rest, rest.flip(1)):
        found = order_loss(best, others, 1.0).item()
        assert found == pytest.approx(expected, rel=1e-5)


def test_rank_keeps_the_order_in_which_equal_soft_labels_come():
    equal, student = torch.zeros(1, 3), torch.tensor([[3.0, 2.0, 1.0]])
    agreeing = rank(equal, student, 1.0)
    opposed = rank(equal, student.flip(1), 1.0)
    assert agreeing < opposed
    torch.testing.assert_close(agreeing, order_loss(student, None, 1.0))


@settings(max_examples=30)
@given(LOGITS, LOGITS, st.floats(-3, 3, width=32))
def test_rank_is_blind_to_a_constant_and_to_the_teachers_scale(a, b, constant):
    teacher, student = torch.from_numpy(a).double(), torch.from_numpy(b).double()
    before = rank(teacher, student, 1.0)
    torch.testing.assert_close(rank(8 * teacher, student + constant, 1.0), before)


def test_the_best_student_under_rank_has_the_teachers_order():
    teacher = torch.tensor([[0.3, 0.1, 0.9, 0.2]])
    student = torch.zeros(1, 4, requires_grad=True)
    optimiser = torch.optim.SGD([student], lr=1.0)
    for _ in range(50):
        optimiser.zero_grad()
        rank(teacher, student, 1.0).sum().backward()
        optimiser.step()
    assert student.argsort(descending=True).tolist() == [[2, 0, 3, 1]]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e3, 1e20])
def test_rank_and_its_gradient_are_finite_for_far_logits(kind, size):
    teacher = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]], dtype=kind)
    student = (size * teacher.flip(0)).requires_grad_()
    loss = rank(teacher, student, 0.5)
    loss.sum().backward()
    assert loss.dtype == kind
    assert bool(loss.isfinite().all())
    assert bool(student.grad.isfinite().all())


@settings(max_examples=30)
@given(LOGITS, LOGITS)
def test_distillation_losses_are_never_negative(teacher, student):
    for loss in DISTILLATION.values():
        values = loss(torch.from_numpy(teacher), torch.from_numpy(student), 1.0)
        assert values.shape == (3,)
        assert bool((values >= -1e-5).all())


@pytest.mark.parametrize("name", ["multinomial", *DISTILLATION])
def test_a_user_never_moves_another_users_gradient(name):
    def gradient(logits, other):
        logits = logits.clone().requires_grad_()
        if name == "multinomial":
            loss = multinomial(logits, other)
        else:
            loss = DISTILLATION[name](other, logits, 2.0)
        loss.sum().backward()
        return logits.grad

    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 5, generator=generator)
    other = (torch.rand(3, 5, generator=generator) < 0.5).float()
    before = gradient(logits, other)
    logits[1] += 100 * torch.randn(5, generator=generator)
    other[1] = 1 - other[1]
    after = gradient(logits, other)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.equal(before[1], after[1])
