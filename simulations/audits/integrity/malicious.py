"""A client app some of whose clients lie, and a run of it.

Simulations only: it stands beside the client app, where the wire would be. What honest
clients answer to a question whose content is the same in every run is computed once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common import Array

from common import wire
from common.config import RunConfig, to_flat
from common.errors import ConfigError
from simulations.audits.integrity.lies import Float, IntArray, Lie, Question
from simulations.audits.world import World
from simulations.engine import Job, run_in_process
from simulations.partition import CLIENTS

#: What is lied about, and the record that the answer stands in.
RECORDS = {
    wire.STATISTICS: wire.PAIRS,
    wire.SKETCH: wire.SKETCH_SUM,
    wire.TRAIN: wire.UPDATE,
}


@dataclass(frozen=True)
class Plot:
    """Who lies, how, and about what.

    Attributes:
        clients: names of their folders.
        lie: what they answer; ``None`` where their rows alone are false.
        targets, popularity: as of :class:`Question`.
    """

    clients: tuple[str, ...] = ()
    lie: Lie | None = None
    targets: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    popularity: Float = field(default_factory=lambda: np.zeros(0))


#: By client: honest answers to the first question, which only public data decide.
Kept = dict[str, ArrayRecord]


class Malicious(ClientApp):
    """A client app whose clients answer as a plot says.

    Attributes:
        failures: answers that were errors.
    """

    def __init__(
        self, app: ClientApp, plot: Plot, config: RunConfig, kept: Kept, seed: int
    ) -> None:
        super().__init__()
        self._app, self._plot, self._config = app, plot, config
        self._kept, self._seed = kept, seed
        self.failures = 0

    def __call__(self, message: Message, context: Context) -> Message:
        """Let the app answer, and lie where that is the plot."""
        name = Path(str(context.node_config["folder"])).name
        kind = message.metadata.message_type
        if kind == wire.DELIVER:
            # What clients do with the final student is nobody's question here.
            return _answer(message)
        reply = self._honest(message, context, name)
        if reply.has_error():
            self.failures += 1
            return reply
        if self._plot.lie is None or name not in self._plot.clients:
            return reply
        return self._lie(message, reply, name) if kind in RECORDS else reply

    def _honest(self, message: Message, context: Context, name: str) -> Message:
        summed = self._config.privacy.mode == "distributed"
        if summed or message.metadata.message_type != wire.STATISTICS:
            return self._app(message, context)
        false_rows = self._plot.lie is None and name in self._plot.clients
        if name in self._kept and not false_rows:
            return _answer(message, wire.PAIRS, self._kept[name])
        reply = self._app(message, context)
        if not reply.has_error() and not false_rows:
            self._kept[name] = reply.content.array_records[wire.PAIRS]
        return reply

    def _lie(self, message: Message, reply: Message, name: str) -> Message:
        kind, plot = message.metadata.message_type, self._plot
        record = RECORDS[kind]
        arrays = reply.content.array_records[record].items()
        question = Question(
            kind,
            message.content,
            {key: array.numpy().copy() for key, array in arrays},
            self._config,
            self._config.partition.num_clients,
            plot.targets,
            plot.popularity,
            np.random.default_rng([self._seed, int(name)]),
        )
        answer = plot.lie(question) if plot.lie else question.honest
        made = ArrayRecord({key: Array(each) for key, each in answer.items()})
        content = RecordDict({wire.ROUND: reply.content.config_records[wire.ROUND]})
        content[record] = made
        return Message(content, reply_to=message)


def _answer(
    message: Message, name: str = "", record: ArrayRecord | None = None
) -> Message:
    """A reply under the open question's header, which charges no ledger."""
    came = wire.unpack_header(message.content)
    header = wire.ReplyHeader(came.run, came.number, came.nonce)
    content = RecordDict({wire.ROUND: wire.pack_header(header)})
    if record is not None:
        content[name] = record
    return Message(content, reply_to=message)


def federate(world: World, plot: Plot, folder: Path, kept: Kept, seed: int) -> Path:
    """Run the world's configuration over client folders, some of which lie.

    Args:
        folder: holds the clients' folder, and gets the run's.
        kept: honest answers of the same clients under the same noise, if any.
        seed: of all noise: runs differ by plot and aggregator alone.

    Returns:
        The folder that the server wrote.

    Raises:
        ConfigError: if a client did not answer: there is nothing to compare.
    """
    from client.app import app as client
    from server.app import app as server

    app, out = Malicious(client, plot, world.config, kept, seed), folder / "run"
    job = Job(
        run_id=secrets.randbits(62),
        config=to_flat(world.config) | {"run.seed": seed},
        num_clients=len(world.clients),
        clients=folder / CLIENTS,
        public=world.server,
        out=out,
    )
    run_in_process(server, app, job)
    if app.failures:
        raise ConfigError(
            f"The audit's run expected every client to answer; {app.failures} answers "
            "are errors. Does the run itself go through?"
        )
    return out
