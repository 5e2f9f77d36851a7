"""A server that sends what it once sent again, or changed: the operator's own attack.

Simulations only. It takes the place of the executor, whose secret it has, and of the
server app's process: so it speaks for a run of the pinned bundle, to real nodes, and
can send anything. The first messages come from the server's real app.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.common.config import get_fused_config_from_fab
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, fab_from_proto, run_from_proto
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from common import wire
from common.errors import ProtocolError
from simulations.deployment.laboratory import Submitted
from simulations.deployment.layout import read_deployment
from simulations.faults.federation import Federation

ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


class Recording(HttpGrid):
    """Flower's own grid, which keeps what was sent and what came.

    Attributes:
        sent, came: the messages, in order.
    """

    def __init__(self, address: str, certificates: bytes, token: str) -> None:
        super().__init__(address, False, certificates, token=token)
        self.sent: list[Message] = []
        self.came: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send, and keep."""
        found = list(messages)
        self.sent += found
        return super().push_messages(found)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Look for replies, and keep them."""
        found = list(super().pull_messages(message_ids))
        self.came += found
        return found


@contextmanager
def as_server_app(
    federation: Federation, run: Submitted
) -> Iterator[tuple[Recording, Context]]:
    """Speak for a run; the executor must be down. The run ends with the block."""
    address = read_deployment(federation.folder).superlink.address
    certificates = federation.layout.server_ca_certificate.read_bytes()
    token = _token(federation, address, certificates)
    grid = Recording(address, certificates, token)
    client = grid._runtime_client
    heart = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heart.start()
    try:
        yield grid, _begun(grid, run)
    finally:
        client.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.COMPLETED))
        heart.stop()
        grid.close()


def _token(federation: Federation, address: str, certificates: bytes) -> str:
    secret = federation.layout.executor_secret.read_bytes()
    client = RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=certificates,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            SuperExecAuthHttpInterceptor(
                master_secret=secret, protected_methods=frozenset({ACQUIRE})
            ),
        ],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    wanted = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
    try:
        return federation.wait(lambda: str(client.AcquireTask(wanted).token), 20.0, 0.2)
    finally:
        client.close()


def _begun(grid: Recording, submitted: Submitted) -> Context:
    came = grid._runtime_client.PullTaskInput(PullTaskInputRequest())
    run, context = run_from_proto(came.run), context_from_proto(came.context)
    if run.run_id != submitted.run:
        raise ProtocolError("Expected the submitted run's task.")
    TaskIdentity.task_id, TaskIdentity.run_id = came.task_id, run.run_id
    TaskIdentity.node_id = context.node_id
    grid.set_run(run)
    fab = fab_from_proto(came.fab)
    context.run_config = get_fused_config_from_fab(fab.content, run)
    return context


def ask(grid: Grid, message: Message, seconds: float = 40.0) -> Message | None:
    """Send the content of an earlier message, under a new id, to the same node."""
    told = message.metadata
    again = Message(
        message.content,
        told.dst_node_id,
        told.message_type,
        ttl=seconds,
        group_id=told.group_id,
    )
    (sent,) = grid.push_messages([again])
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for reply in grid.pull_messages([sent]):
            return reply
        time.sleep(0.1)
    return None


def with_bit_changed(message: Message) -> Message:
    """The message, with the lowest bit of one number of its student the other way."""
    student = dict(message.content.array_records[wire.STUDENT])
    name = min(student)
    data = bytearray(student[name].data)
    data[-4] ^= 1  # little-endian: the last number's lowest bit
    old = student[name]
    student[name] = Array(old.dtype, old.shape, old.stype, bytes(data))
    return _with(message, wire.STUDENT, ArrayRecord(student))


def with_header(message: Message, **changed: Any) -> Message:
    """The message, with other facts in its header."""
    header = replace(wire.unpack_header(message.content), **changed)
    return _with(message, wire.ROUND, wire.pack_header(header))


def _with(message: Message, name: str, record: Any) -> Message:
    told = message.metadata
    content = RecordDict({**message.content, name: record})
    return Message(
        content,
        told.dst_node_id,
        told.message_type,
        ttl=told.ttl,
        group_id=told.group_id,
    )
