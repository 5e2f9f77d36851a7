"""What checks share: client folders of any rows, and what to ask them.

Simulations only. Rows, budgets and consent are the audit's own; configuration, noise
and catalogue are those of the run that is audited. Folders have fresh ledgers.
"""

from __future__ import annotations

import itertools
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import tomli_w

from common import wire
from common.config import Scalar, parse
from common.folders import CATALOGUE, INTERACTIONS, SETTINGS
from common.interactions import SCHEMA
from common.plan import planned_releases
from common.statistics import pack_directions, pack_items
from common.student import StateDict
from simulations.audits.conformance.asking import Answer, Client, Records, ask
from simulations.audits.world import World
from simulations.collecting import FEDERATION
from simulations.partition import CLIENTS, owners_settings

#: Items of one user; an item may stand there more than once.
Items = Sequence[int]

#: Items that a sum of pairs is asked for: their pairs are what it costs.
MOST_CHOSEN = 300
#: More than anything costs that a check asks for.
UNLIMITED = 1e9


@dataclass(frozen=True)
class Bench:
    """A run under audit, and room for client folders.

    Attributes:
        place: an empty folder.
        seed: of the clients' noise and of the audit's own draws; ``None`` for the
            operating system's.
    """

    world: World
    place: Path
    seed: int | None

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Message types that the run's plan announces."""
        return tuple(planned_releases(self.world.config, self.world.noise))

    @property
    def is_private(self) -> bool:
        """Whether anything is promised."""
        return self.world.config.privacy.mode != "off"

    @cached_property
    def rng(self) -> np.random.Generator:
        """The audit's own draws."""
        return np.random.default_rng(self.seed)

    @cached_property
    def _run_id(self) -> int:
        """One for all clients, so that messages differ in no length by it."""
        return secrets.randbits(62)

    @cached_property
    def _numbers(self) -> itertools.count[int]:
        return itertools.count()

    def client(
        self,
        rows: Sequence[Items],
        *,
        name: str = "0000",
        seed: int | None = None,
        budget: float = UNLIMITED,
        last_value: float = 1.0,
        **overrides: Scalar,
    ) -> Client:
        """A new client of these users.

        Args:
            name: of its folder; seeded noise differs by it.
            seed: of its noise; ``None`` for production's.
            budget: its owner's ε.
            last_value: of each interaction of the last user; 1 of the others'.
            overrides: of the run's config, with ``__`` for the dot and ``_`` for ``-``.
        """
        world = self.world
        changes = {_key(name): value for name, value in overrides.items()}
        flat = world.flat | changes
        home = self.place / f"{next(self._numbers):05d}" / CLIENTS
        folder = home / name
        folder.mkdir(parents=True)
        source = world.run / FEDERATION / CLIENTS / world.clients[0].name / CATALOGUE
        shutil.copy(source, folder / CATALOGUE)
        self.table(rows, last_value).write_parquet(folder / INTERACTIONS)
        settings = owners_settings(name, parse(flat), budget)
        if seed is not None:
            settings["seed"] = seed
        (folder / SETTINGS).write_text(tomli_w.dumps(settings))
        return Client(folder, flat, world.catalogue.digest, self._run_id)

    def nonce(self) -> str:
        """A server's nonce; the same ones again where there is a seed."""
        return self.rng.bytes(16).hex()

    def table(self, rows: Sequence[Items], last_value: float = 1.0) -> pl.DataFrame:
        """Users' items as a client stores them; the same users each time, in order."""
        names = self.world.catalogue.items.ids
        pairs = [(user, item) for user, own in enumerate(rows) for item in own]
        user = np.array([user for user, _ in pairs], dtype=np.int64)
        columns = {
            "user": [f"{user:032x}" for user, _ in pairs],
            "item": [names[item] for _, item in pairs],
            "value": np.where(user == len(rows) - 1, last_value, 1.0).astype(
                np.float32
            ),
            "timestamp": np.zeros(len(pairs), dtype=np.int64),
        }
        return pl.DataFrame(columns, schema=SCHEMA)

    @cached_property
    def real(self) -> list[list[int]]:
        """Rows of the first client's users."""
        rows = self.world.clients[0].histories
        return [rows[user].indices.tolist() for user in range(rows.shape[0])]

    @cached_property
    def chosen(self) -> npt.NDArray[np.bool_]:
        """The items that sums of pairs are asked for, evenly over the catalogue."""
        size = min(self.world.num_items, MOST_CHOSEN, self._most_items)
        places = np.linspace(0, self.world.num_items - 1, size).astype(int)
        found = np.zeros(self.world.num_items, dtype=bool)
        found[places] = True
        return found

    @property
    def _most_items(self) -> int:
        return self.world.config.statistics.most_items

    @cached_property
    def directions(self) -> npt.NDArray[np.float32]:
        """Directions of a sketch, normal numbers, float32 ``[m, q]``."""
        shape = (int(self.chosen.sum()), self.world.config.statistics.directions)
        return np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def question(
        self,
        kind: str,
        student: StateDict | None = None,
        directions: npt.NDArray[np.float32] | None = None,
    ) -> Records:
        """What a message of a kind holds; no soft labels, which touch no private row.

        Args:
            student: the transferred one unless given.
            directions: :attr:`directions` unless given.
        """
        if kind in (wire.STATISTICS, wire.SKETCH):
            found = {wire.ITEMS: pack_items(self.chosen)}
            if kind == wire.SKETCH:
                asked = self.directions if directions is None else directions
                found[wire.DIRECTIONS] = pack_directions(asked)
            return found
        return {wire.STUDENT: wire.pack_state(student or self.world.start)}

    def first(self, kind: str) -> int:
        """The first round in which the run asks for this kind."""
        return self.world.config.client_metrics.every if kind == wire.EVALUATE else 1

    def ask(
        self,
        client: Client,
        kind: str,
        records: Records | None = None,
        *,
        number: int = 0,
        nonce: str = "",
        acknowledged: str = "",
    ) -> Answer:
        """Ask a client as the run does.

        Args:
            records: :meth:`question` of the kind unless given.
            number: the first round that asks for this kind unless given.
            nonce: a fresh one unless given.
            acknowledged: the receipt of the answer before.
        """
        return ask(
            client,
            kind,
            self.question(kind) if records is None else records,
            number or self.first(kind),
            nonce or self.nonce(),
            acknowledged,
        )


def _key(name: str) -> str:
    """``privacy__sample_rate`` → ``privacy.sample-rate``."""
    return name.replace("__", ".").replace("_", "-")


def arrays(answer: Answer, kind: str) -> dict[str, npt.NDArray[np.float64]]:
    """All numbers of an answer, by name."""
    record = RECORDS[kind]
    return {name: answer.numbers(record, name) for name in NAMES[kind]}


#: Message type → the record that may leave, and its arrays: the audit's own list.
RECORDS = {
    wire.STATISTICS: "pairs",
    wire.SKETCH: "sketch",
    wire.TRAIN: "update",
    wire.EVALUATE: "metrics",
}
NAMES = {
    wire.STATISTICS: ("counts", "pairs"),
    wire.SKETCH: ("sketch",),
    wire.TRAIN: ("encoder.weight", "decoder.weight", "decoder.bias"),
    wire.EVALUATE: ("sums",),
}
