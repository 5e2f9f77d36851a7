"""An audit's figures: self-contained SVG, drawn as those of a run's report are.

Simulations only. Each is drawn from the report alone, so that a page can be made again
without attacking anything. The same report gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from textwrap import shorten
from typing import TYPE_CHECKING

from simulations.audits.findings import CanaryRecord, LeakRecord, MembershipRecord
from simulations.audits.group_records import WorstOffRecord
from simulations.audits.records import AuditReport
from simulations.plots import BLUE, GREEN, INK, ORANGE, RED, Plot, _svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: Okabe and Ito's further colours, and dashes for readers of a black-and-white print.
_LINES = (
    (BLUE, "-"),
    (ORANGE, "--"),
    (GREEN, "-."),
    ("#CC79A7", ":"),
    ("#56B4E9", "-"),
    ("#E69F00", "--"),
)
#: Leaks drawn, those furthest above their baseline: a figure has to fit on a sheet.
MOST_LEAKS = 16
#: Characters of a label beside an axis.
_LONGEST = 34
#: A line that reaches no rate at all has no place on a logarithm's axis.
LEAST_RATE = 1e-4


def figures(report: AuditReport) -> dict[str, Plot]:
    """Every figure that the report has data for, by name."""
    drawn = {
        name: Plot(f"audit-{name}", draw(report), caption)
        for name, (draw, caption) in FIGURES.items()
    }
    return {name: plot for name, plot in drawn.items() if plot.svg}


def plot_bounds(report: AuditReport) -> str:
    """What each design proved, could have proved, and the claim; "" without any."""
    found = [each for each in report.findings if each.kind == "canaries"]
    if not found:
        return ""

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for row, each in enumerate(found):
            _bound(axes, row, each, first=row == 0)
        axes.set_yticks(range(len(found)), [_seen(each) for each in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        furthest = max(axes.get_xlim()[1], 1.0)
        axes.set_xlim(-0.02 * furthest, furthest)
        axes.set_xlabel("ε")
        _legend(canvas)

    best = max(found, key=lambda each: each.epsilon_lower_joint)
    title = (
        f"Proved ε of {len(found)} attacks by canaries; the most is "
        f"{best.epsilon_lower_joint:.2f}, by {_seen(best)}"
    )
    return _svg("audit-bounds", title, 1.5 + 0.34 * len(found), draw)


def _seen(found: CanaryRecord | MembershipRecord) -> str:
    name = found.design if found.kind == "canaries" else found.released
    return f"{name}, {found.viewpoint}"


def _bound(axes: Axes, row: int, found: CanaryRecord, *, first: bool) -> None:
    def label(text: str) -> str | None:
        return text if first else None

    axes.plot([0, found.epsilon_power], [row, row], color="#BDBDB8", linewidth=5,
              label=label("typical, had all that is claimed leaked"))  # fmt: skip
    colour = RED if found.exceeds else BLUE
    axes.plot(found.epsilon_lower_joint, row, "o", color=colour, zorder=3,
              label=label("proved, all together"))  # fmt: skip
    if found.epsilon_gaussian is not None:
        axes.plot(found.epsilon_gaussian, row, "D", color=ORANGE, ms=4, mfc="none",
                  label=label("proved if noise is Gaussian"))  # fmt: skip
    if found.epsilon_claimed is not None:
        axes.plot([found.epsilon_claimed] * 2, [row - 0.35, row + 0.35], color=INK,
                  label=label("promised"))  # fmt: skip


def _legend(canvas: Canvas) -> None:
    """Below the axes, in room of its own."""
    canvas.legend(loc="outside lower center")


def plot_roc(report: AuditReport) -> str:
    """Both rates on logarithms, beside what the promise allows; "" without attacks."""
    found = strongest_by_object(report)
    if not found:
        return ""

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        x = [point.fpr for point in report.allowed]
        y = [point.tpr for point in report.allowed]
        axes.fill_between(x, y, 1.0, color=RED, alpha=0.08, linewidth=0)
        axes.plot(x, y, color=RED, linewidth=1.2, label="the most the promise allows")
        for place, each in enumerate(found):
            _roc_line(axes, each, *_LINES[place % len(_LINES)])
        axes.plot([LEAST_RATE, 1], [LEAST_RATE, 1], color=INK, linewidth=0.8, ls=":",
                  label="guessing")  # fmt: skip
        rates = [p.fpr for each in found for p in each.curve if p.fpr]
        _logarithmic(axes, max(LEAST_RATE, min(rates, default=LEAST_RATE)))
        axes.set_xlabel("false positive rate (false alarms)")
        axes.set_ylabel("true positive rate (recognised)")
        _legend(canvas)

    best = max(found, key=lambda each: each.auc)
    title = (
        f"Membership inference on {len(found)} released objects beside what the "
        f"promise allows; the largest AUC is {best.auc:.3f}, on {_seen(best)}"
    )
    return _svg("audit-roc", title, 3.9 + 0.17 * len(found), draw)


def _logarithmic(axes: Axes, least: float) -> None:
    """Both axes from a rate to 1, with ticks that anybody can read."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(least, 1)
    axes.set_ylim(least, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
        axis.set_minor_formatter(NullFormatter())


def _roc_line(axes: Axes, found: MembershipRecord, colour: str, dash: str) -> None:
    points = [p for p in found.curve if p.fpr > 0 and p.tpr > 0]
    x = [p.fpr for p in points]
    axes.fill_between(x, [max(p.low, LEAST_RATE) for p in points],
                      [p.high for p in points], color=colour, alpha=0.12,
                      linewidth=0)  # fmt: skip
    axes.plot(x, [p.tpr for p in points], color=colour, linestyle=dash,
              label=f"{_seen(found)} ({found.attack})")  # fmt: skip


def strongest_by_object(report: AuditReport) -> list[MembershipRecord]:
    """The attack with the most true positives at the first quoted rate, by object."""
    best: dict[tuple[str, str], MembershipRecord] = {}
    for each in report.findings:
        if each.kind != "membership" or not each.curve:
            continue
        key = (each.viewpoint, each.released)
        if key not in best or _found(each) > _found(best[key]):
            best[key] = each
    return list(best.values())


def _found(each: MembershipRecord) -> tuple[float, float]:
    return (each.quoted[0].tpr if each.quoted else 0.0, each.auc)


def plot_leaks(report: AuditReport) -> str:
    """What was inferred, its baseline, and what is allowed; "" without any."""
    every = [each for each in report.findings if each.kind == "leak"]
    if not every:
        return ""
    found = sorted(every, key=lambda e: (not e.exceeds, e.baseline - e.low))[
        :MOST_LEAKS
    ]

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for row, each in enumerate(found):
            _leak(axes, row, each, first=row == 0)
        axes.set_yticks(range(len(found)), map(_named, found), fontsize=7.5)
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("share, by each attack's own measure")
        _legend(canvas)

    over = sum(each.low > each.baseline for each in every)
    title = f"{len(every)} other attacks, of which {over} are above their baseline"
    return _svg("audit-leaks", title, 1.5 + 0.42 * len(found), draw)


def _named(found: LeakRecord) -> str:
    """A label of two lines, whole on the page even where names are long."""
    lines = (found.attack, f"{found.viewpoint}: {found.released}")
    return "\n".join(shorten(line, _LONGEST, placeholder=" …") for line in lines)


def _leak(axes: Axes, row: int, found: LeakRecord, *, first: bool) -> None:
    colour = RED if found.exceeds else BLUE
    axes.plot([found.low, found.high], [row, row], color=colour)
    axes.plot(found.achieved, row, "o", color=colour, ms=5,
              mfc=colour if found.promised else "white",
              label="achieved (hollow: not promised)" if first else None)  # fmt: skip
    axes.plot([found.baseline] * 2, [row - 0.3, row + 0.3], color=ORANGE,
              label="by somebody who saw nothing" if first else None)  # fmt: skip
    if found.promised and found.allowed is not None:
        axes.plot(found.allowed, row, marker=4, color=RED, ms=6)


def plot_deciles(report: AuditReport) -> str:
    """How well each tenth of the users is recognised; "" without such tenths."""
    found = [e for e in report.findings if e.kind == "worst-off" and e.deciles]
    if not found:
        return ""

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for place, each in enumerate(found):
            _tenths(axes, place, each, *_LINES[place % len(_LINES)])
        axes.axhline(0.5, color=INK, linewidth=0.8, linestyle=":", label="guessing")
        axes.set_xticks(range(1, 11))
        axes.set_xlabel("users, from the least to the most recognised tenth")
        axes.set_ylabel("AUC of a tenth, other runs")
        _legend(canvas)

    top = max((each.deciles[-1].auc for each in found), default=0.5)
    title = (
        "Membership by tenths of the users, chosen and measured in different runs; the "
        f"most recognised tenth has an AUC of {top:.3f}"
    )
    return _svg("audit-deciles", title, 2.9 + 0.17 * len(found), draw)


def _tenths(
    axes: Axes, place: int, found: WorstOffRecord, colour: str, dash: str
) -> None:
    x = [tenth + 1 + 0.12 * place for tenth in range(len(found.deciles))]
    middle = [each.auc for each in found.deciles]
    below = [each.auc - each.auc_low for each in found.deciles]
    above = [each.auc_high - each.auc for each in found.deciles]
    axes.errorbar(x, middle, yerr=[below, above], color=colour, linestyle=dash,
                  marker="o", ms=3, linewidth=1.1, elinewidth=0.8,
                  label=f"{found.viewpoint}: {found.released}")  # fmt: skip


#: Name → (figure, its caption).
FIGURES: dict[str, tuple[Callable[[AuditReport], str], str]] = {
    "bounds": (
        plot_bounds,
        "The dot is what each attack proved, the black tick what is promised. The grey "
        "bar ends where the dot would typically be if all that is promised leaked: an "
        "attack whose dot is near its end sees about all that the noise lets through.",
    ),
    "roc": (
        plot_roc,
        "How many members are recognised (up) at how many false alarms (right), both "
        "on logarithms; the strongest attack on each released object, with exact "
        "intervals. No attack whatsoever may lie in the shaded region if the promise "
        "holds.",
    ),
    "leaks": (
        plot_leaks,
        "Dots with intervals are what was achieved; the orange tick is what somebody "
        "achieves who saw nothing of the targets; a red caret the most that the "
        "promise allows, where that is known. Those furthest above their baseline are "
        "drawn; the table has all.",
    ),
    "deciles": (
        plot_deciles,
        "Who is in which tenth was decided in one half of the shadow runs and measured "
        "in the other. A line that rises means that the same users are recognised "
        "again and again.",
    ),
}
