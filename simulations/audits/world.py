"""A finished run's federation, read back, and variations of it written anew.

Simulations only. A run that is over cannot be given canaries: an audit runs the run's
own configuration again, over the run's own client folders with rows added or left out.
The apps read such folders as any other, and cannot tell an audit from life.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp

from client.data import read_client_data
from common.catalogue import Catalogue, read_catalogue
from common.config import (
    FlatConfig,
    RunConfig,
    defaults,
    parse,
    read_overrides,
    to_flat,
)
from common.errors import ConfigError
from common.events import DpEvent
from common.folders import CATALOGUE, CONFIG, INTERACTIONS, STUDENT, STUDENT_TRANSFERRED
from common.interactions import SCHEMA, encode_table, read_table
from common.plan import noise_multiplier, planned_events, total_statistics_noise
from common.student import StateDict, StudentSpec, load_student
from server.kept_answers import ANSWERS
from simulations.collecting import FEDERATION
from simulations.engine import Job, run_in_process
from simulations.evaluation import public_rows
from simulations.partition import CLIENTS, HELDOUT, SERVER, write_settings

#: Hexadecimal digits of a stored user id.
_DIGITS = 32


@dataclass(frozen=True)
class ClientRows:
    """One client's users: pseudonyms, and multi-hot rows, CSR ``[users, n]``."""

    name: str
    users: tuple[str, ...]
    histories: sp.csr_matrix

    def where(self, keep: Sequence[int]) -> ClientRows:
        """Only these rows."""
        users = tuple(self.users[place] for place in keep)
        return ClientRows(self.name, users, self.histories[list(keep)])

    def beside(self, users: Sequence[str], histories: sp.csr_matrix) -> ClientRows:
        """With further users."""
        rows = sp.vstack([self.histories, histories], format="csr")
        return ClientRows(self.name, (*self.users, *users), rows)


@dataclass(frozen=True)
class World:
    """A run that is audited, and everybody in it: ground truth.

    Attributes:
        run: its folder.
        config: as the run had it.
        clients: in the order of their folders.
        start: the student as transferred from public data alone.
        final: the student that the run released.
    """

    run: Path
    config: RunConfig
    catalogue: Catalogue
    clients: tuple[ClientRows, ...]
    spec: StudentSpec
    start: StateDict
    final: StateDict

    @property
    def server(self) -> Path:
        """The server's folder of public data."""
        return self.run / FEDERATION / SERVER

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return self.catalogue.num_items

    @cached_property
    def noise(self) -> float:
        """Noise multiplier of training; 0 in mode off."""
        return noise_multiplier(self.config)

    @cached_property
    def events(self) -> tuple[DpEvent, ...]:
        """All that the run releases of a client."""
        return planned_events(self.config, self.noise)

    @cached_property
    def outsiders(self) -> sp.csr_matrix:
        """Users at no client, CSR: the held-out ones, and the public that teaches."""
        path = self.run / FEDERATION / HELDOUT / INTERACTIONS
        table = read_table(path).select(SCHEMA.names())
        heldout = encode_table(table, self.catalogue.items).interactions.matrix()
        public = public_rows(self.run / FEDERATION, self.catalogue)
        return sp.vstack([heldout, public], format="csr")

    @cached_property
    def flat(self) -> FlatConfig:
        """The run's config with its noise calibrated, once for all variations."""
        return to_flat(self.config) | {
            "privacy.noise-multiplier": self.noise,
            "statistics.noise-multiplier": total_statistics_noise(self.config),
            "run.resume": False,
        }


def read_world(run: Path) -> World:
    """Read a simulated run.

    Raises:
        ConfigError: if the folder is no finished run of a simulation.
    """
    for name in (CONFIG, CATALOGUE, STUDENT, STUDENT_TRANSFERRED):
        if not (run / name).is_file():
            raise ConfigError(
                f"{run}: expected a finished run, found no {name}; audit a folder "
                "that `tutela simulate --out` wrote."
            )
    clients = run / FEDERATION / CLIENTS
    if not clients.is_dir():
        raise ConfigError(
            f"{run}: expected the run's {FEDERATION} folder with its clients: canaries "
            "are rows of client folders, which only a simulated run holds."
        )
    found = [path for path in sorted(clients.iterdir()) if path.is_dir()]
    final = load_student(run / STUDENT)
    return World(
        run,
        parse(defaults() | read_overrides(run / CONFIG)),
        read_catalogue(run / CATALOGUE),
        tuple(_read_client(path) for path in found),
        final.spec,
        dict(load_student(run / STUDENT_TRANSFERRED).state_dict()),
        dict(final.state_dict()),
    )


def _read_client(folder: Path) -> ClientRows:
    data = read_client_data(folder)
    return ClientRows(folder.name, data.users.ids, data.histories)


def new_pseudonyms(count: int) -> tuple[str, ...]:
    """Ids as a client stores them, of users that nobody knows."""
    return tuple(secrets.token_hex(_DIGITS // 2) for _ in range(count))


def write_clients(
    world: World, clients: Sequence[ClientRows], folder: Path, seed: int | None
) -> Path:
    """Client folders with these rows, fresh ledgers, and consent to the run.

    Args:
        seed: of the clients' noise; ``None`` for the operating system's.
    """
    config = parse(to_flat(world.config) | {"run.seed": -1 if seed is None else seed})
    source = world.run / FEDERATION / CLIENTS
    for client in clients:
        place = folder / CLIENTS / client.name
        place.mkdir(parents=True)
        shutil.copy(source / client.name / CATALOGUE, place / CATALOGUE)
        _table(world, client).write_parquet(place / INTERACTIONS)
        write_settings(place, config)
    return folder / CLIENTS


def _table(world: World, client: ClientRows) -> pl.DataFrame:
    """The rows as a client stores them; the apps read who touched what alone."""
    user, item = client.histories.nonzero()
    users, items = np.asarray(client.users), np.asarray(world.catalogue.items.ids)
    columns = {
        "user": users[user] if len(user) else [],
        "item": items[item] if len(item) else [],
        "value": np.ones(len(user), dtype=np.float32),
        "timestamp": np.zeros(len(user), dtype=np.int64),
    }
    return pl.DataFrame(columns, schema=SCHEMA)


def rerun(
    world: World, clients: Path, out: Path, recording: Path, seed: int | None
) -> None:
    """Run the run's configuration over other client folders, and record its messages.

    Args:
        clients: of :func:`write_clients`.
        out: where the server writes.
        recording: a folder for the messages (``transcript.py``).

    Raises:
        ConfigError: if a client did not answer: there is nothing to attack.
    """
    from client.app import app as client
    from server.app import app as server
    from simulations.audits.transcript import Recording

    app = Recording(client, recording)
    # What clients' masked vectors add up to is only seen where it is unmasked.
    summed = world.config.privacy.mode == "distributed"
    job = Job(
        run_id=secrets.randbits(62),
        config=world.flat
        | {"run.seed": -1 if seed is None else seed, "run.keep-answers": summed},
        num_clients=len(world.clients),
        clients=clients,
        public=world.server,
        out=out,
    )
    run_in_process(server, app, job)
    if app.failures:
        raise ConfigError(
            f"The audit's run expected every client to answer; {app.failures} answers "
            "are errors. Does the run itself go through?"
        )
    if summed:
        for kept in (out / ANSWERS).iterdir():
            shutil.move(kept, recording / kept.name)
