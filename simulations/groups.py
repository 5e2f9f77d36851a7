"""Who gains and who pays: metrics by group of users, and what privacy costs each.

Simulations only: it joins held-out users with attributes that only the data set's
publisher has. Groups too small to report are suppressed, and never one alone, since
the rest and the total would give it away. That the cost of privacy is unequal:
Bagdasaryan et al. 2019 (arXiv 1905.12101); for recommenders: arXiv 2511.22515.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from common.beyond_accuracy import Values
from common.intervals import Estimate, bootstrap_interval

Labels = npt.NDArray[np.str_]
UNKNOWN = "unknown"
#: First year of each band; MovieLens-1M gives ages as the first year of its own.
AGE_BANDS = {1: "under 25", 25: "25–34", 35: "35–49", 50: "50 and over"}
OLDEST = 110

_SEED = 0


@dataclass(frozen=True)
class GroupFigures:
    """One group of held-out users.

    Attributes:
        models: mean of the metric a model, and its 95 % interval.
        cost: what privacy takes from the group: the paired difference of the model
            without and with privacy; None where one of the two was not run.
    """

    group: str
    num_users: int
    models: dict[str, Estimate]
    cost: Estimate | None


@dataclass(frozen=True)
class Gap:
    """The best-off group's mean less the worst-off one's, for one model.

    Attributes:
        chance: share of random regroupings of the same users whose gap is at least
            as large; groups that are alike have a gap too, a small one.
    """

    value: float
    best: str
    worst: str
    chance: float


@dataclass(frozen=True)
class Attribute:
    """A metric by one attribute of the users.

    Attributes:
        groups: those with enough users, by name; at least two, or none where fewer
            than two are left to compare.
        gaps: a model.
        suppressed: names of the groups left out.
    """

    attribute: str
    metric: str
    groups: tuple[GroupFigures, ...]
    gaps: dict[str, Gap]
    suppressed: tuple[str, ...]


def age_band(text: str) -> str:
    """The band of an age in years; 0, 200 and no number are ``unknown``.

    >>> age_band("56"), age_band("18"), age_band("239")
    ('50 and over', 'under 25', 'unknown')
    """
    try:
        years = float(text)
    except ValueError:
        return UNKNOWN
    if not 1 <= years <= OLDEST:
        return UNKNOWN
    return AGE_BANDS[max(first for first in AGE_BANDS if first <= years)]


def named(text: str) -> str:
    """The value itself, ``unknown`` where it is blank."""
    return text.strip() or UNKNOWN


#: Column of a data set's users → the group of a value. Others are not grouped by.
ATTRIBUTES: dict[str, Callable[[str], str]] = {
    "age": age_band,
    "gender": named,
    "cluster": named,
}


def labels_of(users: pl.DataFrame | None, ids: Sequence[str]) -> dict[str, Labels]:
    """Each user's group by every attribute of ``ATTRIBUTES`` that the set has.

    Args:
        users: column ``user`` and attributes, all strings; None where there are none.
        ids: outside ids; ``unknown`` where ``users`` lacks one.
    """
    if users is None:
        return {}
    found = {}
    for attribute, group in ATTRIBUTES.items():
        if attribute in users.columns:
            table = dict(users.select("user", attribute).iter_rows())
            names = [group(str(table.get(user) or "")) for user in ids]
            found[attribute] = np.asarray(names, dtype=np.str_)
    return found


def group_figures(
    values: Mapping[str, Values],
    labels: Mapping[str, Labels],
    *,
    metric: str,
    min_users: int,
    resamples: int,
    private: str = "student_private",
    nonprivate: str = "student_nonprivate",
) -> tuple[Attribute, ...]:
    """A metric by group for every model, by attributes with two groups or more.

    Users with NaN (nothing held) belong to no group. An attribute of which too little
    is left to compare stays, without groups: that it was suppressed is to be said.

    Args:
        values: by model, the metric of each held-out user, ``[users]``.
        labels: by attribute, each held-out user's group, ``[users]``.
        metric: its name, for the report.
        min_users: a group of fewer is suppressed.
        resamples: of the bootstrap, and random regroupings.
        private, nonprivate: the models whose difference is the cost of privacy.
    """
    if not values:
        return ()
    counted = ~np.isnan(np.stack(list(values.values()))).any(axis=0)
    kept = {name: value[counted] for name, value in values.items()}
    pair = None
    if private in kept and nonprivate in kept:
        pair = kept[nonprivate] - kept[private]
    found = []
    for attribute, of in labels.items():
        label = of[counted]
        shown, suppressed = reportable(label, min_users)
        if len(shown) < 2 and suppressed:
            hidden = tuple(sorted((*shown, *suppressed)))
            found.append(Attribute(attribute, metric, (), {}, hidden))
        if len(shown) > 1:
            groups = tuple(
                _figures(name, kept, pair, label == name, resamples) for name in shown
            )
            gaps = {
                model: gap_of(value, label, shown, resamples)
                for model, value in kept.items()
            }
            found.append(Attribute(attribute, metric, groups, gaps, suppressed))
    return tuple(found)


def reportable(
    labels: Labels, min_users: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Groups to show and to suppress, by name.

    Groups below ``min_users`` are suppressed. Where those together are still fewer,
    the next smallest goes too: else the total less the shown groups is theirs.

    >>> reportable(np.array(["a"] * 9 + ["b"] * 6 + ["c"] * 5 + ["d"] * 2), 4)
    (('a', 'b'), ('c', 'd'))
    """
    names, counts = np.unique(labels, return_counts=True)
    order = np.argsort(counts, kind="stable")
    hidden, users = [], 0
    for index in order:
        if counts[index] >= min_users and (users == 0 or users >= min_users):
            break
        hidden.append(str(names[index]))
        users += int(counts[index])
    shown = [str(name) for name in names if str(name) not in hidden]
    return tuple(shown), tuple(sorted(hidden))


def gap_of(value: Values, labels: Labels, shown: Sequence[str], resamples: int) -> Gap:
    """Largest less smallest mean of the shown groups, and a permutation test of it."""
    kept = np.isin(labels, list(shown))
    value, group = value[kept], np.searchsorted(sorted(shown), labels[kept])
    names, means = sorted(shown), _means(value, group)
    draw = np.random.default_rng(_SEED)
    found = float(np.ptp(means))
    by_chance = [
        float(np.ptp(_means(draw.permutation(value), group))) >= found - 1e-12
        for _ in range(resamples)
    ]
    # The grouping as it is counts as one of them, so the share is never 0.
    chance = (1 + sum(by_chance)) / (1 + resamples)
    return Gap(found, names[means.argmax()], names[means.argmin()], chance)


def _means(value: Values, group: npt.NDArray[np.int64]) -> Values:
    means: Values = np.bincount(group, value) / np.bincount(group)
    return means


def _figures(
    name: str,
    values: Mapping[str, Values],
    pair: Values | None,
    members: npt.NDArray[np.bool_],
    resamples: int,
) -> GroupFigures:
    def interval(value: Values) -> Estimate:
        return bootstrap_interval(value[members], seed=_SEED, num_resamples=resamples)

    return GroupFigures(
        name,
        int(members.sum()),
        {model: interval(value) for model, value in values.items()},
        None if pair is None else interval(pair),
    )
