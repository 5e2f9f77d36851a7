"""The comparison of secure sums with plain ones sees a wrong bit."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import client.secure_round as clients_side
from client.randomness import seeded_stream
from common.config import defaults, parse
from common.integer_noise import rotation_seed, sum_plan
from common.secagg.ring import Ring
from server.secagg import SecureSum, Sum
from simulations.sum_check import checked_sums, read_checks, sentence_of

DIM, CLIENTS = 50, 5
PLAN = sum_plan(
    parse(
        defaults()
        | {
            "privacy.mode": "distributed",
            "privacy.declared-users": 1,
            "secagg.clients": CLIENTS,
            "secagg.parameters": DIM,
        }
    ),
    2.0,
    DIM,
)
RING = Ring(PLAN.bits)


@dataclass
class Server:
    """Takes out what it is told to."""

    values: np.ndarray

    def sum(self) -> Sum:
        return Sum(self.values, tuple(range(CLIENTS)))


def put_in(number: int) -> np.ndarray:
    stream = seeded_stream(number, "sum check")
    total = np.zeros(DIM, dtype=np.int64)
    for _ in range(CLIENTS):
        update = 0.01 * stream.normal((DIM,)).numpy()
        seed = rotation_seed("1", number)
        total += clients_side.contribution(update, DIM, PLAN, seed, stream)
    return total


def checked(folder: Path, monkeypatch, change: int = 0) -> list:
    """Two rounds; in the second the server's sum is off by so much in one place."""
    monkeypatch.setattr("simulations.sum_check._RESULT", Server.sum)
    with checked_sums(folder):
        for number, wrong in ((1, 0), (2, change)):
            total = put_in(number)
            total[7] += wrong
            SecureSum.result(Server(RING.encode(total)))
    return read_checks(folder)


def test_equal_sums_are_told_so(tmp_path: Path, monkeypatch) -> None:
    found = checked(tmp_path / "run", monkeypatch)
    assert [(each.vectors, each.survivors) for each in found] == [(5, 5)] * 2
    assert all(each.equal and each.whole for each in found)
    assert sentence_of(found).startswith("In each of 2 rounds, 5 or more clients")


@pytest.mark.parametrize(("change", "equal"), [(1, False), (1 << PLAN.bits, True)])
def test_one_wrong_bit_and_one_wrapped_coordinate_are_seen(
    tmp_path: Path, monkeypatch, change: int, equal: bool
) -> None:
    found = checked(tmp_path / "run", monkeypatch, change)
    assert found[0].equal and found[0].whole
    assert found[1].equal == equal
    assert "In 1 of 2 rounds the secure sum is NOT" in sentence_of(found) or equal


def test_what_is_replaced_comes_back(tmp_path: Path, monkeypatch) -> None:
    before = clients_side.contribution, SecureSum.result
    checked(tmp_path / "run", monkeypatch)
    assert (clients_side.contribution, SecureSum.result) == before


def test_a_run_without_sums_says_nothing(tmp_path: Path) -> None:
    with checked_sums(tmp_path):
        pass
    assert read_checks(tmp_path) == []
    assert sentence_of([]) == ""
