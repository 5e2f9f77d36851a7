"""The server's verbs. Heavy packages are imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConfigError


def server_key(
    state: Annotated[
        Path | None, typer.Option(help="The server's state folder, if another.")
    ] = None,
) -> None:
    """Print the server's public key, for clients' settings; made where none is yet."""
    from common.durable_files import read_or_create_secret
    from common.folders import SERVER_KEY
    from common.signature import public_key
    from server.settings import state_folder

    if state is not None and not state.is_dir():
        # A key made in a folder that was only misspelt would be taken for the server's.
        raise ConfigError(f"--state: expected a folder, found none at {state}.")
    typer.echo(
        public_key(read_or_create_secret((state or state_folder()) / SERVER_KEY))
    )
