"""Negative transfer: does starting from the teacher do harm?

Rosenstein, Marx, Kaelbling & Dietterich 2005, "To transfer or not to transfer": the
transferred start is compared with ranking by popularity and with a random start on
*public* validation users, paired, so that asking costs no privacy. Server only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from common.errors import DataFormatError
from common.intervals import Estimate, bootstrap_interval
from common.recommend import constant_scores, score_histories
from common.student import StateDict, StudentSpec, build, random_state
from server.safeguard import rank_public

#: Fewer users tell nothing.
LEAST_USERS = 2


@dataclass(frozen=True)
class TransferCheck:
    """What transfer gave on public validation users.

    Attributes:
        ndcg: model → mean NDCG@100.
        over_popularity: transferred minus popularity, paired over users, 95 %.
        over_random: transferred minus a random start, likewise.
        negative: whether either difference is surely below zero.
        sentence: the verdict.
    """

    ndcg: dict[str, float]
    over_popularity: Estimate
    over_random: Estimate
    negative: bool
    sentence: str


def check_transfer(
    state: StateDict,
    spec: StudentSpec,
    shown: sp.csr_matrix,
    held: sp.csr_matrix,
    popularity: npt.NDArray[np.float32],
    *,
    seed: int = 0,
) -> TransferCheck | None:
    """Compare the transferred start with popularity and with a random start.

    Args:
        state: the transferred start.
        spec: its shape.
        shown: what validation users show, CSR ``[users, n]``; public users.
        held: what is to find, likewise.
        popularity: public rows an item, float32 ``[n]``; all zero where the domain
            has no public rows, and then ranks like nothing.
        seed: of the bootstrap.

    Returns:
        The verdict; None where fewer than two users have anything to find.
    """
    if shown.shape[1] != spec.num_items or len(popularity) != spec.num_items:
        raise DataFormatError(
            f"Expected {spec.num_items} items, got {shown.shape[1]} and "
            f"{len(popularity)}."
        )
    if int((np.diff(held.indptr) > 0).sum()) < LEAST_USERS:
        return None
    chance = random_state(spec, torch.Generator().manual_seed(0))
    scorers = {
        "transferred": score_histories(build(spec, state).eval(), shown),
        "popularity": constant_scores(popularity),
        "random": score_histories(build(spec, chance).eval(), shown),
    }
    values = {
        name: rank_public(scorer, shown, held) for name, scorer in scorers.items()
    }
    gains = {
        name: bootstrap_interval(values["transferred"] - values[name], seed=seed)
        for name in ("popularity", "random")
    }
    negative = any(gain.high < 0 for gain in gains.values())
    return TransferCheck(
        {name: float(np.nanmean(value)) for name, value in values.items()},
        gains["popularity"],
        gains["random"],
        negative,
        say(gains, negative=negative, num_users=shown.shape[0]),
    )


def say(gains: dict[str, Estimate], *, negative: bool, num_users: int) -> str:
    """The verdict: negative transfer, no difference, or what was gained, and how sure.

    Args:
        gains: ``popularity`` and ``random`` → NDCG@100 of the transferred start minus
            theirs.
        negative: whether any is surely below zero.
        num_users: public validation users behind it.
    """
    parts = [
        f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] against {name}"
        for name, gain in gains.items()
    ]
    by_chance = gains["random"].low <= 0 <= gains["random"].high
    if negative:
        word = "negative transfer" + (", nothing crossed" if by_chance else "")
    elif all(gain.low > 0 for gain in gains.values()):
        word = "transfer helped"
    else:
        word = "transfer neither helped everywhere nor surely harmed"
    return (
        f"{word}: the transferred start's NDCG@100 is {' and '.join(parts)} "
        f"({num_users} public validation users, 95 %)."
    )
