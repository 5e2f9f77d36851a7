"""The ``tutela`` command: verbs of the zones that a researcher's machine holds.

Heavy packages are imported inside the verbs, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.canary_commands import canaries_app
from client.commands import import_rows, ledger_app
from client.monitor_commands import monitor as monitor_client
from client.personal_commands import personalise
from client.serve_commands import serve
from client.store_commands import reseal
from common.command_line import run
from common.errors import ConfigError
from common.folders import CATALOGUE, CONFIG, REPORT, STUDENT
from server.commands import server_key
from server.monitor.commands import monitor
from simulations.audit_commands import audit
from simulations.data_commands import data_app
from simulations.deploy_commands import deploy_app
from simulations.export_commands import export
from simulations.run_commands import benchmark, describe

if TYPE_CHECKING:
    from common.catalogue import Catalogue
    from common.config import RunConfig
    from common.metrics import TopK

app = typer.Typer(
    help="Tutela: a federated recommender that trains on data nobody shares.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.add_typer(ledger_app, name="ledger")
app.add_typer(canaries_app, name="canaries")
app.add_typer(deploy_app, name="deploy")
app.command("import")(import_rows)
app.command()(personalise)
app.command()(serve)
app.command()(reseal)
app.command("server-key")(server_key)
app.command()(monitor)
app.command("monitor-client")(monitor_client)
app.command()(describe)
app.command()(export)
app.command()(benchmark)
app.command()(audit)


class Engine(StrEnum):
    """Where a simulated federation runs."""

    inprocess = "inprocess"
    ray = "ray"


ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML file over the defaults.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="section.key=value, repeatable.")
]
SeedOption = Annotated[
    int | None, typer.Option(min=0, help="Repeatable noise: for simulations only.")
]
RunArgument = Annotated[Path, typer.Argument(help="A run's folder.")]
CountOption = Annotated[int, typer.Option("-k", min=1, help="How many items.")]


@app.command()
def simulate(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the run's results.")
    ] = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    engine: Annotated[Engine, typer.Option()] = Engine.inprocess,
    seed: SeedOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Progress and results as JSON lines.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option(help="Replace an earlier run in the folder.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the interrupted run in a folder.")
    ] = None,
) -> None:
    """Train over a simulated federation; write results and a report."""
    from simulations.experiment import resume_experiment, run_experiment
    from simulations.shareable import shareable_command
    from simulations.table import print_results

    if resume is not None:
        if out or config or assignments or seed is not None or overwrite:
            raise ConfigError(
                "--resume: expected no --out, --config, --set, --seed or --overwrite; "
                "a run goes on as it began."
            )
        out = resume
        results = resume_experiment(out, as_json=as_json)
    elif out is None:
        raise ConfigError("Expected --out for a new run, or --resume for one to go on.")
    else:
        settings = _config(config, assignments, seed)
        _make_room(out, "run", CONFIG, overwrite=overwrite)
        results = run_experiment(
            settings,
            out,
            engine=engine.value,
            as_json=as_json,
            command=shareable_command(["tutela", *sys.argv[1:]]),
        )
    if as_json:
        typer.echo(results.model_dump_json())
    else:
        print_results(results)
        typer.echo(f"Report: {out / REPORT}")
    if results.status == "interrupted":
        raise typer.Exit(130)


@app.command()
def partition(
    config: ConfigOption = None,
    assignments: SetOption = None,
    seed: SeedOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder; by default where `flwr run` looks.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace an earlier federation in the folder.")
    ] = False,
) -> None:
    """Write the folders of a federation, for `flwr run .`."""
    from platformdirs import user_data_path

    from simulations.experiment import prepare

    folder = out or user_data_path("tutela") / "federation"
    settings = _config(config, assignments, seed)
    _make_room(folder, "federation", f"server/{CATALOGUE}", overwrite=overwrite)
    dealt = prepare(settings, folder)
    for note in dealt.notes:
        typer.echo(note)
    typer.echo(f"{len(dealt.clients)} client folders under {folder}")


@app.command()
def recommend(
    run: RunArgument,
    items: Annotated[
        list[str], typer.Option("--items", help="Title the user liked; repeatable.")
    ],
    more: Annotated[list[str] | None, typer.Argument(help="Further titles.")] = None,
    k: CountOption = 10,
) -> None:
    """Recommend items to somebody who liked these."""
    from common.catalogue import read_catalogue
    from common.recommend import recommend as rank
    from common.student import load_student

    catalogue = read_catalogue(run / CATALOGUE)
    history = [catalogue.find(title) for title in [*items, *(more or [])]]
    student = load_student(run / STUDENT)
    _print_items(catalogue, rank(student, history, k), "Recommended")


@app.command()
def similar(
    run: RunArgument,
    item: Annotated[str, typer.Argument(help="A title of the catalogue.")],
    k: CountOption = 10,
) -> None:
    """List the items most like one."""
    from common.catalogue import read_catalogue
    from common.recommend import similar as rank
    from common.student import load_student

    catalogue = read_catalogue(run / CATALOGUE)
    found = rank(load_student(run / STUDENT), catalogue.find(item), k)
    _print_items(catalogue, found, f"Like {item}")


def _config(
    path: Path | None, assignments: list[str] | None, seed: int | None
) -> RunConfig:
    from common.config import defaults, parse, parse_assignment, read_overrides

    flat = defaults()
    if path is not None:
        flat |= read_overrides(path)
    flat |= dict(parse_assignment(text) for text in assignments or [])
    if seed is not None:
        flat["run.seed"] = seed
    return parse(flat)


def _make_room(out: Path, kind: str, mark: str, *, overwrite: bool) -> None:
    """Refuse to mix two of a kind; remove only what bears the kind's mark."""
    import shutil

    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / mark).is_file():
        raise ConfigError(
            f"--out: {out} holds other files; expected a {kind} or nothing."
        )
    if not overwrite:
        raise ConfigError(
            f"--out: {out} holds an earlier {kind}; name another folder or --overwrite."
        )
    shutil.rmtree(out)


def _print_items(catalogue: Catalogue, found: TopK, title: str) -> None:
    import polars as pl
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    named = catalogue.table.select("item", pl.col("title").fill_null(""))
    # Text, since a title in square brackets is no markup.
    labels = [Text(name or f"item {item}") for item, name in named.iter_rows()]
    table = Table("", "title", "score", title=Text(title))
    pairs = zip(found.item[0].tolist(), found.score[0].tolist(), strict=True)
    for place, (item, score) in enumerate(pairs, start=1):
        table.add_row(str(place), labels[item], f"{score:.3f}")
    Console().print(table)


def main() -> None:
    """Run the command; our own errors are one line and exit code 2."""
    run(app)


if __name__ == "__main__":
    main()
