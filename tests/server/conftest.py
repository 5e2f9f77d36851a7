"""A grid of scripted clients; validation users who all want item 5."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from flwr.app import Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common import wire
from common.student import StateDict, StudentSpec, shapes

RUN_ID = 7


class FakeGrid:
    """Answers each message by the node's behaviour, and keeps what it was sent."""

    def __init__(self, behaviours, *, backwards: bool = False) -> None:
        self.behaviours, self.backwards = behaviours, backwards
        self.sent: list[Message] = []
        self.replies: dict[str, Message | None] = {}
        TaskIdentity.run_id, TaskIdentity.node_id = RUN_ID, 1
        TaskIdentity.task_id = 1

    def get_node_ids(self) -> list[int]:
        return list(self.behaviours)

    def push_messages(self, messages) -> list[str]:
        """Take them in; a node of which nothing comes back answers ``None``."""
        messages = list(messages)
        self.sent += messages
        ids = []
        for message in messages:
            ids.append(uuid.uuid4().hex)
            message.metadata.__dict__["_message_id"] = ids[-1]
        order = messages[::-1] if self.backwards else messages
        self.replies |= {m.metadata.message_id: self._reply(m) for m in order}
        return ids

    def pull_messages(self, message_ids) -> list[Message]:
        found = [self.replies.pop(each, None) for each in message_ids]
        return [reply for reply in found if reply is not None]

    def _reply(self, message: Message) -> Message | None:
        made = self.behaviours[message.metadata.dst_node_id](message)
        return None if made is None else Message(made, reply_to=message)

    def headers(self, kind: str | None = None) -> list[wire.RoundHeader]:
        """Of the messages sent so far, of one kind or of all."""
        return [
            wire.unpack_header(message.content)
            for message in self.sent
            if kind in (None, message.metadata.message_type)
        ]


def replying(content=None, **changes) -> Callable[[Message], RecordDict]:
    """A client that echoes the header, some facts of it changed."""

    def answer(message: Message) -> RecordDict:
        header = wire.unpack_header(message.content)
        reply = wire.ReplyHeader(header.run, header.number, header.nonce)
        reply = replace(reply, **changes)
        return RecordDict({**(content or {}), wire.ROUND: wire.pack_header(reply)})

    return answer


def failing(reason: str) -> Callable[[Message], Error]:
    return lambda message: Error(code=0, reason=reason)


@dataclass(frozen=True)
class SafeguardCase:
    spec: StudentSpec
    shown: sp.csr_matrix
    held: sp.csr_matrix
    good: StateDict
    bad: StateDict


@pytest.fixture
def case() -> SafeguardCase:
    spec = StudentSpec(6, 2, 1.0, 0.0)
    eye = np.eye(6, dtype=np.float32)
    zero = {name: torch.zeros(shape) for name, shape in shapes(spec).items()}
    return SafeguardCase(
        spec,
        shown=sp.csr_matrix(eye[:3]),
        held=sp.csr_matrix(np.repeat(eye[5:], 3, axis=0)),
        good=zero | {"decoder.bias": torch.arange(6.0)},
        bad=zero | {"decoder.bias": -torch.arange(6.0)},
    )
