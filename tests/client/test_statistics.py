"""The noisy sum of which items go together: one user adds norm 1, and no more."""

import numpy as np
import pytest
import scipy.sparse as sp
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from client.app import app
from client.randomness import secure_stream, seeded_stream
from client.release import MISFIT, REFUSED
from client.statistics import gram_sum, unit_rows
from common import wire
from common.accounting import calibrate
from common.events import DpEvent
from tests.client.conftest import (
    NUM_ITEMS,
    context_of,
    message_of,
    rows,
    spent,
    write_folder,
)

SHARE = {"statistics.share": 0.5, "privacy.target-epsilon": 8.0}
WEIGHTS = np.where(np.arange(NUM_ITEMS) < 10, 1.0, 0.0).astype(np.float32)


def histories(num_users: int, seed: int = 0) -> sp.csr_matrix:
    drawn = np.random.default_rng(seed).random((num_users, NUM_ITEMS)) < 0.5
    return sp.csr_matrix(drawn.astype(np.float32))


def asking(weights=WEIGHTS, number: int = 1, **header):
    message = message_of(number, kind=wire.STATISTICS, **header)
    del message.content[wire.STUDENT]
    message.content[wire.ITEM_WEIGHTS] = wire.pack_weights(weights)
    return message


def test_a_sum_by_hand() -> None:
    """Two items together, then one alone: norms √3 and 1 before scaling."""
    table = sp.csr_matrix(np.float32([[1, 1, 0], [0, 0, 1]]))
    found = gram_sum(table, np.ones(3, np.float32), 0.0, secure_stream())
    root = 3**-0.5
    np.testing.assert_allclose(found, [root, root, 0, root, 0, 1], rtol=1e-6)


def test_items_without_weight_are_left_out() -> None:
    table = sp.csr_matrix(np.float32([[1, 1, 1]]))
    weights = np.float32([1.0, 0.0, 0.5])
    found = gram_sum(table, weights, 0.0, secure_stream())
    whole = np.array([1, 0.5, 0.25])
    np.testing.assert_allclose(found, whole / np.linalg.norm(whole), rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-4, 1.0), st.integers(1, NUM_ITEMS))
def test_one_user_moves_the_sum_by_one_at_most(seed, least, kept) -> None:
    """Mistake 10, for any weights a server may choose."""
    draw = np.random.default_rng(seed)
    weights = np.zeros(NUM_ITEMS, np.float32)
    weights[:kept] = np.exp(draw.uniform(np.log(least), 0.0, kept))
    table = histories(5, seed)
    whole = gram_sum(table, weights, 0.0, secure_stream()).astype(np.float64)
    without = gram_sum(table[1:], weights, 0.0, secure_stream()).astype(np.float64)
    assert np.linalg.norm(whole - without) <= 1 + 1e-5


def test_a_user_without_weighted_items_adds_nothing() -> None:
    table = sp.csr_matrix(np.eye(3, dtype=np.float32)[2:])
    assert not unit_rows(table, np.float32([1.0, 1.0, 0.0])).toarray().any()


def test_nobody_still_gets_noise_of_the_announced_deviation() -> None:
    nobody = sp.csr_matrix((0, 60), dtype=np.float32)
    found = gram_sum(nobody, np.ones(60, np.float32), 3.0, seeded_stream(1))
    assert found.shape == (60 * 61 // 2,)
    assert abs(found.std() / 3.0 - 1) < 0.05
    assert abs(found.mean()) < 0.2


def test_a_reply_holds_the_triangle_and_charges_its_event(tmp_path) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    reply = app(asking(), context_of(folder, **SHARE))
    assert set(reply.content) == {wire.GRAM, wire.ROUND}
    assert wire.unpack_gram(reply.content, WEIGHTS).shape == (55,)
    noise = calibrate(4.0, 1e-5, 1.0, 1)
    assert spent(folder) == [(1, DpEvent(noise, 1.0, 1))]


def test_it_is_given_once(tmp_path) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    app(asking(), context_of(folder, **SHARE))
    again = app(asking(nonce="f" * 32), context_of(folder, **SHARE))
    assert again.error.reason == REFUSED
    assert len(spent(folder)) == 1


@pytest.mark.parametrize(
    "weights",
    [
        np.zeros(NUM_ITEMS, np.float32),
        np.ones(NUM_ITEMS - 1, np.float32),
        np.full(NUM_ITEMS, 2.0, np.float32),
        np.full(NUM_ITEMS, 1e-6, np.float32),
        np.full(NUM_ITEMS, -1.0, np.float32),
        np.full(NUM_ITEMS, np.nan, np.float32),
        np.ones(NUM_ITEMS, np.float64),
    ],
)
def test_weights_that_do_not_fit_cost_nothing(tmp_path, weights) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    reply = app(asking(weights), context_of(folder, **SHARE))
    assert reply.error.reason == MISFIT
    assert spent(folder) == []


def test_more_items_than_announced_are_refused(tmp_path) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    few = SHARE | {"statistics.most-items": 9}
    assert app(asking(), context_of(folder, **few)).error.reason == MISFIT


@pytest.mark.parametrize("overrides", [{}, {"number": 2}])
def test_a_run_that_did_not_announce_it_gets_none(tmp_path, overrides) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    announced = SHARE if overrides else {}
    reply = app(asking(**overrides), context_of(folder, **announced))
    assert reply.error.reason == MISFIT
    assert spent(folder) == []


def test_a_record_beside_the_triangle_does_not_leave(tmp_path, monkeypatch) -> None:
    import client.app as wiring

    folder = write_folder(tmp_path / "0000", rows(8))
    packed = wire.pack_gram

    def with_more(triangle):
        more = Array(np.float32([len(triangle)]))
        return ArrayRecord({**packed(triangle), "more": more})

    monkeypatch.setattr(wiring.wire, "pack_gram", with_more)
    reply = app(asking(), context_of(folder, **SHARE))
    assert reply.has_error()
