"""The resume suite's script: a simulation is killed at a point, resumed, and compared.

    python -m tests.simulations.killed_server FOLDER [POINT ...]

Each run is a forked process; to be killed is to leave by ``os._exit``, with no
``finally`` run. Prints a JSON line a point: what differs from the run that nobody
interrupted (nothing should).
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import client.app
import client.train
import server.app
import server.messages
import server.round_checkpoint
import simulations.experiment
from client.ledger import inspect_ledger
from client.settings import read_settings, witness_place
from common.config import defaults, parse
from common.durable_files import write_durably
from server.answers import Answers
from server.records import Recorder
from server.round_checkpoint import Checkpoints
from server.run_journal import Journal
from server.strategy import Federation
from server.teaching import Tutor
from simulations.engine import InProcessGrid
from simulations.experiment import resume_experiment, run_experiment

SET = "synthetic:num_users=120,num_items=40,interactions_per_user=8"
KILLED = 9

SMALL = {
    "data.public": SET,
    "data.private": SET,
    "run.seed": 5,
    "run.keep-every": 1,
    "partition.num-clients": 3,
    "partition.public-users": 20,
    "partition.validation-users": 5,
    "partition.heldout-users": 20,
    "student.dim": 4,
    "training.rounds": 3,
    "privacy.declared-users": 27,
    "privacy.noise-multiplier": 1.0,
    "distillation.weight": 0.1,
    "distillation.top-k": 10,
    "evaluation.baselines": False,
    "evaluation.resamples": 20,
}
CONFIGS = {
    "refreshing": {"refresh.every": 1, "client-metrics.every": 2},
    "refining": {
        "training.rounds": 2,
        "statistics.share": 0.5,
        "statistics.noise-multiplier": 3.0,
        "statistics.rank": 4,
        "statistics.directions": 2,
        "evaluation.baselines": True,
    },
}


def before(owner: object, name: str, nth: int = 1):
    """A patch that kills where ``name`` would be called for the nth time."""
    original, calls = getattr(owner, name), []

    def counts(*args, **kwargs):
        calls.append(name)
        if len(calls) == nth:
            os._exit(KILLED)
        return original(*args, **kwargs)

    return patch.object(owner, name, counts)


def after(owner: object, name: str, nth: int = 1):
    """A patch that kills where ``name`` returns for the nth time."""
    original, calls = getattr(owner, name), []

    def counts(*args, **kwargs):
        found = original(*args, **kwargs)
        calls.append(name)
        if len(calls) == nth:
            os._exit(KILLED)
        return found

    return patch.object(owner, name, counts)


def torn(nth: int):
    """A patch that dies in the middle of writing the nth checkpoint's file."""
    calls = []

    def tears(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) < nth:
            return write_durably(path, content)
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(content[: len(content) // 2])
        os._exit(KILLED)

    return patch.object(server.round_checkpoint, "write_durably", tears)


Point = tuple[str, Callable[[], object]]

#: A checkpoint before the first round, then two a round.
POINTS: dict[str, Point] = {
    "before anything was written": ("refreshing", lambda: before(Journal, "begin")),
    "before the teacher": ("refreshing", lambda: before(server.app, "_teach")),
    "before the first checkpoint": (
        "refreshing",
        lambda: before(Checkpoints, "save"),
    ),
    "before a question is written": (
        "refreshing",
        lambda: before(Journal, "nonce", 2),
    ),
    "written, not sent": (
        "refreshing",
        lambda: before(server.messages, "exchange", 2),
    ),
    "a client at work": ("refreshing", lambda: before(client.train, "train", 5)),
    "after some replies": ("refreshing", lambda: after(InProcessGrid, "_reply", 4)),
    "after all replies": ("refreshing", lambda: after(server.messages, "exchange", 2)),
    "aggregated, not kept": ("refreshing", lambda: before(Checkpoints, "save", 4)),
    "checkpoint half written": ("refreshing", lambda: torn(4)),
    "after the checkpoint": ("refreshing", lambda: after(Checkpoints, "save", 4)),
    "some metrics in": ("refreshing", lambda: after(InProcessGrid, "_reply", 7)),
    "measured": ("refreshing", lambda: after(Federation, "_measure")),
    "before a refresh": ("refreshing", lambda: before(Tutor, "refresh", 2)),
    "after a refresh": ("refreshing", lambda: after(Tutor, "refresh", 2)),
    "refreshed, half written": ("refreshing", lambda: torn(5)),
    "ended, not recorded": ("refreshing", lambda: before(Recorder, "round", 2)),
    "recorded": ("refreshing", lambda: after(Recorder, "round", 2)),
    "before the release": ("refreshing", lambda: before(server.app, "release")),
    "some have it": ("refreshing", lambda: after(InProcessGrid, "_reply", 14)),
    "delivered": ("refreshing", lambda: before(Journal, "finish")),
    "before the results": (
        "refreshing",
        lambda: before(simulations.experiment, "collect"),
    ),
    "some pairs in": ("refining", lambda: after(InProcessGrid, "_reply", 2)),
    "pairs not kept": ("refining", lambda: before(Answers, "keep")),
    "pairs kept": ("refining", lambda: after(Answers, "keep")),
    "some sketches in": ("refining", lambda: after(InProcessGrid, "_reply", 5)),
    "sketch kept": ("refining", lambda: after(Answers, "keep", 2)),
    "before the second arm's copies": (
        "refining",
        lambda: before(simulations.experiment, "copy_clients"),
    ),
    "in the second arm": ("refining", lambda: after(InProcessGrid, "_reply", 20)),
    "in the third arm": ("refining", lambda: before(client.train, "train", 16)),
}


def config_of(name: str):
    return parse(defaults() | SMALL | CONFIGS[name])


@contextmanager
def undisturbed():
    yield


def forked(work: Callable[[], object], point=undisturbed) -> int:
    """Do some work in a process of its own; its exit code."""
    child = os.fork()
    if child == 0:
        signal.alarm(300)
        code = 1
        try:
            with ExitStack() as stack:
                # It says nothing that the results do not.
                stack.enter_context(
                    patch.object(simulations.experiment, "write_report")
                )
                stack.enter_context(point())
                work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


#: Of ``results.json``: what a clock or the machine says.
CLOCKED = ("seconds_total", "peak_memory_bytes", "command")


def picture(out: Path) -> dict[str, object]:
    """All that has to come out alike: students, ledgers, results."""
    files = sorted(out.rglob("student*.safetensors")) + sorted(
        out.rglob("rounds/*.safetensors")
    )
    found: dict[str, object] = {
        str(path.relative_to(out)): model(path) for path in files
    }
    for path in sorted(out.rglob("ledger.sqlite")):
        found[f"ledger {path.parent.relative_to(out)}"] = charges(path.parent)
    results = json.loads((out / "results.json").read_text())
    for name in CLOCKED:
        results.pop(name)
    for each in results["rounds"]:
        each.pop("seconds")
    return found | {"results": results}


def model(path: Path) -> tuple[object, bytes]:
    """A safetensors file: its header, whose order in the file is random, its bytes."""
    content = path.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:size]), content[size:]


def charges(folder: Path) -> list[str]:
    """Of a sound and witnessed ledger, but for the run's random id."""
    _, entries = inspect_ledger(folder, witness_place(folder, read_settings(folder)))
    made = [entry.charge for entry in entries]
    assert len({charge.run for charge in made}) == 1, "one logical run"
    return [
        repr((c.name, c.number, c.nonce, c.purpose, c.event, c.plan, c.seeded))
        for c in made
    ]


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    return sorted(
        name for name in one.keys() | other.keys() if one.get(name) != other.get(name)
    )


def trial(name: str, home: Path, whole: dict[str, dict[str, object]]) -> list[str]:
    """What differs after a run was killed at this point and resumed."""
    kind, point = POINTS[name]
    out = home / name.replace(" ", "-")
    code = forked(lambda: run_experiment(config_of(kind), out), point)
    if code != KILLED:
        return [f"not killed: exit code {code}"]
    code = forked(lambda: resume_experiment(out))
    if code != 0:
        return [f"not resumed: exit code {code}"]
    return differences(picture(out), whole[kind])


def main(home: Path, names: list[str]) -> None:
    whole = {}
    for kind in {POINTS[name][0] for name in names}:
        out = home / kind
        code = forked(lambda kind=kind, out=out: run_experiment(config_of(kind), out))
        assert code == 0, kind
        whole[kind] = picture(out)
    for name in names:
        print(json.dumps({"point": name, "differs": trial(name, home, whole)}))
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(POINTS))
