"""The client's verb that serves recommendations from its folder.

Client only. Heavy packages are imported inside the verb.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client.serving.limits import Limits

LIMITS = Limits()


def serve(
    folder: Annotated[Path, typer.Argument(help="A client's folder.")],
    listen: Annotated[
        str,
        typer.Option(help="unix:PATH or IP:PORT; by default a socket in the folder."),
    ] = "",
    certificate: Annotated[
        Path | None, typer.Option(help="PEM chain of the server, for TLS.")
    ] = None,
    private_key: Annotated[
        Path | None, typer.Option(help="PEM key of the certificate; mode 600.")
    ] = None,
    token: Annotated[
        str, typer.Option(help="file:PATH or env:NAME of what callers must send.")
    ] = "",
    engine: Annotated[str, typer.Option(help="auto, onnxruntime or torch.")] = "auto",
    most_items: Annotated[int, typer.Option(help="Longest list.")] = LIMITS.most_items,
    most_bytes: Annotated[
        int, typer.Option(help="Longest request.")
    ] = LIMITS.most_bytes,
    rate: Annotated[float, typer.Option(help="Calls a second; 0: any.")] = LIMITS.rate,
    concurrency: Annotated[
        int, typer.Option(help="Calls at work or waiting.")
    ] = LIMITS.concurrency,
    threads: Annotated[int, typer.Option(help="Calls at work.")] = LIMITS.threads,
    most_users: Annotated[
        int, typer.Option(help="New users that feedback may bring.")
    ] = LIMITS.most_users,
    most_stored: Annotated[
        int, typer.Option(help="Bytes of feedback on disk.")
    ] = LIMITS.most_stored,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that calls may take when it ends.")
    ] = 10.0,
) -> None:
    """Serve recommendations to programs on this device, by gRPC."""
    import torch

    from client.serving.listen import listening
    from client.serving.server import open_serving
    from common.structured_logs import switch_on

    switch_on()
    torch.set_num_threads(1)  # calls run side by side
    place = listening(folder, listen, certificate, private_key, token)
    limits = Limits(
        most_items, most_bytes, rate, concurrency, threads, most_users, most_stored
    )
    serving = open_serving(folder, place, limits, engine)
    torch.set_num_threads(1)  # calls run side by side
    serving.start()
    model = serving.current.model
    guard = "TLS and a token" if place.credentials and place.token else "this machine"
    typer.echo(
        f"Serving on {serving.address}, for {guard}: model {model.version[:12]}, "
        f"{model.num_items} items, {model.engine.name}."
    )
    serving.run(grace)
