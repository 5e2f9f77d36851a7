"""Where the server finds its public data and writes what it learns.

Paths are the operator's own settings, not the run's: the node's configuration, then
the environment, then the user's data folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from flwr.app import Context
from platformdirs import user_data_path

from common.catalogue import Catalogue, read_catalogue
from common.errors import ConfigError
from common.folders import CATALOGUE, INTERACTIONS, SOURCE, VALIDATION
from common.interactions import encode_held, encode_table, read_table


@dataclass(frozen=True)
class ServerFolders:
    """Where the server's things are.

    Attributes:
        public: public data.
        out: this run's results.
        state: what outlives a run: the server's key, the clients' last receipts.
    """

    public: Path
    out: Path
    state: Path


@dataclass(frozen=True)
class SourceData:
    """Public data of another domain, whose items are not the clients'.

    Attributes:
        ordered: users' interactions with each item's place in time, CSR int32.
    """

    catalogue: Catalogue
    ordered: sp.csr_matrix

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which items were touched, bool ``[n]``."""
        return np.asarray((self.ordered > 0).sum(axis=0)).ravel() > 0


@dataclass(frozen=True)
class PublicData:
    """All the server knows before a client answers.

    Attributes:
        teaching: public users' interactions, CSR ``[users, items]``.
        ordered: the same with each item's place in time, int32 from 1.
        shown, held: validation users' items, 80 % shown and the rest held, CSR.
        source: what a teacher from another domain learns from, if one does.
    """

    catalogue: Catalogue
    teaching: sp.csr_matrix
    ordered: sp.csr_matrix
    shown: sp.csr_matrix
    held: sp.csr_matrix
    source: SourceData | None = None

    @property
    def popularity(self) -> npt.NDArray[np.float32]:
        """Public users who touched each item, float32 ``[n]``."""
        return np.asarray(self.teaching.sum(axis=0), dtype=np.float32).ravel()

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which items the public users touched, bool ``[n]``."""
        return np.asarray(self.teaching.sum(axis=0)).ravel() > 0


def locate(context: Context) -> ServerFolders:
    """The folders of this run.

    Raises:
        ConfigError: if the run's folder goes by its name, and that is no folder's.
    """
    home = user_data_path("tutela")
    public = context.node_config.get("public") or os.environ.get("TUTELA_PUBLIC")
    out = context.node_config.get("out") or os.environ.get("TUTELA_OUT")
    state = context.node_config.get("state")
    return ServerFolders(
        Path(str(public)) if public else home / "federation" / "server",
        Path(str(out)) if out else _run_folder(context),
        Path(str(state)) if state else state_folder(),
    )


def _run_folder(context: Context) -> Path:
    """By the run's name where the environment says where runs are, else by its id.

    A resumed run is another of Flower's runs, and finds its folder by the name alone.
    """
    runs = os.environ.get("TUTELA_RUNS")
    if not runs:
        return user_data_path("tutela") / "runs" / str(context.run_id)
    name = str(context.run_config.get("run.name", ""))
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise ConfigError(
            f"run.name: expected a name that a folder can have, got {name!r}."
        )
    return Path(runs) / name


def state_folder() -> Path:
    """What outlives a run, unless the node's configuration says otherwise."""
    named = os.environ.get("TUTELA_STATE")
    return Path(named) if named else user_data_path("tutela") / "server"


def read_public_data(folder: Path) -> PublicData:
    """Read the server's folder.

    Raises:
        ConfigError: if the folder has no interactions.
        DataFormatError: if its files do not fit together.
    """
    path = folder / INTERACTIONS
    if not path.is_file():
        raise ConfigError(
            f"Expected public interactions at {path}, found no file. Write a "
            "federation with `tutela partition`, or name a folder in TUTELA_PUBLIC."
        )
    catalogue = read_catalogue(folder / CATALOGUE)
    teaching = encode_table(read_table(path), catalogue.items)
    shown, held = encode_held(read_table(folder / VALIDATION), catalogue.items)
    rows = teaching.interactions
    source = folder / SOURCE
    return PublicData(
        catalogue,
        rows.matrix(),
        rows.ordered(),
        shown,
        held,
        _read_source(source) if source.is_dir() else None,
    )


def _read_source(folder: Path) -> SourceData:
    catalogue = read_catalogue(folder / CATALOGUE)
    rows = encode_table(read_table(folder / INTERACTIONS), catalogue.items)
    return SourceData(catalogue, rows.interactions.ordered())
