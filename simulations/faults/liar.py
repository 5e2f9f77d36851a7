"""A node that is registered, holds its key, and does not do what it should.

Simulations only. It speaks Flower's Fleet API itself, so that no bundle and no exit
door stands between what it sends and the server: what a client's owner could do who
writes a node of his own. Run as ``python -m simulations.faults.liar``; each round of
a run can have its own misbehaviour.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.deploy.node import environment, read_certificates, read_key
from common.errors import ProtocolError

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.proto.message_pb2 import ObjectTree

    from simulations.faults.lies import Lie

LOOK = 0.1


@dataclass(frozen=True)
class Liar:
    """What a misbehaving node is started with.

    Attributes:
        superlink: ``host:port``.
        lies: by round, a key of ``lies.LIES``; in other rounds and for other
            questions it sends zeros of the right form.
    """

    superlink: str
    root_certificates: Path
    key: Path
    lies: Mapping[int, str]


def command(liar: Liar) -> list[str]:
    """What starts it."""
    return [
        *(sys.executable, "-P", "-m", "simulations.faults.liar", liar.superlink),
        *(str(liar.root_certificates), str(liar.key)),
        *(f"{number}={name}" for number, name in liar.lies.items()),
    ]


def run(liar: Liar) -> None:
    """Be this node until a signal ends the process."""
    os.environ.update(environment())
    # Only now: Flower reads its switches when it is imported.
    from flwr.supernode.fleet_http_connection import http_request_response

    from simulations.faults.lies import LIES

    key = read_key(liar.key)
    with http_request_response(
        liar.superlink,
        False,
        read_certificates(liar.root_certificates),
        (key, key.public_key()),
    ) as connection:
        node = Line(connection)
        print(f"SuperNode ID: {node.id}", flush=True)
        for message in node.messages():
            number = int(message.metadata.group_id or 0)
            train = message.metadata.message_type == "train"
            name = liar.lies.get(number, "zeros") if train else "zeros"
            print(f"Receiving: {message.metadata.message_type} {name}", flush=True)
            node.answer(message, LIES[name])
            print("Sent successfully", flush=True)


class Line:
    """The connection to the SuperLink, with messages whole."""

    def __init__(self, connection: tuple[Any, ...]) -> None:
        self.id: int = connection[0]
        self._receive, self._send = connection[1], connection[2]
        self._pull, self._push, self._confirm = connection[5:]

    def messages(self) -> Iterator[Message]:
        """Messages as they come, without an end."""
        while True:
            found = self._receive()
            if found is None:
                time.sleep(LOOK)
            else:
                yield self._whole(*found)

    def _whole(self, bare: Message, tree: ObjectTree) -> Message:
        from flwr.app import Message
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
        from flwr.supercore.inflatable.inflatable_utils import (
            inflate_object_from_contents,
            pull_objects,
        )

        run, name = bare.metadata.run_id, bare.metadata.message_id
        parts = [each.object_id for each in iterate_object_tree(tree)]
        contents = pull_objects(parts, pull_object_fn=partial(self._pull, run))
        whole = inflate_object_from_contents(name, contents)
        if not isinstance(whole, Message):
            raise ProtocolError("Expected a message.")
        self._confirm(run, name)
        whole.metadata.__dict__["_message_id"] = name
        return whole

    def answer(self, message: Message, lie: Lie) -> None:
        """Send what the lie makes of it; a server that refuses it is said so."""
        from flwr.supercore.inflatable.inflatable_object import (
            get_all_nested_objects,
            get_object_tree,
            no_object_id_recompute,
        )

        reply = lie.reply(message)
        if reply is None:
            return
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects, run = get_all_nested_objects(reply), reply.metadata.run_id
            try:
                wanted, session = self._send(reply, get_object_tree(reply), 0.0)
                for name in wanted:
                    content = lie.on_the_way(objects[name].deflate())
                    if content is not None:
                        self._push(run, session, name, content)
            except Exception as error:
                print(f"The server refused: {type(error).__name__}", flush=True)


def read_arguments(arguments: list[str]) -> Liar:
    """The command line, as :func:`command` writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("superlink")
    parser.add_argument("root_certificates", type=Path)
    parser.add_argument("key", type=Path)
    parser.add_argument("lies", nargs="*", help="round=lie")
    found = parser.parse_args(arguments)
    pairs = (text.partition("=") for text in found.lies)
    lies = {int(number): name for number, _, name in pairs}
    return Liar(found.superlink, found.root_certificates, found.key, lies)


if __name__ == "__main__":
    run(read_arguments(sys.argv[1:]))
