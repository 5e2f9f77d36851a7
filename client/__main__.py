"""``python -m client``: the client's verbs, on a device that has no ``simulations``."""

from __future__ import annotations

import typer

from client.canary_commands import canaries_app
from client.commands import import_rows, ledger_app
from client.deploy_commands import node, pin
from client.monitor_commands import monitor
from client.personal_commands import personalise
from client.serve_commands import serve
from client.store_commands import reseal
from common.command_line import run

app = typer.Typer(
    help="A Tutela client: its rows and its privacy ledger.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(ledger_app, name="ledger")
app.add_typer(canaries_app, name="canaries")
app.command("import")(import_rows)
app.command()(personalise)
app.command()(serve)
app.command()(reseal)
app.command()(monitor)
app.command()(node)
app.command()(pin)

if __name__ == "__main__":
    run(app)
