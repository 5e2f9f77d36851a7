"""What an audit says of groups of users: who is recognised most easily.

Simulations only; one kind of finding, kept apart from ``findings.py`` since it is made
of smaller records. No user is named, and no group of too few users is shown.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from simulations.results import Count, Record

Share = Annotated[float, Field(ge=0, le=1)]


class GroupSuccess(Record):
    """How well members of a group are told from when they were not in.

    Attributes:
        auc: mean over the group's users of the chance that a run with the user scores
            above one without, so that 0.5 is guessing; interval over users.
        found: mean share of the runs with a user in which the attack says so, at a
            threshold that is one for everybody; an interval that takes each user for
            one trial.
        alarms: mean share of the runs *without* a user in which the attack says so
            all the same: a group found more often only since it is suspected more
            often has more of these too.
    """

    group: str
    num_users: Count
    auc: Share
    auc_low: Share
    auc_high: Share
    found: Share
    found_low: Share
    found_high: Share
    alarms: Share


class GroupTable(Record):
    """Groups by one property; ``suppressed`` are too small, and named only."""

    by: str
    groups: tuple[GroupSuccess, ...]
    suppressed: tuple[str, ...]


class WorstOffRecord(Record):
    """Who is worst off under the strongest membership attack of a viewpoint.

    Attributes:
        fpr: share of all runs without a user in which the attack is wrong.
        min_users: groups of fewer are suppressed.
        deciles: users from the least to the most recognised. Who belongs to one is
            decided in one half of the shadow runs and measured in the other, and the
            other way round: the same runs for both would make anybody look bad by
            chance. Empty where a tenth is too few users.
        tables: activity, taste, client, and what the run knows of its users.
    """

    kind: Literal["worst-off"] = "worst-off"
    attack: str
    viewpoint: str
    released: str
    num_shadows: Count
    confidence: Share
    fpr: Share
    min_users: Count
    everybody: GroupSuccess
    deciles: tuple[GroupSuccess, ...]
    tables: tuple[GroupTable, ...]
