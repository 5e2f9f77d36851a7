"""How every command ends: our own errors are one line, never a traceback.

In ``common`` because each zone opens a door of its own (``python -m client …``).
"""

from __future__ import annotations

from collections.abc import Callable

import typer

from common.errors import TutelaError


def run(app: Callable[[], object]) -> None:
    """Run a Typer app; an error of ours or of the disk is one line and exit code 2."""
    try:
        app()
    except (TutelaError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
