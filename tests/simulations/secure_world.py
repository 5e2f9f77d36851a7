"""Twelve clients of one user each, and whole runs of mode distributed over them."""

import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Error, Message, RecordDict
from safetensors.numpy import load_file

import client.secure_round
from client.app import app as client_app
from client.ledger import inspect_ledger
from client.settings import read_settings, witness_place
from common import wire
from common.config import RunConfig, defaults, parse, to_flat
from server.app import app as server_app
from server.secagg import SecureSum, Sum
from simulations.engine import (
    FIRST_CLIENT_NODE,
    InProcessGrid,
    Job,
    server_context,
)
from simulations.experiment import prepare

CLIENTS = 12
DATA = "synthetic:num_users=52,num_items=30,interactions_per_user=8"
FLAT = {
    "data.public": DATA,
    "data.private": DATA,
    "run.seed": 5,
    "run.start-timeout": 1.0,
    "run.round-timeout": 20.0,
    "run.poll-interval": 0.01,
    "partition.num-clients": CLIENTS,
    "partition.public-users": 20,
    "partition.validation-users": 5,
    "partition.heldout-users": 20,
    "student.dim": 4,
    "training.rounds": 2,
    "training.learning-rate": 0.5,
    "distillation.weight": 0.0,
    "evaluation.baselines": False,
    "evaluation.resamples": 20,
    "safeguard.enabled": False,
    "privacy.mode": "distributed",
    "privacy.declared-users": 1,
    "privacy.noise-multiplier": 1.0,
    "privacy.sample-rate": 0.5,
    "secagg.clients": CLIENTS,
    "secagg.threshold": 0.75,
    "secagg.parameters": 400,
}


def config_of(**overrides) -> RunConfig:
    return parse(defaults() | FLAT | overrides)


def dealt(config: RunConfig, folder: Path) -> Path:
    """A federation's folders, to be copied by every test."""
    prepare(config, folder)
    return folder


@dataclass
class World:
    """One run over copied folders, and what passed.

    Attributes:
        vectors: what each client put into the sum, by round and client.
        masked: what it was as sent, by round and node.
        sums: what the server unmasked, by round.
        replies: all that left clients, in order.
    """

    config: RunConfig
    root: Path
    silent: Callable[[int, str, int], bool] = lambda node, kind, number: False
    vectors: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)
    sums: dict[int, Sum] = field(default_factory=dict)
    replies: list[Message] = field(default_factory=list)
    asked: list[Message] = field(default_factory=list)
    grid: InProcessGrid | None = None

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def folders(self) -> list[Path]:
        return sorted((self.root / "clients").iterdir())

    def lines(self, event: str) -> list[dict]:
        text = (self.out / "metrics.jsonl").read_text()
        return [x for x in map(json.loads, text.splitlines()) if x["event"] == event]

    def student(self, name: str = "student") -> dict[str, np.ndarray]:
        return load_file(self.out / f"{name}.safetensors")

    def charges(self) -> dict[str, list]:
        found = {}
        for folder in self.folders:
            place = witness_place(folder, read_settings(folder))
            entries = []
            if (folder / "ledger.sqlite").exists():
                entries = inspect_ledger(folder, place)[1]
            found[folder.name] = [e.charge for e in entries if e.charge]
        return found

    def run(self, run_id: int = 77, **overrides) -> "World":
        flat = to_flat(self.config) | overrides
        job = Job(
            run_id,
            flat,
            CLIENTS,
            self.root / "clients",
            self.root / "server",
            self.out,
        )
        with self._watched():
            self.grid = _Watching(client_app, job, self)
            server_app(self.grid, server_context(job))
        return self

    @contextmanager
    def _watched(self):
        module, made = client.secure_round, client.secure_round.contribution
        result = SecureSum.result
        world = self

        def contribution(update, dim, plan, seed, randomness):
            vector = made(update, dim, plan, seed, randomness)
            number = int(seed.decode().split("\x1f")[1])
            world.vectors[number, world.at_work] = vector
            return vector

        def unmasked(self):
            found = result(self)
            world.sums[self._terms.round] = found
            return found

        module.contribution, SecureSum.result = contribution, unmasked
        try:
            yield
        finally:
            module.contribution, SecureSum.result = made, result


class _Watching(InProcessGrid):
    """The engine's grid; some clients fall silent, and all is written down."""

    def __init__(self, app, job, world: World) -> None:
        super().__init__(app, job)
        self.world = world

    def _reply(self, message: Message) -> Message:
        kind, node = message.metadata.message_type, message.metadata.dst_node_id
        number = wire.unpack_header(message.content).number
        self.world.asked.append(message)
        if self.world.silent(node - FIRST_CLIENT_NODE, kind, number):
            return Message(Error(code=0, reason="gone"), reply_to=message)
        self.world.at_work = f"{node - FIRST_CLIENT_NODE:04d}"
        reply = super()._reply(message)
        self.world.replies.append(reply)
        return reply

    def state_of(self, index: int) -> RecordDict:
        return self._contexts[FIRST_CLIENT_NODE + index].state


def copied(source: Path, root: Path) -> Path:
    """The same folders in another place."""
    for name in ("clients", "server"):
        shutil.copytree(source / name, root / name)
    return root
