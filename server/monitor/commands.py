"""The verb ``monitor``: metrics and page of a folder of runs, in its own process.

Server only. Heavy packages are imported inside it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

PORT = 9464


def monitor(
    runs: Annotated[Path, typer.Argument(help="The folder that runs write into.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 takes a free one.")
    ] = PORT,
    host: Annotated[
        str, typer.Option(help="A loopback address; others are refused.")
    ] = "127.0.0.1",
    write: Annotated[
        Path | None, typer.Option(help="Write the page into a file, and end.")
    ] = None,
) -> None:
    """Watch runs: /metrics for Prometheus, a status page for people."""
    from common.durable_files import write_durably
    from common.structured_logs import fields, logger_of, switch_on
    from server.monitor.page import render_page
    from server.monitor.runs import Runs
    from server.monitor.site import open_site

    switch_on()
    read = Runs(runs)
    found = read.now()
    if write is not None:
        page = render_page(found, time.time())
        write_durably(write, page.encode(), mode=0o644)
        typer.echo(f"{len(found)} runs written to {write}")
        return
    site = open_site(read, host, port)
    # On standard output, for people and for whoever asked for a free port.
    typer.echo(f"Status page {site.address}/ and metrics {site.address}/metrics")
    logger_of("monitor").info("listening", extra=fields(port=site.port))
    site.serve()
