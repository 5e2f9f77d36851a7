"""The verbs ``tutela describe`` and ``tutela benchmark``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from common.errors import ConfigError
from common.folders import CATALOGUE, CONFIG, RESULTS


def describe(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show a run as the five parts of a recommender: what, where, how set, how well."""
    from dataclasses import asdict

    from common.catalogue import read_catalogue
    from common.config import defaults, parse, read_overrides
    from simulations.pipeline import parts_of
    from simulations.results import read_results

    if not (run / CONFIG).is_file():
        raise ConfigError(f"Expected a run's folder, found no {CONFIG} in {run}.")
    config = parse(defaults() | read_overrides(run / CONFIG))
    results = read_results(run / RESULTS) if (run / RESULTS).is_file() else None
    parts = parts_of(config, read_catalogue(run / CATALOGUE), results)
    if as_json:
        typer.echo(json.dumps([asdict(part) for part in parts], indent=2))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for number, part in enumerate(parts, start=1):
        table = Table(
            title=f"{number}. {part.name}",
            title_justify="left",
            caption=f"in {', '.join(part.where)}",
            caption_justify="left",
            show_header=False,
        )
        # A title or a name in square brackets is no markup.
        for name, value in {"does": part.does, **part.facts, **part.settings}.items():
            table.add_row(escape(name), escape(str(value)))
        console.print(table, highlight=False)


def benchmark(
    name: Annotated[str, typer.Argument(help="Which one.")],
    data: Annotated[
        Path, typer.Option(help="Folder that holds the data sets' folders.")
    ] = Path("../shared/data"),
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path(
        "runs/benchmarks"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute's worth, to see that it runs.")
    ] = False,
) -> None:
    """Measure one of the project's benchmarks; print its tables, write its figures."""
    from importlib import import_module

    from rich.console import Console

    from common.durable_files import write_durably
    from simulations.benchmarks import BENCHMARKS

    if name not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        raise ConfigError(f"benchmark: expected one of {known}, got {name!r}.")
    if not data.is_dir():
        raise ConfigError(f"--data: expected a folder of data sets, got {data}.")
    module = import_module(f"simulations.benchmarks.{BENCHMARKS[name]}")
    found = module.measure(data, quick=quick)
    console = Console()
    for table in module.tables(found):
        console.print(table, highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}{'-quick' if quick else ''}.json"
    facts = {"title": module.TITLE, "quick": quick, **found}
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    write_durably(path, text.encode(), mode=0o644)
    typer.echo(f"Figures: {path}")
    if hasattr(module, "figure"):
        write_durably(path.with_suffix(".svg"), module.figure(found), mode=0o644)
        typer.echo(f"Plot: {path.with_suffix('.svg')}")
