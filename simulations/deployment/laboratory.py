"""A deployment on this machine: up, a run to its end, down.

Simulations only: every part of one federation, started and watched together. On real
machines the same commands stand in ``services/``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import FlatConfig, RunConfig, to_flat
from common.errors import ConfigError, ProtocolError
from common.folders import METRICS
from common.plan import noise_multiplier, total_statistics_noise
from common.promise import promise_of
from simulations.deployment import processes
from simulations.deployment.bundle import read_bundle
from simulations.deployment.control import (
    ONLINE,
    Control,
    RunState,
    connect,
    submit_pinned,
)
from simulations.deployment.layout import CONNECTION, Layout, read_deployment

Say = Callable[[str], None]
#: Seconds that the SuperLink has to answer, and the nodes to be online.
START, NODES = 60.0, 120.0
POLL, STATE_POLL = 0.3, 1.0


def up(folder: Path, say: Say) -> None:
    """Start what does not run yet; what was started before a failure is ended.

    Raises:
        ConfigError: if the folder is no deployment or a process ends at once.
        ProtocolError: if a node does not come online in time.
    """
    layout, deployment = Layout(folder.resolve()), read_deployment(folder)
    read_bundle(layout.bundle.parent)
    alive = processes.living(layout)
    wanted = processes.commands(layout, deployment)
    if wanted.keys() <= alive.keys():
        say("Everything runs already.")
        return
    before = bool(alive)
    try:
        for name in (processes.SUPERLINK, processes.EXECUTOR):
            _start(layout, name, wanted[name], alive, say)
        with connect(folder) as control:
            _wait_for_superlink(layout, control, alive)
            _register(layout, control, say)
            for name in wanted:
                _start(layout, name, wanted[name], alive, say)
            _wait_for_nodes(layout, control, alive, deployment.num_clients)
    except BaseException:
        if not before:
            processes.end(layout)
        raise
    say(f"{deployment.num_clients} nodes are online.")


def _start(
    layout: Layout, name: str, command: list[str], alive: dict[str, Any], say: Say
) -> None:
    if name not in alive:
        started = processes.start(layout, name, command)
        alive[name] = started
        say(f"{name} started, process {started.pid}.")


def _wait_for_superlink(
    layout: Layout, control: Control, expected: Collection[str]
) -> None:
    deadline = time.monotonic() + START
    while True:
        check_alive(layout, expected)
        try:
            control.nodes()
        except ProtocolError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(POLL)


def check_alive(layout: Layout, expected: Collection[str]) -> None:
    """Processes that should live do.

    Raises:
        ConfigError: with the end of its log, if one of them ended.
    """
    for each in processes.read_processes(layout):
        if each.name in expected and each.process is None:
            log = layout.logs / f"{each.name}.log"
            last = "\n".join(processes.tail(log, 12))
            raise ConfigError(f"{each.name} ended; the end of {log}:\n{last}")


def _register(layout: Layout, control: Control, say: Say) -> None:
    known = {node.public_key for node in control.nodes()}
    for client in read_deployment(layout.root).clients:
        key = load_public_key(layout.client(client.name).node_public_key)
        if key not in known:
            control.register(key, client.name)
            say(f"node {client.name} registered.")


def load_public_key(path: Path) -> bytes:
    """A node's public key as Flower keeps it.

    Raises:
        ConfigError: if there is none.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    try:
        key = load_ssh_public_key(path.read_bytes())
    except (OSError, ValueError):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"Expected an OpenSSH public key on a NIST curve at {path}.")
    return bytes(public_key_to_bytes(key))


def _wait_for_nodes(
    layout: Layout, control: Control, expected: Collection[str], count: int
) -> None:
    deadline = time.monotonic() + NODES
    while (online := len(online_nodes(control))) < count:
        check_alive(layout, expected)
        if time.monotonic() > deadline:
            raise ProtocolError(
                f"Expected {count} nodes online within {NODES:.0f} s, got {online}; "
                "`tutela deploy logs` shows why."
            )
        time.sleep(POLL)


def online_nodes(control: Control) -> list[str]:
    """Names of the clients whose nodes are online."""
    return sorted(node.name for node in control.nodes() if node.status == ONLINE)


@dataclass(frozen=True)
class Submitted:
    """A run that was started.

    Attributes:
        run: Flower's number.
        out: what it writes to.
        promise: its promise, whole.
    """

    run: int
    out: Path
    promise: str


def submit(folder: Path, config: RunConfig, *, resume: bool) -> Submitted:
    """Start a run of the folder's own bundle.

    Raises:
        ConfigError: if a run of this name is there and is not to be resumed, or one
            is not over.
        ProtocolError: if the SuperLink does not start it.
    """
    layout = Layout(folder.resolve())
    out = layout.runs / config.run.name
    there = (out / METRICS).is_file()
    if there and not resume:
        raise ConfigError(
            f"{out} holds an earlier run; take another --name, or --resume it."
        )
    if resume and not there:
        raise ConfigError(f"--resume: expected a run's folder at {out}, found none.")
    overrides: FlatConfig = {
        **to_flat(config),
        # Calibrated once, not at each message.
        "privacy.noise-multiplier": noise_multiplier(config),
        "statistics.noise-multiplier": total_statistics_noise(config),
    }
    with connect(folder) as control:
        _refuse_beside_a_living_run(control, config.run.name)
        here = started_here(layout, control)
        promise = _promise(layout, config, here=here)
        run = submit_pinned(control, folder, overrides)
    return Submitted(run, out, promise)


def _refuse_beside_a_living_run(control: Control, name: str) -> None:
    """Two server apps on one run would charge its clients twice for a round."""
    for run in control.runs():
        if run.name == name and not run.over:
            raise ConfigError(
                f"Run {run.run} named {name} is not over, it is {run.status}: wait for "
                "its end (a minute, where its server app was killed), or end it with "
                f"`flwr stop {run.run} {CONNECTION}`."
            )


def started_here(layout: Layout, control: Control) -> bool:
    """Whether every node that the SuperLink knows is a living process of this folder.

    Of any other, the settings that it goes by are not those in this folder.
    """
    clients, alive = read_deployment(layout.root).clients, processes.living(layout)
    if not all(processes.node_name(client.name) in alive for client in clients):
        return False
    places = [layout.client(client.name) for client in clients]
    keys = {load_public_key(place.node_public_key) for place in places}
    return all(node.public_key in keys for node in control.nodes())


#: Said where not every client is a process of this folder.
ELSEWHERE = (
    "Whether each client had pinned the code, and drew its noise from the system and "
    "not from a seed, is in its own statement, `ledger show`."
)


def _promise(layout: Layout, config: RunConfig, *, here: bool) -> str:
    """The clients' own settings say what each pinned, and where its noise is from.

    Args:
        here: whether the settings in this folder are those that clients go by.
    """
    from client.settings import read_settings

    _, name = read_bundle(layout.bundle.parent)
    places = [layout.client(c.name) for c in read_deployment(layout.root).clients]
    settings = [read_settings(p.folder) for p in places if p.settings.is_file()]
    promise = promise_of(
        config,
        noise_multiplier(config),
        seeded=config.run.seed >= 0 or any(each.seed is not None for each in settings),
        pinned=all(name in each.bundles for each in settings) if here else None,
    )
    return promise.sentence if here else f"{promise.sentence} {ELSEWHERE}"


def watch(folder: Path, submitted: Submitted, tell: Callable[[Any], None]) -> RunState:
    """Wait until a run is over, telling each new line of its metrics.

    The SuperLink may be away for a while; only a run that is over ends the wait.
    """
    path, position = submitted.out / METRICS, _size(submitted.out / METRICS)
    due = 0.0
    state: RunState | None = None
    with connect(folder) as control:
        while True:
            if time.monotonic() >= due:
                state = _state(control, submitted.run)
                due = time.monotonic() + STATE_POLL
            for line, read in _lines(path, position):
                position = read
                tell(line)
            if state is not None and state.over:
                return state
            time.sleep(POLL)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _state(control: Control, run: int) -> RunState | None:
    try:
        return control.run(run)
    except ProtocolError:
        return None


def _lines(path: Path, position: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Whole lines after a position; from the start, where the file became shorter."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(position if position <= _size(path) else 0)
        for line in iter(file.readline, b""):
            if not line.endswith(b"\n"):
                return
            yield json.loads(line), file.tell()
