"""A federation of real processes whose parts are killed, stopped and started again.

Simulations only: it holds every party's folder and every process of one deployment.
TLS, node authentication and pinned bundles are those of ``tutela deploy``.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from client.chain import Charge
from client.deploy.node import environment as flower_switches
from client.ledger import inspect_ledger
from client.settings import read_settings, witness_place
from common.config import FlatConfig, defaults, parse
from common.errors import ConfigError, ProtocolError
from common.folders import METRICS
from simulations.deployment import laboratory, processes
from simulations.deployment.control import RunState, connect
from simulations.deployment.initialise import Wishes, initialise
from simulations.deployment.layout import ClientPlace, Layout, read_deployment

Found = TypeVar("Found")
#: Seconds between two looks at a log or a record.
LOOK = 0.05
#: What a node writes when it is connected; the most seconds until it may be again.
CONNECTED, AWAY = "SuperNode ID", 60.0


class Federation:
    """A deployment's folder, and what can happen to its processes.

    Attributes:
        folder: made by :func:`make`.
        config: flat; what every run of it has in common.
    """

    def __init__(self, folder: Path, config: FlatConfig) -> None:
        self.folder, self.config = folder.resolve(), dict(config)
        self.layout = Layout(self.folder)

    @property
    def names(self) -> tuple[str, ...]:
        """The clients' names."""
        return tuple(c.name for c in read_deployment(self.folder).clients)

    def client(self, name: str) -> ClientPlace:
        """A client's folder."""
        return self.layout.client(name)

    def up(self) -> None:
        """Start what does not run."""
        laboratory.up(self.folder, lambda line: None)

    def down(self) -> None:
        """End everything."""
        processes.end(self.layout, grace=5.0)

    def command(self, name: str) -> list[str]:
        """What ``up`` starts a process by."""
        return processes.commands(self.layout, read_deployment(self.folder))[name]

    def start(self, name: str, command: Sequence[str] | None = None) -> None:
        """Start one process again, or another in its place."""
        processes.start(self.layout, name, command or self.command(name))

    def process(self, name: str) -> psutil.Process:
        """A process that lives.

        Raises:
            ProtocolError: if it does not.
        """
        found = processes.living(self.layout).get(name)
        if found is None:
            raise ProtocolError(f"Expected {name} to live.")
        return found

    def lives(self, name: str) -> bool:
        """Whether a process does."""
        return name in processes.living(self.layout)

    def kill(self, name: str) -> None:
        """``kill -9``, and wait until it is gone."""
        process = self.process(name)
        process.send_signal(signal.SIGKILL)
        psutil.wait_procs([process], timeout=5.0)

    def stop(self, name: str) -> None:
        """End a process as its owner would, if it lives, and wait until it is gone."""
        for process in filter(None, [processes.living(self.layout).get(name)]):
            process.terminate()
            psutil.wait_procs([process], timeout=15.0)

    def kill_server_app(self) -> None:
        """``kill -9`` to the process in which the server's app runs."""
        executor = self.process(processes.EXECUTOR)
        for child in executor.children(recursive=True):
            with contextlib.suppress(psutil.ZombieProcess):  # of an earlier run
                if "flwr-serverapp" in " ".join(child.cmdline()):
                    child.send_signal(signal.SIGKILL)

    def stop_run(self, run: laboratory.Submitted) -> None:
        """End a run that nobody works on any more; Flower would, a minute later."""
        with connect(self.folder) as control:
            control.stop(run.run)

    def submit(
        self, name: str, *, resume: bool = False, **changed: Any
    ) -> laboratory.Submitted:
        """Start a run; keys of ``changed`` have ``__`` for a dot, ``_`` for a dash."""
        flat = {
            key.replace("__", ".").replace("_", "-"): value
            for key, value in changed.items()
        }
        flat = {**self.config, **flat, "run.name": name, "run.resume": resume}
        return laboratory.submit(self.folder, parse(flat), resume=resume)

    def end_of(self, run: laboratory.Submitted, seconds: float = 240.0) -> RunState:
        """How a run ended.

        Raises:
            ProtocolError: if it does not end in time.
        """
        with connect(self.folder) as control:

            def over() -> RunState | None:
                try:
                    state = control.run(run.run)
                except ProtocolError:  # the SuperLink is away
                    return None
                return state if state.over else None

            return self.wait(over, seconds, every=0.3)

    def wait(
        self, look: Callable[[], Found | None], seconds: float, every: float = LOOK
    ) -> Found:
        """What a look finds at last.

        Raises:
            ProtocolError: with the ends of the logs, if it finds nothing in time.
        """
        deadline = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > deadline:
                raise ProtocolError(
                    f"Nothing within {seconds:g} s.\n{self.ends_of_logs()}"
                )
            time.sleep(every)
        return found

    def log(self, name: str) -> str:
        """All that a process wrote, in all its lives."""
        path = self.layout.logs / f"{name}.log"
        return path.read_text("utf-8", "replace") if path.is_file() else ""

    def ends_of_logs(self, lines: int = 15) -> str:
        """The last lines of each process's log."""
        return "\n".join(
            f"== {path.stem}\n" + "\n".join(processes.tail(path, lines))
            for path in sorted(self.layout.logs.glob("*.log"))
        )

    @contextmanager
    def written(
        self, name: str, text: str, seconds: float = 60.0, times: int = 1
    ) -> Iterator[None]:
        """After the block, wait until a process wrote a text anew."""
        before = self.log(name).count(text)
        yield
        self.wait(lambda: self.log(name).count(text) >= before + times, seconds)

    def restart(self, name: str, command: Sequence[str] | None = None) -> None:
        """Start a node again until it is connected, as its service would.

        The SuperLink turns a node away that was killed, until it missed its heartbeats.
        """
        before, deadline = self.log(name).count(CONNECTED), time.monotonic() + AWAY
        while self.log(name).count(CONNECTED) == before:
            if not self.lives(name):
                if time.monotonic() > deadline:
                    raise ProtocolError(f"{name} stays away.\n{self.ends_of_logs()}")
                self.start(name, command)
            time.sleep(0.2)

    def events(self, run: str, event: str) -> list[dict[str, Any]]:
        """Lines of a run's record."""
        path = self.layout.runs / run / METRICS
        text = path.read_bytes() if path.is_file() else b""
        whole = text[: text.rfind(b"\n") + 1].splitlines()
        return [line for line in map(json.loads, whole) if line["event"] == event]

    def reasons(self, run: str, number: int) -> list[str]:
        """Why clients did not contribute to a round."""
        refusals = self.events(run, "refusal")
        return [line["reason"] for line in refusals if line["round"] == number]

    def survivors(self, run: str) -> dict[int, tuple[int, int]]:
        """Round → how many contributed, of how many who were asked."""
        rounds = self.events(run, "round")
        return {e["round"]: (e["survivors"], e["num_clients"]) for e in rounds}

    def charges(self, client: str, run: str) -> list[Charge]:
        """What a client's ledger says of a run; the chain is verified."""
        place = self.client(client).folder
        try:
            entries = inspect_ledger(place, witness_place(place, read_settings(place)))
        except ConfigError:  # no ledger was begun
            return []
        charges = [e.charge for e in entries[1] if e.charge is not None]
        return [charge for charge in charges if charge.name == run]


def make(
    folder: Path,
    changed: FlatConfig,
    *,
    clients: int = 3,
    names: Sequence[str] = (),
) -> Federation:
    """A new deployment with dealt data, nothing of it started.

    Args:
        folder: new.
        changed: over the defaults of a run; the budget in the clients' settings too.
        names: of the server, beside those of loopback, as its certificate has them.
    """
    flower_switches_on()
    flat = {**defaults(), **changed, "partition.num-clients": clients}
    # A deployment's clients have no seed; these get one, for tests alone, afterwards.
    config = parse({**flat, "run.seed": -1})
    name = str(flat["run.name"])
    wishes = Wishes(name, clients, config, dealt=True, names=tuple(names))
    initialise(folder, wishes)
    federation, seed = Federation(folder, flat), int(flat["run.seed"])
    for place in map(federation.client, federation.names if seed >= 0 else ()):
        text = place.settings.read_text("utf-8")
        place.settings.write_text(f"seed = {seed}\n{text}", "utf-8")
    return federation


def flower_switches_on() -> None:
    """No telemetry, no look for updates: Flower reads it when it is imported."""
    import os

    os.environ.update(flower_switches())
