"""Statistics from recorded messages: exact where nothing is noised, blind elsewhere."""

import math
from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch

from common import wire
from common.config import parse, to_flat
from common.folders import STUDENT
from common.student import load_student
from simulations.audits.canaries import DESIGNS, insert
from simulations.audits.one_run import recorded
from simulations.audits.roc import area_under_curve
from simulations.audits.scores import (
    Targets,
    gradients_at,
    noisy_sum,
    server_scores,
    student_scores,
)
from simulations.audits.transcript import exchanges, students
from simulations.audits.world import rerun, write_clients

COUNT = 60


def attacked(world, name, seed=5):
    """Canaries, who was in, and what the server's eyes make of it."""
    rng = np.random.default_rng(seed)
    canaries = DESIGNS[name](world, COUNT, rng)
    included = rng.random(len(canaries)) < 0.5
    clients, known = insert(world, canaries, included)
    targets = Targets(canaries.client, canaries.present, canaries.absent, known)
    with recorded(world, clients, seed) as messages:
        scores = server_scores(world, messages, targets)
        sent = students(messages)
    return scores, included, sent, targets


def test_all_that_is_said_is_kept_once(rounds, tmp_path):
    clients = write_clients(rounds, rounds.clients, tmp_path / "federation", 1)
    rerun(rounds, clients, tmp_path / "run", tmp_path / "messages", 1)
    found = list(exchanges(tmp_path / "messages"))
    kinds = [(each.number, each.kind) for each in found]
    asked = [(number, wire.TRAIN) for number in (1, 2, 3)]
    assert kinds == [*asked, (3, wire.DELIVER)]
    assert all(set(each.answers) == {"0000", "0001"} for each in found)
    final = load_student(tmp_path / "run" / STUDENT).state_dict()
    for name, value in students(tmp_path / "messages")[-1].items():
        assert torch.equal(value, final[name])
    assert found[0].soft_labels is not None
    # Ground truth is of the audit alone: no word of it in what the run released.
    assert not list((tmp_path / "run").rglob("*canar*"))


def test_without_noise_canaries_are_told_apart(unprotected):
    scores, included, _, _ = attacked(unprotected, "dirac")
    assert area_under_curve(scores, included) > 0.95


def test_under_noise_the_statistic_says_less_and_no_more_than_allowed(sums):
    scores, included, _, _ = attacked(sums, "dirac")
    # As far above 0 with a canary as below it without.
    assert scores[included].mean() > 0 > scores[~included].mean()
    # μ of ε = 3 at 1e-5 is 0.74: the best test of it has an AUC of 0.70.
    assert 0.5 < area_under_curve(scores, included) < 0.9


def test_the_noisy_sum_is_the_sum_of_gradients(unprotected):
    """With everybody sampled and all masked: update → sum of gradients, exactly."""
    plain = {
        "statistics.share": 0.0,
        "privacy.sample-rate": 1.0,
        "training.target-fraction": 0.999999,
    }
    config = parse(to_flat(unprotected.config) | plain)
    world = replace(unprotected, config=config)
    with recorded(world, world.clients, 1) as messages:
        first = next(iter(exchanges(messages)))
        found = noisy_sum(first, "0000", world.spec, world.config)
    expected = gradients_at(world.spec, first.student, world.config).sum(
        world.clients[0].histories
    )
    assert first.kind == wire.TRAIN and first.soft_labels is not None
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-3)


def test_students_of_one_kind_tell_nothing(sums):
    rows = sums.clients[0].histories[:5]
    nobody = sp.csr_matrix(rows.shape, dtype=np.float32)
    targets = Targets(np.zeros(5, dtype=np.int64), rows, nobody, (nobody, nobody))
    scores = student_scores(sums, [sums.final], [sums.final], targets)
    assert scores.tolist() == [0.0] * 5
    taught = dict(sums.final)
    taught["decoder.bias"] = taught["decoder.bias"].clone()
    taught["decoder.bias"][rows[0].indices] += 2.0
    assert student_scores(sums, [taught], [sums.final], targets)[0] > 0
    assert math.isfinite(scores.sum())
