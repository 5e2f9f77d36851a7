"""The results as one self-contained HTML file that fetches nothing from anywhere.

In ``simulations`` because only an experiment sees all arms side by side. Order:
verdict, promise and what it leaves out, table, transfer, groups, personal parameters,
figures, rounds, cost, how to repeat.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.durable_files import write_durably
from simulations.plots import Plot, all_plots
from simulations.results import Interval, Results, RoundRecord
from simulations.table import (
    INTERVAL_NOTE,
    MODEL_LABELS,
    NO_ROUNDS,
    QUESTION_LABELS,
    format_bytes,
    format_range,
    metric_label,
    present_metrics,
    present_models,
    statistics_alone,
    traffic_of,
    unmeasured_statistics,
)

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Cell:
    """A metric of a model as text; empty where it was not measured."""

    value: str
    range: str


@dataclass(frozen=True)
class ModelRow:
    """A line of the table of models."""

    label: str
    stamp: str
    cells: list[Cell]


def render_report(results: Results) -> str:
    """The whole page as text; the same results give the same text."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = format_bytes
    environment.filters["seconds"] = format_seconds
    environment.filters["metric"] = metric_label
    environment.filters["range"] = format_range
    page = environment.get_template("report.html.j2")
    return page.render(
        results=results,
        metrics=[metric_label(metric) for metric in present_metrics(results)],
        rows=model_rows(results),
        labels=MODEL_LABELS,
        interval_note=INTERVAL_NOTE,
        no_rounds=NO_ROUNDS if statistics_alone(results) else "",
        not_promised=not_promised(results),
        plots=[_trusted(plot) for plot in all_plots(results)],
        client_metrics=client_metrics(results.rounds),
        refreshed=any(each.teacher_gain is not None for each in results.rounds),
        phases=_phases(results.rounds),
        traffic=traffic_of(results),
        questions=QUESTION_LABELS,
        unmeasured=unmeasured_statistics(results),
    )


def write_report(results: Results, path: Path) -> None:
    """Write the page: the whole new file or the whole old one, never half."""
    write_durably(path, render_report(results).encode(), mode=0o644)


def model_rows(results: Results) -> list[ModelRow]:
    """Every model that was run, with every metric any of them has."""
    return [
        ModelRow(
            label=MODEL_LABELS[name],
            stamp=results.model_notes[name].stamp,
            cells=[
                _cell(results.models[name].get(metric))
                for metric in present_metrics(results)
            ],
        )
        for name in present_models(results)
    ]


def not_promised(results: Results) -> list[str]:
    """What a reader must not conclude from the promise, one sentence each."""
    if results.promise.epsilon is None:
        return ["Anything: clients' updates were neither clipped nor noised."]
    sentences = [
        "Models marked NOT PRIVATE are comparisons that no deployment makes; the "
        "promise does not cover them.",
        "Metrics over held-out users, where shown, are computed without noise: a "
        "simulation may do so, a deployment never releases them.",
        f"The declared sizes ({results.federation.num_clients} clients, "
        f"{results.federation.declared_users_per_client} users each), the catalogue "
        "and the configuration are public; so are the rows of public users.",
        "An ε bounds what anyone can learn of one unit, it does not make this "
        "impossible; other runs over the same rows add to it.",
    ]
    if results.promise.seeded:
        sentences.append(
            "The noise came from a seed: whoever has the seed can take it off again, "
            "so these files themselves protect nobody."
        )
    return sentences


def client_metrics(rounds: Iterable[RoundRecord]) -> list[str]:
    """Names of the clients' own metrics, in the order first met."""
    return list(dict.fromkeys(name for r in rounds for name in r.client_metrics or ()))


def format_seconds(seconds: float) -> str:
    """Two decimals below ten seconds, minutes from two on.

    >>> format_seconds(0.41), format_seconds(63.4), format_seconds(330)
    ('0.41 s', '63 s', '5 min 30 s')
    """
    if seconds < 10:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes >= 2 else f"{seconds:.0f} s"


def _cell(found: Interval | None) -> Cell:
    return Cell(f"{found.value:.3f}", format_range(found)) if found else Cell("", "")


def _phases(rounds: Iterable[RoundRecord]) -> dict[str, float]:
    """Seconds of each phase over all rounds, in the order first met."""
    total: dict[str, float] = {}
    for each in rounds:
        for phase, seconds in each.seconds.items():
            total[phase] = total.get(phase, 0.0) + seconds
    return total


def _trusted(plot: Plot) -> dict[str, str]:
    """SVG escapes its own texts, so the page may take it as it is."""
    return {
        "name": plot.name,
        "svg": Markup(plot.svg),  # noqa: S704
        "caption": plot.caption,
    }
