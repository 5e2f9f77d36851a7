"""Gradients in closed form against autograd, one user and one mask at a time."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from common.losses import multinomial
from common.student import StudentSpec, build, random_state
from simulations.audits import gradients as module
from simulations.audits.gradients import Gradients, log_likelihood

SPEC = StudentSpec(num_items=12, dim=4, logit_scale=5.0, history_exponent=0.8)


@pytest.fixture
def state():
    found = random_state(SPEC, torch.Generator().manual_seed(0))
    return {name: value * 10 + 0.05 for name, value in found.items()}


@pytest.fixture
def rows():
    rng = np.random.default_rng(1)
    dense = (rng.random((5, 12)) < 0.4).astype(np.float32)
    dense[3] = 0  # a user without items
    return sp.csr_matrix(dense)


def by_autograd(state, rows, fraction, clip, seed, masks):
    """Mean clipped gradient of each user under the very masks that are drawn."""
    rng = np.random.default_rng(seed)
    part = torch.from_numpy(rows.toarray())
    means = [{n: torch.zeros_like(v) for n, v in state.items()} for _ in part]
    for _ in range(masks):
        drawn = torch.from_numpy(rng.random(tuple(part.shape), dtype=np.float32))
        target = part * (drawn < fraction)
        for user in range(len(part)):
            student = build(SPEC, state)
            loss = multinomial(
                student((part - target)[user : user + 1]), target[user : user + 1]
            )
            loss.sum().backward()
            grads = {n: p.grad for n, p in student.named_parameters()}
            norm = math.sqrt(sum(float(g.square().sum()) for g in grads.values()))
            scale = min(1.0, clip / norm) if norm else 0.0
            for name, grad in grads.items():
                means[user][name] += grad * scale / masks
    return means


@pytest.mark.parametrize("clip", [0.1, math.inf])
def test_products_norms_and_sums_are_autograds(state, rows, clip):
    direction = random_state(SPEC, torch.Generator().manual_seed(7))
    direction["decoder.bias"] = torch.linspace(-1, 1, 12)
    found = Gradients(SPEC, state, 0.6, clip, seed=3)
    expected = by_autograd(state, rows, 0.6, clip, 3, module.MASKS)

    def product(grads):
        return sum(float((grads[n] * direction[n]).sum()) for n in grads)

    assert found.along(rows, direction) == pytest.approx(
        [product(each) for each in expected], rel=1e-4, abs=1e-6
    )
    norms = [
        math.sqrt(sum(float(g.square().sum()) for g in each.values()))
        for each in expected
    ]
    assert found.norms(rows) == pytest.approx(norms, rel=1e-3, abs=1e-4)
    assert max(norms) <= clip + 1e-6 and norms[3] == 0.0
    fewer = by_autograd(state, rows, 0.6, clip, 3, module.MASKS_OF_SUM)
    for name, total in found.sum(rows).items():
        summed = torch.stack([each[name] for each in fewer]).sum(0)
        torch.testing.assert_close(total, summed, rtol=1e-3, atol=1e-5)


def test_nobody_adds_nothing(state):
    nobody = sp.csr_matrix((3, 12), dtype=np.float32)
    found = Gradients(SPEC, state, 0.6, 0.1)
    assert found.along(nobody, state).tolist() == [0.0] * 3
    assert all(not value.any() for value in found.sum(nobody).values())
    assert log_likelihood(SPEC, state, nobody, 0.6).tolist() == [0.0] * 3


def test_a_student_that_was_taught_a_user_knows_the_user(state, rows):
    taught = {name: value.clone() for name, value in state.items()}
    taught["decoder.bias"][rows[0].indices] += 3.0
    before = log_likelihood(SPEC, state, rows, 0.6)
    after = log_likelihood(SPEC, taught, rows, 0.6)
    assert after[0] > before[0]
    assert (after <= 0).all()
