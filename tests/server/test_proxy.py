"""Proxy histories: whose they are, how they are drawn, and what views keep."""

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp

from common.config import defaults, parse
from server.proxy import (
    AUGMENTATIONS,
    Sampling,
    crop,
    draw_items,
    lengths_like,
    mask,
    popularity,
    proxy_set,
    reorder,
    synthetic_histories,
)
from server.teacher.histories import sequences

SETTINGS = parse(defaults()).distillation
NUM_ITEMS = 6


@dataclass(frozen=True)
class Chain:
    """After item i comes item i + 1, for sure; knows the order of a history."""

    additive: bool = False

    def score(self, history: sp.csr_matrix) -> np.ndarray:
        scores = np.zeros(history.shape, dtype=np.float32)
        for row, items in enumerate(sequences(history)):
            scores[row, (items[-1] + 1) % NUM_ITEMS] = 100.0
        return scores


def ordered(*rows: list[int], num_items: int = NUM_ITEMS) -> sp.csr_matrix:
    dense = np.zeros((len(rows), num_items), dtype=np.int32)
    for row, items in enumerate(rows):
        dense[row, items] = np.arange(1, len(items) + 1)
    return sp.csr_matrix(dense)


def as_lists(history: sp.csr_matrix) -> list[list[int]]:
    return [items.tolist() for items in sequences(history)]


PUBLIC = ordered([4, 0, 2], [1, 5], [3, 2, 1, 0])


@pytest.mark.parametrize("additive", [False, True])
def test_synthetic_histories_follow_the_teacher(additive: bool) -> None:
    start = np.array([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    lengths = np.array([4, 1, 6, 3])
    # Standardised, the sure item is √5 deviations up and the others the same down.
    sampling = Sampling(temperature=0.01)
    drawn = synthetic_histories(
        Chain(additive),
        lengths,
        np.random.default_rng(0),
        start=start,
        sampling=sampling,
    )
    assert drawn.dtype == np.int32
    rows = as_lists(drawn)
    assert [len(row) for row in rows] == lengths.tolist()
    for row in rows:
        assert row[0] in (1, 4)
        assert row == [(row[0] + step) % NUM_ITEMS for step in range(len(row))]


def test_as_many_items_as_there_are_can_be_drawn_and_none_twice() -> None:
    uniform = np.ones(NUM_ITEMS)
    rng = np.random.default_rng(1)
    flat = Sampling(temperature=1e6, top_k=3)
    drawn = synthetic_histories(
        Chain(), np.full(40, NUM_ITEMS), rng, start=uniform, sampling=flat
    )
    assert all(sorted(row) == list(range(NUM_ITEMS)) for row in as_lists(drawn))


def test_no_synthetic_history_is_an_empty_matrix() -> None:
    drawn = synthetic_histories(
        Chain(), np.zeros(0, np.int64), np.random.default_rng(0), start=np.ones(6)
    )
    assert drawn.shape == (0, 6)


def test_items_are_drawn_by_the_softmax_over_the_best() -> None:
    # Odds 1 : 3 among the best two at temperature 2; the third is never drawn.
    logits = np.log(np.array([[1.0, 9.0, 0.5]])).repeat(4000, axis=0)
    sampling = Sampling(temperature=2.0, top_k=2)
    drawn = draw_items(logits, sampling, np.random.default_rng(0))
    share = np.bincount(drawn, minlength=3) / 4000
    np.testing.assert_allclose(share, [0.25, 0.75, 0.0], atol=0.03)


def test_what_must_not_be_drawn_is_not() -> None:
    logits = np.full((200, 4), -np.inf)
    logits[:, 2] = 0.0
    drawn = draw_items(logits, Sampling(), np.random.default_rng(0))
    assert (drawn == 2).all()


def test_popularity_and_lengths_come_from_public_rows() -> None:
    assert popularity(PUBLIC).tolist() == [2, 2, 2, 1, 1, 1]
    lengths = lengths_like(PUBLIC, 50, np.random.default_rng(0))
    assert set(lengths.tolist()) == {2, 3, 4}
    nothing = sp.csr_matrix((0, NUM_ITEMS), dtype=np.int32)
    assert popularity(nothing).tolist() == [1.0] * NUM_ITEMS
    assert lengths_like(nothing, 2, np.random.default_rng(0)).tolist() == [6, 6]


def test_crop_keeps_a_stretch_in_time() -> None:
    rng = np.random.default_rng(0)
    long = ordered([5, 3, 1, 0, 2])
    seen = set()
    for _ in range(40):
        (row,) = as_lists(crop(long, rng, 0.6))
        seen.add(tuple(row))
    assert seen == {(5, 3, 1), (3, 1, 0), (1, 0, 2)}


def test_mask_keeps_the_order_and_at_least_one_item() -> None:
    rng = np.random.default_rng(0)
    for hidden, most in ((0.5, 4), (1.0, 1)):
        for _ in range(20):
            for before, after in zip(
                as_lists(PUBLIC), as_lists(mask(PUBLIC, rng, hidden)), strict=True
            ):
                assert 1 <= len(after) <= most
                assert after == [item for item in before if item in after]


def test_mask_hides_its_share() -> None:
    wide = ordered(list(range(2000)), num_items=2000)
    assert mask(wide, np.random.default_rng(0), 0.3).nnz == pytest.approx(1400, abs=80)


def test_reorder_shuffles_one_stretch_alone() -> None:
    rng = np.random.default_rng(0)
    before = list(range(10))
    moved = set()
    for _ in range(40):
        (after,) = as_lists(reorder(ordered(before, num_items=10), rng, 0.3))
        changed = [i for i in before if after[i] != i]
        assert sorted(after) == before
        assert not changed or changed[-1] - changed[0] < 3
        moved.update(changed)
    assert moved == set(before)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_views_are_ordered_histories_of_the_same_users(name: str) -> None:
    with_empty = sp.vstack([PUBLIC, ordered([])], format="csr").astype(np.int32)
    before = with_empty.toarray().copy()
    view = AUGMENTATIONS[name](with_empty, np.random.default_rng(0))
    assert view.shape == with_empty.shape
    assert view.dtype == np.int32
    np.testing.assert_array_equal(with_empty.toarray(), before)
    for row, old in zip(view.toarray(), before, strict=True):
        assert sorted(row[row > 0]) == list(range(1, (row > 0).sum() + 1))
        assert set(np.flatnonzero(row)) <= set(np.flatnonzero(old))


def test_reading_binary_rows_goes_by_item_id() -> None:
    binary = (PUBLIC > 0).astype(np.float32)
    view = AUGMENTATIONS["mask"](binary, np.random.default_rng(0))
    assert all(row == sorted(row) for row in as_lists(view))


def test_the_proxy_set_is_public_users_then_drawn_ones_then_views() -> None:
    settings = SETTINGS.model_copy(
        update={"proxy_users": 2, "synthetic_users": 3, "augmentation": "crop"}
    )
    proxies = proxy_set(Chain(), PUBLIC, settings)
    rows = as_lists(proxies)
    assert proxies.dtype == np.int32
    assert len(rows) == settings.most_labels == 10
    assert rows[:2] == as_lists(PUBLIC)[:2]
    for row in rows[2:5]:
        assert row == [(row[0] + step) % NUM_ITEMS for step in range(len(row))]
    for row, view in zip(rows[:5], rows[5:], strict=True):
        assert set(view) <= set(row)
    again = proxy_set(Chain(), PUBLIC, settings)
    assert as_lists(again) == rows


def test_by_default_proxies_are_the_first_public_users() -> None:
    settings = SETTINGS.model_copy(update={"proxy_users": 2})
    assert as_lists(proxy_set(Chain(), PUBLIC, settings)) == as_lists(PUBLIC[:2])
