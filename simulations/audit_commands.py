"""The verb ``tutela audit``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import ConfigError

if TYPE_CHECKING:
    from simulations.audits.records import AuditReport

#: Exit code where an attack achieved more than is promised; 2 is an error of use.
REFUTED = 3


def audit(
    run: Annotated[Path, typer.Argument(help="A simulated run's folder.")],
    full: Annotated[
        bool,
        typer.Option("--full/--quick", help="Hours, or minutes on two cores."),
    ] = False,
    fail_above: Annotated[
        bool,
        typer.Option(
            "--fail-above", help="Exit with 3 if a lower bound exceeds the promise."
        ),
    ] = False,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attack", help="canaries or membership; repeatable."),
    ] = None,
    canaries: Annotated[
        int | None, typer.Option(min=2, help="Canaries of each design.")
    ] = None,
    shadows: Annotated[
        int | None, typer.Option(min=4, help="Shadow models of membership inference.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; 0 for this one.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Repeatable, and proves nothing.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Attack what a run released; say what was achieved beside what was promised."""
    from dataclasses import replace

    from rich.console import Console

    from simulations.audits.audit import AUDIT, AUDIT_REPORT, run_audit
    from simulations.audits.settings import FULL, QUICK
    from simulations.shareable import shareable_command

    given = {
        "attacks": tuple(attacks) if attacks else None,
        "num_canaries": canaries,
        "num_shadows": shadows,
        "workers": workers,
        "seed": seed,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = replace(FULL if full else QUICK, **chosen)  # type: ignore[arg-type]
    if not run.is_dir():
        raise ConfigError(f"Expected a run's folder, got {run}.")
    console = Console(stderr=True)
    with console.status("audit") as status:

        def tell(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                typer.echo(text, err=True)

        report = run_audit(
            run,
            settings,
            preset="full" if full else "quick",
            command=shareable_command(["tutela", *sys.argv[1:]]),
            tell=tell,
        )
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        _print(report)
        typer.echo(f"Report: {run / AUDIT / AUDIT_REPORT}")
    if fail_above and report.exceeds:
        raise typer.Exit(REFUTED)


def _print(report: AuditReport) -> None:
    from rich.console import Console

    from simulations.audits.tables import tables

    console = Console()
    console.print(report.promise.sentence, highlight=False, markup=False)
    for table in tables(report):
        console.print(table, highlight=False)
    console.print(f"Verdict: {report.verdict}", highlight=False, markup=False)
    for text in report.limits:
        console.print(f"- {text}", highlight=False, markup=False)
