"""What the server sends, and which replies count.

Server only: it knows the run, the clients' receipts and the server's key. A message
is signed once a round; only the acknowledgement differs from client to client.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common import wire
from common.config import RunConfig, to_flat
from common.errors import ProtocolError
from common.signature import signed
from server.receipts import Receipts
from server.records import Recorder


@dataclass(frozen=True)
class Exchange:
    """One question to some nodes, and the replies that fit it.

    Attributes:
        replies: by node, in the order of their ids: a fixed one makes records
            repeatable.
        bytes_down, bytes_up: payload of one message and of the largest reply.
    """

    replies: tuple[RecordDict, ...]
    bytes_down: int
    bytes_up: int


class Postbox:
    """Sends a run's messages and takes in the replies."""

    def __init__(
        self,
        grid: Grid,
        run_id: str,
        config: RunConfig,
        catalogue: str,
        secret: bytes,
        receipts: Receipts,
        recorder: Recorder,
    ) -> None:
        self._grid, self._run_id, self._config = grid, run_id, config
        self._catalogue, self._secret = catalogue, secret
        self._receipts, self._recorder = receipts, recorder

    def ask(
        self, kind: str, number: int, content: RecordDict, nodes: Iterable[int]
    ) -> Exchange:
        """Send the content to each node, under a signed header, and wait."""
        header = self._header(kind, number, content)
        timeout = self._config.run.round_timeout
        messages = [
            Message(
                self._addressed(content, header, node),
                node,
                kind,
                ttl=timeout,
                group_id=str(number),
            )
            for node in nodes
        ]
        replies = self._grid.send_and_receive(messages, timeout=timeout)
        found = dict(self._fitting(replies, header))
        contents = tuple(found[node] for node in sorted(found))
        return Exchange(
            contents,
            wire.num_bytes(content) if messages else 0,
            max(map(wire.num_bytes, contents), default=0),
        )

    def _header(self, kind: str, number: int, content: RecordDict) -> wire.RoundHeader:
        name, seed = self._config.run.name, self._config.run.seed
        nonce = secrets.token_hex(16)
        if seed >= 0:
            # A repeatable simulation: its clients label their seeded noise by it.
            text = json.dumps([seed, name, number])
            nonce = hashlib.sha256(text.encode()).hexdigest()[:32]
        header = wire.RoundHeader(self._run_id, name, number, nonce, self._catalogue)
        return signed(header, kind, content, to_flat(self._config), self._secret)

    def _addressed(
        self, content: RecordDict, header: wire.RoundHeader, node: int
    ) -> RecordDict:
        own = replace(header, acknowledged=self._receipts.of(node))
        return RecordDict({**content, wire.ROUND: wire.pack_header(own)})

    def _fitting(
        self, replies: Iterable[Message], header: wire.RoundHeader
    ) -> Iterator[tuple[int, RecordDict]]:
        receipts = {}
        for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
            if reply.has_error():
                reason = (reply.error.reason or "no reason given").strip()
                self._recorder.refusal(header.number, reason)
                continue
            try:
                found = wire.unpack_reply_header(reply.content)
                _check_round(found, header)
            except ProtocolError as error:
                self._recorder.refusal(header.number, str(error))
                continue
            node = reply.metadata.src_node_id
            if found.receipt != wire.NO_RECEIPT:
                receipts[node] = found.receipt
            yield node, reply.content
        self._receipts.keep(receipts)


def _check_round(reply: wire.ReplyHeader, header: wire.RoundHeader) -> None:
    theirs = (reply.run, reply.number, reply.nonce)
    if theirs != (header.run, header.number, header.nonce):
        raise ProtocolError(
            f"Expected a reply of round {header.number} of this run, got another's."
        )
