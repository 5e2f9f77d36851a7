"""Ranking metrics: worked by hand, against brute force, and whatever the batches."""

import doctest
import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import common.metrics
from common.beyond_accuracy import ItemFacts, diversity, novelty
from common.errors import ConfigError, DataFormatError, ProtocolError
from common.metrics import (
    BEYOND_ACCURACY,
    DEFAULT_METRICS,
    evaluate_ranking,
    parse_metric,
    top_k,
)

NO_ITEM = -1


def csr(rows) -> sp.csr_matrix:
    return sp.csr_matrix(np.array(rows, dtype=np.float32))


def scorer(score):
    table = np.array(score, dtype=np.float32)
    return lambda start, stop: table[start:stop]


def evaluate(score, seen, held, *metrics, batch_size=2):
    found = evaluate_ranking(
        scorer(score), csr(seen), csr(held), batch_size=batch_size, metrics=metrics
    )
    return [found[name] for name in metrics]


def test_doctests():
    result = doctest.testmod(common.metrics)

    assert result.attempted >= 8
    assert result.failed == 0


# ---------------------------------------------------------------- by hand
def test_worked_example():
    # Ranking 3, 1, 0, 2, 4; held 1 and 2 stand at ranks 2 and 4.
    score, seen, held = [[0.5, 0.7, 0.1, 0.9, 0.0]], [[0] * 5], [[0, 1, 1, 0, 0]]
    ndcg2, ndcg10, recall1, recall2, recall10, hr1, hr2, mrr = evaluate(
        score, seen, held,
        "ndcg@2", "ndcg@10", "recall@1", "recall@2", "recall@10", "hr@1", "hr@2", "mrr",
    )  # fmt: skip
    ideal = 1 + 1 / math.log2(3)

    assert ndcg2[0] == pytest.approx((1 / math.log2(3)) / ideal)
    assert ndcg10[0] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert (recall1[0], recall2[0], recall10[0]) == (0.0, 0.5, 1.0)
    assert (hr1[0], hr2[0], mrr[0]) == (0.0, 1.0, 0.5)


def test_ideal_is_cut_at_k_when_more_is_held():
    ndcg, recall = evaluate(
        [[3, 2, 1, 0]], [[0] * 4], [[1, 1, 1, 0]], "ndcg@2", "recall@2"
    )

    assert ndcg[0] == 1.0
    assert recall[0] == 1.0


def test_seen_items_are_not_ranked():
    score, seen, held = [[9, 8, 7, 6]], [[1, 1, 0, 0]], [[0, 0, 0, 1]]

    mrr, lists = evaluate(score, seen, held, "mrr", "coverage@3")

    assert mrr[0] == 0.5
    assert lists.tolist() == [[2, 3, NO_ITEM]]


def test_ties_go_to_the_lower_id():
    score = np.zeros((1, 1000))
    held = np.zeros((1, 1000))
    held[0, 499] = 1

    mrr, lists = evaluate(score, np.zeros((1, 1000)), held, "mrr", "coverage@5")

    assert mrr[0] == pytest.approx(1 / 500)
    assert lists.tolist() == [[0, 1, 2, 3, 4]]


def test_minus_zero_ties_with_zero_and_infinities_are_numbers():
    score = [[0.0, -0.0, -np.inf, np.inf, -1.0]]

    (lists,) = evaluate(score, [[0] * 5], [[1, 0, 0, 0, 0]], "coverage@5")

    assert lists.tolist() == [[3, 0, 1, 4, 2]]


def test_a_seen_item_never_ties_with_an_unseen_one_at_minus_infinity():
    mrr, lists = evaluate([[-np.inf, -np.inf]], [[1, 0]], [[0, 1]], "mrr", "coverage@2")

    assert mrr[0] == 1.0
    assert lists.tolist() == [[1, NO_ITEM]]


def test_users_without_held_items_are_nan():
    (hr,) = evaluate([[1, 0], [1, 0]], [[0, 0]] * 2, [[0, 0], [1, 0]], "hr@1")

    assert np.isnan(hr[0])
    assert hr[1] == 1.0


def test_stored_zeros_are_no_items():
    held = csr([[1, 1, 0]])
    held.data[0] = 0.0

    found = evaluate_ranking(
        scorer([[3, 2, 1]]), csr([[0, 0, 0]]), held, batch_size=1, metrics=["mrr"]
    )

    assert found["mrr"].tolist() == [0.5]


def test_default_metrics():
    found = evaluate_ranking(
        scorer([[3, 2, 1]]), csr([[0, 0, 0]]), csr([[1, 0, 0]]), batch_size=1
    )

    assert tuple(found) == DEFAULT_METRICS
    assert found["coverage@10"].shape == (1, 3)


def test_lists_are_judged_by_facts_user_by_user():
    score = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    facts = ItemFacts(
        np.arange(8, dtype=np.float32), np.eye(8, dtype=np.float32)[:, :3]
    )
    lists = top_k(score, None, 3).item

    found = evaluate_ranking(
        scorer(score), sp.csr_matrix((5, 8)), sp.csr_matrix((5, 8)), batch_size=2,
        metrics=["diversity@3", "novelty@3", "gini@3"], facts=facts,
    )  # fmt: skip

    assert np.array_equal(found["diversity@3"], diversity(lists, facts), equal_nan=True)
    assert np.array_equal(found["novelty@3"], novelty(lists, facts))
    assert np.array_equal(found["gini@3"], lists)


# ---------------------------------------------------------------- properties
@st.composite
def populations(draw):
    """Scores with many ties, and disjoint seen and held items."""
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 12)))
    values = st.sampled_from([-2.0, -0.0, 0.0, 0.5, 1.0, 1e30, -np.inf, np.inf])
    score = draw(hnp.arrays(np.float32, shape, elements=values))
    kind = draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 2)))
    return score, kind == 1, kind == 2


def brute_force_order(score, seen):
    """Unseen items of one user, best first, by plain sorting."""
    unseen = [item for item in range(len(score)) if not seen[item]]
    return sorted(unseen, key=lambda item: (-score[item], item))


@given(populations(), st.integers(1, 10))
def test_metrics_equal_brute_force(population, batch_size):
    score, seen, held = population
    ndcg, recall, hr, mrr, lists = evaluate(
        score, seen, held, "ndcg@3", "recall@3", "hr@3", "mrr", "coverage@3",
        batch_size=batch_size,
    )  # fmt: skip
    for user in range(len(score)):
        order = brute_force_order(score[user], seen[user])
        wanted = np.flatnonzero(held[user])
        assert [item for item in lists[user] if item != NO_ITEM] == order[:3]
        if not len(wanted):
            assert np.isnan([ndcg[user], recall[user], hr[user], mrr[user]]).all()
            continue
        ranks = sorted(order.index(item) + 1 for item in wanted)
        most = min(3, len(ranks))
        gain = sum(1 / math.log2(1 + rank) for rank in ranks if rank <= 3)
        ideal = sum(1 / math.log2(1 + rank) for rank in range(1, most + 1))
        assert ndcg[user] == pytest.approx(gain / ideal)
        assert recall[user] == sum(rank <= 3 for rank in ranks) / most
        assert hr[user] == (ranks[0] <= 3)
        assert mrr[user] == 1 / ranks[0]


@given(populations(), st.integers(1, 10))
def test_values_are_bit_equal_for_every_batch_size(population, batch_size):
    score, seen, held = population
    names = ("ndcg@3", "recall@2", "hr@1", "mrr", "coverage@4")

    whole = evaluate(score, seen, held, *names, batch_size=100)
    parts = evaluate(score, seen, held, *names, batch_size=batch_size)

    for a, b in zip(whole, parts, strict=True):
        assert a.tobytes() == b.tobytes()


@given(populations(), st.integers(1, 20))
def test_top_k_equals_brute_force(population, k):
    score, seen, _ = population

    best = top_k(score, csr(seen), k)

    assert best.item.shape == (len(score), min(k, score.shape[1]))
    assert (best.item.dtype, best.score.dtype) == (np.int64, np.float32)
    for user in range(len(score)):
        order = brute_force_order(score[user], seen[user])[:k]
        padding = [NO_ITEM] * (best.item.shape[1] - len(order))
        assert best.item[user].tolist() == order + padding
        assert best.score[user, : len(order)].tolist() == score[user, order].tolist()
        assert (best.score[user, len(order) :] == -np.inf).all()


def test_top_k_of_the_lists_and_the_ranking_agree():
    score = np.random.default_rng(3).normal(size=(20, 300)).astype(np.float32)
    seen = sp.random(20, 300, density=0.1, format="csr", random_state=1)

    found = evaluate_ranking(
        scorer(score), seen, sp.csr_matrix((20, 300)), batch_size=7,
        metrics=["coverage@10"],
    )  # fmt: skip

    assert np.array_equal(found["coverage@10"], top_k(score, seen, 10).item)
    assert top_k(score, None, 1).item[:, 0].tolist() == score.argmax(axis=1).tolist()


# ---------------------------------------------------------------- faults
def test_nan_is_refused_and_the_row_named():
    score = np.zeros((5, 3))
    score[3, 1] = np.nan

    with pytest.raises(ProtocolError, match="NaN in user row 3"):
        evaluate(score, np.zeros((5, 3)), np.ones((5, 3)), "mrr", batch_size=2)


def test_scores_of_another_shape_are_refused():
    with pytest.raises(ProtocolError, match=r"shape \(1, 3\).*got \(1, 2\)"):
        evaluate([[1, 2]], [[0, 0, 0]], [[1, 0, 0]], "mrr")


@pytest.mark.parametrize(
    ("seen", "held", "message"),
    [
        ([[1, 0]], [[1, 1]], "got 1 items in both"),
        ([[1, 0]], [[1, 0, 0]], r"shapes \(1, 2\) and \(1, 3\)"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "at least one"),
    ],
)
def test_seen_and_held_that_do_not_fit_are_refused(seen, held, message):
    with pytest.raises(DataFormatError, match=message):
        evaluate([[1, 2]], seen, held, "mrr")


@pytest.mark.parametrize("name", ["map@10", "ndcg@0", "ndcg@", "ndcg@-1", "ndcg@x", ""])
def test_unknown_metrics_are_refused(name):
    with pytest.raises(ConfigError, match="Expected"):
        parse_metric(name, 10)


def test_metrics_that_need_facts_say_so():
    with pytest.raises(ConfigError, match=r"facts.*diversity@10.*novelty@10.*none"):
        evaluate([[1, 2]], [[0, 0]], [[1, 0]], *BEYOND_ACCURACY)
