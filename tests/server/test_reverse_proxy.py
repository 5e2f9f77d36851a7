"""The reverse proxy for real: nginx on loopback, and what it lets through."""

import getpass
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from common.durable_files import write_durably
from server.deploy.certificates import (
    issue_server_certificate,
    make_authority,
    parse_names,
)
from server.deploy.services import FLEET_CALLS, Services, render_services

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx")


class Upstream(http.server.BaseHTTPRequestHandler):
    """Stands for the SuperLink: notes what came, answers how much of it."""

    protocol_version = "HTTP/1.1"
    came: list

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.came.append((self.command, self.path, self.headers))
        answer = str(len(body)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_HEAD = do_POST

    def log_message(self, *_):
        pass


def lay_certificates(folder: Path, authority, trusted) -> None:
    issued = issue_server_certificate(authority, parse_names(["DNS:localhost"]))
    place = folder / "server/certificates"
    write_durably(place / "server.crt", issued.certificate_pem)
    write_durably(place / "server.key", issued.key_pem)
    write_durably(place / "ca.crt", trusted.certificate_pem)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


class Proxy:
    """nginx with our configuration, on loopback, in front of an ``Upstream``."""

    def __init__(self, folder: Path, *, foreign_upstream: bool = False):
        self.folder, self.port = folder, free_port()
        authority = make_authority("lab")
        lay_certificates(folder, authority, authority)
        self.trust = ssl.create_default_context(
            cadata=authority.certificate_pem.decode()
        )
        upstream = folder
        if foreign_upstream:
            upstream = folder / "foreign"
            lay_certificates(upstream, make_authority("lab"), authority)
        self.came: list = []
        self.upstream = self._start_upstream(upstream / "server/certificates")
        self.nginx = self._start_nginx()

    def _start_upstream(self, place: Path):
        kind = type("Noting", (Upstream,), {"came": self.came})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(place / "server.crt", place / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def _start_nginx(self):
        services = Services(
            name="lab",
            connection="lab",
            host="127.0.0.1",
            port=self.upstream.server_address[1],
            monitor_port=1,
            public=f"127.0.0.1:{self.port}",
            listen=self.port,
            upstream_name="localhost",
            nodes=(),
            listen_on="127.0.0.1",
        )
        path = self.folder / "services/nginx.conf"
        write_durably(path, render_services(services)["nginx.conf"].encode())
        prefix = self.folder / "nginx"
        prefix.mkdir()
        words = [NGINX, "-e", "stderr", "-p", str(prefix), "-c", str(path)]
        # The unit never starts it as root, whose workers would be somebody else.
        words += ["-g", f"user {getpass.getuser()};"]
        subprocess.run([*words, "-t"], check=True, timeout=30, capture_output=True)
        log = (self.folder / "nginx.log").open("wb")
        nginx = subprocess.Popen(words, stderr=log, stdout=log)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return nginx
            time.sleep(0.05)
        raise AssertionError((self.folder / "nginx.log").read_text())

    def close(self):
        self.nginx.terminate()
        self.nginx.wait(10)
        self.upstream.shutdown()
        self.upstream.server_close()

    def say(self, request: bytes, *, whole: bool = True) -> bytes:
        """The answer to bytes sent over TLS, as they are."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        with self.trust.wrap_socket(plain, server_hostname="localhost") as secure:
            secure.sendall(request)
            first = secure.recv(65536)
            if not whole:
                return first
            return first + b"".join(iter(lambda: secure.recv(65536), b""))

    def status(
        self, method: str, target: str, body: bytes = b"", more: str = ""
    ) -> int:
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n{more}\r\n"
        )
        return int(self.say(head.encode("latin-1") + body).split()[1])


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    proxy = Proxy(tmp_path_factory.mktemp("proxy"))
    yield proxy
    proxy.close()


@pytest.mark.parametrize("call", FLEET_CALLS)
def test_the_fleet_api_passes(proxy, call):
    proxy.came.clear()
    more = "flwr-public-key: abc\r\nflwr-timestamp: 2026\r\n"
    assert proxy.status("POST", f"/v1/fleet/{call}", b"x" * 100, more) == 200
    ((method, path, headers),) = proxy.came
    assert (method, path) == ("POST", f"/v1/fleet/{call}")
    assert headers["flwr-public-key"] == "abc"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/control/register-node"),
        ("POST", "/v1/runtime/acquire-task"),
        ("POST", "/v1/runtime/push-messages"),
        ("GET", "/health"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("POST", "/"),
        ("POST", "/v1/fleet/"),
        ("POST", "/v1/fleet/anything-new"),
        ("POST", "/v1/fleet/register-node"),
        ("POST", "/v1/fleet/unregister-node"),
        ("GET", "/v1/fleet/get-run"),
        ("PUT", "/v1/fleet/get-run"),
        ("POST", "/v1/fleet/../control/start-run"),
        ("POST", "/v1/fleet/get-run/../../control/start-run"),
        ("POST", "/v1/fleet/%2e%2e/control/start-run"),
        ("POST", "/v1/fleet/..%2fcontrol%2fstart-run"),
        ("POST", "/v1/fleet/%252e%252e/control/start-run"),
        ("POST", "/v1/control/../fleet/get-run"),
        ("POST", "/%761/control/start-run"),
        ("POST", "/%76%31/fleet/get-run"),
        ("POST", "//v1/control/start-run"),
        ("POST", "//v1/fleet/get-run"),
        ("POST", "/v1//fleet/get-run"),
        ("POST", "/v1/fleet/get-run/"),
        ("POST", "/v1/fleet/get-run?a=/v1/control/start-run"),
        ("POST", "/v1/fleet/get-run;/../../control/start-run"),
        ("POST", "/v1/fleet/get-run%00"),
        ("POST", "/v1/fleet/get-run%0a"),
        ("POST", "/v1/fleet/get-run%20"),
        ("POST", "/v1/fleet/get-run#"),
        ("POST", "/v1\\fleet\\..\\control/start-run"),
        ("POST", "/V1/FLEET/GET-RUN"),
        ("post", "/v1/fleet/get-run"),
        ("POST", "https://localhost/v1/control/start-run"),
        ("POST", "https://localhost/v1/fleet/../control/start-run"),
        ("POST", "https://localhost"),
        ("POST", "*"),
        ("CONNECT", "127.0.0.1:9092"),
        ("TRACE", "/v1/fleet/get-run"),
    ],
)
def test_nothing_else_reaches_the_superlink(proxy, method, target):
    proxy.came.clear()
    assert proxy.status(method, target) in (400, 403, 404, 405)
    assert proxy.came == []


def test_a_request_within_a_request_is_not_seen(proxy):
    proxy.came.clear()
    inner = b"POST /v1/control/start-run HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = (
        b"POST /v1/fleet/get-run HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    )
    both = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert proxy.say(head + both % len(inner) + inner).split()[1] == b"400"
    assert proxy.came == []


def test_pieces_of_arrays_pass_and_too_much_does_not(proxy):
    piece = b"\x7f" * (5 * 2**20 + 4096)
    assert proxy.status("POST", "/v1/fleet/push-object", piece) == 200
    proxy.came.clear()
    head = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: localhost\r\n"
    answer = proxy.say(head + b"Content-Length: 17000000\r\n\r\n", whole=False)
    assert answer.split()[1] == b"413"
    assert proxy.came == []


def test_plain_text_is_refused(proxy):
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as plain:
        plain.sendall(b"POST /v1/fleet/get-run HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert plain.recv(65536).split()[1] == b"400"


def test_a_superlink_of_another_authority_is_not_asked(tmp_path):
    proxy = Proxy(tmp_path, foreign_upstream=True)
    try:
        assert proxy.status("POST", "/v1/fleet/get-run") == 502
        assert proxy.came == []
    finally:
        proxy.close()
