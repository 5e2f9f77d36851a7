"""From an attack's result to a record of the report. Simulations only."""

from __future__ import annotations

import numpy as np

from simulations.audits.findings import (
    CanaryRecord,
    MembershipRecord,
    RatePoint,
    finite,
)
from simulations.audits.membership import MEMBERSHIP, Trials
from simulations.audits.one_run import OneRun
from simulations.audits.promised import Allowed
from simulations.audits.roc import QUOTED, Operating, area_under_curve, curve, operate


def record_canaries(found: OneRun) -> CanaryRecord:
    """A one-run result as stored."""
    return CanaryRecord(
        design=found.design,
        viewpoint=found.viewpoint,
        unit=found.unit,
        num_canaries=found.num_canaries,
        num_included=found.num_included,
        guessed_in=found.guesses.included,
        guessed_out=found.guesses.excluded,
        num_right=found.num_right,
        delta=found.delta,
        confidence=found.confidence,
        joint_confidence=found.joint_confidence,
        epsilon_claimed=finite(found.epsilon_claimed),
        epsilon_lower=found.epsilon_lower,
        epsilon_lower_joint=found.epsilon_lower_joint,
        epsilon_power=found.epsilon_power,
        epsilon_half_noise=found.epsilon_half_noise,
        epsilon_ceiling=found.epsilon_ceiling,
        epsilon_gaussian=finite(found.epsilon_gaussian),
        epsilon_estimate=finite(found.epsilon_estimate),
        auc=found.auc,
        exceeds=found.exceeds,
    )


def record_membership(
    attack: str,
    seen: tuple[str, str],
    trials: Trials,
    allowed: Allowed,
    confidence: float,
    num_attacks: int = 1,
) -> MembershipRecord:
    """A membership attack's scores, beside what is allowed.

    Args:
        attack: key of ``MEMBERSHIP``.
        seen: viewpoint and released object.
        num_attacks: among how many what confidence leaves is shared: all that are
            compared with what is allowed, times the kinds of attacks that may refute.
    """
    scores, member = MEMBERSHIP[attack](trials).ravel(), trials.member.ravel()
    joint = 1 - (1 - confidence) / (num_attacks * len(QUOTED))

    def at(target: float, certainty: float) -> RatePoint:
        return _point(operate(scores, member, target, certainty), allowed)

    tests = [at(target, joint) for target in QUOTED]
    return MembershipRecord(
        attack=attack,
        viewpoint=seen[0],
        released=seen[1],
        num_shadows=len(trials.member),
        num_members=int(member.sum()),
        num_others=int((~member).sum()),
        confidence=confidence,
        auc=area_under_curve(scores, member),
        quoted=tuple(at(target, confidence) for target in QUOTED),
        curve=tuple(
            _point(each, allowed) for each in curve(scores, member, confidence)
        ),
        exceeds=any(each.low > each.allowed for each in tests),
    )


def _point(found: Operating, allowed: Allowed) -> RatePoint:
    most = float(allowed.true_positive_rate(np.array([found.fpr_high]))[0])
    return RatePoint(
        target=found.target,
        fpr=found.fpr,
        fpr_low=found.fpr_low,
        fpr_high=found.fpr_high,
        tpr=found.tpr,
        low=found.low,
        high=found.high,
        allowed=most,
        resolved=found.resolved,
    )
