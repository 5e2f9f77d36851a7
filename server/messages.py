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
from functools import partial

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common import wire
from common.config import RunConfig, to_flat
from common.errors import ProtocolError
from common.signature import signed
from server.polling import Collected, exchange
from server.receipts import Receipts
from server.records import Recorder
from server.run_journal import Journal


@dataclass(frozen=True)
class Exchange:
    """One question to some nodes, and the replies that fit it.

    Attributes:
        replies: by node, in the order of their ids: a fixed one makes records
            repeatable.
        bytes_down, bytes_up: payload of one message and of the largest reply.
        send, wait: seconds until all messages were out, and until the last reply or
            the deadline.
    """

    replies: tuple[RecordDict, ...]
    bytes_down: int
    bytes_up: int
    send: float = 0.0
    wait: float = 0.0


class Postbox:
    """Sends a run's messages and takes in the replies."""

    def __init__(
        self,
        grid: Grid,
        journal: Journal,
        config: RunConfig,
        catalogue: str,
        secret: bytes,
        receipts: Receipts,
        recorder: Recorder,
    ) -> None:
        self._grid, self._journal, self._config = grid, journal, config
        self._catalogue, self._secret = catalogue, secret
        self._receipts, self._recorder = receipts, recorder

    def ask(
        self, kind: str, number: int, content: RecordDict, nodes: Iterable[int]
    ) -> Exchange:
        """Send the content to each node, under a signed header, and wait.

        What identifies the question is on disk before the first message leaves.
        """
        header = self._header(kind, number, content)
        timeout = self._config.run.round_timeout
        messages = [
            Message(
                self._addressed(content, header, node),
                node,
                kind,
                # Also of the reply: none is taken after the round.
                ttl=timeout,
                group_id=str(number),
            )
            for node in nodes
        ]
        came = exchange(self._grid, messages, self._config.run)
        found = dict(self._fitting(came, header))
        contents = tuple(found[node] for node in sorted(found))
        return Exchange(
            contents,
            wire.num_bytes(content) if messages else 0,
            max(map(wire.num_bytes, contents), default=0),
            came.send,
            came.wait,
        )

    def _header(self, kind: str, number: int, content: RecordDict) -> wire.RoundHeader:
        digest = content_digest(content)
        nonce = self._journal.nonce(kind, number, digest, partial(self._draw, number))
        name = self._config.run.name
        header = wire.RoundHeader(
            self._journal.run, name, number, nonce, self._catalogue
        )
        return signed(header, kind, content, to_flat(self._config), self._secret)

    def _draw(self, number: int) -> str:
        seed = self._config.run.seed
        if seed < 0:
            return secrets.token_hex(16)
        # A repeatable simulation: its clients label their seeded noise by it.
        text = json.dumps([seed, self._config.run.name, number])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _addressed(
        self, content: RecordDict, header: wire.RoundHeader, node: int
    ) -> RecordDict:
        own = replace(header, acknowledged=self._receipts.of(node))
        return RecordDict({**content, wire.ROUND: wire.pack_header(own)})

    def _fitting(
        self, came: Collected, header: wire.RoundHeader
    ) -> Iterator[tuple[int, RecordDict]]:
        receipts = {}
        for _, reason in sorted(came.failures.items()):
            self._recorder.refusal(header.number, reason)
        # By the node that was asked: an error on the way has the server as its source.
        for node, reply in sorted(came.replies.items()):
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
            if found.receipt != wire.NO_RECEIPT:
                receipts[node] = found.receipt
            yield node, reply.content
        self._receipts.keep(receipts)


def content_digest(content: RecordDict) -> str:
    """SHA-256 of a message's arrays: whether two ask the same, bit for bit."""
    digest = hashlib.sha256()
    for record in sorted(content.array_records):
        for name, array in sorted(content.array_records[record].items()):
            place = [record, name, array.dtype, list(array.shape), len(array.data)]
            digest.update(json.dumps(place).encode())
            digest.update(array.data)
    return digest.hexdigest()


def _check_round(reply: wire.ReplyHeader, header: wire.RoundHeader) -> None:
    theirs = (reply.run, reply.number, reply.nonce)
    if theirs != (header.run, header.number, header.nonce):
        raise ProtocolError(
            f"Expected a reply of round {header.number} of this run, got another's."
        )
