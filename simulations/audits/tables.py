"""An audit's findings as tables for a terminal of 80 columns.

Simulations only. Short: the strongest of a kind, and what a reader must see; all else
is in ``audit.html``. A mark ``!`` says that the promise is refuted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from rich import box
from rich.table import Table

from common.promise import round_up
from simulations.audits.findings import (
    CanaryRecord,
    CheckRecord,
    IntegrityRecord,
    LeakRecord,
    MembershipRecord,
    RatePoint,
)
from simulations.audits.group_records import WorstOffRecord
from simulations.audits.records import AuditReport, MostSpent, refuted

#: Rows of a table at most; the page has all.
MOST_ROWS = 14


def tables(report: AuditReport) -> list[Table]:
    """What was spent, and a table a kind of finding."""
    found = [_spending_table(report.spent)] if report.spent else []
    for kind, make in _TABLES.items():
        records = [each for each in report.findings if each.kind == kind]
        if records:
            found.append(make(records))
    return found


def _table(title: str, *columns: str, left: int = 1) -> Table:
    """An empty table; all columns but the first ones hold figures."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for place, name in enumerate(columns):
        justify: Literal["left", "right"] = "left" if place < left else "right"
        table.add_column(name, justify=justify, overflow="fold")
    return table


def _spending_table(found: Sequence[MostSpent]) -> Table:
    table = _table("ε, the most of any client", "δ", "planned", "this run", "all runs")
    for each in found:
        values = (each.epsilon_planned, each.epsilon_run, each.epsilon_all)
        table.add_row(
            f"{each.delta:g}", *["∞" if v is None else round_up(v) for v in values]
        )
    table.caption = "By the clients' own ledgers, composed."
    return table


def _canary_table(found: Sequence[CanaryRecord]) -> Table:
    columns = ("right", "proved", "claimed", "could", "if Gauss")
    table = _table("Canaries: ε", "design", "seen from", *columns, left=2)
    for each in found[:MOST_ROWS]:
        table.add_row(
            each.design,
            each.viewpoint,
            f"{each.num_right}/{each.guessed_in + each.guessed_out}",
            f"{each.epsilon_lower_joint:.2f}" + (" !" if each.exceeds else ""),
            epsilon_text(each.epsilon_claimed),
            f"{each.epsilon_power:.2f}",
            epsilon_text(each.epsilon_gaussian),
        )
    first = found[0]
    table.caption = (
        f"Proved: all together with {first.confidence:.0%} confidence, δ = "
        f"{first.delta:g}. Could: typically, if all that is claimed leaked. If Gauss: "
        "a bound that takes noise for Gaussian and canaries for independent."
    )
    return table


def _membership_table(found: Sequence[MembershipRecord]) -> Table:
    best: dict[tuple[str, str], MembershipRecord] = {}
    for each in found:
        seen = (each.viewpoint, each.released)
        if seen not in best or _first(each) > _first(best[seen]):
            best[seen] = each
    target = found[0].quoted[0].target if found[0].quoted else 0.0
    table = _table(
        "Membership of users",
        *("on", "seen from", "attack", "AUC", "% found", "allowed"),
        left=3,
    )
    for each in list(best.values())[:MOST_ROWS]:
        row = (each.released, each.viewpoint, each.attack, f"{each.auc:.3f}")
        point = each.quoted[0] if each.quoted else None
        table.add_row(*row, *_rate(point, exceeds=each.exceeds))
    table.caption = (
        f"Members found where {target:.3g} of others are taken for members; the "
        f"strongest of {len(found)} attacks on each, exact "
        f"{found[0].confidence:.0%} intervals. {found[0].num_members} members, "
        f"{found[0].num_others} others."
    )
    return table


def _first(found: MembershipRecord) -> float:
    return found.quoted[0].tpr if found.quoted else found.auc


def _rate(point: RatePoint | None, *, exceeds: bool) -> tuple[str, str]:
    if point is None or not point.resolved:
        return "too few", "–"
    tpr, low, high = (100 * each for each in (point.tpr, point.low, point.high))
    text = f"{tpr:.1f} [{low:.1f}, {high:.1f}]"
    return text, f"{100 * point.allowed:.1f}" + (" !" if exceeds else "")


def _worst_table(found: Sequence[WorstOffRecord]) -> Table:
    table = _table(
        "Who is worst off", "on", "by", "group", "users", "AUC", "found", left=3
    )
    for each in found:
        table.add_row(
            each.released, "", "everybody", str(each.everybody.num_users),
            f"{each.everybody.auc:.3f}", f"{each.everybody.found:.3f}",
        )  # fmt: skip
        for of in each.tables:
            if of.groups:
                top = max(of.groups, key=lambda group: group.auc)
                figures = (f"{top.auc:.3f}", f"{top.found:.3f}")
                table.add_row("", of.by, top.group, str(top.num_users), *figures)
    table.caption = (
        f"The group with the largest AUC by each property. Found: at {found[0].fpr:g} "
        "false positives of all."
    )
    return table


def _leak_table(found: Sequence[LeakRecord]) -> Table:
    """What most lies above its baseline comes first, after what refutes."""
    shown = sorted(found, key=lambda e: (not e.exceeds, e.baseline - e.low))
    columns = ("achieved", "baseline", "allowed")
    table = _table("Other leaks", "attack, on, seen from", "measure", *columns, left=2)
    for each in shown[:MOST_ROWS]:
        allowed = "–" if each.allowed is None else f"{each.allowed:.3f}"
        table.add_row(
            f"{each.attack}: {each.released}, {each.viewpoint}",
            each.measure,
            f"{each.achieved:.3f} [{each.low:.3f}, {each.high:.3f}]",
            f"{each.baseline:.3f}",
            ("none" if not each.promised else allowed) + (" !" if each.exceeds else ""),
        )
    table.columns[2].no_wrap = True
    table.caption = _cut(found) + (
        f"{found[0].confidence:.0%} intervals. Allowed: none where nothing is promised "
        "of what was attacked, – where it is not known."
    )
    return table


def _integrity_table(found: Sequence[IntegrityRecord]) -> Table:
    columns = ("liars", "rank", "exposure", "NDCG@10")
    table = _table(
        "Malicious clients", "attack", "mode", "aggregator", *columns, left=3
    )
    made = [each for each in found if each.possible]
    for each in made[:MOST_ROWS]:
        table.add_row(
            each.attack,
            each.mode,
            each.aggregator,
            f"{each.malicious}/{each.num_clients}",
            _change(each.rank_before, each.rank_after, ".0f"),
            _change(each.exposure_before, each.exposure_after, ".2f"),
            _change(each.quality_before, each.quality_after, ".3f"),
        )
    never = sorted({f"{e.aggregator} ({e.mode})" for e in found if not e.possible})
    table.caption = _cut(made) + (
        "Before and after: median rank of the targets, users who see one, quality."
        + (f" Not possible: {', '.join(never)}." if never else "")
    )
    return table


def _change(before: float | None, after: float | None, form: str) -> str:
    if before is None or after is None:
        return "–"
    return f"{before:{form}}→{after:{form}}"


def _check_table(found: Sequence[CheckRecord]) -> Table:
    """What deviates and what could not be seen; the rest only counted."""
    shown = [each for each in found if each.finding == "deviates"]
    shown += [each for each in found if each.finding == "unknown"]
    table = _table("Assumptions", "finding", "check", "what was found", left=3)
    for each in shown[:MOST_ROWS]:
        said = "not seen" if each.finding == "unknown" else "deviates"
        mark = " !" if refuted(each) else ""
        table.add_row(f"{said}{mark}", each.check, each.detail)
    holds = len(found) - len(shown)
    table.caption = _cut(shown) + f"{holds} of {len(found)} checks hold."
    return table


def _cut(found: Sequence[object]) -> str:
    more = len(found) - MOST_ROWS
    return f"{more} more are in the page. " if more > 0 else ""


#: Kind of finding → its table, in this order.
_TABLES: dict[str, Callable[[Sequence[Any]], Table]] = {
    "canaries": _canary_table,
    "membership": _membership_table,
    "worst-off": _worst_table,
    "leak": _leak_table,
    "integrity": _integrity_table,
    "check": _check_table,
}


def epsilon_text(value: float | None) -> str:
    """Two decimals; ∞ for none."""
    return "∞" if value is None else f"{value:.2f}"
