"""Who is worst off: membership success by user over the shadow runs, in groups.

Simulations only: it knows every user. An average hides the few whom a release gives
away (Carlini et al. 2022, arXiv 2112.03570, section IV; Kulynych et al. 2022, arXiv
1906.00389). No user appears in what comes out, and no group of too few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from common.intervals import bootstrap_interval
from simulations.audits.group_records import GroupSuccess, GroupTable, WorstOffRecord
from simulations.audits.membership import MEMBERSHIP, Trials
from simulations.audits.people import Property, properties
from simulations.audits.roc import area_under_curve
from simulations.audits.world import World
from simulations.groups import reportable

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

#: Everybody's false positive rate at which a user counts as found.
FPR = 1e-2
DECILES = 10
#: Of the bootstrap over users, and of ties between them; they protect nothing.
_SEED, _RESAMPLES = 0, 1000


def worst_off(
    world: World, trials: Mapping[tuple[str, str], Trials], confidence: float
) -> list[WorstOffRecord]:
    """One record a viewpoint, of its strongest attack by AUC.

    Args:
        trials: of ``shadows.membership_trials``, by viewpoint and released object.
        confidence: of the intervals over users.
    """
    by = properties(world)
    strongest: dict[str, tuple[float, str, str, Float]] = {}
    for (viewpoint, released), each in trials.items():
        for attack in MEMBERSHIP:
            if attack == "rmia" and not each.population.shape[1]:
                continue
            scores = MEMBERSHIP[attack](each)
            auc = area_under_curve(scores.ravel(), each.member.ravel())
            if viewpoint not in strongest or auc > strongest[viewpoint][0]:
                strongest[viewpoint] = (auc, attack, released, scores)
    least = world.config.evaluation.min_group_users
    return [
        _record(
            (attack, viewpoint, released),
            UserSuccess(scores, trials[viewpoint, released].member),
            by,
            confidence,
            least,
        )
        for viewpoint, (_, attack, released, scores) in strongest.items()
    ]


class UserSuccess:
    """How well each user is recognised in some of the runs; NaN where unknown."""

    def __init__(self, scores: Float, member: Bool) -> None:
        """Take ``[runs, users]`` scores, and who was in."""
        self.member, self._scores = member, scores
        outside = np.sort(scores[~member])[::-1]
        allowed = int(FPR * len(outside) + 1e-9)
        threshold = outside[allowed] if allowed < len(outside) else -np.inf
        self._said = scores > threshold

    def values(self, runs: slice = slice(None)) -> Values:
        """Each user's AUC, found and false alarms over these runs."""
        said, member = self._said[runs], self.member[runs]
        inside = member.sum(axis=0)
        return Values(
            self._auc(runs),
            _ratio((said & member).sum(axis=0), inside),
            _ratio((said & ~member).sum(axis=0), len(member) - inside),
        )

    def _auc(self, runs: slice) -> Float:
        """Each user's own AUC, ``[users]``; ties count half."""
        scores, member = self._scores[runs], self.member[runs]
        won = np.zeros(scores.shape[1])
        for mine, inside in zip(scores, member, strict=True):
            above = (mine > scores) + 0.5 * (mine == scores)
            won += np.where(inside, (above * ~member).sum(axis=0), 0.0)
        return _ratio(won, member.sum(axis=0) * (~member).sum(axis=0))


@dataclass(frozen=True)
class Values:
    """By user, ``[users]``; NaN where a user was never in, or never out."""

    auc: Float
    found: Float
    alarms: Float

    @property
    def known(self) -> Bool:
        """Users of whom all is known."""
        return ~np.isnan(self.auc)

    def where(self, keep: npt.NDArray[Any]) -> Values:
        """These users alone."""
        return Values(self.auc[keep], self.found[keep], self.alarms[keep])


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Float:
    """NaN where the whole is nothing."""
    nothing = np.full(len(part), np.nan)
    found: Float = np.divide(part, whole, out=nothing, where=whole > 0)
    return found


def _record(
    names: tuple[str, str, str],
    success: UserSuccess,
    by: Mapping[str, Property],
    confidence: float,
    least: int,
) -> WorstOffRecord:
    values = success.values()
    tables = [
        _table(name, each, values, confidence, least) for name, each in by.items()
    ]
    return WorstOffRecord(
        attack=names[0],
        viewpoint=names[1],
        released=names[2],
        num_shadows=len(success.member),
        confidence=confidence,
        fpr=FPR,
        min_users=least,
        everybody=_group("everybody", values.where(values.known), confidence),
        deciles=_deciles(success, confidence, least),
        tables=tuple(table for table in tables if table is not None),
    )


def _table(
    name: str, by: Property, values: Values, confidence: float, least: int
) -> GroupTable | None:
    """None where there is nothing to compare: less than two groups at all."""
    shown, suppressed = reportable(by.labels[values.known], least)
    if len(shown) + len(suppressed) < 2:
        return None
    # One group alone would be everybody less the suppressed ones.
    kept = [each for each in by.order if each in shown] if len(shown) > 1 else []
    groups = [
        _group(each, values.where(values.known & (by.labels == each)), confidence)
        for each in kept
    ]
    return GroupTable(by=name, groups=tuple(groups), suppressed=suppressed)


def _deciles(
    success: UserSuccess, confidence: float, least: int
) -> tuple[GroupSuccess, ...]:
    """Tenths of the users, by one half of the runs and measured in the other."""
    even, odd = slice(0, None, 2), slice(1, None, 2)
    parts = [_ranked(success, *halves) for halves in ((even, odd), (odd, even))]
    if min(len(each.auc) for each in parts) < DECILES * max(1, least):
        return ()
    return tuple(
        _group(str(place + 1), _tenth(parts, place), confidence, parts=len(parts))
        for place in range(DECILES)
    )


def _tenth(parts: Sequence[Values], place: int) -> Values:
    """One tenth of each part's users, put together."""

    def of(name: str) -> Float:
        tenths = [np.array_split(getattr(each, name), DECILES) for each in parts]
        return np.concatenate([tenth[place] for tenth in tenths])

    return Values(of("auc"), of("found"), of("alarms"))


def _ranked(success: UserSuccess, decide: slice, measure: slice) -> Values:
    """Values in ``measure``, users in the order of their AUC in ``decide``."""
    by, values = success.values(decide).auc, success.values(measure)
    known = np.flatnonzero(~np.isnan(by) & values.known)
    ties = np.random.default_rng(_SEED).random(len(known))
    return values.where(known[np.lexsort((ties, by[known]))])


def _group(
    name: str, values: Values, confidence: float, *, parts: int = 1
) -> GroupSuccess:
    """A group's means and intervals.

    Args:
        parts: how often the same users may be among the values.
    """
    users = len(values.auc) // parts
    if not users:
        # Nobody was both in and out: nothing is known, so anything may be.
        return GroupSuccess(
            group=name, num_users=0, auc=0.5, auc_low=0.0, auc_high=1.0,
            found=0.0, found_low=0.0, found_high=1.0, alarms=0.0,
        )  # fmt: skip
    auc = bootstrap_interval(
        values.auc, seed=_SEED, num_resamples=_RESAMPLES, confidence=confidence
    )
    found = float(values.found.mean())
    low, high = share_interval(found, users, confidence)
    return GroupSuccess(
        group=name,
        num_users=users,
        auc=auc.value,
        auc_low=auc.low,
        auc_high=auc.high,
        found=found,
        found_low=low,
        found_high=high,
        alarms=float(values.alarms.mean()),
    )


def share_interval(mean: float, users: int, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's interval for a mean of shares, one a user.

    A share varies no more than a yes or no of the same mean, so this is cautious; a
    bootstrap of zeros alone would have no width.

    >>> [round(end, 3) for end in share_interval(0.0, 200, 0.95)]
    [0.0, 0.018]
    """
    tail, hits = (1 - confidence) / 2, mean * users
    low = float(beta.ppf(tail, hits, users - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, users - hits)) if hits < users else 1.0
    return min(low, mean), max(high, mean)
