"""Rounds against a grid whose clients misbehave, and the safeguard."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from flwr.app import Array, ConfigRecord, Message, RecordDict

from common import wire
from common.catalogue import SCHEMA, Catalogue
from common.config import defaults, parse, to_flat
from common.errors import ProtocolError
from common.signature import check_signature, public_key
from common.soft_labels import encode
from common.student import StudentSpec, build, random_state, shapes
from server.answers import Answers
from server.messages import Postbox
from server.receipts import Receipts
from server.records import Recorder, RoundRecord
from server.round_checkpoint import Checkpoint
from server.run_journal import Journal, RunFacts
from server.settings import PublicData
from server.strategy import Federation
from tests.server.conftest import RUN_ID, FakeGrid, failing, replying

SPEC = StudentSpec(6, 2, 1.0, 0.0)
SECRET = bytes(range(32))
START = random_state(SPEC, torch.Generator().manual_seed(0))
ONES = {name: torch.ones_like(value) for name, value in START.items()}


class ScriptedTutor:
    """Gives these labels; keeps the students it was to learn from."""

    def __init__(self, labels=None) -> None:
        self.labels, self.seen = labels, []

    def refresh(self, student) -> float:
        self.seen.append(student)
        return 0.125


NOBODY = ScriptedTutor()


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
        Catalogue(pl.DataFrame(columns, schema=SCHEMA)),
        teaching,
        teaching.astype(np.int32),
        none,
        none,
    )


def honest(scale: float = 1.0, **changes):
    """A client whose every update, or sum of metrics, is the same."""
    state = changes.pop("state", None) or {n: v * scale for n, v in ONES.items()}
    update = replying({wire.UPDATE: wire.pack_state(state)}, **changes)
    sums = np.float32([1.0, 2.0, 4.0]) * np.float32(scale)
    answers = {
        wire.TRAIN: update,
        wire.EVALUATE: replying({wire.METRICS: wire.pack_sums(sums)}, **changes),
        wire.DELIVER: replying(**changes),
    }
    return lambda message: answers[message.metadata.message_type](message)


def federation(tmp_path: Path, grid: FakeGrid, **overrides) -> Federation:
    flat = defaults() | {
        "aggregation.name": "fedavg",
        "aggregation.learning-rate": 1.0,
        "aggregation.average-from": 0.0,
    }
    config, public = parse(flat | overrides), public_data()
    recorder = Recorder(tmp_path / "out")
    postbox = Postbox(
        grid,
        journal(tmp_path, config),
        config,
        public.catalogue.digest,
        SECRET,
        Receipts(tmp_path / "state"),
        recorder,
    )
    answers = Answers(tmp_path / "out")
    return Federation(grid, config, SPEC, public, postbox, recorder, answers)


def journal(tmp_path: Path, config) -> Journal:
    return Journal(
        tmp_path / "out", RunFacts(str(RUN_ID), to_flat(config)), resumed=False
    )


def nowhere(checkpoint: Checkpoint) -> None:
    """Keeps no checkpoint."""


def lines_of(tmp_path: Path) -> list[dict]:
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def run(
    tmp_path: Path, behaviours, rounds: int = 1, *, backwards: bool = False, **overrides
):
    grid = FakeGrid(behaviours, backwards=backwards)
    running = federation(tmp_path, grid, **{"training.rounds": rounds} | overrides)
    last = list(running.rounds(START, NOBODY, [0.5] * rounds, nowhere))[-1]
    return last, lines_of(tmp_path)


nan = {name: value * float("nan") for name, value in ONES.items()}
short = {name: value[:1] for name, value in ONES.items()}


@pytest.mark.parametrize(
    "bad",
    [
        failing("refused"),
        honest(run="8"),
        honest(number=9),
        honest(nonce="0" * 32),
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
        run(tmp_path, {1: failing("no")})


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


@pytest.mark.parametrize("value", ["", [], [""], b""])
def test_a_record_that_cannot_be_counted_ends_no_run(tmp_path, value) -> None:
    def chatty(message: Message) -> RecordDict:
        content = honest(2.0)(message)
        content["more"] = ConfigRecord({"x": value})
        content[wire.ROUND]["x"] = value
        return content

    last, lines = run(tmp_path, {1: chatty, 2: honest(4.0)})
    for name, moved in last.student.items():
        torch.testing.assert_close(moved, START[name] + 3.0)
    assert lines[-1]["survivors"] == 2


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
    told = {"send", "wait", "aggregate", "validate", "checkpoint"}
    assert set(lines[-1]["seconds"]) == told


def test_an_infinite_epsilon_is_valid_json(tmp_path) -> None:
    Recorder(tmp_path).round(RoundRecord(1, float("inf")))
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line)["epsilon"] is None
    assert "Infinity" not in line


def test_delivery_counts_who_took_the_very_student(tmp_path) -> None:
    grid = FakeGrid({1: honest(), 2: failing("The client refused."), 3: honest()})
    taken = federation(tmp_path, grid, **{"training.rounds": 4}).deliver(START)
    assert taken == 2
    refusal, delivery = lines_of(tmp_path)
    assert (refusal["event"], refusal["round"]) == ("refusal", 4)
    facts = {name: delivery[name] for name in ("event", "survivors", "num_clients")}
    assert facts == {"event": "delivery", "survivors": 2, "num_clients": 3}
    assert [m.metadata.dst_node_id for m in grid.sent] == [1, 2, 3]
    for message in grid.sent:
        assert message.metadata.message_type == wire.DELIVER
        assert set(message.content) == {wire.STUDENT, wire.ROUND}
        state = wire.unpack_state(message.content, wire.STUDENT, shapes(SPEC))
        assert all(torch.equal(state[name], START[name]) for name in START)


def test_a_delivery_that_nobody_takes_ends_the_run_in_peace(tmp_path) -> None:
    grid = FakeGrid({1: failing("no")})
    assert federation(tmp_path, grid).deliver(START) == 0
    assert lines_of(tmp_path)[-1]["survivors"] == 0


def test_every_message_of_a_run_is_signed_for_what_it_is(tmp_path) -> None:
    grid = FakeGrid({1: honest(), 2: honest()})
    asked = {"training.rounds": 2, "client-metrics.every": 2}
    running = federation(tmp_path, grid, **asked)
    last = list(running.rounds(START, NOBODY, [0.5] * 2, nowhere))[-1]
    running.deliver(last.released)
    kinds = [message.metadata.message_type for message in grid.sent[::2]]
    assert kinds == [wire.TRAIN, wire.TRAIN, wire.EVALUATE, wire.DELIVER]
    flat = to_flat(running.config)
    for message, kind in zip(grid.sent[::2], kinds, strict=True):
        header = wire.unpack_header(message.content)
        assert header.server == public_key(SECRET)
        check_signature(header, kind, message.content, flat)
    assert len({header.nonce for header in grid.headers()}) == 4


def test_soft_labels_travel_with_training_alone(tmp_path) -> None:
    scores = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    labels = encode(scores, sp.csr_matrix(np.eye(2, 6, dtype=np.float32)), 3)
    grid = FakeGrid({1: honest()})
    running = federation(tmp_path, grid, **{"training.rounds": 1})
    list(running.rounds(START, ScriptedTutor(labels), [0.5], nowhere))
    running.deliver(START)
    train, deliver = grid.sent
    assert set(train.content) == {wire.STUDENT, wire.SOFT_LABELS, wire.ROUND}
    assert set(deliver.content) == {wire.STUDENT, wire.ROUND}


def test_the_teacher_learns_from_released_students_when_it_is_its_turn(
    tmp_path,
) -> None:
    tutor = ScriptedTutor()
    asked = {"training.rounds": 4, "refresh.every": 2}
    running = federation(tmp_path, FakeGrid({3: honest()}), **asked)
    list(running.rounds(START, tutor, [0.5] * 4, nowhere))
    assert len(tutor.seen) == 2
    lines = map(json.loads, (tmp_path / "out/metrics.jsonl").read_text().splitlines())
    gains = [line["teacher_gain"] for line in lines if line["event"] == "round"]
    assert gains == [None, 0.125, None, 0.125]
