"""The client's verbs as a node of a deployment: be one, and pin the code it runs.

Client only, so that a device needs no ``simulations``. Heavy packages are imported
inside the verbs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import ConfigError

if TYPE_CHECKING:
    from client.deploy.pins import Changes

FolderArgument = Annotated[Path, typer.Argument(help="A client's folder.")]


def node(
    folder: FolderArgument,
    superlink: Annotated[
        str, typer.Option(help="host:port of the server's Fleet API; TLS always.")
    ],
    root_certificates: Annotated[
        Path | None, typer.Option(help="PEM file; FOLDER/ca.crt if not given.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="P-384 key; FOLDER/keys/node.key if not given.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The node's own port on loopback.")
    ] = 9094,
    poll: Annotated[
        float, typer.Option(min=0.05, max=60.0, help="Seconds between looks for work.")
    ] = 1.0,
) -> None:
    """Be this client's node: it runs pinned bundles and refuses all others."""
    from client.deploy.node import Node, run_node

    _check_folder(folder)
    run_node(
        Node(
            folder=folder,
            superlink=superlink,
            root_certificates=root_certificates or folder / "ca.crt",
            key=key or folder / "keys" / "node.key",
            port=port,
            poll=poll,
        )
    )


def pin(
    folder: FolderArgument,
    bundle: Annotated[Path, typer.Argument(help="A Flower App Bundle, .fab.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    only: Annotated[
        bool, typer.Option("--only", help="Forget the bundles pinned before.")
    ] = False,
) -> None:
    """Show what a bundle changes; after a yes, let this client's node run it."""
    from client.deploy.pins import changes_since, hash_of
    from client.deploy.pins import pin as allow
    from client.settings import read_settings

    _check_folder(folder)
    if not bundle.is_file():
        raise ConfigError(f"Expected a bundle at {bundle}, found no file.")
    content = bundle.read_bytes()
    pinned = read_settings(folder).bundles
    show(changes_since(folder, pinned, content))
    typer.echo(f"SHA-256 {hash_of(content)}")
    if hash_of(content) in pinned and not only:
        typer.echo("It is pinned already.")
        return
    if not yes and not typer.confirm("May it run on this client's rows?"):
        raise typer.Exit(1)
    allow(folder, content, only=only)
    typer.echo("Pinned; a running node knows it from its next message on.")


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"Expected a client's folder at {folder}, found none.")


def show(changes: Changes) -> None:
    """The names, what decides what runs, and every changed line."""
    from client.deploy.pins import printable

    typer.echo(f"Against {changes.against or 'nothing pinned before'}:")
    for word, names in (
        ("added", changes.added),
        ("removed", changes.removed),
        ("changed", changes.changed),
    ):
        listed = ", ".join(printable(name) for name in names)
        typer.echo(f"{len(names)} files {word}{': ' if names else ''}{listed}")
    if changes.against:
        for line in changes.project:
            typer.echo(f"pyproject.toml: {line}")
        for line in changes.diff:
            typer.echo(line)
