"""Where the service listens, and what a caller needs to be heard.

Client only. A Unix socket of the owner's alone, or loopback; anywhere else only with
TLS and a bearer token, since whoever is heard learns about the stored users.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from common.durable_files import check_owners_alone
from common.errors import ConfigError

SOCKET = "serving.sock"
#: The longest path of a Unix socket on Linux, less its end.
LONGEST_PATH = 107
LEAST_TOKEN = 16
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]


@dataclass(frozen=True)
class Listening:
    """Where, and how guarded.

    Attributes:
        address: ``unix:PATH`` or ``HOST:PORT``; port 0 takes a free one.
        token: what callers must send as ``authorization: Bearer TOKEN``; empty for
            none.
        credentials: TLS; ``None`` for plain.
    """

    address: str
    token: str = field(repr=False)
    credentials: grpc.ServerCredentials | None = field(repr=False)

    @property
    def socket(self) -> Path | None:
        """The Unix socket's path."""
        kind, _, path = self.address.partition(":")
        return Path(path) if kind == "unix" else None


def listening(
    folder: Path,
    address: str = "",
    certificate: Path | None = None,
    private_key: Path | None = None,
    token: str = "",
) -> Listening:
    """Check that the place is guarded as it has to be.

    Args:
        address: empty for a Unix socket in the folder.
        token: ``file:PATH`` or ``env:NAME``.

    Raises:
        ConfigError: naming the option at fault.
    """
    address = address or f"unix:{folder.resolve() / SOCKET}"
    credentials = _credentials(certificate, private_key)
    found = Listening(address, _token(token), credentials)
    if not _is_own(address) and not (found.token and credentials):
        raise ConfigError(
            f"--listen {address}: expected a Unix socket or a loopback address, or "
            "--certificate, --private-key and --token beside any other."
        )
    return found


def _is_own(address: str) -> bool:
    """Whether this machine alone can reach it."""
    kind, _, path = address.partition(":")
    if kind == "unix":
        if not 1 <= len(os.fsencode(path)) <= LONGEST_PATH:
            raise ConfigError(
                f"--listen: expected a Unix socket's path of 1 to {LONGEST_PATH} "
                "bytes, got another length; name a shorter one, or 127.0.0.1:PORT."
            )
        return True
    host, _, port = address.rpartition(":")
    try:
        number, where = int(port), ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        number = -1
    if not 0 <= number < 65536:
        raise ConfigError(
            "--listen: expected unix:PATH or IP:PORT such as 127.0.0.1:50061, got "
            f"{address!r}."
        )
    return where.is_loopback


def _credentials(
    certificate: Path | None, private_key: Path | None
) -> grpc.ServerCredentials | None:
    if certificate is None and private_key is None:
        return None
    if certificate is None or private_key is None:
        raise ConfigError("Expected --certificate and --private-key, got one of them.")
    for path in (certificate, private_key):
        if not path.is_file():
            raise ConfigError(f"Expected a PEM file at {path}, found none.")
    check_owners_alone(private_key)
    pair = (private_key.read_bytes(), certificate.read_bytes())
    return grpc.ssl_server_credentials([pair])


def _token(source: str) -> str:
    kind, _, name = source.partition(":")
    if not source:
        return ""
    if kind == "file" and Path(name).is_file():
        check_owners_alone(Path(name))
        token = Path(name).read_text().strip()
    elif kind == "env":
        token = os.environ.get(name, "")
    else:
        raise ConfigError("--token: expected file:PATH of a file or env:NAME.")
    if len(token) < LEAST_TOKEN or not (token.isascii() and token.isprintable()):
        raise ConfigError(
            f"--token: expected at least {LEAST_TOKEN} printable ASCII letters, got "
            "another text; `openssl rand -hex 32` makes one."
        )
    return token


class TokenGuard(grpc.ServerInterceptor):
    """Lets calls with the token through, whichever service; the rest get nothing."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()
        # Of a stream, whatever was called: a single request would be waited for, in
        # one of the threads that answer, from a caller who need not send any.
        self._refuse: Handler = grpc.stream_unary_rpc_method_handler(_refuse)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Compare in constant time."""
        sent = [
            value.encode() if isinstance(value, str) else value
            for name, value in handler_call_details.invocation_metadata
            if name == "authorization"
        ]
        if len(sent) == 1 and hmac.compare_digest(sent[0], self._expected):
            return continuation(handler_call_details)
        return self._refuse


def _refuse(requests: object, context: grpc.ServicerContext) -> None:
    context.abort(
        grpc.StatusCode.UNAUTHENTICATED, "Expected authorization: Bearer TOKEN."
    )
