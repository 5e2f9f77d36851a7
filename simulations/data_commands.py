"""The verbs ``tutela data get``, ``describe`` and ``quality``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

data_app = typer.Typer(help="Public data: fetch it, look at it.", no_args_is_help=True)


@data_app.command()
def get(
    name: Annotated[str, typer.Argument(help="ml-100k")],
    source: Annotated[
        str,
        typer.Option("--from", help="recbole, grouplens, or your folder, zip, wheel."),
    ] = "recbole",
    url: Annotated[
        str | None, typer.Option(help="Where --from grouplens downloads.")
    ] = None,
) -> None:
    """Fetch a data set once, verify it, keep it for offline use."""
    from simulations.fetching import PUBLISHER, fetch

    typer.echo(fetch(name, source, url or PUBLISHER).statement)


@data_app.command()
def describe(
    files: Annotated[list[Path], typer.Argument(help="Interaction files.")],
    format: Annotated[
        str, typer.Option(help="auto, recbole, movielens, csv, tsv, …")
    ] = "auto",
    bad_rows: Annotated[str, typer.Option(help="error or drop")] = "error",
    duplicates: Annotated[
        str, typer.Option(help="error, keep_first or keep_last")
    ] = "error",
    min_users: Annotated[
        int, typer.Option(min=1, help="Least users behind a figure; 1 shows all.")
    ] = 10,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Say what interaction files hold, and what is wrong with them."""
    from common.readers import read_interactions
    from common.repairs import parse_repairs
    from simulations.describing import describe_table, report_text
    from simulations.shareable import SUPPRESSED

    repairs = parse_repairs(bad_rows, duplicates)
    found = []
    for path in files:
        read = read_interactions(path, format=format, repairs=repairs)
        facts = describe_table(read.frame, min_users)
        few = str(facts.get("users")).startswith(SUPPRESSED)
        report = SUPPRESSED if few else report_text(read.report, min_users)
        found.append({"file": path.name, "report": report, **facts})
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for facts in found:
            _print(facts)


@data_app.command()
def quality(
    name: Annotated[str, typer.Argument(help="A set's name or folder.")],
    public: Annotated[
        str | None, typer.Option(help="The public set: says how far it is from this.")
    ] = None,
    min_users: Annotated[
        int, typer.Option(min=1, help="Least users behind a figure; 1 shows all.")
    ] = 10,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Say what is wrong with a data set, and what was repaired on reading it."""
    import time

    from simulations.datasets import load
    from simulations.quality import assess, drift
    from simulations.shareable import without_folders

    data = load(name)
    groups = assess(data, now=int(time.time()), min_users=min_users)
    if public is not None:
        title = f"drift from {without_folders(public)}"
        groups[title] = drift(load(public), data, min_users)
    if as_json:
        typer.echo(json.dumps({"data": without_folders(name), **groups}, indent=2))
    else:
        _print_groups(without_folders(name), groups)


def _print_groups(title: str, groups: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "found", title=escape(title), title_justify="left")
    for group, facts in groups.items():
        table.add_section()
        table.add_row(f"[bold]{escape(group)}[/bold]", "")
        for name, value in facts.items():
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            table.add_row(f"  {escape(name)}", escape(text))
    Console().print(table)


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(facts["report"], highlight=False, markup=False)
    table = Table(show_header=False)
    for name, value in facts.items():
        if name not in ("file", "report"):
            text = f"{value:,.4g}" if isinstance(value, float) else str(value)
            table.add_row(name.replace("_", " "), escape(text))
    console.print(table)
