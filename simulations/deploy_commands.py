"""The verbs ``tutela deploy …``: a federation of real processes.

Heavy packages are imported inside the verbs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulations.deployment.verbs import register

if TYPE_CHECKING:
    from simulations.deployment.initialise import Initialised

deploy_app = typer.Typer(
    help="A federation of real processes, on one machine or many.",
    no_args_is_help=True,
)
register(deploy_app)

FolderArgument = Annotated[Path, typer.Argument(help="The deployment's folder.")]


@deploy_app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    clients: Annotated[int, typer.Option(help="How many clients.")],
    san: Annotated[
        list[str] | None,
        typer.Option(
            help="DNS:name, IP:address: how devices call the server; commas, or "
            "repeat. The first one is what they are told."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file over the defaults: deal its data sets out."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The deployment's; by default the run's.")
    ] = None,
    days: Annotated[
        int, typer.Option(help="How long the server's certificate holds.")
    ] = 397,
) -> None:
    """Make keys, certificates, client folders and services for a federation."""
    from common.config import defaults, parse, read_overrides
    from simulations.deployment.initialise import Wishes, initialise

    flat = defaults()
    if config is not None:
        flat |= read_overrides(config)
    run = parse(flat)
    made = initialise(
        folder,
        Wishes(
            name=name or run.run.name,
            num_clients=clients,
            config=run,
            dealt=config is not None,
            names=tuple(san or ()),
            days=days,
        ),
    )
    _print(folder, made)


@deploy_app.command()
def renew(
    folder: FolderArgument,
    san: Annotated[
        list[str] | None, typer.Option(help="Further names; those it has stay.")
    ] = None,
    days: Annotated[int, typer.Option(help="How long it holds.")] = 397,
) -> None:
    """Make a new server certificate and key under the same authority."""
    from simulations.deployment.changes import renew_certificate

    expires = renew_certificate(folder, names=tuple(san or ()), days=days)
    typer.echo(f"A new certificate holds until {expires}.")
    typer.echo("Copy server/certificates to the server; restart SuperLink and proxy.")


@deploy_app.command("add-client")
def add_client(folder: FolderArgument) -> None:
    """Make a further client's folder; sign the roster with it."""
    from simulations.deployment.allowances import deviations
    from simulations.deployment.changes import add_client as add

    place = add(folder)
    typer.echo(f"Client {place.name} in {place.folder}, without rows.")
    for note in deviations(place):
        typer.echo(note)
    typer.echo("Give every client the new roster.json.")


@deploy_app.command("remove-client")
def remove_client(
    folder: FolderArgument,
    name: Annotated[str, typer.Argument(help="Its four digits.")],
) -> None:
    """Strike a client off the deployment and the roster; its folder stays."""
    from simulations.deployment.changes import remove_client as remove

    remove(folder, name)
    typer.echo(f"Client {name} is off the roster; give every client the new one.")
    typer.echo("Unregister its node at the SuperLink: that is what keeps it out.")


def _print(folder: Path, made: Initialised) -> None:
    from rich.console import Console
    from rich.table import Table

    superlink = made.deployment.superlink
    table = Table(show_header=False, title=f"Deployment {made.deployment.name}")
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("folder", str(folder))
    table.add_row("clients", str(made.deployment.num_clients))
    table.add_row("SuperLink", f"{superlink.address}, on this machine only")
    table.add_row("devices call", superlink.public)
    table.add_row("certificate", f"{', '.join(made.names)}; until {made.expires}")
    table.add_row("server's key", made.server)
    table.add_row("pinned code", made.bundle)
    Console().print(table, highlight=False)
    for note in made.notes:
        typer.echo(note)
    typer.echo("Here are all keys of all parties: hand them out, see docs/deploy.md.")
    typer.echo(f"Next: tutela deploy up {folder}")
