"""An audit as one self-contained HTML page that fetches nothing from anywhere.

Simulations only. For a data protection officer first: the verdict, what was tested and
what cannot be said fit on a first page; all that an auditor checks comes after it. The
page holds what ``audit.json`` holds, and is made from that alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.durable_files import write_durably
from common.promise import round_up
from simulations.audits.findings import CheckRecord
from simulations.audits.group_records import GroupSuccess, WorstOffRecord
from simulations.audits.records import AuditReport, ClientSpending, refuted
from simulations.audits.report.figures import figures, strongest_by_object
from simulations.report import format_seconds

_TEMPLATES = Path(__file__).parent / "templates"

#: Who the canaries of a design are, for people.
DESIGNS = {
    "random": "invented users like anybody: as many items as somebody, by popularity",
    "rare-item": "invented users of five of the rarest items",
    "dirac": "invented users of so few items that nobody shares that each "
    "contribution stands alone",
    "interaction": "one rare item more for a real user",
}
#: What ends up first in the table of checks.
_ORDER = ("deviates", "unknown", "holds")
#: Clients shown, those who spent most; the JSON file has all.
MOST_CLIENTS = 40
#: A blank that no line is broken at.
NARROW = "\N{NARROW NO-BREAK SPACE}"
#: Limits that the first page has already.
FIRST_LIMITS = 3


@dataclass(frozen=True)
class Fact:
    """One figure of the first page."""

    name: str
    value: str
    note: str


def render_page(report: AuditReport) -> str:
    """The whole page as text; the same report gives the same text."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "epsilon": epsilon,
        "two": two,
        "share": share,
        "chosen": chosen,
        "delta": delta,
        "number": number,
        "seconds": format_seconds,
    }
    of = {
        kind: [each for each in report.findings if each.kind == kind]
        for kind in ("canaries", "membership", "leak", "integrity", "worst-off")
    }
    return environment.get_template("audit.html.j2").render(
        report=report,
        facts=facts(report),
        plots={
            # SVG escapes its own texts, so the page may take it as it is.
            name: (plot.name, Markup(plot.svg), plot.caption)  # noqa: S704
            for name, plot in figures(report).items()
        },
        canaries=of["canaries"],
        designs=DESIGNS,
        members=of["membership"],
        leaks=of["leak"],
        integrity=of["integrity"],
        worst_off=of["worst-off"],
        checks=checks_in_order(report),
        clients=most_spending(report.clients),
        first_limits=FIRST_LIMITS,
        worst=worst,
    )


def write_page(report: AuditReport, path: Path) -> None:
    """Write the page: the whole new file or the whole old one, never half."""
    write_durably(path, render_page(report).encode(), mode=0o644)


def facts(report: AuditReport) -> list[Fact]:
    """What the first page says in figures."""
    own = report.claims[0]
    note = f"ε per {report.promise.unit} at δ = {delta(own.delta)}"
    found = [Fact("Promised at most", epsilon(own.epsilon_user), note)]
    if report.spent:
        most = report.spent[0]
        note = "ε in this run, by the ledger of the client who spent most"
        if most.epsilon_all != most.epsilon_run:
            note += f"; {epsilon(most.epsilon_all)} in all its runs"
        found.append(Fact("Spent", epsilon(most.epsilon_run), note))
    if report.strongest is not None:
        best = report.strongest
        found.append(
            Fact(
                "Proved at least",
                two(best.epsilon_lower_joint),
                f"ε, by canaries, with {chosen(best.confidence)} confidence",
            )
        )
    return [*found, *_members(report), *_counts(report)]


def _members(report: AuditReport) -> list[Fact]:
    found = [each for each in strongest_by_object(report) if each.quoted]
    if not found:
        return []
    point = max(found, key=lambda each: each.quoted[0].tpr).quoted[0]
    note = (
        f"of members, where {chosen(point.target)} of others are taken for members; "
        f"the promise allows {share(point.allowed)}"
    )
    return [Fact("Recognised", share(point.tpr), note)]


def _counts(report: AuditReport) -> list[Fact]:
    checks = checks_in_order(report)
    if not checks:
        return []
    count = {name: sum(each.finding == name for each in checks) for name in _ORDER}
    return [
        Fact(
            "Assumptions that deviate",
            f"{count['deviates']} of {len(checks)}",
            f"{count['holds']} hold, {count['unknown']} could not be seen",
        )
    ]


def checks_in_order(report: AuditReport) -> list[CheckRecord]:
    """What deviates first, then what could not be seen, then what holds."""
    found = [each for each in report.findings if each.kind == "check"]
    return sorted(found, key=lambda e: (not refuted(e), _ORDER.index(e.finding)))


def most_spending(clients: tuple[ClientSpending, ...]) -> list[ClientSpending]:
    """Clients whose ledger is not verified, then those who spent most."""

    def key(each: ClientSpending) -> tuple[bool, float]:
        first = each.spent[0].epsilon_all if each.spent else None
        return bool(each.spent), -(math.inf if first is None else first)

    return sorted(clients, key=key)[:MOST_CLIENTS]


def worst(found: WorstOffRecord) -> list[tuple[str, GroupSuccess]]:
    """By each property, the group that is recognised best."""
    return [
        (table.by, max(table.groups, key=lambda group: group.auc))
        for table in found.tables
        if table.groups
    ]


def epsilon(value: float | None) -> str:
    """A privacy loss, rounded up; nothing is promised where it is infinite.

    >>> epsilon(7.9981), epsilon(None)
    ('7.999', '∞')
    """
    return "∞" if value is None else round_up(value)


def two(value: float | None) -> str:
    """Two decimals, for what was measured; ∞ for none.

    >>> two(1.005), two(None)
    ('1.00', '∞')
    """
    return "∞" if value is None else f"{value:.2f}"


def share(value: float | None) -> str:
    """A measured share in per cent, not to be broken over lines; – for none.

    >>> [share(each).replace(NARROW, " ") for each in (0.118, 0.00301, 1.0, 0.0, None)]
    ['11.8 %', '0.30 %', '100 %', '0 %', '–']
    """
    if value is None:
        return "–"
    digits = 0 if value in (0.0, 1.0) else 1 if value >= 0.01 else 2
    return f"{100 * value:.{digits}f}{NARROW}%"


def chosen(value: float) -> str:
    """A rate or a confidence that somebody chose, in per cent.

    >>> [chosen(each).replace(NARROW, " ") for each in (0.01, 0.001, 0.95)]
    ['1 %', '0.1 %', '95 %']
    """
    return f"{100 * value:.4g}{NARROW}%"


def delta(value: float) -> str:
    """A δ, without the zero that nobody writes.

    >>> delta(1e-5), delta(0.0001)
    ('1e-5', '1e-4')
    """
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def number(value: Any) -> str:
    """A number of any kind, short; – for none.

    >>> number(3.0), number(0.12345), number(None), number(799)
    ('3', '0.1235', '–', '799')
    """
    return "–" if value is None else f"{value:.4g}"
