"""A node on the other side of a cable that can be pulled.

Simulations only. The node's process gets a network of its own (a namespace of Linux)
and a virtual cable to this machine; a relay at this end hands its bytes, TLS and all,
to the SuperLink, which goes on listening on loopback alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

#: Both ends of the cable: a network that nobody else is in.
HERE, THERE, BITS = "10.213.7.1", "10.213.7.2", 30
CHUNK = 65_536


@dataclass(frozen=True)
class Cable:
    """What lies between a node and the SuperLink.

    Attributes:
        name: of the namespace, and of this machine's end.
        port: at this machine's end.
    """

    name: str
    port: int

    @property
    def address(self) -> str:
        """Where the node finds the SuperLink."""
        return f"{HERE}:{self.port}"

    def command(self, node: Sequence[str]) -> list[str]:
        """A node's command, on the other side; ``--superlink`` is set to here."""
        place = list(node).index("--superlink") + 1
        inside = [*node[:place], self.address, *node[place + 1 :]]
        return ["ip", "netns", "exec", self.name, *inside]

    def cut(self) -> None:
        """Pull it: nothing passes, and nobody is told."""
        _ip("link", "set", self.name, "down")

    def mend(self) -> None:
        """Put it back."""
        _ip("link", "set", self.name, "up")


def is_allowed() -> bool:
    """Whether a network of one's own may be made here; it is taken away again."""
    if shutil.which("ip") is None:
        return False
    name = f"tutela{os.getpid() % 10_000}t"
    try:
        with _namespace(name):
            return True
    except (subprocess.CalledProcessError, OSError):
        return False


@contextmanager
def cable(superlink: tuple[str, int]) -> Iterator[Cable]:
    """A cable to a SuperLink, until the end of the block."""
    name = f"tutela{os.getpid() % 10_000}"
    with _namespace(name), socket.create_server((HERE, 0)) as server:
        thread = threading.Thread(target=_accept, args=(server, superlink), daemon=True)
        thread.start()
        yield Cable(name, server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@contextmanager
def _namespace(name: str) -> Iterator[None]:
    _ip("netns", "add", name)
    try:
        inside = ("-n", name)
        _ip("link", "add", name, "type", "veth", "peer", "name", "node", "netns", name)
        _ip("addr", "add", f"{HERE}/{BITS}", "dev", name)
        _ip(*inside, "addr", "add", f"{THERE}/{BITS}", "dev", "node")
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "link", "set", "node", "up")
        _ip("link", "set", name, "up")
        yield
    finally:
        _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(  # noqa: S603 - words of our own, no shell
        ["ip", *words],  # noqa: S607
        check=True,
        capture_output=True,
    )


def _accept(server: socket.socket, target: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):  # the end: the server was shut down
        while True:
            near, _ = server.accept()
            far = socket.create_connection(target)
            for ends in ((near, far), (far, near)):
                threading.Thread(target=_pass_on, args=ends, daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(CHUNK):
            sink.sendall(content)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
