"""Leave some out, compare, and keep the released student unless it is surely beaten."""

import numpy as np
import pytest
import scipy.sparse as sp

from client.choosing import (
    FOLDS,
    Judged,
    choose,
    crossed,
    deal_folds,
    item_values,
    leave_out,
    pooled_choice,
    user_choices,
)
from client.randomness import seeded_stream
from common.metrics import evaluate_ranking


def judged(*values, items: int = 10) -> Judged:
    """One row of values a candidate, ``items`` of them a user, dealt over the folds."""
    value = np.asarray(values, dtype=float)
    count = value.shape[1]
    return Judged(
        np.arange(count) // items, np.arange(count) % FOLDS, value, count // items
    )


def rows_of(num_users: int = 20, num_items: int = 40) -> sp.csr_matrix:
    drawn = np.random.default_rng(0).random((num_users, num_items)) < 0.4
    return sp.csr_matrix(drawn.astype(np.float32))


def test_every_item_is_left_out_once_and_each_users_evenly() -> None:
    rows = rows_of()
    fold = deal_folds(rows, seeded_stream(0, "a"))
    together = sum(leave_out(rows, fold, number)[1] for number in range(FOLDS))
    assert (together != rows).nnz == 0
    for user in range(rows.shape[0]):
        own = fold[rows.indptr[user] : rows.indptr[user + 1]]
        counts = np.bincount(own, minlength=FOLDS)
        assert counts.max() - counts.min() <= 1


def test_shown_and_hidden_make_up_the_rows() -> None:
    rows = rows_of()
    fold = deal_folds(rows, seeded_stream(0, "a"))
    for number in range(FOLDS):
        shown, hidden = leave_out(rows, fold, number)
        assert (shown + hidden != rows).nnz == 0
        assert shown.multiply(hidden).nnz == 0
        assert hidden.nnz == (fold == number).sum()


def test_item_values_add_up_to_ndcg() -> None:
    rows = rows_of()
    shown, hidden = leave_out(rows, deal_folds(rows, seeded_stream(0, "a")), 2)
    scores = np.random.default_rng(1).normal(size=rows.shape).astype(np.float32)
    found = item_values(scores, shown, hidden)
    users = np.repeat(np.arange(rows.shape[0]), np.diff(hidden.indptr))
    means = np.bincount(users, found) / np.diff(hidden.indptr)
    wanted = evaluate_ranking(
        lambda start, stop: scores[start:stop],
        shown,
        hidden,
        batch_size=8,
        metrics=["ndcg@100"],
    )["ndcg@100"]
    np.testing.assert_allclose(means, wanted)


def test_a_hidden_item_on_place_three_by_hand() -> None:
    scores = np.float32([[9, 3, 2, 1]])
    seen, hidden = sp.csr_matrix([[1.0, 0, 0, 0]]), sp.csr_matrix([[0.0, 0, 0, 1.0]])
    np.testing.assert_allclose(item_values(scores, seen, hidden), [1 / np.log2(4)])


def test_a_sure_gain_is_taken_by_all() -> None:
    base = np.random.default_rng(0).random(100)
    both = judged(base, base + 0.1)
    assert pooled_choice(both) == 1
    assert choose(both)[1].tolist() == [1] * 10


def test_noise_is_not_a_gain() -> None:
    rng = np.random.default_rng(0)
    # Each user's mean is off by chance alone, and the sum of the chances is nought.
    off = rng.normal(size=(10, 10))
    off -= off.mean()
    assert pooled_choice(judged(np.zeros(100), off.ravel())) == 0


def test_few_users_have_no_say_together() -> None:
    assert pooled_choice(judged(np.zeros(40), np.ones(40))) == 0


def test_one_user_needs_more_than_a_standard_error() -> None:
    # Gains of the ten items: mean .3, deviation √.21/√9 = .153: sure.
    three = judged(np.zeros(10), [1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    assert user_choices(three, 0).tolist() == [1]
    # One of ten: mean .1, standard error √.09/√9 = .1: not more than it.
    one = judged(np.zeros(10), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert user_choices(one, 0).tolist() == [0]


def test_a_user_whom_it_harms_goes_back_to_the_released_student() -> None:
    base = np.full(100, 0.5)
    better = np.full(100, 0.9)
    better[:10] = 0.1  # the first user
    default, choice = choose(judged(base, better))
    assert default == 1 and choice.tolist() == [0, *[1] * 9]


def test_a_user_with_few_items_follows_the_client() -> None:
    value = np.stack([np.zeros(4), np.ones(4)])
    few = Judged(np.zeros(4, int), np.arange(4), value, 1)
    assert user_choices(few, 0).tolist() == [0]


def test_choosing_is_not_measured_on_what_it_was_chosen_by() -> None:
    # Candidate f + 1 is perfect on fold f and useless elsewhere: each looks good by
    # chance, and what was chosen without the fold is worth nothing on it.
    fold = np.arange(50) % FOLDS
    lucky = [np.where(fold == f, 1.0, 0.0) for f in range(FOLDS)]
    found = Judged(np.zeros(50, int), fold, np.stack([np.zeros(50), *lucky]), 1)
    before, after = crossed(found)
    assert (before[0], after[0]) == (0.0, 0.0)


def test_a_user_without_items_is_nan() -> None:
    found = Judged(np.zeros(10, int), np.arange(10) % FOLDS, np.ones((2, 10)), 2)
    before, after = crossed(found)
    assert before[0] == after[0] == pytest.approx(1.0)
    assert np.isnan(before[1]) and np.isnan(after[1])
