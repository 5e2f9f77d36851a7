"""The account for people: tables, and a small plot of ε over time.

Client only: what it shows is the owner's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.planning import Plan
from client.settings import Budget
from client.statement import ChargeLine, Column, Statement
from common.errors import ConfigError
from common.promise import round_up

#: Charges shown unless all are asked for.
SHOWN = 12

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDTH = 60


def number(value: float | None) -> str:
    """Three decimals, never less than the value; ∞ without noise.

    >>> number(0.0001), number(math.inf), number(None)
    ('0.001', '∞', '–')
    """
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else round_up(value)


def _down(value: float | None) -> str:
    """Three decimals, never more than the value."""
    return "–" if value is None else f"{math.floor(value * 1000) / 1000:.3f}"


def print_statement(
    statement: Statement, console: Console, *, everything: bool
) -> None:
    """Units, runs, charges, plot, and what the figures mean."""
    console.print(f"Ledger {statement.ledger[:12]}…, {statement.entries} entries.")
    console.print(_units(statement.columns))
    if statement.runs:
        console.print(_runs(statement))
        console.print(
            _charges(statement.charges, statement.delta, everything=everything)
        )
    for column in statement.columns:
        line = sparkline(statement.charges, column)
        if line:
            console.print(f"ε per {column.unit} over the charges: {line}")
    for note in statement.notes:
        console.print(Text(f"Note: {note}"))
    console.print(statement.sentence, highlight=False)


def sparkline(charges: Sequence[ChargeLine], column: Column) -> str:
    """ε after each charge in a line of blocks, against the budget or its own end."""
    path = [c.epsilon_after for c in charges if c.unit == column.unit]
    finite = [value for value in path if math.isfinite(value)]
    if not finite:
        return ""
    step = max(1, math.ceil(len(finite) / _WIDTH))
    points = finite[step - 1 :: step]
    top = max(column.budget.target_epsilon if column.budget else 0.0, *finite, 1e-9)
    if column.budget is None or top > 4 * finite[-1]:
        top = finite[-1]
    line = "".join(_BLOCKS[1 + min(7, int(8 * value / top))] for value in points)
    return f"{line} {number(finite[-1])} (full height {top:g})"


def plot_statement(statement: Statement, path: Path) -> None:
    """ε of each unit over the charges, as SVG, PNG or PDF by the file's ending.

    Raises:
        ConfigError: if the ending is another, or there is nothing to draw.
    """
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise ConfigError(f"--plot: expected a file ending .svg, .png or .pdf: {path}")
    if not any(math.isfinite(charge.epsilon_after) for charge in statement.charges):
        raise ConfigError("--plot: the ledger holds no charge with an ε to draw.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for column in statement.columns:
        points = [c for c in statement.charges if c.unit == column.unit]
        times = np.asarray([point.utc for point in points], dtype="datetime64[s]")
        values = [point.epsilon_after for point in points]
        axes.step(times, values, where="post", label=f"spent per {column.unit}")
        if column.budget is not None and points:
            axes.axhline(
                column.budget.target_epsilon,
                linestyle="--",
                color="0.4",
                label=f"budget per {column.unit}",
            )
    axes.set_xlabel("time (UTC)")
    axes.tick_params(axis="x", labelrotation=20)
    axes.set_ylabel(f"ε at δ = {statement.delta:g}")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.savefig(path)


def print_plan(plan: Plan, budget: Budget, unit: str, console: Console) -> None:
    """One plan as a sentence, with what its figures mean."""
    trust = "nobody else is trusted; PLD"
    if plan.mechanism == "skellam":
        trust = "under what such a run's own promise assumes; Rényi divergences"
    console.print(
        f"{plan.rounds} more rounds fit, each of {plan.steps} steps at noise "
        f"multiplier {round_up(plan.noise_multiplier, 4)} and sample rate "
        f"{plan.sample_rate:g} (Poisson). Everything released then costs "
        f"ε = {number(plan.epsilon_after)} of {budget.target_epsilon:g} at "
        f"δ = {budget.delta:g} per {unit} (add or remove one "
        f"{unit}'s rows at this client; {trust}).",
        highlight=False,
    )


def _units(columns: Sequence[Column]) -> Table:
    table = Table(title="Spent and left", box=box.SIMPLE_HEAD)
    for name in ("unit", "δ", "ε spent", "ε (RDP)", "budget", "left", "releases"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    for column in columns:
        for place, found in enumerate(column.spent):
            own = place == 0 and column.budget is not None
            table.add_row(
                column.unit if place == 0 else "",
                f"{found.delta:g}",
                number(found.pld),
                number(found.rdp),
                number(column.budget.target_epsilon) if own and column.budget else "–",
                _down(column.left) if own else "–",
                str(column.releases) if place == 0 else "",
            )
    return table


def _runs(statement: Statement) -> Table:
    title = f"By run, each alone, at δ = {statement.delta:g}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("run", "unit", "rounds", "releases", "from", "to", "ε"):
        justify: Literal["left", "right"] = "right" if name == "ε" else "left"
        table.add_column(name, justify=justify, no_wrap=name in ("from", "to", "ε"))
    for line in statement.runs:
        table.add_row(
            Text(line.name),
            line.unit,
            str(line.rounds),
            str(line.releases),
            line.first[:16],
            line.last[:16],
            number(line.epsilon),
        )
    return table


def _charges(charges: Sequence[ChargeLine], delta: float, *, everything: bool) -> Table:
    shown = charges if everything else charges[-SHOWN:]
    title = f"By round, ε so far at δ = {delta:g} (upper bounds)"
    if len(shown) < len(charges):
        title += f", the last {len(shown)} of {len(charges)}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("entry", "UTC", "run", "round", "for", "noise", "rate", "steps", "ε"):
        justify: Literal["left", "right"] = "right" if name == "ε" else "left"
        table.add_column(name, justify=justify, no_wrap=name in ("UTC", "ε"))
    for line in shown:
        table.add_row(
            str(line.sequence),
            line.utc[5:],
            Text(line.name),
            str(line.number),
            line.purpose,
            f"{line.noise_multiplier:.3f}",
            f"{line.sample_rate:g}",
            str(line.steps),
            number(line.epsilon_after),
        )
    return table
