"""Metrics asked of a grid whose clients misbehave: noised sums, added up."""

import math

import numpy as np
import pytest
import torch
from flwr.app import Message

from common import wire
from common.student import shapes
from tests.server.conftest import FakeGrid, failing, replying
from tests.server.test_strategy import (
    NOBODY,
    SPEC,
    START,
    federation,
    honest,
    nowhere,
    run,
)

OFF = {"privacy.mode": "off"}


def test_metrics_are_measured_in_their_rounds_and_recorded(tmp_path) -> None:
    """Sums (1, 2, 4) and (2, 4, 8): means 3/12 and 6/12 over 12 noised users."""
    every = {"client-metrics.every": 2, "client-metrics.noise-multiplier": 3.0}
    _, lines = run(tmp_path, {1: honest(), 2: honest(2.0)}, rounds=3, **every)
    rounds = [line for line in lines if line["event"] == "round"]
    assert [line["client_metrics"] is None for line in rounds] == [True, False, True]
    assert rounds[1]["client_metrics"] == pytest.approx(
        {
            "ndcg@10": 0.25,
            "recall@20": 0.5,
            "users": 12.0,
            "noise_deviation": 3.0 * math.sqrt(3) * math.sqrt(2) / 12,
        }
    )
    measured = [line["round"] for line in lines if line.get("phase") == "measure"]
    assert measured == [2]
    assert ["measure" in line["seconds"] for line in rounds] == [False, True, False]


def test_in_mode_off_no_noise_stands_in_the_metrics(tmp_path) -> None:
    _, lines = run(tmp_path, {1: honest()}, **OFF, **{"client-metrics.every": 1})
    assert lines[-1]["client_metrics"]["noise_deviation"] == 0.0
    assert lines[-1]["client_metrics"]["users"] == 4.0


def test_the_measured_student_is_the_released_one(tmp_path) -> None:
    grid = FakeGrid({1: honest()})
    asked = {"training.rounds": 3, "client-metrics.every": 3}
    running = federation(tmp_path, grid, **asked)
    last = list(running.rounds(START, NOBODY, [0.5] * 3, nowhere))[-1]
    (sent,) = [m for m in grid.sent if m.metadata.message_type == wire.EVALUATE]
    state = wire.unpack_state(sent.content, wire.STUDENT, shapes(SPEC))
    for name, value in state.items():
        assert torch.equal(value, last.released[name])
        assert not torch.equal(value, last.student[name])


def sums_of(sums) -> dict:
    return {wire.METRICS: wire.pack_sums(sums)}


@pytest.mark.parametrize(
    "bad",
    [
        failing("no metrics"),
        replying(),
        replying(sums_of(np.float32([1, 2]))),
        replying(sums_of(np.float32([1, 2, np.inf]))),
        replying(sums_of(np.float64([1, 2, 3]))),
        replying(sums_of(np.float32([1, 2, 3])), nonce="0" * 32),
    ],
)
def test_bad_metrics_cost_themselves_alone(tmp_path, bad) -> None:
    def only_trains(message: Message):
        is_training = message.metadata.message_type == wire.TRAIN
        return (honest() if is_training else bad)(message)

    every = {"client-metrics.every": 1}
    _, lines = run(tmp_path / "a", {1: only_trains, 2: honest()}, **every)
    assert lines[-1]["client_metrics"]["users"] == 4.0
    assert lines[-1]["survivors"] == 2
    assert [line["event"] for line in lines].count("refusal") == 1
    _, lines = run(tmp_path / "b", {1: only_trains}, **every)
    assert lines[-1]["client_metrics"] is None
    assert lines[-1]["survivors"] == 1
