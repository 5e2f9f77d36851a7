"""The client's own settings: its folder, its budgets, its consent.

Client only. None of this comes from the server, which can ask for less noise and
gets a refusal. ``settings.toml`` in the client's folder says it, and the node's
configuration may say otherwise, key by key. The folder is named by the node's
configuration, else by the environment (many simulated clients on one machine), else
it is in the user's data folder.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from flwr.app import Context
from platformdirs import user_data_path
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
)

from client.witness import default_place
from common.accounting import LEAST_NOISE
from common.errors import ConfigError
from common.events import Unit
from common.folders import SETTINGS

#: In ``runs``: any run.
ANY = "*"


def _names(value: object) -> object:
    """A node's configuration has no lists: names with commas between them."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Epsilon = Annotated[float, Field(ge=0, allow_inf_nan=False)]
#: Where a store's key may be, see ``store_key.py``.
STORE_KEY = r"^(|file:.+|env:[A-Za-z_][A-Za-z0-9_]*|keyring)$"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Table(BaseModel):
    """A table of the settings: frozen, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
    )


class Budget(Table):
    """What this folder's rows may cost in all their life, for one privacy unit.

    Attributes:
        target_epsilon: the most that all releases together may cost, at ``delta``.
        metrics_epsilon: the most that releases of metrics may cost among them; 0
            allows none.
    """

    target_epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 8.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    metrics_epsilon: Epsilon = 0.0


class Distributed(Table):
    """What a run in mode ``distributed`` may assume of others, at most.

    Attributes:
        roster: whether the others' keys must be on the roster in the folder. Without
            one, whoever sends the messages may be all the others as well.
        most_clients: the more share the noise, the less of it each adds.
        least_threshold: share of them that has to finish.
        least_corrupt: share of them that may be in league with the server.
    """

    most_clients: Annotated[int, Field(ge=3)]
    roster: StrictBool = True
    least_threshold: Annotated[float, Field(gt=0.5, le=1)] = 2 / 3
    least_corrupt: Annotated[float, Field(ge=0, lt=0.5)] = 0.1


class ClientSettings(Table):
    """What ``settings.toml`` in a client's folder may say.

    Attributes:
        runs: names of the runs that may train here; ``*`` is any.
        servers: public keys whose signed runs may train here.
        bundles: SHA-256 of the code bundles that this client's node may run; it runs
            none where this is empty. A simulation ships no bundle and asks nothing.
        budget: by privacy unit; a release in another unit is refused.
        least_noise_multiplier: less noise than this is refused whatever it costs.
        allow_non_private: whether mode ``off`` may train on this folder's rows.
        distributed: whom the owner trusts in mode ``distributed``; without this table
            that mode is refused.
        witness: the file that remembers how far the ledger is, in another place
            than the folder; a relative path starts from the folder.
        store_key: where the key is that seals feedback and personal parameters:
            ``file:PATH`` (a relative one starts from the folder), ``env:NAME`` or
            ``keyring``; empty for none. In the file alone, never the node's
            configuration: whoever opens the store must find the same key.
        seed: noise and sampling from a seed, for simulations only; without it the
            operating system's randomness is used.
    """

    runs: Names = ()
    servers: Names = ()
    bundles: Annotated[tuple[Sha256, ...], BeforeValidator(_names)] = ()
    budget: dict[Unit, Budget] = {"user": Budget()}
    least_noise_multiplier: Annotated[float, Field(gt=0)] = LEAST_NOISE
    allow_non_private: StrictBool = False
    distributed: Distributed | None = None
    witness: str = ""
    store_key: Annotated[str, Field(pattern=STORE_KEY)] = ""
    seed: Annotated[int, Field(ge=0)] | None = None


def locate(context: Context) -> Path:
    """The client's folder."""
    named = context.node_config.get("folder")
    if named:
        return Path(str(named))
    several = os.environ.get("TUTELA_CLIENTS")
    home = Path(several) if several else user_data_path("tutela") / "federation/clients"
    return home / f"{int(context.node_config.get('partition-id', 0)):04d}"


def witness_place(folder: Path, settings: ClientSettings) -> Path:
    """Where the ledger's witness lies."""
    return folder / settings.witness if settings.witness else default_place(folder)


def read_settings(
    folder: Path, node_config: Mapping[str, Any] | None = None
) -> ClientSettings:
    """Settings of a folder, cautious where it says nothing.

    Args:
        node_config: flat; its known keys (``budget.user.target-epsilon``, ``runs``
            with commas, …) go before those of the file. Others may be another
            app's, unless they are one of ours misspelt.

    Raises:
        ConfigError: naming the key at fault.
    """
    path = folder / SETTINGS
    try:
        tree = tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{SETTINGS}: expected TOML: {error}") from None
    for key, value in (node_config or {}).items():
        first = key.partition(".")[0]
        if first == "store-key":
            raise ConfigError(f"store-key: expected in {SETTINGS}, not at the node.")
        if first in _KEYS:
            _put(tree, key.split("."), value)
        elif first.lower().replace("_", "-") in _KEYS:
            raise ConfigError(f"The node's configuration: {key}: unknown key.")
    try:
        return ClientSettings.model_validate(tree)
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise ConfigError(f"{SETTINGS}: expected other values for: {keys}.") from None


_KEYS = frozenset(str(each.alias) for each in ClientSettings.model_fields.values())


def _put(tree: dict[str, Any], keys: list[str], value: object) -> None:
    """Set a dotted key in nested tables."""
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{SETTINGS}: expected a table at {key}.")
    tree[keys[-1]] = value
