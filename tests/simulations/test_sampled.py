"""LOO-99: ranks by hand, candidates never touched, and the leak of draw counts."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from common.errors import DataFormatError, ProtocolError
from common.interactions import encode_held
from simulations.datasets import read_folder
from simulations.protocols import Shares, leave_one_out
from simulations.sampled import (
    Candidates,
    counting_scorer,
    draw_candidates,
    evaluate_sampled,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CHANCE = 0.10  # ten places of a hundred


def csr(rows):
    return sp.csr_matrix(np.array(rows, dtype=np.float32))


def scorer(score):
    table = np.array(score, dtype=np.float32)
    return lambda start, stop: table[start:stop]


def population(num_users=300, num_items=250, seed=0):
    """Random training rows and one random held item a user: nothing to learn."""
    rng = np.random.default_rng(seed)
    touched = np.array([rng.permutation(num_items)[:41] for _ in range(num_users)])
    row = np.arange(num_users)
    shape, ones = (num_users, num_items), np.ones(touched.size, dtype=np.float32)
    train = (ones[: 40 * num_users], (row.repeat(40), touched[:, :40].ravel()))
    held = (ones[:num_users], (row, touched[:, 40]))
    return sp.csr_matrix(train, shape=shape), sp.csr_matrix(held, shape=shape)


# ---------------------------------------------------------------- by hand
def test_worked_example():
    # Item 2 is beaten by item 4, and by item 0 in a tie for the lower id.
    candidates = Candidates(np.array([2]), np.array([[0, 1, 3, 4]]))

    found = evaluate_sampled(
        scorer([[0.5, 0.1, 0.5, 0.5, 0.9]]), candidates, batch_size=1, k=3
    )
    missed = evaluate_sampled(
        scorer([[0.5, 0.1, 0.5, 0.5, 0.9]]), candidates, batch_size=1, k=2
    )

    assert found["hr@3"].tolist() == [1.0]
    assert found["ndcg@3"].tolist() == [0.5]  # rank 3: 1 / log2(4)
    assert missed["hr@2"].tolist() == missed["ndcg@2"].tolist() == [0.0]


def test_values_do_not_depend_on_the_batches():
    train, held = population(num_users=20)
    candidates = draw_candidates(train, held, seed=1)
    score = scorer(np.random.default_rng(2).normal(size=held.shape))

    whole = evaluate_sampled(score, candidates, batch_size=100)
    parts = evaluate_sampled(score, candidates, batch_size=3)

    assert {name: value.tolist() for name, value in whole.items()} == {
        name: value.tolist() for name, value in parts.items()
    }


# ---------------------------------------------------------------- candidates
def test_candidates_are_distinct_untouched_and_the_seeds():
    train, held = population(num_users=50)

    drawn = draw_candidates(train, held, seed=3)

    touched = (train + held).toarray() > 0
    for user, negatives in enumerate(drawn.negative):
        assert len(set(negatives.tolist())) == 99
        assert not touched[user, negatives].any()
    assert drawn.held.tolist() == held.toarray().argmax(axis=1).tolist()
    again = draw_candidates(train, held, seed=3)
    other = draw_candidates(train, held, seed=4)
    assert np.array_equal(drawn.negative, again.negative)
    assert not np.array_equal(drawn.negative, other.negative)


def test_too_few_untouched_items_are_refused():
    with pytest.raises(DataFormatError, match="3 items that a user never touched"):
        draw_candidates(
            csr([[1, 1, 0, 0, 0]]), csr([[0, 0, 1, 0, 0]]), seed=0, num_negatives=3
        )


def test_more_than_one_held_item_is_refused():
    with pytest.raises(DataFormatError, match="exactly one held item"):
        draw_candidates(csr([[1, 0, 0]]), csr([[0, 1, 1]]), seed=0)


def test_nan_is_refused():
    candidates = Candidates(np.array([0]), np.array([[1]]))

    with pytest.raises(ProtocolError, match="NaN"):
        evaluate_sampled(scorer([[np.nan, 1.0]]), candidates, batch_size=1)


# ---------------------------------------------------------------- the leak
def hit_rate(train, excluded, candidates, rounds):
    score = counting_scorer(train, excluded, rounds=rounds, seed=5)
    return evaluate_sampled(score, candidates, batch_size=256)["hr@10"].mean()


def test_draws_that_spare_the_held_item_find_it():
    train, held = population()
    candidates = draw_candidates(train, held, seed=0)

    assert hit_rate(train, train + held, candidates, rounds=20) == 1.0


def test_draws_from_the_complement_of_train_predict_nothing():
    train, held = population()
    candidates = draw_candidates(train, held, seed=0)

    # 300 users at chance: a standard deviation of .017.
    for rounds in (1, 20, 200):
        found = hit_rate(train, train, candidates, rounds)
        assert found == pytest.approx(CHANCE, abs=0.07)


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data folder not present")
def test_the_leak_on_movielens():
    data = read_folder(SHARED / "ml-100k")
    parts = leave_one_out(data.interactions, Shares(), np.random.default_rng(0))
    train, held = encode_held(parts.evaluated, data.catalogue.items)
    candidates = draw_candidates(train, held, seed=0)

    leaking = [hit_rate(train, train + held, candidates, n) for n in (10, 100)]
    ours = [hit_rate(train, train, candidates, n) for n in (10, 100)]

    # How many are drawn and how ties fall moves the first figure, not the finding.
    assert leaking[0] > 4 * CHANCE
    assert leaking[1] > 0.99
    # 943 users at chance: a standard deviation of .010.
    assert ours == pytest.approx([CHANCE, CHANCE], abs=0.04)
