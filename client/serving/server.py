"""The serving process: its parts put together, begun, and ended without a lost call.

Client only. A synchronous gRPC server with few threads: on two cores it answers more
calls a second than ``grpc.aio`` (see ``docs/serving.md``), and a call that waits for
the disk holds up nobody.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from client.identifiers import folder_key
from client.proto.recommender_pb2_grpc import add_RecommenderServicer_to_server
from client.serving.answers import Served
from client.serving.engine import choose_engine
from client.serving.histories import Histories
from client.serving.limits import Limits
from client.serving.listen import Listening, TokenGuard
from client.serving.model import load_model
from client.serving.patience import Patience
from client.serving.ranking import shelf_of
from client.serving.service import NAME, Service
from client.serving.swap import Current, Watch, marks_of
from client.settings import read_settings
from client.store_key import store_key
from common.errors import ConfigError

log = logging.getLogger("tutela.serving")

#: Seconds that a call's request may take to come.
PATIENCE = 5.0


@dataclass(frozen=True, eq=False)
class Serving:
    """A service that may be started once.

    Attributes:
        address: where it listens, with the port that was taken.
    """

    address: str
    current: Current
    histories: Histories
    watch: Watch
    patience: Patience
    server: grpc.Server
    health: health.HealthServicer

    def start(self) -> None:
        """Answer calls."""
        self.server.start()
        self.patience.start()
        self.watch.start()
        for name in ("", NAME):
            self.health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace: float) -> None:
        """Take no new calls, finish those at work, then end.

        Args:
            grace: seconds after which calls still at work are cut off.
        """
        self.health.enter_graceful_shutdown()
        self.server.stop(grace).wait()
        self.patience.stop()
        self.watch.stop()
        self.histories.close()

    def run(self, grace: float) -> None:
        """Serve until SIGTERM or SIGINT, then :meth:`stop`."""
        asked = threading.Event()

        def end(number: int, frame: FrameType | None) -> None:
            asked.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        asked.wait()
        log.info("draining for at most %g s", grace)
        self.stop(grace)


def open_serving(
    folder: Path, place: Listening, limits: Limits, engine: str = "auto"
) -> Serving:
    """Load a client's folder and bind the address; nothing is answered yet.

    Raises:
        ConfigError: if the engine, the key or the address is of no use.
        DataFormatError: if student, rows or store are damaged.
    """
    chosen = choose_engine(engine)
    key = store_key(folder, read_settings(folder).store_key)
    seen = marks_of(folder)
    histories = Histories(folder, key, limits)
    patience = Patience(PATIENCE)
    try:
        catalogue = histories.catalogue
        current = Current(load_model(folder, catalogue, chosen, key))
        shelf = shelf_of(catalogue)
        served = Served(shelf, histories, limits, folder_key(folder))
        server, checks = _server(
            Service(served, current), _guards(place, patience), limits
        )
        address = _bind(server, place)
        watch = Watch(
            folder,
            seen,
            current,
            lambda: load_model(folder, catalogue, chosen, key),
            histories.reload,
        )
    except BaseException:
        histories.close()
        raise
    return Serving(address, current, histories, watch, patience, server, checks)


def _guards(place: Listening, patience: Patience) -> list[grpc.ServerInterceptor]:
    """In their order: whoever may not call is not waited for."""
    return [TokenGuard(place.token), patience] if place.token else [patience]


def _server(
    service: Service, guards: list[grpc.ServerInterceptor], limits: Limits
) -> tuple[grpc.Server, health.HealthServicer]:
    server = grpc.server(
        ThreadPoolExecutor(limits.threads, thread_name_prefix="call"),
        interceptors=guards,
        options=[
            ("grpc.max_receive_message_length", limits.most_bytes),
            ("grpc.so_reuseport", 0),  # a second server would share the port unasked
        ],
        maximum_concurrent_rpcs=limits.concurrency,
    )
    add_RecommenderServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    # A watcher of health must not hold one of the calls' threads.
    checks = health.HealthServicer(
        experimental_non_blocking=True,
        experimental_thread_pool=ThreadPoolExecutor(1, thread_name_prefix="health"),
    )
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = (NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server, checks


def _bind(server: grpc.Server, place: Listening) -> str:
    """Take the address; a Unix socket is its owner's alone from the first moment."""
    if place.socket is not None:
        _check_is_free(place.socket)
    mask = os.umask(0o177)
    try:
        if place.credentials is None:
            port = server.add_insecure_port(place.address)
        else:
            port = server.add_secure_port(place.address, place.credentials)
    except RuntimeError:
        raise ConfigError(
            f"--listen {place.address}: expected an address that is free here, got one "
            "that cannot be taken."
        ) from None
    finally:
        os.umask(mask)
    if place.socket is not None:
        return place.address
    return f"{place.address.rpartition(':')[0]}:{port}"


def _check_is_free(path: Path) -> None:
    """Refuse a socket that somebody answers on: gRPC would take it from them."""
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(path))
        except OSError:
            return
    raise ConfigError(
        f"--listen unix:{path}: expected a socket that is free, got one that answers."
    )
