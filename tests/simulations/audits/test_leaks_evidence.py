"""Evidence in sums and updates against leaving a user out, and in exact answers."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from client.randomness import seeded_stream
from client.statistics import pair_sums, sketch_sum
from common import wire
from common.student import StudentSpec, random_state
from simulations.audits.gradients import Gradients
from simulations.audits.leaks.answers import beside
from simulations.audits.leaks.inference import infer
from simulations.audits.leaks.sight import Sight, each_answer, one_sum
from simulations.audits.leaks.sums import pair_evidence, sketch_evidence
from simulations.audits.leaks.updates import UpdateEvidence
from simulations.audits.transcript import Exchange
from simulations.audits.world import ClientRows

ITEMS = 60
CHOSEN = np.arange(ITEMS) < 50


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return sp.csr_matrix((rng.random((9, ITEMS)) < 0.2).astype(np.float32))


def exchange(world, rows, noise=0.0):
    """What one client of these rows would answer."""
    share = world.config.statistics.counts_share
    basis = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    pairs = pair_sums(rows, CHOSEN, share, noise, seeded_stream(1))
    sketch = sketch_sum(rows, CHOSEN, basis, noise, seeded_stream(2))
    sent = {
        f"{wire.ITEMS}/chosen": CHOSEN.astype(np.float32),
        f"{wire.DIRECTIONS}/directions": basis,
    }
    answer = {
        f"{wire.PAIRS}/counts": pairs.counts,
        f"{wire.PAIRS}/pairs": pairs.pairs,
        f"{wire.SKETCH_SUM}/sketch": sketch,
    }
    return Exchange(wire.STATISTICS, 1, sent, {"0000": answer, "0001": answer})


SIGHT = Sight(("0000",), 1.0)


@pytest.mark.parametrize("reading", [pair_evidence, sketch_evidence])
def test_a_user_put_back_is_a_user_left_out(sums, rows, reading):
    said, belief = exchange(sums, rows, noise=0.7), np.full(ITEMS, 0.2)
    user = rows[3].toarray()[0].astype(bool)
    rest = rows[[place for place in range(9) if place != 3]]
    put_back = reading(sums, said, SIGHT, rows).beside(user)
    left_out = reading(sums, said, SIGHT, rest)
    np.testing.assert_allclose(
        put_back.score(belief, 10), left_out.score(belief, 10), rtol=1e-3, atol=1e-4
    )


def test_items_that_do_not_count_have_no_evidence(sums, rows):
    found = pair_evidence(sums, exchange(sums, rows), SIGHT, rows[:1])
    assert not found.score(np.full(ITEMS, 0.2), 10)[~CHOSEN].any()
    assert found.score(np.full(ITEMS, 0.2), 10)[CHOSEN].any()


def test_exact_sums_of_one_user_name_the_items(sums, rows):
    said = exchange(sums, rows[2])
    nobody = rows[:0]
    own = rows[2].toarray()[0].astype(bool) & CHOSEN
    for reading in (pair_evidence, sketch_evidence):
        bare = reading(sums, said, SIGHT, nobody).bare()
        np.testing.assert_array_equal(bare > 1e-6, own)


def test_exact_sums_and_all_others_name_the_items(unprotected, rows):
    read = [
        reading(unprotected, exchange(unprotected, rows), SIGHT, rows)
        for reading in (pair_evidence, sketch_evidence)
    ]
    user = rows[4].toarray()[0].astype(bool)
    nothing = np.zeros(ITEMS, dtype=bool)
    found = infer(beside(read, user), np.zeros(ITEMS), nothing, int(user.sum())).total
    own = np.flatnonzero(user & CHOSEN)
    assert set(np.argsort(-found)[: len(own)]) == set(own)


def test_a_sum_is_that_of_the_answers_it_is_made_of(sums, rows):
    said = exchange(sums, rows)
    clients = [ClientRows(name, ("u",) * 9, rows) for name in ("0000", "0001")]
    (total,) = one_sum(clients)
    name = f"{wire.PAIRS}/counts"
    np.testing.assert_allclose(total.total(said, name), 2 * said.answers["0000"][name])
    assert (total.noises, one_sum(clients, 1.0)[0].noises) == (2, 1.0)
    assert total.rows(clients).shape == (18, ITEMS)
    assert [each.clients for each in each_answer(clients)] == [("0000",), ("0001",)]


SPEC = StudentSpec(ITEMS, 8, 20.0, 0.8)


def of_one(user: np.ndarray, deviation: float = 1.0) -> UpdateEvidence:
    """A step's exact gradient of one user, under one mask."""
    state = random_state(SPEC, torch.Generator().manual_seed(3))
    gradients = Gradients(SPEC, state, 0.7, 0.1)
    beyond = gradients.sum(sp.csr_matrix(user[None].astype(np.float32)))
    blur = {name: torch.tensor(deviation) for name in beyond}
    return UpdateEvidence(gradients, beyond, 1.0, blur)


def test_an_exact_gradient_names_the_items(rows):
    user = rows[5].toarray()[0].astype(bool)
    bare = of_one(user).bare()
    assert set(np.argsort(-bare)[: user.sum()]) == set(np.flatnonzero(user))


def test_evidence_is_the_derivative_of_the_likelihood_ratio(rows):
    """Against differences of ``expected · product / deviation²``."""
    found = of_one(rows[5].toarray()[0].astype(bool))
    unbounded = Gradients(SPEC, found.gradients.state, 0.7, np.inf)
    loose = UpdateEvidence(unbounded, found.beyond, 1.0, found.deviation)
    belief = np.random.default_rng(0).random(ITEMS)
    score = loose.score(belief, 12)
    for item in (0, 7, 31):
        step = np.zeros(ITEMS)
        step[item] = 1e-2
        up, down = (
            float(loose._product(torch.from_numpy((belief + s).astype(np.float32))))
            for s in (step, -step)
        )
        assert score[item] == pytest.approx((up - down) / 2e-2, rel=0.05, abs=1e-4)


def test_evidence_falls_with_the_square_of_the_noise(rows):
    user = rows[5].toarray()[0].astype(bool)
    belief = np.full(ITEMS, 0.2)
    near, far = of_one(user, 0.1).score(belief, 12), of_one(user, 1.0).score(belief, 12)
    assert np.abs(far).max() > 0
    np.testing.assert_allclose(near, 100 * far, rtol=1e-2, atol=1e-6)


def test_own_gradient_is_evidence_for_own_items(rows):
    user = rows[5].toarray()[0].astype(bool)
    nothing = np.zeros_like(user)
    empty = of_one(nothing, 0.01)
    belief = np.full(ITEMS, 0.2)
    with_own = empty.beside(user).score(belief, 12)
    assert with_own[user].mean() > with_own[~user].mean() + 1.0
