"""The in-process engine: Flower's apps, called directly, no processes, no network.

Simulations only. A ``Grid`` whose messages go straight to the real ``ClientApp``.
Each message is copied through protobuf both ways, as a network would: otherwise
clients would share one record and change each other's. Private names of Flower
1.42.0 are used here (hence the exact pin); a test holds them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from common.config import FlatConfig
from simulations.rewind import rewind, rewindable

SERVER_NODE = 1
#: In a run's folder: copies of clients at work, empty when all have answered.
REWIND = "rewind"
FIRST_CLIENT_NODE = 100


@dataclass(frozen=True)
class Job:
    """What an engine runs.

    Attributes:
        run_id: the run's id; fixes nothing but names.
        config: complete flat run config.
        clients: folder of numbered client folders.
        public: the server's folder of public data.
        out: where the server writes.
    """

    run_id: int
    config: FlatConfig
    num_clients: int
    clients: Path
    public: Path
    out: Path


class InProcessGrid(Grid):
    """Hands messages to a client app in this process, one after another."""

    def __init__(self, app: ClientApp, job: Job) -> None:
        self._app, self._job = app, job
        self._run = Run.create_empty(job.run_id)
        self._waiting: dict[str, Message] = {}
        self._contexts = {
            FIRST_CLIENT_NODE + index: Context(
                run_id=job.run_id,
                node_id=FIRST_CLIENT_NODE + index,
                node_config={"folder": str(job.clients / f"{index:04d}")},
                state=RecordDict(),
                run_config=dict(job.config),
            )
            for index in range(job.num_clients)
        }
        for context in self._contexts.values():
            rewind(Path(str(context.node_config["folder"])), job.out / REWIND)
        TaskIdentity.run_id = job.run_id
        TaskIdentity.node_id = SERVER_NODE
        TaskIdentity.task_id = 1

    def set_run(self, run: Run) -> None:
        """Take over a run's facts."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run this grid serves."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Flower's older way to make a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The clients' node ids."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages in; clients work when they are waited for, as it were."""
        ids = []
        for message in messages:
            message_id = uuid.uuid4().hex
            message.metadata.__dict__["_message_id"] = message_id
            self._waiting[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to these messages, each once; the clients run here, to their end."""
        return [
            self._reply(self._waiting.pop(each))
            for each in message_ids
            if each in self._waiting
        ]

    def _reply(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        folder = Path(str(context.node_config["folder"]))
        with rewindable(folder, self._job.out / REWIND):
            reply = self._app(_copy(message), context)
        reply.metadata.__dict__["_message_id"] = uuid.uuid4().hex
        return _copy(reply)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver and collect; clients run to their end, so no time-out applies."""
        del timeout
        return self.pull_messages(self.push_messages(messages))


def _copy(message: Message) -> Message:
    return message_from_proto(message_to_proto(message))


def server_context(job: Job) -> Context:
    """What the server app gets: its folders, and the whole run config."""
    return Context(
        run_id=job.run_id,
        node_id=SERVER_NODE,
        node_config={
            "public": str(job.public),
            "out": str(job.out),
            "state": str(job.out / "state"),
        },
        state=RecordDict(),
        run_config=dict(job.config),
    )


def run_in_process(server: ServerApp, client: ClientApp, job: Job) -> None:
    """Run a federation in this process."""
    server(InProcessGrid(client, job), server_context(job))
