"""Answers kept for an audit: the checked arrays alone, once, and only if asked for."""

import errno

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, RecordDict
from flwr.common import Array
from safetensors.numpy import load_file

from common import wire
from common.config import defaults, parse
from common.errors import DataFormatError
from common.student import StudentSpec, shapes
from server import kept_answers as module
from server.kept_answers import (
    ANSWERS,
    SURVIVORS,
    KeptAnswers,
    file_name,
    most_bytes,
    read_receipts,
)
from tests.server.conftest import FakeGrid, failing, replying
from tests.server.test_strategy import (
    NOBODY,
    ONES,
    START,
    federation,
    honest,
    lines_of,
    nowhere,
)
from tests.server.test_strategy_statistics import CHOSEN, giving

RECEIPT = "ab" * 32


def ran(tmp_path, behaviours, *, keep=True, **overrides):
    """A run's folder of answers, and what it came to."""
    running = federation(tmp_path, FakeGrid(behaviours), **overrides)
    running.kept = KeptAnswers(tmp_path / "out") if keep else None
    rounds = running.config.training.rounds
    last = list(running.rounds(START, NOBODY, [0.5] * rounds, nowhere))[-1]
    running.deliver(last.released)
    return tmp_path / "out" / ANSWERS


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_questions_and_answers_of_every_round_are_kept(tmp_path) -> None:
    measured = {"training.rounds": 2, "client-metrics.every": 2}
    folder = ran(tmp_path, {7: honest(receipt=RECEIPT), 8: honest(2.0)}, **measured)
    assert names(folder) == [
        "000001 2 train 7.safetensors",
        "000001 2 train 8.safetensors",
        "000001 2 train sent.safetensors",
        "000002 2 train 7.safetensors",
        "000002 2 train 8.safetensors",
        "000002 2 train sent.safetensors",
        "000002 3 evaluate 7.safetensors",
        "000002 3 evaluate 8.safetensors",
        "000002 3 evaluate sent.safetensors",
        "000002 4 query.student sent.safetensors",
    ]
    update = load_file(folder / file_name(1, wire.TRAIN, "8"))
    assert set(update) == {f"{wire.UPDATE}/{name}" for name in ONES}
    for name, value in ONES.items():
        np.testing.assert_array_equal(update[f"{wire.UPDATE}/{name}"], 2 * value)
    sums = load_file(folder / file_name(2, wire.EVALUATE, "7"))
    np.testing.assert_array_equal(sums[f"{wire.METRICS}/sums"], [1, 2, 4])
    asked = load_file(folder / file_name(1, wire.TRAIN, "sent"))
    for name, value in START.items():
        np.testing.assert_array_equal(asked[f"{wire.STUDENT}/{name}"], value)
    assert read_receipts(folder) == {
        "7": frozenset({RECEIPT}),
        "8": frozenset({wire.NO_RECEIPT}),
    }


def test_statistics_are_kept_as_they_came(tmp_path) -> None:
    running = federation(tmp_path, FakeGrid({3: giving([1, 2, 3], [4, 5, 6])}))
    running.kept = KeptAnswers(tmp_path / "out")
    running.pairs(CHOSEN)
    folder = tmp_path / "out" / ANSWERS
    found = load_file(folder / file_name(1, wire.STATISTICS, "3"))
    assert found[f"{wire.PAIRS}/pairs"].tolist() == [4, 5, 6]
    sent = load_file(folder / file_name(1, wire.STATISTICS, "sent"))
    np.testing.assert_array_equal(sent[f"{wire.ITEMS}/chosen"], CHOSEN)


def test_nothing_is_kept_unless_asked_for(tmp_path) -> None:
    assert not ran(
        tmp_path, {7: honest()}, keep=False, **{"training.rounds": 1}
    ).exists()
    assert parse(defaults()).run.keep_answers is False


def test_what_is_no_release_of_a_clients_own_is_passed_over(tmp_path) -> None:
    """Another protocol's messages, or a train reply without an update of its own."""
    kept = KeptAnswers(tmp_path)
    content = RecordDict({"masked": wire.pack_state(ONES)})
    kept.asked("query.keys", 1, content)
    kept.answered("query.keys", 1, 7, content)
    kept.answered(wire.TRAIN, 1, 7, content)
    assert not (tmp_path / ANSWERS).exists()


def test_files_are_their_owners_alone_and_whole(tmp_path) -> None:
    folder = ran(tmp_path, {7: honest()}, **{"training.rounds": 1})
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_round_that_is_asked_again_is_kept_once(tmp_path) -> None:
    behaviours = {7: honest(), 8: honest()}
    folder = ran(tmp_path, behaviours, **{"training.rounds": 1})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    ran(tmp_path, behaviours, **{"training.rounds": 1})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_does_not_fit_or_was_not_asked_for_takes_no_disk(tmp_path) -> None:
    """A client adds a record of its own, and another answers with a wrong shape."""
    large = ArrayRecord({"more": Array(np.zeros(100_000, dtype=np.float32))})
    content = {wire.UPDATE: wire.pack_state(ONES), "more": large}
    short = {wire.UPDATE: wire.pack_state({n: v[:1] for n, v in ONES.items()})}
    behaviours = {7: replying(content), 8: replying(short), 9: failing("no")}
    only = {"training.rounds": 1}
    running = federation(tmp_path, FakeGrid(behaviours), **only)
    running.kept = KeptAnswers(tmp_path / "out")
    list(running.rounds(START, NOBODY, [0.5], nowhere))
    folder = tmp_path / "out" / ANSWERS
    assert names(folder) == [
        "000001 2 train 7.safetensors",
        "000001 2 train sent.safetensors",
    ]
    kept = load_file(folder / file_name(1, wire.TRAIN, "7"))
    assert set(kept) == {f"{wire.UPDATE}/{name}" for name in ONES}


def test_a_full_disk_ends_the_keeping_and_not_the_run(
    tmp_path, monkeypatch, caplog
) -> None:
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_durably", full)
    ran(tmp_path, {7: honest(), 8: honest()}, **{"training.rounds": 2})
    rounds = [line for line in lines_of(tmp_path) if line["event"] == "round"]
    assert [line["survivors"] for line in rounds] == [2, 2]
    told = [each for each in caplog.messages if "nothing more is kept" in each]
    assert len(told) == 1 and "No space left" in told[0]


def test_a_damaged_file_is_named(tmp_path) -> None:
    folder = ran(tmp_path, {7: honest()}, **{"training.rounds": 1})
    (folder / file_name(1, wire.TRAIN, "7")).write_bytes(b"no arrays")
    with pytest.raises(DataFormatError, match="train 7"):
        read_receipts(folder)
    assert read_receipts(tmp_path / "nowhere") == {}


def test_the_disk_of_a_client_is_known_beforehand() -> None:
    """A student of 2·(10·3) + 10 numbers, 4 rounds; metrics twice; sums over 10."""
    spec = StudentSpec(10, 3, 1.0, 0.0)
    base = defaults() | {"training.rounds": 4}
    assert most_bytes(parse(base), spec) == 4 * 4 * 70
    more = {
        "client-metrics.every": 2,
        "statistics.share": 0.5,
        "statistics.directions": 6,
    }
    sums = 10 + 45 + 10 * 6
    assert most_bytes(parse(base | more), spec) == 4 * (4 * 70 + 2 * 3 + sums)


def test_what_is_kept_is_within_what_was_said(tmp_path) -> None:
    folder = ran(tmp_path, {7: honest()}, **{"training.rounds": 3})
    spec = StudentSpec(*ONES["decoder.weight"].shape, 1.0, 0.0)
    assert {n: tuple(v.shape) for n, v in ONES.items()} == shapes(spec)
    arrays = [load_file(path) for path in folder.glob("*7.safetensors")]
    size = sum(value.nbytes for each in arrays for value in each.values())
    assert size == most_bytes(parse(defaults() | {"training.rounds": 3}), spec)
    assert all(torch.equal(v, torch.ones_like(v)) for v in ONES.values())


def test_of_a_secure_sum_the_mean_is_kept_and_whose_it_is(tmp_path) -> None:
    kept = KeptAnswers(tmp_path)
    mean = {name: value * 0.5 for name, value in ONES.items()}
    kept.summed(2, START, mean, [2**63 + 1, 7])
    # A round that is made again leaves nothing twice.
    kept.summed(2, START, mean, [2**63 + 1, 7])
    folder = tmp_path / ANSWERS
    assert names(folder) == [
        "000002 2 train sent.safetensors",
        "000002 2 train sum.safetensors",
    ]
    found = load_file(folder / "000002 2 train sum.safetensors")
    assert set(found) == {SURVIVORS, *(f"{wire.UPDATE}/{name}" for name in ONES)}
    assert found[SURVIVORS].tolist() == [7, 2**63 + 1]
    for name, value in mean.items():
        np.testing.assert_array_equal(found[f"{wire.UPDATE}/{name}"], value.numpy())
    sent = load_file(folder / "000002 2 train sent.safetensors")
    assert set(sent) == {f"{wire.STUDENT}/{name}" for name in START}
    assert read_receipts(folder) == {}
