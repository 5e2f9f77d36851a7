"""Diversity, novelty, coverage, Gini: by hand, and against brute force."""

import doctest
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import common.beyond_accuracy
from common.beyond_accuracy import (
    ItemFacts,
    coverage,
    coverage_without,
    diversity,
    gini,
    gini_without,
    novelty,
)
from common.errors import DataFormatError

NUM_ITEMS = 9


@st.composite
def list_sets(draw):
    """Lists of two users or more, some cut short, never all empty."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_users, k = draw(st.integers(2, 6)), draw(st.integers(1, 5))
    lists = np.array([rng.permutation(NUM_ITEMS)[:k] for _ in range(num_users)])
    lengths = rng.integers(0, k + 1, size=num_users)
    lengths[:2] = k
    lists[np.arange(k) >= lengths[:, None]] = -1
    return lists


def facts_of(seed):
    rng = np.random.default_rng(seed)
    features = rng.integers(0, 2, size=(NUM_ITEMS, 4)).astype(np.float32)
    features[0] = 0
    return ItemFacts(rng.integers(0, 9, NUM_ITEMS).astype(np.float32), features)


def test_doctests():
    result = doctest.testmod(common.beyond_accuracy)

    assert result.attempted >= 6
    assert result.failed == 0


@settings(max_examples=40)
@given(list_sets(), st.integers(0, 99))
def test_diversity_equals_brute_force(lists, seed):
    facts = facts_of(seed)

    found = diversity(lists, facts)

    for row, value in zip(lists, found, strict=True):
        vectors = [facts.features[i] for i in row if i >= 0]
        known = [vector / np.linalg.norm(vector) for vector in vectors if vector.any()]
        apart = [1 - a @ b for a, b in combinations(known, 2)]
        wanted = np.mean(apart) if apart else np.nan
        assert value == pytest.approx(wanted, abs=1e-6, nan_ok=True)


@settings(max_examples=40)
@given(list_sets(), st.integers(0, 99))
def test_novelty_equals_brute_force(lists, seed):
    facts = facts_of(seed)
    total = facts.popularity.sum() + NUM_ITEMS

    found = novelty(lists, facts)

    for row, value in zip(lists, found, strict=True):
        bits = [-math.log2((facts.popularity[i] + 1) / total) for i in row if i >= 0]
        assert value == pytest.approx(np.mean(bits)) if bits else np.isnan(value)


def test_an_item_nobody_in_public_touched_is_the_most_novel_and_finite():
    facts = ItemFacts(np.float32([7, 0]), np.zeros((2, 1), dtype=np.float32))

    common_item, unseen = novelty(np.array([[0], [1]]), facts)

    assert common_item == pytest.approx(-math.log2(8 / 9))
    assert unseen == pytest.approx(-math.log2(1 / 9))


@settings(max_examples=60)
@given(list_sets())
def test_gini_equals_the_mean_difference_of_counts(lists):
    counts = np.bincount(lists[lists >= 0], minlength=NUM_ITEMS)
    apart = np.abs(counts[:, None] - counts[None, :]).sum()

    found = gini(lists, NUM_ITEMS)

    assert found == pytest.approx(apart / (2 * NUM_ITEMS * counts.sum()))


def test_gini_of_equal_shares_is_0_and_of_one_item_nearly_1():
    assert gini(np.array([[0, 1], [2, 3]]), 4) == 0.0
    assert gini(np.array([[2], [2]]), 4) == 0.75


@settings(max_examples=60)
@given(list_sets())
def test_figures_without_each_user_equal_counting_anew(lists):
    for figure, without in ((coverage, coverage_without), (gini, gini_without)):
        anew = [
            figure(np.delete(lists, user, axis=0), NUM_ITEMS)
            for user in range(len(lists))
        ]
        assert without(lists, NUM_ITEMS) == pytest.approx(anew)


def test_gini_of_nothing_is_refused():
    with pytest.raises(DataFormatError, match="empty lists alone"):
        gini(np.array([[-1]]), 4)


def test_facts_of_other_items_are_refused():
    with pytest.raises(DataFormatError, match=r"\(2,\) and \(3, 1\)"):
        ItemFacts(np.zeros(2, dtype=np.float32), np.zeros((3, 1), dtype=np.float32))
