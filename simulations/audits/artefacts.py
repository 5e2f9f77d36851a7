"""What a deployment's run left behind, and what owners of clients say of it.

Simulations only: ground truth of several clients meets what the server kept. A run's
folder in a deployment holds no client; owners bring the truth of the canaries that
they planted (``client/canaries.py``) and, where they want to be attacked by somebody
who knows every other row, their own folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from client.canaries import Truth, read_truth, receipts_since
from client.data import read_client_data
from common import wire
from common.catalogue import SCHEMA, Catalogue, read_catalogue
from common.config import FlatConfig, defaults, parse, read_overrides
from common.errors import ConfigError
from common.folders import (
    CATALOGUE,
    CONFIG,
    METRICS,
    ROUNDS,
    STUDENT,
    STUDENT_TRANSFERRED,
)
from common.student import StateDict, load_student
from server.kept_answers import ANSWERS, read_receipts
from server.run_journal import holds_run, read_facts
from simulations.audits.scores import Targets, server_scores
from simulations.audits.transcript import students
from simulations.audits.world import ClientRows, World

Bool = npt.NDArray[np.bool_]
Float = npt.NDArray[np.float64]

#: Seconds that an owner's clock may be ahead of the server's.
CLOCKS = 300.0


@dataclass(frozen=True)
class Owner:
    """One client's canaries, and what is known of its other rows.

    Attributes:
        known: the client's users but for the canaries; none where nobody told.
        receipts: of what the client answered while they were in; empty if unknown.
    """

    truth: Truth
    known: sp.csr_matrix
    receipts: frozenset[str]

    @property
    def present(self) -> sp.csr_matrix:
        """The canaries' rows, CSR ``[m, n]``."""
        items = [each.items for each in self.truth.canaries]
        user = np.repeat(np.arange(len(items)), [len(each) for each in items])
        ones = np.ones(len(user), dtype=np.float32)
        shape = (len(items), self.truth.num_items)
        return sp.csr_matrix((ones, (user, np.concatenate(items))), shape=shape)

    @property
    def included(self) -> Bool:
        """Who was in, bool ``[m]``."""
        return np.array([each.included for each in self.truth.canaries])


@dataclass(frozen=True)
class Artefacts:
    """A run's released numbers, and its owners.

    Attributes:
        world: the run; without clients.
        owners: those who planted canaries.
    """

    world: World
    owners: tuple[Owner, ...]

    @property
    def answers(self) -> Path:
        """The folder of kept answers."""
        return self.world.run / ANSWERS

    @cached_property
    def receipts(self) -> dict[str, frozenset[str]]:
        """The kept answers' receipts, by node; empty where none were kept."""
        return read_receipts(self.answers)

    @cached_property
    def placed(self) -> World:
        """The world with a client an owner, under the name of its node."""
        clients = tuple(
            ClientRows(self._node(owner), (), owner.known) for owner in self.owners
        )
        return replace(self.world, clients=clients)

    @cached_property
    def targets(self) -> Targets:
        """All owners' canaries, one after another."""
        return _targets(self.owners)

    @cached_property
    def included(self) -> Bool:
        """Who was in, bool ``[m]``."""
        return np.concatenate([each.included for each in self.owners])

    @cached_property
    def designs(self) -> npt.NDArray[np.str_]:
        """The design of each canary, ``[m]``."""
        return np.repeat(
            [each.truth.design for each in self.owners],
            [len(each.truth.canaries) for each in self.owners],
        )

    @cached_property
    def sent(self) -> list[StateDict]:
        """Students that clients were sent after the first, as far as they were kept."""
        if self.receipts:
            return students(self.answers)[1:]
        kept = sorted((self.world.run / ROUNDS).glob("*.safetensors"))
        return [dict(load_student(path).state_dict()) for path in kept]

    def _node(self, owner: Owner) -> str:
        """Whose answers the owner's are: by receipts or, failing that, by looks."""
        if not self.receipts:
            return ""
        nodes = [n for n, each in self.receipts.items() if each & owner.receipts]
        if owner.receipts and len(nodes) != 1:
            raise ConfigError(
                f"Expected the kept answers of client {owner.truth.client} under one "
                f"node, found {len(nodes)}: did it take part in this run with the "
                "canaries in, and are these its truth and its folder?"
            )
        if nodes:
            return nodes[0]
        return max(self.receipts, key=lambda node: self._spread(owner, node))

    def _spread(self, owner: Owner, node: str) -> float:
        """Statistics of canaries lie further apart where they may be in.

        Nothing but released numbers chooses, so that a bound holds whoever is chosen.
        """
        alone = replace(self.world, clients=(ClientRows(node, (), owner.known),))
        return float(server_scores(alone, self.answers, _targets([owner])).std())


def _targets(owners: Sequence[Owner]) -> Targets:
    sizes = [len(each.truth.canaries) for each in owners]
    present = sp.vstack([each.present for each in owners], format="csr")
    return Targets(
        np.repeat(np.arange(len(sizes)), sizes),
        present,
        sp.csr_matrix(present.shape, dtype=np.float32),
        tuple(each.known for each in owners),
    )


def read_artefacts(
    run: Path, truths: Sequence[Path] = (), rows: Sequence[Path] = ()
) -> Artefacts:
    """Read a run's folder, and what owners brought.

    Args:
        run: as a server left it, or a simulation.
        truths: files of ``canaries plant``, one a client.
        rows: folders of some of these clients.

    Raises:
        ConfigError: if the folder is no finished run, or the files do not fit it.
        DataFormatError: if a file is damaged.
    """
    world = _read_run(run)
    found = [(path, read_truth(path)) for path in truths]
    folders = {path.resolve().name: path for path in rows}
    if len(folders) < len(rows):
        raise ConfigError("--rows: expected clients' folders of different names.")
    for path, truth in found:
        _check(world, path, truth)
    names = [truth.client for _, truth in found]
    if len(set(names)) < len(names):
        raise ConfigError("--truth: expected one file a client, got several of one.")
    if strangers := sorted(set(folders) - set(names)):
        raise ConfigError(
            f"--rows: expected folders of clients whose --truth is given, got "
            f"{', '.join(strangers)} as well."
        )
    owners = tuple(_owner(truth, folders.get(truth.client)) for _, truth in found)
    return Artefacts(world, owners)


def _read_run(run: Path) -> World:
    for name in (STUDENT, STUDENT_TRANSFERRED):
        if not (run / name).is_file():
            raise ConfigError(
                f"{run}: expected a finished run, found no {name}; audit a folder that "
                "`tutela simulate --out` or a deployment's server wrote."
            )
    final = load_student(run / STUDENT)
    return World(
        run,
        parse(defaults() | _config_of(run)),
        _catalogue_of(run, final.spec.num_items),
        (),
        final.spec,
        dict(load_student(run / STUDENT_TRANSFERRED).state_dict()),
        dict(final.state_dict()),
    )


def _config_of(run: Path) -> FlatConfig:
    """A simulation's file; a server keeps the same in its journal."""
    if (run / CONFIG).is_file():
        return read_overrides(run / CONFIG)
    if holds_run(run):
        return read_facts(run).config
    raise ConfigError(
        f"{run}: expected the run's configuration in {CONFIG} or its journal, found "
        "neither; audit the whole folder that the server wrote."
    )


def _catalogue_of(run: Path, num_items: int) -> Catalogue:
    """The run's, or where it has none, one that knows items by their places."""
    if (run / CATALOGUE).is_file():
        return read_catalogue(run / CATALOGUE)
    names = [str(place) for place in range(num_items)]
    columns = {"item": names, "title": names, "year": 0, "categories": [[]] * num_items}
    return Catalogue(pl.DataFrame(columns, schema=SCHEMA))


def _check(world: World, path: Path, truth: Truth) -> None:
    kept = world.run / CATALOGUE
    other = kept.is_file() and world.catalogue.digest != truth.catalogue
    if truth.num_items != world.num_items or other:
        raise ConfigError(
            f"{path}: expected canaries over the run's catalogue of {world.num_items} "
            f"items, got some over another of {truth.num_items}."
        )
    begun = _begun(world.run)
    planted = datetime.fromisoformat(truth.planted).timestamp()
    if begun is not None and planted > begun + CLOCKS:
        raise ConfigError(
            f"{path}: expected canaries that were planted before the run began, at "
            f"{datetime.fromtimestamp(begun, UTC):%Y-%m-%d %H:%M} UTC, got some of "
            f"{truth.planted}: they were in another run, or in none."
        )


def _begun(run: Path) -> float | None:
    """When the run's record begins, in Unix seconds, if it has any."""
    try:
        with (run / METRICS).open(encoding="utf-8") as lines:
            return float(json.loads(lines.readline())["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _owner(truth: Truth, folder: Path | None) -> Owner:
    if folder is None:
        nobody = sp.csr_matrix((0, truth.num_items), dtype=np.float32)
        return Owner(truth, nobody, frozenset(truth.receipts))
    data = read_client_data(folder)
    if data.catalogue.digest != truth.catalogue:
        raise ConfigError(
            f"{folder}: expected the catalogue that canaries were planted over, got "
            "another."
        )
    theirs = {each.user for each in truth.canaries}
    stay = [place for place, user in enumerate(data.users.ids) if user not in theirs]
    receipts = frozenset(receipts_since(folder, truth)) - {wire.NO_RECEIPT}
    return Owner(truth, data.histories[stay], receipts)
