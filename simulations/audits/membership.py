"""Membership inference: was this user's history among the rows of a run?

Simulations only. Pure functions over statistics of many runs, each over a random half
of the users: a run is attacked with the others as shadow models. LiRA (Carlini et al.
2022, arXiv 2112.03570), online and offline, with pooled variances since shadows are
few; RMIA (Zarifzadeh et al. 2024, arXiv 2312.03262).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

#: RMIA's γ, and the least probability that a ratio is taken of.
GAMMA, LEAST = 1.0, 1e-30


@dataclass(frozen=True)
class Trials:
    """One released object's statistic of every user, run by run.

    Attributes:
        statistic: float64 ``[runs, users]``: a logit of how well the object knows the
            user, or a log-likelihood ratio of released sums.
        member: who was in, bool ``[runs, users]``.
        population: the same statistic of users who are in no run, ``[runs, others]``;
            empty where there is none.
    """

    statistic: Float
    member: Bool
    population: Float


def threshold(trials: Trials) -> Float:
    """The statistic as it is, one threshold for all: an attacker without shadows."""
    return trials.statistic


def lira_online(trials: Trials) -> Float:
    """``log N(φ; in) − log N(φ; out)`` of each run by the others, ``[runs, users]``."""
    return _each(trials, _online)


def lira_offline(trials: Trials) -> Float:
    """How far φ lies above the runs without the user: shadows know no target."""
    return _each(trials, _offline)


def rmia(trials: Trials) -> Float:
    """Share of outsiders whom a user's gain in likelihood exceeds, ``[runs, users]``.

    A user's probability under the attacked run is divided by its mean over the other
    runs, and compared with the same of everybody of the population.
    """
    scores = np.empty_like(trials.statistic)
    users, others = _probability(trials.statistic), _probability(trials.population)
    for run in range(len(users)):
        rest = np.arange(len(users)) != run
        gain = users[run] / np.maximum(users[rest].mean(axis=0), LEAST)
        usual = others[run] / np.maximum(others[rest].mean(axis=0), LEAST)
        place = np.searchsorted(np.sort(usual), gain / GAMMA, side="left")
        # Users beyond all outsiders are told apart by how far.
        scores[run] = place / max(1, usual.size) + 1e-6 * gain / (1 + gain)
    return scores


#: Attack → its scores; RMIA needs a population, and so a likelihood.
MEMBERSHIP: dict[str, Callable[[Trials], Float]] = {
    "threshold": threshold,
    "lira-online": lira_online,
    "lira-offline": lira_offline,
    "rmia": rmia,
}


@dataclass(frozen=True)
class _Shadows:
    """Normal laws of φ with and without each user; deviations are pooled."""

    inside: Float
    outside: Float
    inside_deviation: float
    outside_deviation: float


def _each(trials: Trials, score: Callable[[Float, _Shadows], Float]) -> Float:
    found = np.empty_like(trials.statistic)
    for run in range(len(found)):
        rest = np.arange(len(found)) != run
        found[run] = score(
            trials.statistic[run], _fit(trials.statistic[rest], trials.member[rest])
        )
    return found


def _fit(statistic: Float, member: Bool) -> _Shadows:
    inside, inside_deviation = _law(statistic, member)
    outside, outside_deviation = _law(statistic, ~member)
    # A user who is in all, or in none, of the shadows: as far apart as the others.
    apart = float(np.nanmean(inside - outside))
    inside = np.where(np.isnan(inside), outside + apart, inside)
    outside = np.where(np.isnan(outside), inside - apart, outside)
    return _Shadows(inside, outside, inside_deviation, outside_deviation)


def _law(statistic: Float, keep: Bool) -> tuple[Float, float]:
    """Mean by user, NaN for nobody; and the deviation about it, pooled over users."""
    count = keep.sum(axis=0)
    total = np.where(keep, statistic, 0.0).sum(axis=0)
    mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    square = np.where(keep, (statistic - mean) ** 2, 0.0)
    freedom = float(np.maximum(count - 1, 0).sum())
    return mean, float(np.sqrt(max(square.sum() / max(freedom, 1.0), 1e-24)))


def _online(statistic: Float, shadows: _Shadows) -> Float:
    found: Float = norm.logpdf(
        statistic, shadows.inside, shadows.inside_deviation
    ) - norm.logpdf(statistic, shadows.outside, shadows.outside_deviation)
    return found


def _offline(statistic: Float, shadows: _Shadows) -> Float:
    return (statistic - shadows.outside) / shadows.outside_deviation


def _probability(logit: Float) -> Float:
    found: Float = np.exp(-np.logaddexp(0.0, -logit))
    return found
