"""What an audit says in words: its verdict, and what it must not be taken for.

Simulations only. A bound above the promise proves a fault, one below proves nothing;
both are said wherever a bound is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.promise import round_up
from simulations.audits.findings import CanaryRecord, Finding, finite
from simulations.audits.settings import AuditSettings

#: What a reader must not take an audit for.
PROVES = (
    "A lower bound above the promise proves a fault. One below proves nothing: a "
    "better attack, other canaries or other rows may find more."
)
AGAIN = (
    "A finished run cannot be given canaries. The audit ran its configuration again "
    "over its own client folders, with rows added or left out: the same code, new "
    "coins and new noise, so that released numbers are not the run's own."
)
FALSE_ALARMS = (
    "Of audits of runs that leak nothing, at most {:.0%} find a joint bound above 0. "
    "Each bound by itself has the same rate, so that one of several may well be "
    "above 0 by chance."
)
ESTIMATES = (
    "Estimates (Andrew et al.) take what blurs canaries for Gaussian, have no "
    "confidence, and are no bounds."
)
DEPENDENT = (
    "Membership trials of one run share its noise, and those of one user its rows: the "
    "exact intervals take all of them for independent."
)
UNRESOLVED = (
    "Where a false positive rate is below one non-member in all trials, more shadow "
    "models or more users would resolve it."
)
REPEATABLE = "Coins and noise were seeded: the audit repeats, and proves nothing."


def verdict(claimed: float, strongest: CanaryRecord | None, *, exceeds: bool) -> str:
    """What was found, in plain words; what it proves, and what not."""
    if exceeds:
        start = "The promise is refuted: an attack achieved more than it allows."
    elif finite(claimed) is None:
        start = "NOT PRIVATE: nothing was promised, so nothing could be refuted."
    else:
        start = "No attack achieved more than the promise allows."
    if strongest is None:
        return start
    claim = finite(claimed)
    text = (
        f"{start} The strongest canaries ({strongest.design}, seen from "
        f"{strongest.viewpoint}) prove ε ≥ {strongest.epsilon_lower_joint:.2f} at δ = "
        f"{strongest.delta:g} with {strongest.confidence:.0%} confidence; promised is "
        f"{'nothing' if claim is None else 'ε = ' + round_up(claim)}."
    )
    if not exceeds and claim is not None:
        text += (
            " A low bound proves nothing: had all that is promised leaked, this audit "
            f"would typically have found {strongest.epsilon_power:.2f}; with half of "
            f"the noise, {strongest.epsilon_half_noise:.2f}; with every guess right, "
            f"{strongest.epsilon_ceiling:.2f}."
        )
    return text


def limits(settings: AuditSettings, found: Sequence[Finding]) -> tuple[str, ...]:
    """What a reader must not take the audit for."""
    members = [each for each in found if each.kind == "membership"]
    unresolved = not all(point.resolved for each in members for point in each.quoted)
    said = {
        PROVES: True,
        AGAIN: True,
        FALSE_ALARMS.format(1 - settings.confidence): True,
        ESTIMATES: True,
        DEPENDENT: bool(members),
        UNRESOLVED: unresolved,
        REPEATABLE: settings.seed is not None,
    }
    return tuple(text for text, true in said.items() if true)
