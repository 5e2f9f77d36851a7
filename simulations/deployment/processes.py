"""The processes of a deployment on one machine: how each starts, which are ours.

Simulations only. ``processes.json`` names a process by its id *and* its start time:
an id alone may be somebody else's by now, and is never signalled.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from client.deploy.node import environment as node_environment
from common.durable_files import write_durably
from common.errors import ConfigError
from simulations.deployment.layout import ClientPorts, Deployment, Layout
from simulations.deployment.terminal import plain

SUPERLINK, EXECUTOR = "superlink", "superexec"
#: Seconds between a process's looks for work: this is one machine, with no network.
TASK_POLL, NODE_POLL = 0.1, 0.2
#: Seconds that a process has to end by itself.
GRACE = 15.0


@dataclass(frozen=True)
class Started:
    """A process that was started here.

    Attributes:
        name: ``superlink``, ``superexec`` or ``node-0000``.
        created: its start in seconds since the epoch, as the system says it.
    """

    name: str
    pid: int
    created: float

    @property
    def process(self) -> psutil.Process | None:
        """The very process, if it still lives."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.created) < 0.01
            alive = same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return found if alive else None


def node_name(client: str) -> str:
    """What a client's node process is called."""
    return f"node-{client}"


def commands(layout: Layout, deployment: Deployment) -> dict[str, list[str]]:
    """The command of every process, in the order in which they start.

    TLS, node authentication, process isolation and the executor's secret are part of
    the commands; there is no way to leave one out.
    """
    link = deployment.superlink
    certificate = layout.server_ca_certificate
    secret = ["--superexec-auth-secret-file", str(layout.executor_secret)]
    superlink = [
        _program("flower-superlink"),
        *("--host", link.host, "--port", str(link.port)),
        *("--ssl-ca-certfile", str(certificate)),
        *("--ssl-certfile", str(layout.server_certificate)),
        *("--ssl-keyfile", str(layout.server_key)),
        "--enable-supernode-auth",
        *("--isolation", "process"),
        *secret,
        *("--database", str(layout.database)),
        "--disable-runtime-dependency-installation",
    ]
    executor = [
        _program("flower-superexec"),
        *("--runtime-api-address", link.address),
        *("--root-certificates", str(certificate)),
        *secret,
    ]
    nodes = {
        node_name(client.name): node_command(layout, link.address, client)
        for client in deployment.clients
    }
    return {SUPERLINK: superlink, EXECUTOR: executor, **nodes}


def node_command(layout: Layout, address: str, client: ClientPorts) -> list[str]:
    """What starts a client's node."""
    place = layout.client(client.name)
    return [
        *(sys.executable, "-P", "-m", "client", "node", str(place.folder)),
        *("--superlink", address),
        *("--root-certificates", str(place.ca_certificate)),
        *("--key", str(place.node_key)),
        *("--port", str(client.node_port)),
        *("--poll", str(NODE_POLL)),
    ]


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def environment(layout: Layout) -> dict[str, str]:
    """The environment of every process: Flower's switches, the server's folders."""
    programs = str(Path(sys.executable).parent)
    return {
        **os.environ,
        **node_environment(),
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "FLWR_HOME": str(layout.flwr_home),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": str(TASK_POLL),
        "TUTELA_PUBLIC": str(layout.data),
        "TUTELA_STATE": str(layout.state),
        "TUTELA_RUNS": str(layout.runs),
    }


def start(layout: Layout, name: str, command: Sequence[str]) -> Started:
    """Start one process in a session of its own, and write down that it is ours."""
    layout.logs.mkdir(mode=0o700, exist_ok=True)
    log = layout.logs / f"{name}.log"
    with log.open("ab") as file:
        process = subprocess.Popen(  # noqa: S603 - our own commands, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=layout.root,
            env=environment(layout),
            start_new_session=True,
        )
    started = Started(name, process.pid, psutil.Process(process.pid).create_time())
    others = [each for each in read_processes(layout) if each.name != name]
    _write(layout, [*others, started])
    return started


def read_processes(layout: Layout) -> list[Started]:
    """The processes written down, dead ones too, in the order of their start.

    Raises:
        ConfigError: if the file is not one of ours.
    """
    if not layout.processes.is_file():
        return []
    try:
        found = json.loads(layout.processes.read_text("utf-8"))["processes"]
        return [Started(e["name"], int(e["pid"]), float(e["created"])) for e in found]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{layout.processes}: expected the list that `deploy up` writes; end the "
            "processes yourself and remove the file."
        ) from None


def _write(layout: Layout, started: Sequence[Started]) -> None:
    text = json.dumps({"processes": [asdict(each) for each in started]}, indent=2)
    write_durably(layout.processes, f"{text}\n".encode())


def living(layout: Layout) -> dict[str, psutil.Process]:
    """Name → process, of those that live."""
    pairs = ((each.name, each.process) for each in read_processes(layout))
    return {name: process for name, process in pairs if process is not None}


def end(layout: Layout, grace: float = GRACE) -> Mapping[str, bool]:
    """End our processes, the last started first; SIGTERM, then SIGKILL.

    Returns:
        Name → whether it ended by itself, of those that lived.
    """
    found = dict(reversed(living(layout).items()))
    below = [child for process in found.values() for child in _children(process)]
    for process in found.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(list(found.values()), timeout=grace)
    _, left = psutil.wait_procs(below, timeout=1.0)
    for process in [*stubborn, *left]:
        # psutil compares start times before it signals.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs([*stubborn, *left], timeout=5.0)
    layout.processes.unlink(missing_ok=True)
    return {name: process not in stubborn for name, process in found.items()}


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def tail(path: Path, lines: int) -> Iterator[str]:
    """The last lines of a log, fit for a terminal."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 400 * lines))
        text = file.read().decode("utf-8", errors="replace").splitlines()
    yield from map(plain, text[-lines:])
