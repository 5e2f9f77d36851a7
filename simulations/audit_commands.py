"""The verb ``tutela audit``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulations.audits.records import AuditReport
    from simulations.audits.settings import AuditSettings

#: Exit code where an attack achieved more than is promised; 2 is an error of use.
REFUTED = 3
#: Beside ``audit.json`` in the audit's folder.
PAGE, PAPER = "audit.html", "audit.pdf"


def _show_schema(asked: bool) -> None:
    if asked:
        from simulations.audits.records import schema_text

        typer.echo(schema_text(), nl=False)
        raise typer.Exit


def audit(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    full: Annotated[
        bool,
        typer.Option("--full/--quick", help="Hours, or minutes on two cores."),
    ] = False,
    fail_above: Annotated[
        bool,
        typer.Option(
            "--fail-above", help="Exit with 3 if anything found refutes the promise."
        ),
    ] = False,
    attacks: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            help="canaries, membership, leaks, integrity or checks; repeatable.",
        ),
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
    truths: Annotated[
        list[Path] | None,
        typer.Option("--truth", help="Canaries that an owner planted; repeatable."),
    ] = None,
    rows: Annotated[
        list[Path] | None,
        typer.Option("--rows", help="The folder of such a client; repeatable."),
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print the page as well, by a local Chromium.")
    ] = False,
    render: Annotated[
        bool,
        typer.Option("--render", help="Make the page again, and attack nothing."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON.")
    ] = False,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            help="Print the JSON schema of reports, and stop.",
            callback=_show_schema,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Attack what a run released; say what was achieved beside what was promised."""
    from dataclasses import replace

    from simulations.audits.audit import AUDIT
    from simulations.audits.report.printing import find_browser
    from simulations.audits.settings import FULL, QUICK

    del schema
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
    # Missed now, and not after an hour.
    browser = find_browser() if pdf else None
    if render:
        report = _read(run)
    else:
        preset = "full" if full else "quick"
        report = _attack(run, settings, preset, truths or (), rows or ())
    _write(report, run / AUDIT, browser)
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        _print(report)
        typer.echo(f"Report: {run / AUDIT / PAGE}")
    if fail_above and report.exceeds:
        raise typer.Exit(REFUTED)


def _attack(
    run: Path,
    settings: AuditSettings,
    preset: str,
    truths: Sequence[Path],
    rows: Sequence[Path],
) -> AuditReport:
    from rich.console import Console

    from simulations.audits import audit
    from simulations.shareable import shareable_command

    console = Console(stderr=True)
    with console.status("audit") as status:

        def tell(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                typer.echo(text, err=True)

        return audit.run_audit(
            run,
            settings,
            preset=preset,
            command=shareable_command(["tutela", *sys.argv[1:]]),
            tell=tell,
            truths=truths,
            rows=rows,
        )


def _read(run: Path) -> AuditReport:
    from simulations.audits.audit import AUDIT, AUDIT_REPORT
    from simulations.audits.records import read_report

    return read_report(run / AUDIT / AUDIT_REPORT)


def _write(report: AuditReport, folder: Path, browser: str | None) -> None:
    """The page, and what is printed of it; the JSON file is there already."""
    from simulations.audits.report.page import write_page
    from simulations.audits.report.printing import print_pdf

    folder.mkdir(exist_ok=True)
    write_page(report, folder / PAGE)
    if browser is not None:
        print_pdf(folder / PAGE, folder / PAPER, browser)


def _print(report: AuditReport) -> None:
    from rich.console import Console

    from simulations.audits.tables import tables

    console = Console()
    console.print(report.promise.sentence, highlight=False, markup=False)
    for table in tables(report):
        console.print()
        console.print(table, highlight=False)
    console.print(f"\nVerdict: {report.verdict}", highlight=False, markup=False)
    for text in report.limits:
        console.print(f"- {text}", highlight=False, markup=False)
