"""What audits find: one frozen record a kind of attack or check.

Simulations only. ``docs/audits.md`` explains the fields. Infinity is null: nothing is
promised, or nothing blurs what an estimate is made of.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from simulations.audits.group_records import WorstOffRecord
from simulations.results import Count, NonNegative, Record

Rate = Annotated[float, Field(ge=0, le=1)]
#: Null where there is no such number, since it is infinite.
Epsilon = NonNegative | None


class CanaryRecord(Record):
    """One design of canaries from one viewpoint; ``one_run.OneRun`` as stored.

    Attributes:
        epsilon_lower: proved by this result alone, with ``confidence``.
        epsilon_lower_joint: proved with ``confidence`` together with all others.
        epsilon_power: what would typically be proved if all that is claimed leaked.
        epsilon_half_noise: and if the noise were half of what is claimed.
        epsilon_ceiling: what would be proved if every guess were right.
        epsilon_gaussian: a bound under assumptions: Gaussian noise, and canaries that
            do not blur each other; of no effect on ``exceeds``.
        epsilon_estimate: an estimate without confidence, and no bound.
        exceeds: whether the joint bound refutes the claim.
    """

    kind: Literal["canaries"] = "canaries"
    design: str
    viewpoint: str
    unit: Literal["user", "interaction", "client"]
    num_canaries: Count
    num_included: Count
    guessed_in: Count
    guessed_out: Count
    num_right: Count
    delta: NonNegative
    confidence: Rate
    joint_confidence: Rate
    epsilon_claimed: Epsilon
    epsilon_lower: NonNegative
    epsilon_lower_joint: NonNegative
    epsilon_power: NonNegative
    epsilon_half_noise: NonNegative
    epsilon_ceiling: NonNegative
    epsilon_gaussian: Epsilon
    epsilon_estimate: Epsilon
    auc: Rate
    exceeds: bool


class RatePoint(Record):
    """An attack at one threshold, and what the promise allows any attack there.

    Attributes:
        target: the false positive rate asked for; ``fpr`` is what it came to.
        low, high: exact interval of ``tpr``.
        allowed: the most that the promise allows at ``fpr_high``.
        resolved: whether there were non-members enough to see such a rate.
    """

    target: Rate
    fpr: Rate
    fpr_low: Rate
    fpr_high: Rate
    tpr: Rate
    low: Rate
    high: Rate
    allowed: Rate
    resolved: bool


class MembershipRecord(Record):
    """One membership attack on one released object.

    Attributes:
        released: what of the run was attacked.
        quoted: at the false positive rates that are always quoted.
        curve: evenly in log FPR.
        exceeds: whether a rate lies above what is allowed, by intervals so wide that
            all attacks of the audit hold together with ``confidence``.
    """

    kind: Literal["membership"] = "membership"
    attack: str
    viewpoint: str
    released: str
    num_shadows: Count
    num_members: Count
    num_others: Count
    confidence: Rate
    auc: Rate
    quoted: tuple[RatePoint, ...]
    curve: tuple[RatePoint, ...]
    exceeds: bool


class LeakRecord(Record):
    """What else was inferred: items touched, attributes, whole histories.

    Attributes:
        attack: what was inferred, and how: ``interactions``, ``attribute:gender``, …
        viewpoint: key of ``VIEWPOINTS``.
        released: what of the run was attacked.
        measure: what ``achieved`` is, a share from 0 to 1: ``AUC``, ``accuracy``, …
        achieved, low, high: and its interval at ``confidence``.
        baseline: the same of somebody who saw nothing of the targets, in the words of
            ``baseline_is``; what lies above it is what the release gave away.
        num_targets: users, or pairs of user and item, that were attacked.
        promised: whether the promise covers what was attacked: what never leaves a
            device (a personal vector) or answers its own user is not covered.
        allowed: the most the promise allows of this measure, where that is known.
        exceeds: whether ``low`` lies above ``allowed``, all of the audit together.
        note: what a reader must know to read the figure.
    """

    kind: Literal["leak"] = "leak"
    attack: str
    viewpoint: str
    released: str
    measure: str
    achieved: Rate
    low: Rate
    high: Rate
    confidence: Rate
    baseline: Rate
    baseline_is: str
    num_targets: Count
    promised: bool
    allowed: Rate | None
    exceeds: bool
    note: str


class IntegrityRecord(Record):
    """What malicious clients achieve: a privacy promise says nothing about it.

    Attributes:
        attack: ``push``, ``nuke``, ``random``, ``scaled``.
        mode: trust model of the run under attack.
        aggregator: how the server aggregates.
        malicious, num_clients: clients that lie, of all.
        num_targets: items that were to rise or fall.
        rank_before, rank_after: median rank of the targets among all items over the
            held-out users, 1 the best, without and with the attack.
        exposure_before, exposure_after: share of users who see a target in their top
            10.
        quality_before, quality_after: NDCG@10 of held-out users.
        possible: whether the server could use this aggregator under this trust model.
        note: why not, or what a reader must know.
    """

    kind: Literal["integrity"] = "integrity"
    attack: str
    mode: str
    aggregator: str
    malicious: Count
    num_clients: Count
    num_targets: Count
    rank_before: NonNegative | None
    rank_after: NonNegative | None
    exposure_before: Rate | None
    exposure_after: Rate | None
    quality_before: Rate | None
    quality_after: Rate | None
    possible: bool
    note: str


class CheckRecord(Record):
    """An assumption of the promise, and what a run or its files show of it.

    Attributes:
        check: its name: ``noise``, ``clip``, ``sampling``, ``ledger``, …
        assumption: what the promise takes for true, in a sentence.
        source: where was looked: a file of the run, or ``rerun``.
        finding: ``holds``, ``deviates``, or ``unknown`` where it could not be seen.
        expected, measured, low, high: in the unit of ``measure``; null where the check
            is no number.
        measure: what the numbers are.
        detail: what was found, in a sentence; no row of anybody.
        refutes: whether this deviation alone makes the promise false.
    """

    kind: Literal["check"] = "check"
    check: str
    assumption: str
    source: str
    finding: Literal["holds", "deviates", "unknown"]
    measure: str
    expected: float | None
    measured: float | None
    low: float | None
    high: float | None
    detail: str
    refutes: bool


Finding = Annotated[
    CanaryRecord
    | MembershipRecord
    | LeakRecord
    | IntegrityRecord
    | CheckRecord
    | WorstOffRecord,
    Field(discriminator="kind"),
]


def finite(value: float) -> float | None:
    """The number, or null for infinity."""
    return value if math.isfinite(value) else None
