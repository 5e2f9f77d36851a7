"""Checkpoints and the journal: whole or noticed, and the one before is there."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from safetensors.numpy import load_file, save_file

from common.config import defaults, parse
from common.errors import ConfigError, DataFormatError, ProtocolError
from common.soft_labels import encode
from common.student import StudentSpec, random_state
from common.wire import DELIVER, TRAIN
from server.aggregation import OptimiserState
from server.answers import Answers
from server.records import Recorder, RoundRecord
from server.refinement import Summed
from server.round_checkpoint import ENDED, TRAINED, Checkpoint, Checkpoints, Progress
from server.run_journal import (
    Journal,
    RunFacts,
    alone,
    holds_run,
    is_finished,
    open_journal,
)
from server.teacher.ease import Ease

SPEC = StudentSpec(6, 2, 1.0, 0.0)
CATALOGUE = "ab" * 32
RECEIPTS = {"100": "1" * 64}


def state(seed: int):
    return random_state(SPEC, torch.Generator().manual_seed(seed))


def teacher(seed: int) -> Ease:
    return Ease(np.random.default_rng(seed).normal(size=(6, 6)).astype(np.float32))


LABELS = encode(
    np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32),
    sp.csr_matrix(np.eye(2, 6, dtype=np.float32)),
    3,
)


def point(number: int, stage: str = ENDED) -> Checkpoint:
    progress = Progress(
        state(number), OptimiserState(number, state(10), state(11)), state(12), number
    )
    record = RoundRecord(number, 0.5, seconds={"wait": 1.5}, survivors=2)
    return Checkpoint(number, stage, state(99), progress, record)


def same(one, other) -> None:
    assert list(one) == list(other), "the order as well"
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def saved(tmp_path: Path, *points: Checkpoint, labels=LABELS) -> Checkpoints:
    checkpoints, one = Checkpoints(tmp_path, CATALOGUE), teacher(0)
    for each in points:
        checkpoints.save(each, one, labels, RECEIPTS)
    return checkpoints


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "checkpoint").iterdir())


@pytest.mark.parametrize("labels", [LABELS, None])
def test_what_was_saved_is_read_back_bit_for_bit(tmp_path, labels) -> None:
    saved(tmp_path, point(3, TRAINED), labels=labels)
    found = Checkpoints(tmp_path, CATALOGUE).latest()
    wanted, got = point(3, TRAINED), found.checkpoint
    assert (got.round, got.stage, got.record) == (3, TRAINED, wanted.record)
    same(got.start, wanted.start)
    same(got.progress.student, wanted.progress.student)
    same(got.progress.average, wanted.progress.average)
    same(got.progress.optimiser.mean, wanted.progress.optimiser.mean)
    same(got.progress.optimiser.square, wanted.progress.optimiser.square)
    assert (got.progress.optimiser.step, got.progress.num_averaged) == (3, 3)
    np.testing.assert_array_equal(found.teacher.weights, teacher(0).weights)
    assert (found.receipts, found.damaged) == (RECEIPTS, ())
    if labels is None:
        assert found.labels is None
        return
    for name in ("item", "logit", "scale", "centre"):
        np.testing.assert_array_equal(
            getattr(found.labels, name), getattr(LABELS, name)
        )
    assert (found.labels.proxy != LABELS.proxy).nnz == 0


def test_before_the_first_round_there_is_no_moment_and_no_average(tmp_path) -> None:
    saved(tmp_path, Checkpoint.before_the_first(state(1)))
    got = Checkpoints(tmp_path, CATALOGUE).latest().checkpoint
    assert (got.round, got.stage, got.progress.average) == (0, ENDED, {})
    same(got.progress.released, state(1))


def test_the_latest_counts_and_the_one_before_is_kept(tmp_path) -> None:
    points = [point(1), point(2, TRAINED), point(2), point(10, TRAINED)]
    saved(tmp_path, *points)
    kept = [name for name in files(tmp_path) if name[0].isdigit()]
    assert kept == ["000002-ended.safetensors", "000010-trained.safetensors"]
    found = Checkpoints(tmp_path, CATALOGUE).latest()
    assert (found.checkpoint.round, found.checkpoint.stage) == (10, TRAINED)


def test_a_teacher_is_written_when_it_changes_and_goes_when_nobody_names_it(
    tmp_path,
) -> None:
    checkpoints = saved(tmp_path, point(0), point(1, TRAINED))
    assert [name for name in files(tmp_path) if "teacher" in name] == [
        "teacher-000000-ended.safetensors"
    ]
    newer = teacher(1)
    checkpoints.save(point(1), newer, LABELS, RECEIPTS)
    assert "teacher-000000-ended.safetensors" in files(tmp_path), (
        "the one before names it"
    )
    checkpoints.save(point(2, TRAINED), newer, LABELS, RECEIPTS)
    assert [name for name in files(tmp_path) if "teacher" in name] == [
        "teacher-000001-ended.safetensors"
    ]
    found = Checkpoints(tmp_path, CATALOGUE).latest()
    np.testing.assert_array_equal(found.teacher.weights, newer.weights)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


DAMAGE = [cut, flipped, lambda content: b"", lambda content: b"junk" * 100]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["", "teacher-", "labels-"])
def test_a_damaged_file_leads_to_the_one_before_and_is_named(
    tmp_path, damage, kind
) -> None:
    checkpoints = saved(tmp_path, point(1, TRAINED))
    checkpoints.save(point(1), teacher(1), LABELS, RECEIPTS)
    path = tmp_path / "checkpoint" / f"{kind}000001-ended.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    found = Checkpoints(tmp_path, CATALOGUE).latest()
    assert (found.checkpoint.round, found.checkpoint.stage) == (1, TRAINED)
    assert found.damaged == ("000001-ended.safetensors",)
    np.testing.assert_array_equal(found.teacher.weights, teacher(0).weights)


def test_nothing_whole_is_an_error_and_nothing_at_all_is_none(tmp_path) -> None:
    assert Checkpoints(tmp_path, CATALOGUE).latest() is None
    saved(tmp_path, point(1, TRAINED), point(1))
    for path in (tmp_path / "checkpoint").glob("0*"):
        path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(DataFormatError, match="all are damaged"):
        Checkpoints(tmp_path, CATALOGUE).latest()


def test_another_format_is_refused_not_passed_over(tmp_path) -> None:
    saved(tmp_path, point(1, TRAINED), point(1))
    path = tmp_path / "checkpoint" / "000001-ended.safetensors"
    metadata = {"format": "tutela-checkpoint-9", "facts": "{}", "digest": ""}
    save_file(load_file(path), path, metadata)
    with pytest.raises(DataFormatError, match="got 'tutela-checkpoint-9'; resume with"):
        Checkpoints(tmp_path, CATALOGUE).latest()


def test_a_finished_run_leaves_no_checkpoint(tmp_path) -> None:
    checkpoints = saved(tmp_path, point(1))
    checkpoints.forget()
    assert files(tmp_path) == []


def test_answers_are_kept_for_the_very_question(tmp_path) -> None:
    answers = Answers(tmp_path)
    sums = (np.array([1.5, 2.5]), np.array([[0.1]]))
    answers.keep("train.statistics", "cd" * 32, Summed(sums, 3), {"survivors": 3})
    found, facts = Answers(tmp_path).kept("train.statistics", "cd" * 32)
    for got, wanted in zip(found.arrays, sums, strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == np.float64
    assert (found.num_clients, facts) == (3, {"survivors": 3})
    assert answers.kept("train.statistics", "ef" * 32) is None
    assert answers.kept("train.sketch", "cd" * 32) is None
    answers.forget()
    assert answers.kept("train.statistics", "cd" * 32) is None


# ------------------------------------------------------------------ the journal


def config(**overrides):
    return parse(defaults() | overrides)


RESUME = {"run.resume": True}


def asking(tmp_path: Path, kind=TRAIN, number=1, digest="d1", **overrides) -> str:
    """The nonce under which a fresh process asks."""
    journal = open_journal(tmp_path, config(**overrides), "7")
    return journal.nonce(kind, number, digest, lambda: f"fresh of {id(journal)}")


def test_a_resumed_run_asks_the_same_again_under_its_first_id(tmp_path) -> None:
    first = open_journal(tmp_path, config(), "7")
    assert (first.run, first.resumed) == ("7", False)
    assert first.nonce(TRAIN, 1, "d1", lambda: "n1") == "n1"
    assert first.nonce(TRAIN, 2, "d2", lambda: "n2") == "n2"
    again = open_journal(tmp_path, config(**RESUME), "8")
    assert (again.run, again.resumed, again.finished) == ("7", True, False)
    assert again.nonce(TRAIN, 2, "d2", lambda: "n3") == "n2"
    assert again.nonce(TRAIN, 3, "d3", lambda: "n4") == "n4"


def test_asked_twice_by_one_process_it_is_another_question(tmp_path) -> None:
    journal = open_journal(tmp_path, config(), "7")
    assert journal.nonce(TRAIN, 1, "d1", lambda: "n1") == "n1"
    assert journal.nonce(TRAIN, 1, "d1", lambda: "n2") == "n2"
    again = open_journal(tmp_path, config(**RESUME), "8")
    assert again.nonce(TRAIN, 1, "d1", lambda: "n3") == "n2", "the latest"


def test_another_content_under_a_charged_nonce_is_refused(tmp_path) -> None:
    journal = open_journal(tmp_path, config(), "7")
    journal.nonce(TRAIN, 1, "d1", lambda: "n1")
    journal.nonce(DELIVER, 1, "d1", lambda: "n2")
    again = open_journal(tmp_path, config(**RESUME), "8")
    with pytest.raises(ProtocolError, match="Round 1: expected to ask train again"):
        again.nonce(TRAIN, 1, "d2", lambda: "n3")
    # A delivery costs nobody anything.
    assert again.nonce(DELIVER, 1, "d2", lambda: "n4") == "n4"


def test_two_runs_are_not_mixed(tmp_path) -> None:
    asking(tmp_path)
    with pytest.raises(ConfigError, match=r"run\.resume: .* holds a run already"):
        open_journal(tmp_path, config(), "8")


def test_what_differs_in_the_configuration_is_named(tmp_path) -> None:
    asking(tmp_path)
    changed = {"training.rounds": 61, "run.name": "other"}
    with pytest.raises(ConfigError) as error:
        open_journal(tmp_path, config(**RESUME, **changed), "8")
    assert "run.name ('tutela', now 'other'), training.rounds (60, now 61)" in str(
        error.value
    )


def test_where_nothing_was_asked_a_run_begins(tmp_path) -> None:
    with (
        pytest.raises(ConfigError, match="found none"),
        alone(tmp_path / "nowhere", resume=True),
    ):
        pass
    assert not (tmp_path / "nowhere").exists()
    assert not open_journal(tmp_path, config(**RESUME), "7").resumed
    assert not holds_run(tmp_path), "begun, and nobody was asked"
    assert open_journal(tmp_path, config(), "8").run == "8"
    asking(tmp_path)
    assert holds_run(tmp_path)
    (tmp_path / "other" / "checkpoint").mkdir(parents=True)
    (tmp_path / "other" / "checkpoint" / ".run.json.new").write_text("{")
    assert not holds_run(tmp_path / "other"), "cut off at its first write"


def test_a_finished_run_says_so(tmp_path) -> None:
    assert not is_finished(tmp_path)
    journal = open_journal(tmp_path, config(), "7")
    journal.nonce(DELIVER, 1, "d1", lambda: "n1")
    assert not is_finished(tmp_path)
    journal.finish()
    assert is_finished(tmp_path)
    assert open_journal(tmp_path, config(**RESUME), "8").finished


@pytest.mark.parametrize("name", ["run.json", "run.copy.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_one_damaged_copy_of_the_journal_does_no_harm(tmp_path, name, damage) -> None:
    nonce = asking(tmp_path)
    path = tmp_path / "checkpoint" / name
    path.write_bytes(damage(path.read_bytes()))
    assert asking(tmp_path, **RESUME) == nonce


def test_two_damaged_copies_and_another_format_are_refused(tmp_path) -> None:
    asking(tmp_path)
    for path in (tmp_path / "checkpoint").iterdir():
        path.write_text(path.read_text().replace('"train"', '"tra1n"'))
    with pytest.raises(DataFormatError, match="cannot be resumed"):
        open_journal(tmp_path, config(**RESUME), "8")
    path.with_name("run.json").write_text(json.dumps({"format": "x", "digest": ""}))
    with pytest.raises(DataFormatError, match="got 'x'; resume with the version"):
        open_journal(tmp_path, config(**RESUME), "8")


def test_the_journal_does_not_grow_with_the_rounds(tmp_path) -> None:
    journal = Journal(tmp_path / "checkpoint", RunFacts("7", {}), resumed=False)
    for number in range(1, 60):
        journal.nonce(TRAIN, number, "d", lambda: "n")
    tree = json.loads((tmp_path / "checkpoint/run.json").read_text())
    assert [each["number"] for each in tree["questions"]] == list(range(44, 60))


# ------------------------------------------------------------------ the record


def lines(tmp_path: Path) -> list[dict]:
    return [
        json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]


def test_a_resumed_record_goes_on_and_tells_no_round_twice(tmp_path) -> None:
    first = Recorder(tmp_path)
    first.round(RoundRecord(1, 0.5, survivors=2))
    facts = {"survivors": 1, "num_clients": 1}
    first.statistics("pairs", facts)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "round", "rou')
    again = Recorder(tmp_path, resumed=True)
    again.resume(1, ENDED, "a note")
    again.round(RoundRecord(1, 0.5, survivors=9))
    again.statistics("pairs", facts)
    again.statistics("sketch", facts)
    again.round(RoundRecord(2, 0.5))
    told = [(x["event"], x.get("round"), x.get("question")) for x in lines(tmp_path)]
    assert told == [
        ("round", 1, None),
        ("statistics", None, "pairs"),
        ("resume", 1, None),
        ("statistics", None, "sketch"),
        ("round", 2, None),
    ]
    assert lines(tmp_path)[0]["survivors"] == 2
    assert lines(tmp_path)[2]["note"] == "a note"


def test_a_new_record_begins_empty(tmp_path) -> None:
    Recorder(tmp_path).round(RoundRecord(1, 0.5))
    Recorder(tmp_path)
    assert lines(tmp_path) == []


def test_a_record_is_not_shared(tmp_path) -> None:
    """What a round adds after its checkpoint is not in the file."""
    checkpoints, one = Checkpoints(tmp_path, CATALOGUE), point(1)
    checkpoints.save(one, teacher(0), None, {})
    one.record.seconds["checkpoint"] = 3.0
    found = Checkpoints(tmp_path, CATALOGUE).latest().checkpoint.record
    assert found == replace(one.record, seconds={"wait": 1.5})
