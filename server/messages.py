"""What the server sends, and which replies count.

Server only: it knows the run, the clients' receipts and the server's key. A message
is signed once a round; only the acknowledgement differs from client to client.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
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
        nodes: whose replies they are.
        bytes_down, bytes_up: payload of one message and of the largest reply.
        send, wait: seconds until all messages were out, and until the last reply or
            the deadline.
    """

    replies: tuple[RecordDict, ...]
    nodes: tuple[int, ...]
    bytes_down: int
    bytes_up: int
    send: float = 0.0
    wait: float = 0.0


@dataclass(frozen=True)
class Counts:
    """How one question that differs from node to node went.

    Attributes:
        asked, taken: nodes that were asked, and whose replies were taken.
        bytes_down, bytes_up: payload of the largest message, and reply.
    """

    asked: int
    taken: int
    bytes_down: int
    bytes_up: int


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
        messages = [self._message(kind, content, header, node) for node in nodes]
        came = exchange(self._grid, messages, self._config.run)
        found = dict(self._fitting(came, header))
        contents = tuple(found[node] for node in sorted(found))
        return Exchange(
            contents,
            tuple(sorted(found)),
            wire.num_bytes(content) if messages else 0,
            max(map(wire.num_bytes, contents), default=0),
            came.send,
            came.wait,
        )

    def ask_each(
        self,
        kind: str,
        number: int,
        shared: RecordDict,
        own: Mapping[int, RecordDict],
        take: Callable[[int, RecordDict], None],
    ) -> Counts:
        """Send each node its own content, each signed, and take replies as they come.

        Args:
            shared: what all are sent.
            own: what each is sent beside.
            take: gets a reply that fits the round, and is not kept here; what it
                raises as a ``ProtocolError`` costs that reply alone.
        """
        bare = self._bare_header(kind, number, _digest_of_each(shared, own))
        flat, messages, down = to_flat(self._config), [], 0
        for node, different in own.items():
            content = RecordDict({**shared, **different})
            down = max(down, wire.num_bytes(content))
            header = signed(bare, kind, content, flat, self._secret)
            messages.append(self._message(kind, content, header, node))
        receipts: dict[int, str] = {}
        sizes: list[int] = []

        def keep(node: int, reply: Message) -> None:
            try:
                receipt = _receipt_of(reply, bare)
                if receipt is not None:
                    receipts[node] = receipt
                take(node, reply.content)
            except ProtocolError as error:
                self._recorder.refusal(number, str(error))
                return
            sizes.append(wire.num_bytes(reply.content))

        came = exchange(self._grid, messages, self._config.run, keep)
        # What is left are refusals.
        for _ in self._fitting(came, bare):
            pass
        self._receipts.keep(receipts)
        return Counts(len(own), len(sizes), down, max(sizes, default=0))

    @property
    def run(self) -> str:
        """The logical run id, which clients charge by."""
        return self._journal.run

    def asked_before(self, kind: str, number: int) -> bool:
        """Whether this run asked this in an earlier process, and not yet in this."""
        return self._journal.asked_before(kind, number)

    def _message(
        self, kind: str, content: RecordDict, header: wire.RoundHeader, node: int
    ) -> Message:
        return Message(
            self._addressed(content, header, node),
            node,
            kind,
            # Also of the reply: none is taken after the round.
            ttl=self._config.run.round_timeout,
            group_id=str(header.number),
        )

    def _header(self, kind: str, number: int, content: RecordDict) -> wire.RoundHeader:
        header = self._bare_header(kind, number, content_digest(content))
        return signed(header, kind, content, to_flat(self._config), self._secret)

    def _bare_header(self, kind: str, number: int, digest: str) -> wire.RoundHeader:
        nonce = self._journal.nonce(kind, number, digest, partial(self._draw, number))
        return wire.RoundHeader(
            self._journal.run, self._config.run.name, number, nonce, self._catalogue
        )

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
                receipt = _receipt_of(reply, header)
            except ProtocolError as error:
                self._recorder.refusal(header.number, str(error))
                continue
            if receipt is not None:
                receipts[node] = receipt
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


def _digest_of_each(shared: RecordDict, own: Mapping[int, RecordDict]) -> str:
    """SHA-256 of what all are sent, and of what each is sent beside."""
    digest = hashlib.sha256(content_digest(shared).encode())
    for node, content in sorted(own.items()):
        digest.update(f"{node} {content_digest(content)}\n".encode())
    return digest.hexdigest()


def _receipt_of(reply: Message, header: wire.RoundHeader) -> str | None:
    """The receipt of a reply of this round, if it paid for anything.

    Raises:
        ProtocolError: if it is no reply, or another round's.
    """
    found = wire.unpack_reply_header(reply.content)
    _check_round(found, header)
    return None if found.receipt == wire.NO_RECEIPT else found.receipt


def _check_round(reply: wire.ReplyHeader, header: wire.RoundHeader) -> None:
    theirs = (reply.run, reply.number, reply.nonce)
    if theirs != (header.run, header.number, header.nonce):
        raise ProtocolError(
            f"Expected a reply of round {header.number} of this run, got another's."
        )
