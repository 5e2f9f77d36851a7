"""Rounds against a grid whose clients misbehave, and the safeguard."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from flwr.app import Array, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common import wire
from common.catalogue import SCHEMA, Catalogue
from common.config import defaults, parse
from common.errors import ConfigError, ProtocolError
from common.student import StudentSpec, build, interpolate, random_state
from server.records import Recorder, RoundRecord
from server.safeguard import choose_weight, validate
from server.settings import PublicData, read_public_data
from server.strategy import Federation

SPEC = StudentSpec(6, 2, 1.0, 0.0)
START = random_state(SPEC, torch.Generator().manual_seed(0))
ONES = {name: torch.ones_like(value) for name, value in START.items()}


def public_data() -> PublicData:
    columns = {
        "item": [str(i) for i in range(6)],
        "title": [str(i) for i in range(6)],
        "year": [0] * 6,
        "categories": [[] for _ in range(6)],
    }
    none = sp.csr_matrix((0, 6), dtype=np.float32)
    teaching = sp.csr_matrix(np.ones((2, 6), np.float32))
    return PublicData(
        Catalogue(pl.DataFrame(columns, schema=SCHEMA)), teaching, none, none
    )


class FakeGrid:
    """Answers each message by the node's behaviour."""

    def __init__(self, behaviours, *, backwards: bool = False) -> None:
        self.behaviours, self.backwards = behaviours, backwards
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1

    def get_node_ids(self):
        return list(self.behaviours)

    def send_and_receive(self, messages, *, timeout=None):
        replies = [self._reply(message) for message in messages]
        return replies[::-1] if self.backwards else replies

    def _reply(self, message: Message) -> Message:
        made = self.behaviours[message.metadata.dst_node_id](message)
        if isinstance(made, Error):
            return Message(made, reply_to=message)
        return Message(made, reply_to=message)


def honest(scale: float = 1.0, **changes):
    def answer(message: Message) -> RecordDict:
        header = wire.unpack_header(message.content)
        header = wire.RoundHeader(
            changes.get("run", header.run),
            changes.get("number", header.number),
            header.catalogue,
        )
        state = changes.get("state") or {n: v * scale for n, v in ONES.items()}
        return RecordDict(
            {wire.UPDATE: wire.pack_state(state), wire.ROUND: wire.pack_header(header)}
        )

    return answer


def run(tmp_path: Path, behaviours, rounds: int = 1, *, backwards: bool = False):
    flat = defaults() | {
        "training.rounds": rounds,
        "aggregation.name": "fedavg",
        "aggregation.learning-rate": 1.0,
        "aggregation.average-from": 0.0,
    }
    grid = FakeGrid(behaviours, backwards=backwards)
    federation = Federation(
        grid, "7", parse(flat), SPEC, public_data(), None, Recorder(tmp_path / "out")
    )
    last = list(federation.rounds(START, [0.5] * rounds))[-1]
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    return last, [json.loads(line) for line in lines]


nan = {name: value * float("nan") for name, value in ONES.items()}
short = {name: value[:1] for name, value in ONES.items()}


@pytest.mark.parametrize(
    "bad",
    [
        lambda message: Error(code=0, reason="refused"),
        honest(run="8"),
        honest(number=9),
        honest(state=nan),
        honest(state=short),
        lambda message: RecordDict(),
    ],
)
def test_a_bad_reply_costs_one_contribution_not_the_round(tmp_path, bad) -> None:
    last, lines = run(tmp_path, {1: honest(2.0), 2: bad, 3: honest(4.0)})
    moved = last.student["decoder.bias"] - START["decoder.bias"]
    torch.testing.assert_close(moved, torch.full((6,), 3.0))
    assert [line["event"] for line in lines].count("refusal") == 1
    assert (lines[-1]["survivors"], lines[-1]["num_clients"]) == (2, 3)


def test_a_round_without_any_update_stops_with_a_reason(tmp_path) -> None:
    with pytest.raises(ProtocolError, match="Round 1: every client failed"):
        run(tmp_path, {1: lambda message: Error(code=0, reason="no")})


def test_the_order_of_replies_does_not_change_the_student(tmp_path) -> None:
    grid = {n: honest(0.1 * n) for n in range(1, 6)}
    first, _ = run(tmp_path / "a", grid, 3)
    second, _ = run(tmp_path / "b", grid, 3, backwards=True)
    for name, value in first.student.items():
        assert torch.equal(value, second.student[name])


def test_the_released_student_is_the_mean_of_the_iterates(tmp_path) -> None:
    last, lines = run(tmp_path, {1: honest(1.0)}, rounds=3)
    moved = last.released["decoder.bias"] - START["decoder.bias"]
    torch.testing.assert_close(moved, torch.full((6,), 2.0))
    rounds = [line for line in lines if line["event"] == "round"]
    assert [line["round"] for line in rounds] == [1, 2, 3]
    size = sum(v.numel() for v in START.values()) * 4
    assert size <= rounds[0]["bytes_up_per_client"] < size + 2000


def safeguard_case():
    """Validation users who want item 5; one student ranks it first, one last."""
    shown = sp.csr_matrix(np.eye(6, dtype=np.float32)[:3])
    held = sp.csr_matrix(np.repeat(np.eye(6, dtype=np.float32)[5:], 3, axis=0))
    flat = {name: torch.zeros_like(value) for name, value in START.items()}
    good = flat | {"decoder.bias": torch.arange(6.0)}
    bad = flat | {"decoder.bias": -torch.arange(6.0)}
    return shown, held, good, bad


def test_the_safeguard_does_no_harm() -> None:
    shown, held, good, bad = safeguard_case()
    kept = choose_weight(good, bad, SPEC, shown, held, grid=10)
    assert kept.weight < 0.5
    assert validate(interpolate(good, bad, kept.weight), SPEC, shown, held) == 1.0
    taken = choose_weight(bad, good, SPEC, shown, held, grid=10)
    assert taken.weight == 1.0
    assert taken.curve[0][1] < taken.curve[-1][1] == 1.0
    assert "3 public validation users" in taken.reason


def test_without_validation_users_the_trained_student_stands() -> None:
    none = sp.csr_matrix((0, 6), dtype=np.float32)
    _, _, good, bad = safeguard_case()
    choice = choose_weight(good, bad, SPEC, none, none, grid=10)
    assert (choice.weight, choice.curve) == (1.0, ())


def test_a_missing_public_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tutela partition"):
        read_public_data(tmp_path)


def test_the_student_is_a_function_of_its_state() -> None:
    rows = torch.eye(6)
    with torch.no_grad():
        once, again = build(SPEC, START)(rows), build(SPEC, START)(rows)
    assert torch.equal(once, again)


def unreadable(data: bytes, stype: str = "numpy.ndarray"):
    """A reply whose arrays have the right names and shapes and wrong bytes."""

    def answer(message: Message) -> RecordDict:
        content = honest()(message)
        for name, value in START.items():
            content[wire.UPDATE][name] = Array(
                dtype="float32", shape=tuple(value.shape), stype=stype, data=data
            )
        return content

    return answer


@pytest.mark.parametrize(
    "bad",
    [
        unreadable(b""),
        unreadable(b"junk"),
        unreadable(b"\x93NUMPY\x01\x00v\x00junk"),
        unreadable(b"", stype="other"),
        honest(state={n: v.double() for n, v in ONES.items()}),
        honest(state=ONES | {"more": torch.ones(1)}),
        honest(state={"decoder.bias": ONES["decoder.bias"]}),
        honest(state=ONES | {"decoder.bias": torch.full((6,), float("inf"))}),
    ],
)
def test_whatever_a_client_sends_the_others_still_count(tmp_path, bad) -> None:
    last, lines = run(tmp_path, {1: bad, 2: honest(2.0), 3: bad})
    for name, value in last.student.items():
        torch.testing.assert_close(value, START[name] + 2.0)
    refusals = [line for line in lines if line["event"] == "refusal"]
    assert len(refusals) == 2
    assert all(line["reason"] and line["round"] == 1 for line in refusals)


def test_a_reply_of_the_round_before_does_not_count_again(tmp_path) -> None:
    def replays(message: Message) -> RecordDict:
        number = wire.unpack_header(message.content).number
        return honest(100.0, number=max(1, number - 1))(message)

    _, lines = run(tmp_path, {1: honest(1.0), 2: replays}, rounds=3)
    survivors = [line["survivors"] for line in lines if line["event"] == "round"]
    assert survivors == [2, 1, 1]


def test_metrics_are_whole_lines_in_the_order_of_events(tmp_path) -> None:
    _, lines = run(tmp_path, {1: honest(), 2: honest()}, rounds=2)
    told = [(line["event"], line["round"], line.get("phase")) for line in lines]
    phases = ("train", "aggregate", "validate")
    assert told == [
        entry
        for number in (1, 2)
        for entry in [("phase", number, phase) for phase in phases]
        + [("round", number, None)]
    ]
    assert lines[-1]["epsilon"] == 0.5
    assert lines[-1]["validation"] is None, "there are no validation users"
    assert set(lines[-1]["seconds"]) == set(phases)


def test_an_infinite_epsilon_is_valid_json(tmp_path) -> None:
    Recorder(tmp_path).round(RoundRecord(1, float("inf")))
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line)["epsilon"] is None
    assert "Infinity" not in line
