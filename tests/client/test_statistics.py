"""Noisy sums of items and pairs: one user adds norm 1, and no more."""

import numpy as np
import pytest
import scipy.sparse as sp
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st

import client.app as wiring
from client.app import app
from client.randomness import secure_stream, seeded_stream
from client.release import FAILED, MISFIT, REFUSED
from client.statistics import pair_sums, sketch_sum
from common import wire
from common.config import parse
from common.events import DpEvent
from common.plan import statistics_noise
from common.statistics import pack_directions, unpack_pairs, unpack_sketch
from tests.client.conftest import (
    FLAT,
    NUM_ITEMS,
    asking,
    context_of,
    rows,
    spent,
    write_folder,
)

SHARE = {"statistics.share": 0.5, "statistics.noise-multiplier": 2.0}
ALL = np.ones(NUM_ITEMS, bool)
BOTH = [wire.STATISTICS, wire.SKETCH]


def histories(num_users: int, seed: int = 0, num_items: int = NUM_ITEMS):
    drawn = np.random.default_rng(seed).random((num_users, num_items)) < 0.4
    return sp.csr_matrix(drawn.astype(np.float32))


def table(*rows):
    return sp.csr_matrix(np.asarray(rows, np.float32))


def exact_pairs(matrix, chosen=None, share=0.5):
    chosen = np.ones(matrix.shape[1], bool) if chosen is None else np.asarray(chosen)
    return pair_sums(matrix, chosen, share, 0.0, secure_stream())


def exact_sketch(matrix, directions, chosen=None):
    chosen = np.ones(matrix.shape[1], bool) if chosen is None else np.asarray(chosen)
    return sketch_sum(matrix, chosen, directions, 0.0, secure_stream())


def test_pairs_by_hand() -> None:
    """Two items together, then one alone, which makes no pair."""
    found = exact_pairs(table([1, 1, 0], [0, 0, 1]), share=0.36)
    root = 0.6 / 2**0.5
    np.testing.assert_allclose(found.counts, [root, root, 0.6], rtol=1e-6)
    np.testing.assert_allclose(found.pairs, [0.8, 0, 0], rtol=1e-6)


def test_three_items_share_out_the_norm() -> None:
    found = exact_pairs(table([1, 1, 1]), share=0.36)
    np.testing.assert_allclose(found.pairs, [0.8 / 3**0.5] * 3, rtol=1e-6)


def test_items_that_were_not_chosen_are_left_out() -> None:
    with_more = exact_pairs(table([1, 1, 1], [1, 0, 0]), [True, False, True])
    without = exact_pairs(table([1, 1], [1, 0]))
    np.testing.assert_array_equal(with_more.counts, without.counts)
    np.testing.assert_array_equal(with_more.pairs, without.pairs)


def test_a_sketch_by_hand() -> None:
    """Items 0 and 2 along their own directions: each row is the other's direction."""
    directions = np.float32([[3, 0], [9, 9], [0, 4]])
    found = exact_sketch(table([1, 0, 1]), directions)
    np.testing.assert_allclose(found, np.array([[0, 4], [0, 0], [3, 0]]) / 5)


def test_a_sketch_is_of_the_pairs_along_the_directions() -> None:
    """Users of equal norm: a scale apart from offdiagonal(XᵀX) @ directions."""
    matrix = table(*np.eye(6)[:, [0, 1, 2]].repeat(2, axis=1)[[0, 1, 2]])
    pairs = (matrix.T @ matrix).toarray()
    np.fill_diagonal(pairs, 0.0)
    directions = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    one = exact_sketch(matrix[:1], directions)
    expected = np.zeros((6, 6))
    expected[0, 1] = expected[1, 0] = 1.0
    expected = expected @ directions
    np.testing.assert_allclose(one, expected / np.linalg.norm(expected), rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.99))
def test_one_user_moves_the_pairs_by_one_at_most(seed, share) -> None:
    """Mistake 10."""
    matrix = histories(6, seed)
    chosen = np.random.default_rng(seed).random(NUM_ITEMS) < 0.7
    whole, without = (
        exact_pairs(matrix, chosen, share),
        exact_pairs(matrix[1:], chosen, share),
    )
    moved = np.concatenate(
        [
            whole.counts.astype(float) - without.counts,
            whole.pairs.astype(float) - without.pairs,
        ]
    )
    assert np.linalg.norm(moved) <= 1 + 1e-5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(-20, 6), st.booleans())
def test_one_user_moves_a_sketch_by_one_at_most(seed, size, cancelling) -> None:
    """For any directions, those too that leave nothing but rounding of a user."""
    draw = np.random.default_rng(seed)
    directions = draw.normal(size=(NUM_ITEMS, 3)) * 10.0 ** draw.uniform(
        min(size, 0), max(size, 0), (NUM_ITEMS, 1)
    )
    if cancelling:
        directions[1::2] = -directions[::2] * (1 + 1e-7)
    directions = np.clip(directions, -1e6, 1e6).astype(np.float32)
    matrix = histories(6, seed)
    whole = exact_sketch(matrix, directions).astype(float)
    without = exact_sketch(matrix[1:], directions).astype(float)
    assert np.linalg.norm(whole - without) <= 1 + 1e-5


def test_a_sketch_does_not_depend_on_how_rows_are_cut(monkeypatch) -> None:
    matrix = histories(40, 3)
    directions = np.random.default_rng(1).normal(size=(NUM_ITEMS, 4))
    directions = directions.astype(np.float32)
    whole = exact_sketch(matrix, directions)
    monkeypatch.setattr("client.statistics.NUMBERS", 28)
    monkeypatch.setattr("client.statistics.USERS", 7)
    np.testing.assert_allclose(exact_sketch(matrix, directions), whole, rtol=1e-5)


def test_nobody_still_gets_noise_of_the_announced_deviation() -> None:
    nobody, chosen = sp.csr_matrix((0, 60), dtype=np.float32), np.ones(60, bool)
    found = pair_sums(nobody, chosen, 0.5, 3.0, seeded_stream(1))
    sketch = sketch_sum(
        nobody, chosen, np.ones((60, 30), np.float32), 3.0, seeded_stream(2)
    )
    assert found.counts.shape == (60,)
    for drawn in (found.pairs, sketch.ravel()):
        assert abs(drawn.std() / 3.0 - 1) < 0.05
        assert abs(drawn.mean()) < 0.3


@pytest.mark.parametrize("kind", BOTH)
def test_a_reply_holds_the_sums_and_charges_its_event(tmp_path, kind) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    reply = app(asking(kind, ALL), context_of(folder, **SHARE))
    noise = statistics_noise(parse(FLAT | SHARE))
    if kind == wire.STATISTICS:
        assert set(reply.content) == {wire.PAIRS, wire.ROUND}
        assert unpack_pairs(reply.content, NUM_ITEMS).pairs.shape == (66,)
        assert spent(folder) == [(1, DpEvent(noise.pairs, 1.0, 1))]
    else:
        assert set(reply.content) == {wire.SKETCH_SUM, wire.ROUND}
        assert unpack_sketch(reply.content, NUM_ITEMS, 2).shape == (NUM_ITEMS, 2)
        assert spent(folder) == [(1, DpEvent(noise.sketch, 1.0, 1))]


@pytest.mark.parametrize("kind", BOTH)
def test_it_is_given_once(tmp_path, kind) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    app(asking(kind, ALL), context_of(folder, **SHARE))
    again = app(asking(kind, ALL, nonce="f" * 32), context_of(folder, **SHARE))
    assert again.error.reason == REFUSED
    assert len(spent(folder)) == 1


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "chosen",
    [
        np.zeros(NUM_ITEMS, np.float32),
        np.eye(1, NUM_ITEMS, dtype=np.float32)[0],
        np.ones(NUM_ITEMS - 1, np.float32),
        np.full(NUM_ITEMS, 0.5, np.float32),
        np.full(NUM_ITEMS, np.nan, np.float32),
        np.ones(NUM_ITEMS, np.float64),
    ],
)
def test_items_that_do_not_fit_cost_nothing(tmp_path, kind, chosen) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    message = asking(kind, ALL)
    message.content[wire.ITEMS] = ArrayRecord({"chosen": Array(chosen)})
    assert app(message, context_of(folder, **SHARE)).error.reason == MISFIT
    assert spent(folder) == []


@pytest.mark.parametrize(
    "directions",
    [
        np.ones((NUM_ITEMS - 1, 2), np.float32),
        np.ones((NUM_ITEMS, 257), np.float32),
        np.ones((NUM_ITEMS, 0), np.float32),
        np.ones(NUM_ITEMS, np.float32),
        np.full((NUM_ITEMS, 2), np.inf, np.float32),
        np.full((NUM_ITEMS, 2), 1e7, np.float32),
        np.ones((NUM_ITEMS, 2), np.float64),
    ],
)
def test_directions_that_do_not_fit_cost_nothing(tmp_path, directions) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    message = asking(wire.SKETCH, ALL)
    message.content[wire.DIRECTIONS] = pack_directions(directions)
    assert app(message, context_of(folder, **SHARE)).error.reason == MISFIT
    assert spent(folder) == []


@pytest.mark.parametrize("kind", BOTH)
def test_more_items_than_announced_are_refused(tmp_path, kind) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    few = SHARE | {"statistics.most-items": NUM_ITEMS - 1}
    assert app(asking(kind, ALL), context_of(folder, **few)).error.reason == MISFIT


@pytest.mark.parametrize(
    ("kind", "announced"),
    [
        (wire.STATISTICS, {}),
        (wire.SKETCH, {}),
        (wire.SKETCH, SHARE | {"statistics.sketch-share": 0.0}),
    ],
)
def test_a_run_that_did_not_announce_it_gets_none(tmp_path, kind, announced) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    reply = app(asking(kind, ALL), context_of(folder, **announced))
    assert reply.error.reason == MISFIT
    assert spent(folder) == []


def test_an_array_beside_the_sums_does_not_leave(tmp_path, monkeypatch) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    packed = wiring.pack_pairs

    def with_more(found):
        more = Array(np.float32([len(found.pairs)]))
        return ArrayRecord({**packed(found), "more": more})

    monkeypatch.setattr(wiring, "pack_pairs", with_more)
    reply = app(asking(wire.STATISTICS, ALL), context_of(folder, **SHARE))
    assert reply.has_error()
    assert reply.error.reason in (FAILED, MISFIT)


@pytest.mark.parametrize("noise", [0.001, 0.05])
def test_sums_that_cost_far_too_much_are_refused_before_anything_is_calibrated(
    tmp_path, monkeypatch, noise
) -> None:
    """Their loss distribution alone would take gigabytes."""

    def never(*arguments):
        raise AssertionError("calibrated")

    monkeypatch.setattr("common.plan.calibrate", never)
    folder = write_folder(tmp_path / "0000", rows(8))
    dear = SHARE | {
        "statistics.noise-multiplier": noise,
        "privacy.noise-multiplier": 0.0,
    }
    reply = app(asking(wire.STATISTICS, ALL), context_of(folder, **dear))
    assert reply.error.reason == REFUSED
    assert spent(folder) == []


def test_where_both_sums_cost_the_same_each_is_still_given_once(tmp_path) -> None:
    """A plan merges equal events, and would have room for one of them twice."""
    folder = write_folder(tmp_path / "0000", rows(8))
    halves = SHARE | {"statistics.sketch-share": 0.5}
    context = context_of(folder, **halves)
    first = app(asking(wire.SKETCH, ALL), context)
    again = app(asking(wire.SKETCH, ALL, nonce="f" * 32), context)
    assert again.error.reason == REFUSED
    assert len(spent(folder)) == 1
    same = app(asking(wire.SKETCH, ALL), context)
    for name in (wire.SKETCH_SUM, wire.ROUND):
        assert same.content[name] == first.content[name]
    assert app(asking(wire.STATISTICS, ALL), context).has_content()
    assert len(spent(folder)) == 2


def test_a_target_that_no_noise_reaches_is_a_refusal(folder, caplog) -> None:
    """The client's settings allow no such run: it did not fail."""
    unreachable = SHARE | {
        "statistics.noise-multiplier": 0.0,
        "privacy.target-epsilon": 1e-9,
        "privacy.delta": 1e-12,
    }
    reply = app(asking(wire.STATISTICS, ALL), context_of(folder, **unreachable))
    assert reply.error.reason == REFUSED
    assert spent(folder) == []
    assert "no noise reaches" in caplog.text
