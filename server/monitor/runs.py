"""A folder of runs as facts: what each run is, how far it is, how long it was silent.

Server only. Reads ``config.toml``, ``metrics.jsonl``, the server's journal and summary
and a simulation's results where they are; none of them has to be there, or whole.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.errors import ConfigError
from common.folders import CHECKPOINT, CONFIG, METRICS, RESULTS, SUMMARY
from server.monitor.events import (
    Event,
    RoundFacts,
    count,
    number,
    read_events,
    rounds_of,
)

Status = Literal["waiting", "running", "silent", "stopped", "complete"]
STATUSES: tuple[Status, ...] = ("waiting", "running", "silent", "stopped", "complete")

#: What ``server/run_journal.py`` writes, whose import would take this process seconds.
JOURNAL = f"{CHECKPOINT}/run.json"
#: The latest so many runs are told of: metrics must not grow without end.
MOST_RUNS = 50
#: Beyond the run's own round timeout, before silence is worth a word.
PATIENCE = 60.0
#: Where the run's configuration does not say: the default of ``run.round-timeout``.
TIMEOUT = 600.0


@dataclass(frozen=True)
class Plan:
    """What the run's configuration says; ``None`` where it does not.

    Attributes:
        private: whether anything is promised.
        timeout: seconds a round waits for its clients.
    """

    name: str
    rounds: int | None
    target_epsilon: float | None
    delta: float | None
    private: bool | None
    timeout: float


@dataclass(frozen=True)
class Run:
    """A run's facts, all but what the clock adds.

    Attributes:
        folder: its name within the folder of runs.
        ended: whether results, a summary or the last event says so.
        damaged: lines that could not be read.
        written: when the newest of its files was, Unix seconds.
    """

    folder: str
    plan: Plan
    events: tuple[Event, ...]
    rounds: tuple[RoundFacts, ...]
    refusals: Mapping[str, int]
    ended: Literal["", "stopped", "complete"]
    damaged: int
    written: float

    @property
    def num_done(self) -> int:
        """Rounds that ended."""
        return self.rounds[-1].number if self.rounds else 0

    @property
    def bytes_down(self) -> int:
        """What one client received in statistics and rounds, arrays alone."""
        return sum(each.bytes_down for each in self._exchanges)

    @property
    def bytes_up(self) -> int:
        """What one client sent in them."""
        return sum(each.bytes_up for each in self._exchanges)

    @property
    def _exchanges(self) -> list[Event | RoundFacts]:
        statistics = [each for each in self.events if each.name == "statistics"]
        return [*statistics, *self.rounds]

    @property
    def last(self) -> float | None:
        """Time of the last event."""
        return next((e.time for e in reversed(self.events) if e.time is not None), None)

    @property
    def phase(self) -> Event | None:
        """The phase under way, or the last there was."""
        return next((e for e in reversed(self.events) if e.name == "phase"), None)

    def age(self, now: float) -> float | None:
        """Seconds since the last event; a clock ahead of ours counts as no time."""
        return None if self.last is None else max(0.0, now - self.last)

    def status(self, now: float) -> Status:
        """Where the run stands at Unix seconds ``now``."""
        if self.ended:
            return self.ended
        age = self.age(now)
        if age is None:
            return "waiting"
        return "silent" if age > self.plan.timeout + PATIENCE else "running"


def find_runs(folder: Path) -> list[Path]:
    """Folders of runs, the one written to last first; ``folder`` itself may be one.

    Raises:
        ConfigError: if there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"Expected a folder of runs at {folder}, found none.")
    if _is_run(folder):
        return [folder]
    found = [each for each in folder.iterdir() if each.is_dir() and _is_run(each)]
    return sorted(found, key=lambda each: (-_written(each), each.name))[:MOST_RUNS]


class Runs:
    """The runs of a folder; one whose files did not change is not read again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, tuple[object, Run]] = {}

    def now(self) -> list[Run]:
        """All runs as they are now, the latest first.

        Raises:
            ConfigError: if the folder is gone.
        """
        fresh = {}
        for path in find_runs(self.folder):
            mark = tuple(_mark(path / name) for name in _FILES)
            known = self._read.get(path)
            same = known is not None and known[0] == mark
            fresh[path] = known if same and known else (mark, read_run(path))
        self._read = fresh
        return [run for _, run in fresh.values()]


_FILES = (METRICS, CONFIG, SUMMARY, RESULTS, JOURNAL)


def read_run(path: Path) -> Run:
    """A run's facts, as far as its files tell them."""
    events, damaged = read_events(_text(path / METRICS))
    rounds = rounds_of(events)
    plan = _plan(path)
    return Run(
        path.name,
        plan,
        tuple(events),
        rounds,
        Counter(e.word for e in events if e.name == "refusal"),
        _ended(path, events, rounds, plan),
        damaged,
        _written(path),
    )


def _ended(
    path: Path, events: list[Event], rounds: tuple[RoundFacts, ...], plan: Plan
) -> Literal["", "stopped", "complete"]:
    status = _json(path / RESULTS).get("status")
    if status == "complete":
        return "complete"
    if status == "interrupted":
        return "stopped"
    if _json(path / JOURNAL).get("finished") is True:
        return "complete"
    done = rounds[-1].number if rounds else 0
    if events and events[-1].name == "delivery":
        # The student that goes out is the last thing a server's run does.
        short = plan.rounds is not None and done < plan.rounds
        return "stopped" if short else "complete"
    summary, metrics = path / SUMMARY, path / METRICS
    # A run that was resumed writes events again, after its old summary.
    if _seconds(summary) > 0 and _seconds(summary) >= _seconds(metrics):
        enough = plan.rounds is not None and done >= plan.rounds
        return "complete" if enough else "stopped"
    return ""


def _plan(path: Path) -> Plan:
    said = _config(path)
    name, mode = said.get("run.name"), said.get("privacy.mode")
    asked = said.get("training.rounds")
    return Plan(
        name[:64] if isinstance(name, str) and name else path.name,
        None if asked is None else count(asked),
        number(said.get("privacy.target-epsilon")),
        number(said.get("privacy.delta")),
        mode != "off" if isinstance(mode, str) else None,
        number(said.get("run.round-timeout")) or TIMEOUT,
    )


def _config(path: Path) -> dict[str, Any]:
    """The run's configuration with dotted keys: its journal's, else its own file's."""
    journal = _json(path / JOURNAL).get("config")
    if isinstance(journal, dict):
        return journal
    try:
        tree = tomllib.loads(_text(path / CONFIG))
    except tomllib.TOMLDecodeError:
        return {}
    return {
        f"{section}.{key}": value
        for section, keys in tree.items()
        if isinstance(keys, dict)
        for key, value in keys.items()
    }


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in (METRICS, CONFIG, JOURNAL))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _seconds(path: Path) -> float:
    mark = _mark(path)
    return 0.0 if mark is None else mark[0] / 1e9


def _written(path: Path) -> float:
    return max(_seconds(path / name) for name in _FILES)
