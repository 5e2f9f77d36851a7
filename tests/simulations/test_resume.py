"""An interrupted simulation goes on, to what it would have come to."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import server.app
import simulations.experiment
from common.config import defaults, parse
from common.errors import ConfigError, DataFormatError, RoundFailed
from common.folders import CHECKPOINT, METRICS, RESULTS, STUDENT
from server.round_checkpoint import Checkpoints
from server.teaching import Tutor
from simulations.__main__ import main
from simulations.engine import InProcessGrid
from simulations.experiment import resume_experiment, run_experiment
from simulations.progress import follow
from simulations.results import read_results
from tests.simulations.killed_server import (
    CONFIGS,
    POINTS,
    SMALL,
    charges,
    config_of,
    differences,
    model,
    picture,
)


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    monkeypatch.setattr(simulations.experiment, "write_report", lambda *_: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulations.experiment, "write_report", lambda *_: None)
        run_experiment(config_of("refreshing"), out)
    return out


def dying(monkeypatch, owner: object, name: str, error: type, nth: int) -> None:
    """Raise where ``name`` would be called for the nth time."""
    original, calls = getattr(owner, name), []

    def dies(*args, **kwargs):
        calls.append(name)
        if len(calls) == nth:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, dies)


def test_an_interrupted_run_says_so_and_goes_on(tmp_path, monkeypatch, whole) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        dying(patch, InProcessGrid, "_reply", KeyboardInterrupt, 5)
        assert run_experiment(config_of("refreshing"), out).status == "interrupted"
    assert (out / STUDENT).is_file(), "what was learnt so far"
    assert resume_experiment(out).status == "complete"
    assert differences(picture(out), picture(whole)) == []
    events = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    (resumed,) = [each for each in events if each["event"] == "resume"]
    assert (resumed["round"], resumed["stage"], resumed["note"]) == (1, "ended", "")
    assert [e["round"] for e in events if e["event"] == "round"] == [1, 2, 3]


def test_a_finished_run_is_left_as_it_is(tmp_path, monkeypatch) -> None:
    out, never = tmp_path / "run", None
    config = parse(defaults() | SMALL | {"training.rounds": 1})
    run_experiment(config, out)
    student, told = (out / STUDENT).stat().st_mtime_ns, (out / METRICS).read_bytes()
    monkeypatch.setattr(server.app, "read_public_data", never)
    assert resume_experiment(out).status == "complete"
    assert (out / STUDENT).stat().st_mtime_ns == student
    assert (out / METRICS).read_bytes() == told
    assert sorted(path.name for path in (out / CHECKPOINT).glob("[!.]*")) == [
        "run.copy.json",
        "run.json",
    ]


@pytest.mark.parametrize("damaged", ["ended", "trained"])
def test_a_damaged_checkpoint_falls_back_and_it_is_said(
    tmp_path, monkeypatch, whole, damaged, caplog
) -> None:
    """Nobody is charged again for the round that the lost checkpoint was of."""
    out, saves = tmp_path / "run", {"trained": 4, "ended": 5}
    with monkeypatch.context() as patch:
        dying(patch, Checkpoints, "save", KeyboardInterrupt, saves[damaged] + 1)
        run_experiment(config_of("refreshing"), out)
    path = out / CHECKPOINT / f"000002-{damaged}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    resume_experiment(out)
    assert differences(picture(out), picture(whole)) == []
    assert f"one before: {path.name}" in caplog.text
    assert f"one before: {path.name}" in (out / METRICS).read_text()


def test_nothing_whole_to_go_on_from_ends_in_an_error(tmp_path, monkeypatch) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        dying(patch, Checkpoints, "save", KeyboardInterrupt, 5)
        run_experiment(config_of("refreshing"), out)
    for path in (out / CHECKPOINT).glob("00*"):
        path.write_bytes(b"")
    with pytest.raises(DataFormatError, match="all are damaged"):
        resume_experiment(out)


def test_a_round_of_too_few_is_asked_again_and_charges_nobody_twice(
    tmp_path, monkeypatch, whole
) -> None:
    """Two of three answered; resumed, they give the kept reply, the third trains."""
    out, original = tmp_path / "run", InProcessGrid._reply
    config = parse(
        defaults()
        | SMALL
        | CONFIGS["refreshing"]
        | {"run.min-replies": 3}
        | {"run.round-timeout": 1.0, "run.poll-interval": 0.05}
    )

    def offline(self, message):
        if message.metadata.dst_node_id == 102 and message.metadata.group_id == "2":
            raise KeyError("unreadable")
        return original(self, message)

    with monkeypatch.context() as patch:
        patch.setattr(InProcessGrid, "_reply", offline)
        with pytest.raises(RoundFailed, match=r"Round 2: .* got 2 from 3"):
            run_experiment(config, out)
    clients = out / "federation" / "clients"
    assert [len(charges(path)) for path in sorted(clients.iterdir())] == [2, 2, 1]
    resume_experiment(out)
    assert [len(charges(path)) for path in sorted(clients.iterdir())] == [4, 4, 4]
    assert model(out / STUDENT) == model(whole / STUDENT)


def test_refinement_that_fails_leaves_a_usable_folder(tmp_path, monkeypatch) -> None:
    """And one that fails for good goes on when it is mended: nothing is asked twice."""
    out = tmp_path / "run"
    config = parse(
        defaults() | SMALL | CONFIGS["refining"] | {"evaluation.baselines": False}
    )
    with monkeypatch.context() as patch:
        dying(patch, server.app, "refine", ArithmeticError, 1)
        with pytest.raises(ArithmeticError):
            run_experiment(config, out)
    for name in (STUDENT, "student_transferred.safetensors", "server.json"):
        assert (out / name).is_file()
    assert model(out / STUDENT)[1] == model(out / "student_transferred.safetensors")[1]
    # Nobody had been asked: a new run may begin in the folder.
    assert resume_experiment(out).status == "complete"
    assert {len(charges(each)) for each in (out / "federation/clients").iterdir()} == {
        4
    }


def test_answers_out_of_proportion_leave_the_public_teacher(tmp_path, monkeypatch):
    from server.refinement import RefinementFailed

    def fails(*args):
        raise RefinementFailed("Out of any proportion.")

    monkeypatch.setattr(server.app, "refine", fails)
    config = parse(
        defaults() | SMALL | CONFIGS["refining"] | {"evaluation.baselines": False}
    )
    results = run_experiment(config, tmp_path)
    assert results.status == "complete"
    assert [each.survivors for each in results.rounds] == [3, 3]
    assert not (tmp_path / "teacher_refined.safetensors").exists()
    assert "Out of any proportion." in (tmp_path / METRICS).read_text()


def test_an_error_in_a_refresh_can_be_resumed(tmp_path, monkeypatch, whole) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        dying(patch, Tutor, "refresh", ArithmeticError, 2)
        with pytest.raises(ArithmeticError):
            run_experiment(config_of("refreshing"), out)
    resume_experiment(out)
    assert differences(picture(out), picture(whole)) == []


def test_a_folder_of_no_simulation_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"--resume: .* simulation\.json"):
        resume_experiment(tmp_path)
    (tmp_path / "simulation.json").write_text('{"format": "tutela-simulation-9"}')
    with pytest.raises(ConfigError, match="got 'tutela-simulation-9'; resume with"):
        resume_experiment(tmp_path)


def test_progress_of_a_resumed_run_begins_after_its_last_whole_line(tmp_path) -> None:
    path, told = tmp_path / METRICS, []
    path.write_text('{"event": "old"}\n{"event": "cu')
    with follow(path, "arm", lambda _, line: told.append(line["event"]), resumed=True):
        path.write_text('{"event": "old"}\n{"event": "new"}\n')
    assert told == ["new"]


def test_seconds_tell_sending_waiting_and_keeping_apart(whole) -> None:
    for each in read_results(whole / RESULTS).rounds:
        assert {"send", "wait", "aggregate", "validate", "checkpoint"} <= set(
            each.seconds
        )
        assert each.seconds["wait"] > 0


@pytest.mark.slow
def test_killed_at_any_phase_a_run_comes_to_the_same_end(tmp_path) -> None:
    """The last: its processes fork from one that has not computed anything yet."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.simulations.killed_server", str(tmp_path)]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=1500, check=False
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["point"] for each in found] == list(POINTS), done.stderr[-3000:]
    assert [each for each in found if each["differs"]] == []


def tutela(capsys, *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tutela", *arguments])
        main()
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--resume", "x", "--out", "y"], "--resume: expected no --out"),
        (["--resume", "x", "--seed", "1"], "a run goes on as it began"),
        (["--resume", "x", "--set", "run.name=a"], "--resume: expected no --out"),
        (["--resume", "nowhere"], "--resume: expected a simulation's folder"),
        ([], "Expected --out for a new run, or --resume"),
    ],
)
def test_the_command_says_what_does_not_go_together(capsys, arguments, told) -> None:
    code, text = tutela(capsys, "simulate", *arguments)
    assert code == 2
    assert told in text.replace("\n", " ")
