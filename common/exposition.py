"""Pages and Prometheus metrics over HTTP, on this machine's loopback only.

In ``common`` because server and client each tell their operator how they fare, by the
same means. Nothing here is authenticated, hence the loopback: another address is
refused, and so is a request for another host's name, by which a web page elsewhere
would reach a service on the reader's own machine (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from common.errors import ConfigError
from common.structured_logs import logger_of

HOST = "127.0.0.1"

#: A request's ``Host``: a name, with a port or without. Nothing else is a name's end:
#: to a reader that takes an ``@``, say, ``127.0.0.1:80@elsewhere`` is elsewhere.
_HOST = re.compile(r"(?P<name>[A-Za-z0-9.-]+)(:[0-9]{1,5})?")

#: Sent with every answer: nothing is kept, framed, or taken for another type.
_HEADERS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)

_log = logger_of("monitor")


@dataclass(frozen=True)
class Page:
    """An answer: its media type and its bytes."""

    kind: str
    content: bytes


Route = Callable[[], Page]


class Facts(Collector):
    """A collector whose every scrape asks anew, and nothing of the process itself."""

    def __init__(self, ask: Callable[[], Iterable[Metric]]) -> None:
        self._ask = ask

    def collect(self) -> Iterable[Metric]:
        """What Prometheus' registry calls for each scrape."""
        return self._ask()


def check_loopback(host: str) -> str:
    """The address to listen on.

    Raises:
        ConfigError: if it is not one of this machine's loopback.
    """
    if host == "localhost":
        return HOST
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = False
    if not inside or ":" in host:
        raise ConfigError(
            f"--host: expected a loopback address such as {HOST}, got {host!r}: "
            "nothing here is authenticated. Let a proxy that is, or an SSH tunnel, "
            "carry it elsewhere."
        )
    return host


class Site:
    """A server of some pages and of ``/metrics``; bound when made, so port 0 works."""

    def __init__(
        self,
        collect: Callable[[], Iterable[Metric]],
        pages: Mapping[str, Route] | None = None,
        host: str = HOST,
        port: int = 0,
    ) -> None:
        self._pages = dict(pages or {})
        registry = CollectorRegistry()
        registry.register(Facts(collect))
        self._metrics: WSGIApplication = make_wsgi_app(registry)
        self._server = _Server((check_loopback(host), port), _Quiet)
        self._server.set_app(self._answer)

    @property
    def address(self) -> str:
        """Where it listens, as a browser wants it."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def serve(self) -> None:
        """Answer until SIGINT or SIGTERM; requests in progress are not waited for."""
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            self._server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            _log.info("stopped")
        finally:
            self._server.server_close()

    def _answer(
        self, environ: WSGIEnvironment, start: StartResponse
    ) -> Iterable[bytes]:
        asked = _HOST.fullmatch(str(environ.get("HTTP_HOST", "")))
        own = (HOST, "localhost", str(self._server.server_address[0]))
        if asked is None or asked["name"].lower() not in own:
            return _refuse(start, "403 Forbidden")
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._guarded(lambda: self._metrics(environ, start), start)
        route = self._pages.get(path)
        if route is None:
            return _refuse(start, "404 Not Found")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refuse(start, "405 Method Not Allowed")
        return self._guarded(lambda: _send(route(), start), start)

    def _guarded(
        self, answer: Callable[[], Iterable[bytes]], start: StartResponse
    ) -> Iterable[bytes]:
        """A failure is a fixed text; in the log stands its type alone."""
        try:
            return answer()
        except Exception:
            _log.warning("an answer failed", exc_info=True)
            return _refuse(start, "500 Internal Server Error")


def _send(page: Page, start: StartResponse) -> Iterable[bytes]:
    length = ("Content-Length", str(len(page.content)))
    start("200 OK", [("Content-Type", page.kind), length, *_HEADERS])
    return [page.content]


def _refuse(start: StartResponse, status: str) -> Iterable[bytes]:
    # Called as well after an answer that failed half-way, hence exc_info.
    kind = ("Content-Type", "text/plain; charset=utf-8")
    start(status, [kind, *_HEADERS], sys.exc_info() if sys.exc_info()[0] else None)
    return [f"{status}\n".encode()]


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True

    def server_bind(self) -> None:
        """As the parent does, without asking a name server for the host's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away is no event, and a traceback names addresses."""


class _Quiet(WSGIRequestHandler):
    #: Seconds that a silent reader keeps a thread.
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: scrapes come every few seconds."""
