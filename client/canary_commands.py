"""The client's verbs that plant canaries for an audit, and take them out again.

Client only: an owner's own decision, about the owner's own rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

canaries_app = typer.Typer(
    help="Canaries: planted users, by which an owner audits a deployment's runs.",
    no_args_is_help=True,
)

FolderArgument = Annotated[Path, typer.Argument(help="A client's folder.")]


@canaries_app.command()
def plant(
    folder: FolderArgument,
    truth: Annotated[
        Path, typer.Option(help="A new file for who is in; it never leaves the owner.")
    ],
    count: Annotated[int, typer.Option(min=2, help="Canaries; half come in.")] = 200,
    design: Annotated[
        str, typer.Option(help="random, rare-item or dirac.")
    ] = "rare-item",
    items: Annotated[
        int | None, typer.Option(min=1, help="Items of each; by default the design's.")
    ] = None,
) -> None:
    """Put users that nobody is among a client's, each by the toss of a coin."""
    from client.canaries import plant as put_in

    found, before = put_in(folder, truth, count=count, design=design, num_items=items)
    after = before + found.num_included
    typer.echo(
        f"{found.num_included} of {count} canaries are among the rows; {truth} says "
        "which. Keep it, and to yourself: without it they can neither be counted nor "
        "removed."
    )
    typer.echo(
        f"They count as users: this client has {after} now. A run whose "
        "privacy.declared-users is far below that may have its sums refused by the "
        "server. They change the model a little, as so many users of such items would."
    )
    typer.echo(
        f"Its digest is {found.digest}: told to others now, it shows them later that "
        "the coins fell before the run."
    )
    typer.echo(
        "Do not import rows with --overwrite while they are in; after the run, remove "
        "them with `canaries remove`."
    )


@canaries_app.command()
def remove(
    folder: FolderArgument,
    truth: Annotated[Path, typer.Option(help="The file that `plant` wrote.")],
) -> None:
    """Take a client's canaries out again; what was charged meanwhile is noted."""
    from client.canaries import read_truth
    from client.canaries import remove as take_out

    count = take_out(folder, truth)
    receipts = len(read_truth(truth).receipts)
    typer.echo(
        f"{count} canaries removed. {truth} notes the receipts of {receipts} answers "
        "given meanwhile, by which an audit finds them."
    )
