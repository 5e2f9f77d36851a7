"""The results as figures: self-contained, deterministic SVG to put inside a page.

In ``simulations`` because only an experiment sees all arms side by side. Colours are
Okabe and Ito's, which colour-blind readers can tell apart; stamped models are hollow
as well. The same results always give the same bytes.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from simulations.personal_plot import CAPTION as PERSONAL_CAPTION
from simulations.personal_plot import plot_personal
from simulations.results import Interval, Results, RoundRecord
from simulations.table import (
    MODEL_LABELS,
    metric_label,
    present_models,
    statistics_alone,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

BLUE, ORANGE, GREEN, RED, INK = "#0072B2", "#D55E00", "#009E73", "#B3261E", "#333333"
_MEGABYTE = 1e6
_WIDTH = 4.6  # inches: text stays legible on a phone
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.grid": True,
    "grid.color": "#E3E3E0",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@dataclass(frozen=True)
class Plot:
    """A figure for a page.

    Attributes:
        name: fits an id.
        svg: an ``<svg role="img">`` element with a title; nothing is fetched.
        caption: one sentence.
    """

    name: str
    svg: str
    caption: str


def all_plots(results: Results) -> list[Plot]:
    """Every figure the results have data for, in the order of a report."""
    drawn = [
        Plot(name, draw(results), caption) for name, (draw, caption) in PLOTS.items()
    ]
    return [plot for plot in drawn if plot.svg]


def plot_models(results: Results) -> str:
    """Dots with 95 % intervals, ``primary_metric`` by model; "" without models."""
    metric = results.primary_metric
    names = [n for n in present_models(results) if metric in results.models[n]]
    if not names:
        return ""

    furthest = max(results.models[name][metric].high for name in names)

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for row, name in enumerate(names):
            stamp = results.model_notes[name].stamp
            _dot(axes, row, results.models[name][metric], stamp)
        axes.set_yticks(range(len(names)), [MODEL_LABELS[name] for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1.15 * furthest or 1.0)
        axes.set_xlabel(f"{metric_label(metric)} (mean over held-out users)")

    values = ", ".join(
        f"{MODEL_LABELS[name]} {results.models[name][metric].value:.3f}"
        for name in names
    )
    title = f"{metric_label(metric)} of each model: {values}"
    return _svg("models", title, 0.7 + 0.38 * len(names), draw)


def plot_rounds(results: Results) -> str:
    """Utility above, ε below, both by round; "" without measured rounds."""
    rounds = results.rounds
    if not (_measured(rounds, "validation") or _measured(rounds, "heldout")):
        return ""
    spent = [each for each in rounds if each.epsilon is not None]

    def draw(canvas: Canvas) -> None:
        panels = canvas.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2]}
        )
        _utility_lines(panels[0], results, [each.round for each in rounds])
        panels[1].plot([e.round for e in spent], [e.epsilon for e in spent], c=GREEN)
        if not spent:
            panels[1].text(
                0.5, 0.5, "NOT PRIVATE", color=RED, ha="center", va="center",
                transform=panels[1].transAxes, weight="bold",
            )  # fmt: skip
            panels[1].set_yticks([])
        panels[1].set_ylim(bottom=0)
        panels[1].set_ylabel("ε spent")
        panels[1].set_xlabel("round")
        panels[1].xaxis.get_major_locator().set_params(integer=True)

    end = f"ε reaches {spent[-1].epsilon:.3f}" if spent else "nothing is promised"
    title = f"{metric_label(results.primary_metric)} and ε by round; {end}"
    return _svg("rounds", title, 3.3, draw)


def plot_traffic(results: Results) -> str:
    """Utility against megabytes sent and received by one client so far."""
    rounds = results.rounds
    if not (_measured(rounds, "validation") or _measured(rounds, "heldout")):
        return ""
    per_round = [e.bytes_down_per_client + e.bytes_up_per_client for e in rounds]
    traffic = [total / _MEGABYTE for total in accumulate(per_round)]

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        _utility_lines(axes, results, traffic)
        axes.set_xlim(left=0)
        axes.set_xlabel("traffic of one client, both ways (MB)")

    metric = metric_label(results.primary_metric)
    title = f"{metric} against traffic; {traffic[-1]:.1f} MB a client in all"
    return _svg("traffic", title, 2.6, draw)


def plot_interpolation(results: Results) -> str:
    """Validation by interpolation weight, the chosen one marked; "" if not tried.

    Likewise "" where no round moved the student: every weight is the same one.
    """
    curve = sorted(results.interpolation_curve, key=lambda point: point.weight)
    chosen = results.interpolation_weight
    if not curve or statistics_alone(results):
        return ""
    metric = metric_label(results.primary_metric)

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        weights = [point.weight for point in curve]
        axes.plot(weights, [point.validation for point in curve], "o-", c=BLUE, ms=4)
        if chosen is not None:
            axes.axvline(chosen, color=ORANGE, linestyle="--", label="chosen")
            axes.legend()
        axes.set_xlabel("weight of the trained student (0: transferred, 1: trained)")
        axes.set_ylabel(f"{metric}, validation")

    choice = "none was chosen" if chosen is None else f"{chosen:g} was chosen"
    title = f"Validation {metric} by interpolation weight; {choice}"
    return _svg("interpolation", title, 2.6, draw)


def plot_gains(results: Results) -> str:
    """Users by what personal parameters gain them; "" where that was not measured."""
    return plot_personal(results.personal)


#: Name → (figure, its caption), in the order of a report.
PLOTS: dict[str, tuple[Callable[[Results], str], str]] = {
    "models": (
        plot_models,
        "How well each model ranks for held-out users, with 95 % intervals; hollow "
        "red dots are NOT PRIVATE.",
    ),
    "rounds": (
        plot_rounds,
        "What training gained round by round, and the ε a client had spent by then.",
    ),
    "traffic": (
        plot_traffic,
        "What a client's bandwidth bought: the same gain against bytes sent and "
        "received.",
    ),
    "interpolation": (
        plot_interpolation,
        "How far the served student moves from the transferred to the trained one, "
        "chosen on public validation users.",
    ),
    "personal": (plot_gains, PERSONAL_CAPTION),
}


def _measured(rounds: Sequence[RoundRecord], field: str) -> bool:
    return any(getattr(each, field) is not None for each in rounds)


def _dot(axes: Axes, row: int, found: Interval, stamp: str) -> None:
    colour = RED if stamp else BLUE
    axes.plot([found.low, found.high], [row, row], color=colour)
    face = "white" if stamp else colour
    axes.plot(found.value, row, "o", color=colour, markerfacecolor=face)
    axes.text(found.value, row + 0.36, stamp, color=RED, ha="center", va="center",
              size=7)  # fmt: skip


def _utility_lines(axes: Axes, results: Results, x: Sequence[float]) -> None:
    """One line for each population measured, and the transferred student's level."""
    metric = results.primary_metric
    for field, colour, label in (
        ("validation", BLUE, "validation (public)"),
        ("heldout", ORANGE, "held out"),
    ):
        if _measured(results.rounds, field):
            # Only some rounds may be measured: the line joins those that are.
            values = [getattr(each, field) for each in results.rounds]
            points = [p for p in zip(x, values, strict=True) if p[1] is not None]
            mark = "o" if len(points) < len(x) or len(x) < 2 else ""
            axes.plot(*zip(*points, strict=True), c=colour, marker=mark, ms=3,
                      label=label)  # fmt: skip
    start = results.models.get("student_transferred", {}).get(metric)
    if start is not None:
        axes.axhline(start.value, color=INK, linestyle=":", linewidth=1.2,
                     label="transferred, held out")  # fmt: skip
    axes.set_ylabel(metric_label(metric))
    axes.legend()


def _svg(name: str, title: str, height: float, draw: Callable[[Canvas], None]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own style would change the bytes
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        canvas = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(canvas)
        canvas.savefig(file, format="svg", metadata=nothing, transparent=True)
    return _inline(file.getvalue(), name, title)


def _inline(svg: str, name: str, title: str) -> str:
    """An element for HTML: scoped ids and style, generic font, title, no prologue."""
    body = svg[svg.index("<g ") :]
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    body = body.replace("url(#", f"url(#{name}-")
    body = re.sub(r"font-family: [^;\"]*", "font-family: sans-serif", body)
    box = re.search(r'viewBox="[^"]*"', svg)
    return (
        f'<svg {box.group() if box else ""} role="img" aria-labelledby="{name}-title" '
        'style="stroke-linejoin: round; stroke-linecap: butt">\n'
        f'<title id="{name}-title">{html.escape(title)}</title>\n{body}'
    )
