"""The client's verb ``monitor``: its own metrics, for its own operator.

Client only, so that a device needs no ``simulations``. Heavy packages are imported
inside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConfigError

PORT = 9465


def monitor(
    folder: Annotated[Path, typer.Argument(help="A client's folder.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 takes a free one.")
    ] = PORT,
    host: Annotated[
        str, typer.Option(help="A loopback address; others are refused.")
    ] = "127.0.0.1",
) -> None:
    """Tell Prometheus on /metrics what a client spent, and whether it is sound."""
    from client.monitor import open_site
    from client.settings import read_settings
    from common.structured_logs import switch_on

    if not folder.is_dir():
        raise ConfigError("Expected a client's folder, found none there.")
    switch_on()
    site = open_site(folder, read_settings(folder), host, port)
    typer.echo(f"Metrics {site.address}/metrics")
    site.serve()
