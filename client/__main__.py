"""``python -m client``: the client's verbs, on a device that has no ``simulations``."""

from __future__ import annotations

import typer

from client.commands import import_rows, ledger_app
from common.command_line import run

app = typer.Typer(
    help="A Tutela client: its rows and its privacy ledger.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(ledger_app, name="ledger")
app.command("import")(import_rows)

if __name__ == "__main__":
    run(app)
