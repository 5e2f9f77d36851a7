"""``python -m server``: the server's verbs, where there is no ``simulations``."""

from __future__ import annotations

import typer

from common.command_line import run
from server.commands import server_key
from server.monitor.commands import monitor

app = typer.Typer(
    help="A Tutela server: its key, and what its runs do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("server-key")(server_key)
app.command()(monitor)

if __name__ == "__main__":
    run(app)
