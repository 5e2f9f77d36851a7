"""Asking one client as a server would, and its answer as it leaves the device.

Simulations only. The client's own app answers, behind its exit door, from a folder as
any other; messages are copied through protobuf both ways, as a network would.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.supercore.task_identity import TaskIdentity

from common import wire
from common.config import FlatConfig

Records = Mapping[str, ArrayRecord]
_SERVER, _CLIENT = 1, 100


@dataclass(frozen=True)
class Client:
    """A client folder that an audit wrote, and the run that asks it.

    Attributes:
        config: complete flat config of the run.
        catalogue: digest of the declared catalogue.
        state: what it keeps from message to message, as Flower does for it.
    """

    folder: Path
    config: FlatConfig
    catalogue: str
    run_id: int
    state: RecordDict = field(default_factory=RecordDict, compare=False)


@dataclass(frozen=True)
class Answer:
    """What left a client.

    Attributes:
        error: the text of an error reply; ``None`` for an answer.
        code: of an error reply.
        content: records of an answer.
        raw: the whole message as it is sent.
    """

    error: str | None
    code: int | None
    content: RecordDict
    raw: bytes

    def numbers(self, record: str, name: str) -> npt.NDArray[np.float64]:
        """An array of the answer, as float64."""
        found: npt.NDArray[Any] = self.content.array_records[record][name].numpy()
        return found.astype(np.float64)

    @property
    def receipt(self) -> str:
        """What the client gave for the charge, for the next message."""
        return str(self.content.config_records[wire.ROUND]["receipt"])


def ask(
    client: Client,
    kind: str,
    records: Records,
    number: int,
    nonce: str,
    acknowledged: str = "",
) -> Answer:
    """Send one message to a client, and take its answer.

    Args:
        kind: message type, of ``common/wire.py``.
        records: what the message holds beside its header.
        number: the round.
        nonce: what is charged only once.
        acknowledged: the receipt of the answer before.
    """
    from client.app import app

    # The client's own task, as Flower's engines set it before they build messages.
    TaskIdentity.run_id, TaskIdentity.node_id = client.run_id, _SERVER
    TaskIdentity.task_id = 1
    header = wire.RoundHeader(
        run=str(client.run_id),
        name=str(client.config["run.name"]),
        number=number,
        nonce=nonce,
        catalogue=client.catalogue,
        acknowledged=acknowledged,
    )
    content = RecordDict({wire.ROUND: wire.pack_header(header), **records})
    message = Message(content, _CLIENT, kind)
    message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
    context = Context(
        run_id=client.run_id,
        node_id=_CLIENT,
        node_config={"folder": str(client.folder)},
        state=client.state,
        run_config=dict(client.config),
    )
    return _read(app(message_from_proto(message_to_proto(message)), context))


def _read(reply: Message) -> Answer:
    raw = message_to_proto(reply).SerializeToString()
    if reply.has_error():
        return Answer(reply.error.reason, reply.error.code, RecordDict(), raw)
    return Answer(None, None, reply.content, raw)


@contextmanager
def without_log() -> Iterator[None]:
    """Refusals that an audit provokes are none of its reader's business."""
    log = logging.getLogger("tutela.client")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
