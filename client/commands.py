"""The client's verbs: import rows; look at, verify, export and plan its ledger.

Client only, so that a device needs no ``simulations``. Heavy packages are imported
inside the verbs.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import ConfigError

if TYPE_CHECKING:
    from client.chain import LedgerEntry
    from client.settings import ClientSettings
    from common.events import DpEvent

ledger_app = typer.Typer(
    help="A client's privacy ledger: what was spent, what is left.",
    no_args_is_help=True,
)

FolderArgument = Annotated[Path, typer.Argument(help="A client's folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
NodeOption = Annotated[
    str,
    typer.Option(
        "--node-config", help="As given to the node: 'budget.user.delta=1e-6 …'."
    ),
]
DeltaOption = Annotated[
    list[float] | None, typer.Option("--delta", help="Further δ; repeatable.")
]


def import_rows(
    folder: FolderArgument,
    files: Annotated[list[Path], typer.Argument(help="Interaction files.")],
    format: Annotated[
        str, typer.Option(help="auto, recbole, movielens, csv, tsv, …")
    ] = "auto",
    unknown_items: Annotated[
        str, typer.Option(help="error, or drop rows outside the catalogue.")
    ] = "error",
    bad_rows: Annotated[str, typer.Option(help="error or drop")] = "error",
    duplicates: Annotated[
        str, typer.Option(help="error, keep_first or keep_last")
    ] = "error",
    overwrite: Annotated[bool, typer.Option(help="Replace rows imported before.")] = (
        False
    ),
) -> None:
    """Bring rows into a client's folder; user ids become keyed hashes."""
    from client.importing import import_files
    from common.repairs import parse_repairs

    if unknown_items not in ("error", "drop"):
        raise ConfigError(
            f"--unknown-items: expected error or drop, got {unknown_items!r}."
        )
    found = import_files(
        folder,
        files,
        format=format,
        repairs=parse_repairs(bad_rows, duplicates),
        unknown_items=unknown_items,
        overwrite=overwrite,
    )
    for report in found.reports:
        typer.echo(report)
    left_out = f", {found.left_out} left out" if found.left_out else ""
    typer.echo(f"{found.rows} rows of {found.users} users imported{left_out}.")


@ledger_app.command()
def show(
    folder: FolderArgument,
    deltas: DeltaOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every charge.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write ε over time: .svg, .png or .pdf.")
    ] = None,
    node_config: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """Spent and left per unit, at several δ, by run and round."""
    from rich.console import Console

    from client.statement import budget_of, make_statement
    from client.statement_view import plot_statement, print_statement

    settings = _settings(folder, node_config)
    for delta in deltas or ():
        if not 0 < delta < 1:
            raise ConfigError(f"--delta: expected a number in (0, 1), got {delta}.")
    own = budget_of(settings).delta
    found = _inspect(folder, settings)
    statement = make_statement(*found, settings, deltas or (own / 10, own / 1000))
    if plot is not None:
        plot_statement(statement, plot)
    if as_json:
        tree = asdict(statement) | {
            "columns": [_column(column) for column in statement.columns]
        }
        typer.echo(json.dumps(_finite(tree), indent=2, ensure_ascii=False))
    else:
        print_statement(statement, Console(), everything=everything)


def _column(column: Any) -> dict[str, Any]:
    tree = asdict(column)
    if column.budget is not None:
        tree["budget"] = column.budget.model_dump()
    return tree


@ledger_app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A client's folder, or an export.")],
    node_config: NodeOption = "",
) -> None:
    """Check the chain and the witness; a fault is named, with what to do."""
    from client.chain import head_of, read_export

    if folder.is_file():
        ledger, entries = read_export(folder.read_bytes().decode(errors="replace"))
        beside = "an export has no witness to compare with"
    else:
        ledger, entries = _inspect(folder, _settings(folder, node_config))
        beside = "the witness agrees"
    typer.echo(
        f"Sound: {len(entries)} entries, the chain is whole, {beside}. "
        f"Head {head_of(ledger, entries)[:16]}…"
    )


@ledger_app.command()
def export(
    folder: FolderArgument,
    out: Annotated[Path | None, typer.Option(help="File; standard output if none.")] = (
        None
    ),
    node_config: NodeOption = "",
) -> None:
    """Write the chain as JSON lines, which anybody can verify again."""
    from client.chain import export_text

    text = export_text(*_inspect(folder, _settings(folder, node_config)))
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"{text.count(chr(10)) - 1} entries written to {out}")


@ledger_app.command()
def plan(
    folder: FolderArgument,
    noise_multiplier: Annotated[
        float | None, typer.Option(min=0.0, help="How many more rounds at this noise?")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Which noise for so many rounds?")
    ] = None,
    sample_rate: Annotated[
        float | None, typer.Option(help="In (0, 1]; as in the last charge.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps a round; as in the last charge.")
    ] = None,
    unit: Annotated[str, typer.Option(help="user, interaction or client")] = "user",
    node_config: NodeOption = "",
    as_json: JsonOption = False,
) -> None:
    """What the budget still buys: rounds at a noise, or the noise for rounds."""
    from rich.console import Console

    from client.budget import spent
    from client.planning import noise_for, rounds_left
    from client.statement_view import print_plan
    from common.config import MOST_STEPS

    if (noise_multiplier is None) == (rounds is None):
        raise ConfigError("Expected either --noise-multiplier or --rounds.")
    settings = _settings(folder, node_config)
    budgets = {str(name): each for name, each in settings.budget.items()}
    if unit not in budgets:
        raise ConfigError(f"--unit: this client has no budget per {unit}.")
    budget, (_, entries) = budgets[unit], _inspect(folder, settings)
    one = _round(entries, unit, noise_multiplier, sample_rate, steps)
    done = spent(entries, one.unit)
    if (rounds or 1) * one.steps > MOST_STEPS:
        raise ConfigError(f"Expected at most {MOST_STEPS} steps in all.")
    if rounds is None:
        found = rounds_left(done, one, budget)
    else:
        found = noise_for(done, one, rounds, budget)
    if as_json:
        limits = {"unit": unit, "delta": budget.delta, "target": budget.target_epsilon}
        typer.echo(json.dumps(_finite(asdict(found) | limits), indent=2))
    else:
        print_plan(found, budget, unit, Console())


@ledger_app.command()
def accept(folder: FolderArgument, node_config: NodeOption = "") -> None:
    """Vouch for a ledger moved to another machine, or whose clock ran ahead."""
    from client.ledger import accept as vouch
    from client.settings import witness_place

    entry = vouch(folder, witness_place(folder, _settings(folder, node_config)))
    typer.echo(
        "Nothing to accept: the ledger is sound."
        if entry is None
        else f"Entry {entry.sequence} says so: {entry.note}."
    )


def _settings(folder: Path, node_config: str) -> ClientSettings:
    from client.settings import read_settings
    from common.config import parse_assignment

    if not folder.is_dir():
        raise ConfigError(f"Expected a client's folder at {folder}, found none.")
    words = shlex.split(node_config)
    return read_settings(folder, dict(parse_assignment(word) for word in words))


def _inspect(folder: Path, settings: ClientSettings) -> tuple[str, list[LedgerEntry]]:
    from client.ledger import inspect_ledger
    from client.settings import witness_place

    return inspect_ledger(folder, witness_place(folder, settings))


def _round(
    entries: list[LedgerEntry],
    unit: str,
    noise: float | None,
    rate: float | None,
    steps: int | None,
) -> DpEvent:
    """What a further round does: as asked, where nothing was, as the last training."""
    from common.accounting import LEAST_NOISE, MOST_NOISE
    from common.events import DpEvent
    from common.wire import TRAIN

    if rate is not None and not 0 < rate <= 1:
        raise ConfigError(f"--sample-rate: expected a number in (0, 1], got {rate}.")
    if noise is not None and not LEAST_NOISE <= noise <= MOST_NOISE:
        raise ConfigError(
            f"--noise-multiplier: expected {LEAST_NOISE} to {MOST_NOISE:g}, "
            f"got {noise}."
        )
    charges = [entry.charge for entry in entries if entry.charge is not None]
    trained = [c.event for c in charges if c.purpose == TRAIN and c.event.unit == unit]
    if not trained and (rate is None or steps is None):
        raise ConfigError(
            f"The ledger holds no training per {unit} to go by: say --sample-rate and "
            "--steps."
        )
    one = trained[-1] if trained else DpEvent(1.0, 1.0, 1, unit=unit)  # type: ignore[arg-type]
    return replace(
        one,
        noise_multiplier=noise or 1.0,
        sample_rate=rate or one.sample_rate,
        steps=steps or one.steps,
    )


def _finite(tree: Any) -> Any:
    """Infinity is null in JSON."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and math.isinf(tree) else tree
