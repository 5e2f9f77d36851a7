"""Deal users out: public, private in client folders, held out.

Simulations only: it sees everyone at once. The folders it writes are what a real
client and a real server read. Vocabulary, catalogue and counts come from the public
set or the declared catalogue; private rows decide none of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import tomli_w

from client.importing import write_rows
from common.accounting import LEAST_NOISE
from common.catalogue import Catalogue, write_catalogue
from common.config import RunConfig
from common.errors import ConfigError
from common.folders import CATALOGUE, INTERACTIONS, SETTINGS, SOURCE, VALIDATION
from common.integer_noise import unit_of
from simulations.datasets import Dataset

CLIENTS, SERVER, HELDOUT = "clients", "server", "heldout"
WITNESSES = "witnesses"


@dataclass(frozen=True)
class Split:
    """A federation's data before it is written.

    Attributes:
        public: teaching users' rows. ``validation`` and ``heldout`` have a further
            column ``held``: false where the item is shown, true where it is to find.
        clients: private rows, a table a client.
        notes: what was left out and why, counted.
        users: attributes of the private set's users, where it has any.
        source: the public set where it is of another domain, whole.
    """

    catalogue: Catalogue
    public: pl.DataFrame
    validation: pl.DataFrame
    heldout: pl.DataFrame
    clients: tuple[pl.DataFrame, ...]
    notes: tuple[str, ...] = field(default=())
    users: pl.DataFrame | None = None
    source: Dataset | None = None


def split(public: Dataset, private: Dataset, config: RunConfig) -> Split:
    """Deal the users of one or two data sets out, by ``partition.seed`` alone.

    Raises:
        ConfigError: if there are fewer users than the partition asks for.
    """
    settings = config.partition
    rng = np.random.default_rng(settings.seed)
    catalogue = private.catalogue
    notes: tuple[str, ...] = ()
    users = _shuffled_users(private.interactions, rng)
    heldout, users = _take(users, settings.heldout_users, "heldout-users")
    across = config.transfer.method == "across"
    if config.data.public == config.data.private or across:
        public_rows = private.interactions
        public_users, users = _take(users, settings.public_users, "public-users")
    else:
        public_rows, notes = translate(public, catalogue)
        public_users = _shuffled_users(public_rows, rng)
    if len(users) < settings.num_clients:
        raise ConfigError(
            f"partition.num-clients: expected at most {len(users)}, the private "
            f"users left, got {settings.num_clients}."
        )
    validation, teaching = _take(
        public_users, settings.validation_users, "validation-users"
    )
    users, owner = _dealt(users, private, config, rng)
    rows = private.interactions
    return Split(
        catalogue,
        _of(public_rows, teaching),
        fold(_of(public_rows, validation), settings.fold_in, rng),
        fold(_of(rows, heldout), settings.fold_in, rng),
        _rows_of_clients(rows, users, owner, settings.num_clients),
        notes,
        private.users,
        public if across else None,
    )


def translate(
    public: Dataset, catalogue: Catalogue
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Rows of another catalogue under ours, by exact title; the rest is counted."""
    ours = catalogue.table.select("title", pl.col("item").alias("ours"))
    names = public.catalogue.table.select("item", "title").join(
        ours.filter(pl.col("title") != "").unique(
            "title", keep="first", maintain_order=True
        ),
        on="title",
    )
    joined = public.interactions.join(
        names.select("item", "ours"), on="item", how="left", maintain_order="left"
    )
    found = joined.filter(pl.col("ours").is_not_null())
    table = found.select("user", pl.col("ours").alias("item"), "value", "timestamp")
    unique = table.unique(["user", "item"], keep="first", maintain_order=True)
    note = (
        f"{public.name}: {joined.height - found.height} of {joined.height} public "
        "rows are on titles outside the declared catalogue, "
        f"{table.height - unique.height} on a title listed twice; both left out."
    )
    return unique, (note,)


def fold(
    table: pl.DataFrame, fraction: float, rng: np.random.Generator
) -> pl.DataFrame:
    """Hold out a random ``1 − fraction`` of each user's items, at least one.

    A user with a single item keeps it shown, and has nothing to find.
    """
    shuffled = table[rng.permutation(table.height)] if table.height else table
    rank = pl.int_range(pl.len()).over("user")
    count = pl.len().over("user")
    shown = (count * fraction).round().cast(pl.Int64)
    shown = pl.min_horizontal(shown, count - 1).clip(lower_bound=1)
    return shuffled.with_columns((rank >= shown).alias("held"))


def _dealt(
    users: npt.NDArray[np.str_],
    private: Dataset,
    config: RunConfig,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.int64]]:
    """The users that clients have, and whose each is."""
    if config.partition.scheme == "users":
        # Already in a random order; who is left over takes no part.
        users = users[: config.partition.num_clients]
    return users, SCHEMES[config.partition.scheme](users, private, config, rng)


def _rows_of_clients(
    rows: pl.DataFrame,
    users: npt.NDArray[np.str_],
    owner: npt.NDArray[np.int64],
    num_clients: int,
) -> tuple[pl.DataFrame, ...]:
    """Each client's rows, in the data set's order; thousands of clients in one pass."""
    owners = pl.DataFrame({"user": users.tolist(), "owner": owner})
    owned = rows.join(owners, on="user", how="inner", maintain_order="left")
    parts = owned.partition_by("owner", as_dict=True, include_key=False)
    return tuple(parts.get((k,), rows.clear()) for k in range(num_clients))


def _iid(
    users: npt.NDArray[np.str_],
    private: Dataset,
    config: RunConfig,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Equal shares of the shuffled users."""
    return np.arange(len(users)) % config.partition.num_clients


def _by_attribute(
    users: npt.NDArray[np.str_],
    private: Dataset,
    config: RunConfig,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Users who share the attribute go to one client; values dealt by size."""
    values = _attribute(users, private, config.partition.attribute)
    names, counts = np.unique(values, return_counts=True)
    sizes = np.zeros(config.partition.num_clients, dtype=np.int64)
    client = {}
    for index in np.argsort(-counts, kind="stable"):
        client[names[index]] = int(sizes.argmin())
        sizes[client[names[index]]] += counts[index]
    if (sizes == 0).any():
        raise ConfigError(
            f"partition.attribute: expected at least {len(sizes)} values of "
            f"{config.partition.attribute!r}, one a client, got {len(names)}."
        )
    return np.asarray([client[value] for value in values], dtype=np.int64)


def _dirichlet(
    users: npt.NDArray[np.str_],
    private: Dataset,
    config: RunConfig,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Users grouped by favourite category, shares drawn from a Dirichlet law.

    Hsu, Qi, Brown 2019 (arXiv 1909.06335), with the category as the label.
    """
    num_clients = config.partition.num_clients
    labels = _favourite(users, private)
    owner = np.zeros(len(users), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        share = rng.dirichlet(np.full(num_clients, config.partition.concentration))
        owner[members] = rng.choice(num_clients, size=len(members), p=share)
    for empty in set(range(num_clients)) - set(owner.tolist()):
        owner[np.argmax(np.bincount(owner, minlength=num_clients)[owner])] = empty
    return owner


def _one_each(
    users: npt.NDArray[np.str_],
    private: Dataset,
    config: RunConfig,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """A client is a user's own device."""
    if config.privacy.declared_users != 1:
        raise ConfigError(
            "privacy.declared-users: expected 1 where partition.scheme is 'users', "
            f"got {config.privacy.declared_users}."
        )
    return np.arange(len(users))


SCHEMES: dict[
    str,
    Callable[
        [npt.NDArray[np.str_], Dataset, RunConfig, np.random.Generator],
        npt.NDArray[np.int64],
    ],
] = {
    "iid": _iid,
    "attribute": _by_attribute,
    "dirichlet": _dirichlet,
    "users": _one_each,
}


def _attribute(
    users: npt.NDArray[np.str_], private: Dataset, name: str
) -> npt.NDArray[np.str_]:
    known = [] if private.users is None else private.users.columns[1:]
    if private.users is None or name not in known:
        raise ConfigError(
            f"partition.attribute: expected one of {known or 'none'} "
            f"({private.name}'s user attributes), got {name!r}."
        )
    table = dict(private.users.select("user", name).iter_rows())
    return np.asarray([str(table.get(user, "")) for user in users.tolist()])


def _favourite(users: npt.NDArray[np.str_], private: Dataset) -> npt.NDArray[np.str_]:
    categories = private.catalogue.table.select("item", "categories")
    counted = (
        private.interactions.join(categories, on="item")
        .explode("categories")
        .drop_nulls("categories")
        .group_by("user", "categories")
        .len()
        .sort(["len", "categories"], descending=[True, False])
        .unique("user", keep="first", maintain_order=True)
    )
    table = dict(counted.select("user", "categories").iter_rows())
    return np.asarray([table.get(user, "") for user in users.tolist()])


def _shuffled_users(
    table: pl.DataFrame, rng: np.random.Generator
) -> npt.NDArray[np.str_]:
    users = table["user"].unique(maintain_order=True).to_numpy().astype(np.str_)
    shuffled: npt.NDArray[np.str_] = rng.permutation(users)
    return shuffled


def _take(
    users: npt.NDArray[np.str_], count: int, key: str
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]]:
    if count >= len(users):
        raise ConfigError(
            f"partition.{key}: expected fewer than {len(users)}, the users left, "
            f"got {count}."
        )
    return users[:count], users[count:]


def _of(table: pl.DataFrame, users: npt.NDArray[np.str_]) -> pl.DataFrame:
    return table.filter(pl.col("user").is_in(users.tolist()))


def write_federation(split: Split, folder: Path, config: RunConfig) -> None:
    """Write the server's, the clients' and the held-out folder.

    Clients import their rows as a real one would, user ids hashed under a key of
    their own, and get settings that allow this run.
    """
    server = folder / SERVER
    server.mkdir(parents=True, exist_ok=True)
    write_catalogue(split.catalogue, server / CATALOGUE)
    split.public.write_parquet(server / INTERACTIONS)
    split.validation.write_parquet(server / VALIDATION)
    if split.source is not None:
        (server / SOURCE).mkdir(exist_ok=True)
        write_catalogue(split.source.catalogue, server / SOURCE / CATALOGUE)
        split.source.interactions.write_parquet(server / SOURCE / INTERACTIONS)
    heldout = folder / HELDOUT
    heldout.mkdir(exist_ok=True)
    split.heldout.write_parquet(heldout / INTERACTIONS)
    for index, table in enumerate(split.clients):
        client = folder / CLIENTS / f"{index:04d}"
        client.mkdir(parents=True, exist_ok=True)
        write_catalogue(split.catalogue, client / CATALOGUE)
        write_rows(client, table)
        write_settings(client, config)


def write_settings(client: Path, config: RunConfig) -> None:
    """What lets a simulated client take part in this run, whatever it costs."""
    privacy = config.privacy
    # With fixed noise, whatever ε it costs is what the simulation wants shown.
    fixed = privacy.noise_multiplier or config.statistics.noise_multiplier
    target = 1e9 if fixed else privacy.target_epsilon
    settings = owners_settings(client.name, config, target)
    if config.run.seed >= 0:
        settings["seed"] = config.run.seed
    (client / SETTINGS).write_text(tomli_w.dumps(settings))


def owners_settings(name: str, config: RunConfig, target: float) -> dict[str, Any]:
    """What an owner would write by hand to take part in this run.

    Args:
        name: of the client's folder.
        target: the budget's ε, metrics included where the run has any.
    """
    privacy = config.privacy
    unit = unit_of(config) if privacy.mode == "distributed" else "user"
    settings: dict[str, Any] = {
        "runs": [config.run.name],
        "allow-non-private": privacy.mode == "off",
        # Beside the clients, so that it goes when the federation goes.
        "witness": f"../../{WITNESSES}/{name}.json",
        "budget": {
            unit: {
                "target-epsilon": target,
                "delta": privacy.delta,
                "metrics-epsilon": target if config.client_metrics.every else 0.0,
            }
        },
    }
    if privacy.mode == "distributed":
        settings["distributed"] = {
            "roster": config.secagg.roster,
            "most-clients": config.secagg.clients,
            "least-threshold": config.secagg.threshold,
            "least-corrupt": config.secagg.corrupt,
        }
    given = (privacy.noise_multiplier, config.statistics.noise_multiplier)
    least = min((noise for noise in given if noise), default=LEAST_NOISE)
    if least < LEAST_NOISE:
        settings["least-noise-multiplier"] = least
    return settings


def copy_clients(clients: Path, folder: Path, config: RunConfig) -> Path:
    """The same rows in another world: fresh ledgers, and settings for this run.

    Arms of an experiment are alternatives, not successive releases: each has its own
    clients, as if the others had never been.

    Returns:
        The folder of the copied client folders.
    """
    for source in sorted(path for path in clients.iterdir() if path.is_dir()):
        client = folder / CLIENTS / source.name
        client.mkdir(parents=True)
        for name in (CATALOGUE, INTERACTIONS):
            shutil.copy(source / name, client / name)
        write_settings(client, config)
    return folder / CLIENTS
