"""``python -m client``: the client's verbs, on a device that has no ``simulations``."""

from __future__ import annotations

import typer

from client.commands import import_rows, ledger_app
from client.personal_commands import personalise
from common.command_line import run

app = typer.Typer(
    help="A Tutela client: its rows and its privacy ledger.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(ledger_app, name="ledger")
app.command("import")(import_rows)
app.command()(personalise)

if __name__ == "__main__":
    run(app)
