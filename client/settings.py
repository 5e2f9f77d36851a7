"""The client's own settings: its folder, its budget, its consent.

Client only. None of this comes from the server, which can ask for less noise and
gets a refusal. The folder is named by the node's configuration, else by the
environment (many simulated clients on one machine), else the user's data folder.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated

from flwr.app import Context
from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import ConfigError
from common.folders import SETTINGS


class ClientSettings(BaseModel):
    """What ``settings.toml`` in a client's folder may say.

    Attributes:
        max_epsilon: the largest ε a whole run may spend, at ``delta``.
        allow_non_private: whether mode ``off`` may train on this folder's rows.
        seed: noise and sampling from a seed, for simulations only; without it the
            operating system's randomness is used.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
    )

    max_epsilon: Annotated[float, Field(gt=0)] = 8.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    allow_non_private: bool = False
    seed: Annotated[int, Field(ge=0)] | None = None


def locate(context: Context) -> Path:
    """The client's folder."""
    named = context.node_config.get("folder")
    if named:
        return Path(str(named))
    several = os.environ.get("TUTELA_CLIENTS")
    home = Path(several) if several else user_data_path("tutela") / "federation/clients"
    return home / f"{int(context.node_config.get('partition-id', 0)):04d}"


def read_settings(folder: Path) -> ClientSettings:
    """Settings of a folder; cautious defaults where it has none.

    Raises:
        ConfigError: naming the key at fault.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return ClientSettings()
    try:
        return ClientSettings.model_validate(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{SETTINGS}: expected TOML: {error}") from None
    except ValidationError as error:
        keys = ", ".join(str(fault["loc"][0]) for fault in error.errors())
        raise ConfigError(f"{SETTINGS}: expected other values for: {keys}.") from None
