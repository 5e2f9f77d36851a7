"""An audit's findings as tables for a terminal. Simulations only."""

from __future__ import annotations

from rich.table import Table

from simulations.audits.findings import CanaryRecord, MembershipRecord, RatePoint
from simulations.audits.records import AuditReport


def tables(report: AuditReport) -> list[Table]:
    """One table a kind of attack that was made."""
    canaries = [each for each in report.findings if each.kind == "canaries"]
    members = [each for each in report.findings if each.kind == "membership"]
    found = []
    if canaries:
        found.append(_canary_table(canaries))
    if members:
        found.append(_membership_table(members))
    return found


def _canary_table(found: list[CanaryRecord]) -> Table:
    columns = ("design", "seen from", "right", "ε proved", "ε claimed", "could prove")
    table = Table(
        *columns, "if Gaussian", "estimate", title="Canaries", title_justify="left"
    )
    for each in found:
        guesses = each.guessed_in + each.guessed_out
        table.add_row(
            each.design,
            each.viewpoint,
            f"{each.num_right} of {guesses}",
            f"{each.epsilon_lower_joint:.2f}" + (" !" if each.exceeds else ""),
            epsilon_text(each.epsilon_claimed),
            f"{each.epsilon_power:.2f}",
            epsilon_text(each.epsilon_gaussian),
            epsilon_text(each.epsilon_estimate),
        )
    first = found[0]
    table.caption = (
        f"ε proved: all bounds together with {first.confidence:.0%} confidence, δ = "
        f"{first.delta:g}. Could prove: typically, if all that is claimed leaked. If "
        "Gaussian: a bound that assumes so, and that canaries do not blur each other. "
        "The estimate is no bound."
    )
    table.caption_justify = "left"
    return table


def _membership_table(found: list[MembershipRecord]) -> Table:
    quoted = [f"TPR at FPR {point.target:g}" for point in found[0].quoted]
    table = Table(
        *("attack", "seen from", "on", "AUC", *quoted),
        title="Membership of users",
        title_justify="left",
    )
    for each in found:
        row = (each.attack, each.viewpoint, each.released, f"{each.auc:.3f}")
        table.add_row(*row, *[_rate(point) for point in each.quoted])
    table.caption = (
        f"With exact {found[0].confidence:.0%} intervals; after ≤ what the promise "
        f"allows. {found[0].num_members} members, {found[0].num_others} others."
    )
    table.caption_justify = "left"
    return table


def _rate(point: RatePoint) -> str:
    if not point.resolved:
        return "too few others"
    beyond = " !" if point.low > point.allowed else ""
    return (
        f"{point.tpr:.4f} [{point.low:.4f}, {point.high:.4f}] ≤ {point.allowed:.3f}"
        f"{beyond}"
    )


def epsilon_text(value: float | None) -> str:
    """Two decimals; ∞ for none."""
    return "∞" if value is None else f"{value:.2f}"
