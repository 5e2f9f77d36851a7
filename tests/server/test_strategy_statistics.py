"""Statistics asked of a grid whose clients misbehave."""

import json

import numpy as np
import pytest

from common import wire
from common.errors import ProtocolError
from common.statistics import (
    Pairs,
    pack_pairs,
    pack_sketch,
    unpack_directions,
    unpack_items,
)
from tests.server.conftest import FakeGrid, failing, replying
from tests.server.test_strategy import federation

CHOSEN = np.array([True, False, True, False, False, True])
DIRECTIONS = np.float32([[1, 0], [0, 1], [1, 1]])


def giving(counts, pairs):
    packed = pack_pairs(Pairs(np.float32(counts), np.float32(pairs)))
    return replying({wire.PAIRS: packed})


def sketching(sketch):
    return replying({wire.SKETCH_SUM: pack_sketch(np.float32(sketch))})


def test_statistics_of_all_clients_are_added(tmp_path) -> None:
    grid = FakeGrid({3: giving([1, 2, 3], [4, 5, 6]), 4: giving([10] * 3, [20] * 3)})
    found = federation(tmp_path, grid).pairs(CHOSEN)
    np.testing.assert_array_equal(found.arrays[0], [11, 12, 13])
    np.testing.assert_array_equal(found.arrays[1], [24, 25, 26])
    assert found.num_clients == 2
    (sent, _) = grid.sent
    assert sent.metadata.message_type == wire.STATISTICS
    np.testing.assert_array_equal(unpack_items(sent.content), CHOSEN)


def test_sketches_of_all_clients_are_added(tmp_path) -> None:
    grid = FakeGrid({3: sketching(np.ones((3, 2))), 4: sketching(np.eye(3, 2))})
    found = federation(tmp_path, grid).sketch(CHOSEN, DIRECTIONS)
    np.testing.assert_array_equal(found.arrays[0], [[2, 1], [1, 2], [1, 1]])
    sent = grid.sent[0]
    assert sent.metadata.message_type == wire.SKETCH
    np.testing.assert_array_equal(unpack_directions(sent.content, 3), DIRECTIONS)


def test_a_statistic_that_does_not_fit_costs_itself_alone(tmp_path) -> None:
    behaviours = {
        3: giving([1, 2, 3], [4, 5, 6]),
        4: giving([1, 2], [4]),
        5: giving([1, np.nan, 3], [4, 5, 6]),
        6: failing("no"),
        7: replying(),
    }
    found = federation(tmp_path, FakeGrid(behaviours)).pairs(CHOSEN)
    np.testing.assert_array_equal(found.arrays[0], [1, 2, 3])
    assert found.num_clients == 1
    text = (tmp_path / "out/metrics.jsonl").read_text()
    assert text.count('"refusal"') == 4
    (line,) = [json.loads(x) for x in text.splitlines() if '"statistics", "surv' in x]
    assert (line["survivors"], line["num_clients"]) == (1, 5)


def test_no_statistic_at_all_ends_the_run(tmp_path) -> None:
    with pytest.raises(ProtocolError, match="every client failed or refused"):
        federation(tmp_path, FakeGrid({3: failing("no")})).pairs(CHOSEN)


@pytest.mark.parametrize("huge", [1e30, -1e30])
def test_huge_sums_of_one_client_cost_that_client_alone(tmp_path, huge) -> None:
    """Finite, and far beyond what its declared users and the noise can give."""
    behaviours = {
        3: giving([1, 2, 3], [4, 5, 6]),
        4: giving([huge] * 3, [4, 5, 6]),
        5: giving([1, 2, 3], [huge] * 3),
    }
    found = federation(tmp_path, FakeGrid(behaviours)).pairs(CHOSEN)
    np.testing.assert_array_equal(found.arrays[1], [4, 5, 6])
    assert found.num_clients == 1
    behaviours = {3: sketching(np.ones((3, 2))), 4: sketching(np.full((3, 2), huge))}
    found = federation(tmp_path, FakeGrid(behaviours)).sketch(CHOSEN, DIRECTIONS)
    np.testing.assert_array_equal(found.arrays[0], np.ones((3, 2)))
    text = (tmp_path / "out/metrics.jsonl").read_text()
    assert text.count("privacy.declared-users") == 1, "the folder's last run"
