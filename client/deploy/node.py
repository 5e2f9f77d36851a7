"""This client's node: Flower's SuperNode with the gate in it, and its workers.

Client only. It is the process that the owner of a device starts. It takes no option
that would turn TLS, authentication or the gate off, and passes none of Flower's on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import UNAUTHORIZED
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.durable_files import check_owners_alone
from common.errors import ConfigError
from common.structured_logs import switch_on

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from flwr.supernode.nodestate import NodeStateFactory

    from client.deploy.guard import PinnedState

LOOPBACK = "127.0.0.1"
#: In the client's folder: where bundles are unpacked while the node runs, and the lock
#: of the one node that may.
UNPACKED, LOCK = ".flower", ".node.lock"
#: Seconds between looks for a task of one's own, in memory.
TASK_POLL = 0.05
#: Seconds within which a node is to be heard. A server counts on a node that was killed
#: for twice as long, and only then lets it in again: with Flower's own 30, a minute.
HEARTBEAT = 10
#: What a 401 means; Flower ends the node without a word.
NOT_ACCEPTED = (
    "The server does not accept this node's signature: another key is registered, or "
    "this device's clock is wrong (over 5 s ahead of the server's, or 5 min behind)."
)

_log = logging.getLogger("tutela.client")


@dataclass(frozen=True)
class Node:
    """What a node is started with.

    Attributes:
        folder: the client's.
        superlink: ``host:port`` of the server's Fleet API.
        root_certificates: PEM file of the authority that signed its certificate.
        key: the node's private key, P-384, readable by its owner alone.
        port: of the node's own runtime API, on loopback.
        poll: seconds between two looks for a message.
    """

    folder: Path
    superlink: str
    root_certificates: Path
    key: Path
    port: int
    poll: float


def environment() -> dict[str, str]:
    """Flower's switches: no telemetry, no look for updates, no installation."""
    return {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }


def run_node(node: Node) -> None:
    """Be a node until a signal ends the process.

    Raises:
        ConfigError: if settings, certificates or key do not serve, or Flower is
            another than the one that the gate is made for.
    """
    os.environ.update(environment())
    switch_on()
    # Only now: Flower reads its switches when it is imported.
    from client.deploy.guard import check_flower
    from client.settings import read_settings

    check_flower()
    pinned = read_settings(node.folder).bundles
    key, certificates = read_key(node.key), read_certificates(node.root_certificates)
    _log.info("A node starts; its owner pinned %d bundles.", len(pinned))
    with _unpacked(node.folder) as home, _workers(node, home) as workers:
        _serve(node, key, certificates, workers)


def read_key(path: Path) -> EllipticCurvePrivateKey:
    """The node's private key.

    Raises:
        ConfigError: if there is none, others may read it, or it is of another kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    if not path.is_file():
        raise ConfigError(f"--key: expected the node's private key at {path}.")
    check_owners_alone(path)
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"--key: expected an OpenSSH key on a NIST curve in {path}.")
    return key


def read_certificates(path: Path) -> bytes:
    """The authority's certificate, PEM.

    Raises:
        ConfigError: if there is none.
    """
    content = path.read_bytes() if path.is_file() else b""
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise ConfigError(f"--root-certificates: expected a PEM file at {path}.")
    return content


@contextlib.contextmanager
def _unpacked(folder: Path) -> Iterator[Path]:
    """An empty place for bundles, for one node alone.

    Flower runs what it finds unpacked under the first eight digits of a hash, without
    another look: nothing may lie there from before. Another node that runs has its
    code there, so it is found out first.

    Raises:
        ConfigError: if another node runs on the folder, or a link is in its place.
    """
    home = folder / UNPACKED
    with _alone(folder):
        if home.is_symlink():
            raise ConfigError(f"Expected no link at {home}; remove it.")
        if home.exists():
            shutil.rmtree(home)
        home.mkdir(mode=0o700)
        try:
            yield home
        finally:
            shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The right to be the folder's node; the system gives it back however one ends."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{folder}: another node runs on this folder; end that one first."
        ) from None
    try:
        yield
    finally:
        lock.release()


class Workers:
    """The process that forks a child a task; started again if it is gone."""

    def __init__(self, address: str, home: Path) -> None:
        self._command = [
            sys.executable,
            "-I",  # neither PYTHONPATH nor the working directory bring code in
            str(Path(__file__).with_name("worker.py")),
            address,
            str(os.getpid()),
        ]
        self._environment = {**os.environ, **environment(), "FLWR_HOME": str(home)}
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own file, on paths of our own
            self._command, stdin=subprocess.PIPE, env=self._environment
        )

    def give(self, token: str) -> None:
        """Start a task."""
        if self._process.poll() is not None:
            _log.error("The worker was gone; another one starts.")
            self._process = self._start()
        pipe = self._process.stdin
        if pipe is not None:
            pipe.write(f"{token}\n".encode())
            pipe.flush()

    def close(self) -> None:
        """End it; a child that still computes ends as soon as the node is gone."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()


@contextlib.contextmanager
def _workers(node: Node, home: Path) -> Iterator[Workers]:
    workers = Workers(f"{LOOPBACK}:{node.port}", home)
    try:
        yield workers
    finally:
        workers.close()


def take_tasks(state: PinnedState, workers: Workers, stop: threading.Event) -> None:
    """Hand the node's own tasks to workers, until told to stop.

    Only a client app's: Flower's executor would also start agents, models and
    connectors, and finds its programs by ``PATH``.
    """
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType
    from flwr.supernode.servicer.runtime.runtime_handlers import acquire_task

    wanted = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
    while not stop.wait(TASK_POLL):
        try:
            found = acquire_task(wanted, state)
            if found.token:
                workers.give(found.token)
        except Exception as error:
            _log.error("A task could not be started: %s.", type(error).__name__)


def start_api(
    factory: NodeStateFactory, port: int, secret: bytes
) -> Callable[[], None]:
    """Serve the node's runtime API on loopback; returns what ends it.

    Raises:
        ConfigError: if the port is taken.
    """
    import uvicorn
    from flwr.supernode.main import create_app

    app = create_app(state_factory=factory, superexec_auth_secret=secret)
    config = uvicorn.Config(app, host=LOOPBACK, port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.05)
    if not server.started:
        raise ConfigError(f"--port: expected a free port on loopback, {port} is not.")

    def stop() -> None:
        server.should_exit = True
        thread.join(5)

    return stop


def set_heartbeat(seconds: float) -> None:
    """Tell Flower how often this node is heard: what it promises, and what it does."""
    from flwr.supercore import heartbeat
    from flwr.supernode import fleet_http_connection

    for module in (heartbeat, fleet_http_connection):
        module.__dict__["HEARTBEAT_DEFAULT_INTERVAL"] = seconds


def name_refusals() -> None:
    """Write to the log why the server takes no call of this node, if it does not."""
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    sign = NodeAuthHttpInterceptor.intercept

    def signed(*given: Any) -> Any:
        response = sign(*given)
        if response.status_code == UNAUTHORIZED:
            _log.error(NOT_ACCEPTED)
        return response

    NodeAuthHttpInterceptor.intercept = signed  # type: ignore[assignment]


def _serve(
    node: Node, key: EllipticCurvePrivateKey, certificates: bytes, workers: Workers
) -> None:
    import secrets

    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supernode import start_client_internal as flower
    from flwr.supernode.nodestate import NodeStateFactory

    from client.deploy.guard import PinnedState, guarded

    objects = ObjectStoreFactory()
    factory = NodeStateFactory(objectstore_factory=objects)
    state = PinnedState(objects.store(), node.folder)
    factory.state_instance = state
    # Nobody else knows the secret: on this machine, nobody else gets a task.
    stop_api = start_api(factory, node.port, secrets.token_bytes(32))
    stop = threading.Event()
    tasks = threading.Thread(
        target=take_tasks, args=(state, workers, stop), daemon=True
    )
    tasks.start()
    flower._pull_and_store_message = guarded(node.folder, node.poll)
    set_heartbeat(HEARTBEAT)
    name_refusals()
    try:
        flower.start_client_internal(
            state_factory=factory,
            server_address=node.superlink,
            node_config={"folder": str(node.folder.resolve())},
            root_certificates=certificates,
            insecure=False,
            authentication_keys=(key, key.public_key()),
            isolation="process",
            runtime_api_address=f"{LOOPBACK}:{node.port}",
            runtime_dependency_install=False,
        )
    finally:
        stop.set()
        stop_api()
