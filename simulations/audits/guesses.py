"""How many canaries to guess: fixed before any score is seen, or paid for afterwards.

Simulations only. A bound is valid for numbers of guesses that do not depend on the
scores. Choosing the best of 190 pairs afterwards, uncorrected, "found" ε > 0 in 37 %
of runs without any leak; so the default plans by the claim alone, and a choice made
afterwards divides what confidence leaves by the number of choices (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from simulations.audits.bounds import one_run_epsilon

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

#: Shares of the canaries to guess, both ends together, that a plan chooses from.
SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: A mechanism that promises nothing is planned for as if it separated so well.
MOST_MU = 6.0
_DRAWS = 100


@dataclass(frozen=True)
class Guesses:
    """How many canaries are guessed in (the top scores) and out (the bottom)."""

    included: int
    excluded: int

    @property
    def total(self) -> int:
        """Guesses made."""
        return self.included + self.excluded


@dataclass(frozen=True)
class Plan:
    """Guesses, and the ε that they would typically prove.

    Attributes:
        as_claimed: if the mechanism leaked all that it may.
        half_noise: if its noise were half of what is claimed.
    """

    guesses: Guesses
    as_claimed: float
    half_noise: float


def candidates(num_canaries: int) -> tuple[Guesses, ...]:
    """The numbers of guesses that a plan, or a choice afterwards, is made from."""
    halves = {max(1, round(share * num_canaries / 2)) for share in SHARES}
    return tuple(
        Guesses(half, half) for half in sorted(halves) if 2 * half <= num_canaries
    )


def num_right(scores: Float, included: Bool, guesses: Guesses) -> int:
    """How many guesses are right.

    Args:
        scores: float64 ``[m]``, larger for a canary that seems to be in; of equal ones
            the order is that of the canaries, which tells nothing.
        included: ground truth, bool ``[m]``.
    """
    order = np.argsort(scores, kind="stable")
    top = order[len(order) - guesses.included :]
    bottom = order[: guesses.excluded]
    return int(included[top].sum() + (~included[bottom]).sum())


@lru_cache(maxsize=64)
def plan_guesses(num_canaries: int, mu: float, delta: float, confidence: float) -> Plan:
    """What to guess, by what a Gaussian mechanism would show with half of its noise.

    So that a fault of this size has the best chance to be seen; what is claimed is
    half as far apart. Typical numbers of right guesses come from drawn scores with a
    fixed seed: nothing of a run decides.

    Args:
        mu: of the claim: how many deviations apart a canary may be with and without.
    """
    claimed = _typical(num_canaries, min(mu, MOST_MU), delta, confidence)
    halved = _typical(num_canaries, min(2 * mu, MOST_MU), delta, confidence)
    best = max(halved, key=lambda each: halved[each])
    return Plan(best, claimed[best], halved[best])


def _typical(
    num_canaries: int, mu: float, delta: float, confidence: float
) -> dict[Guesses, float]:
    """The median bound by number of guesses, of scores ``mu`` deviations apart."""
    rng = np.random.default_rng(0)
    included = rng.random((_DRAWS, num_canaries)) < 0.5
    scores = rng.normal(size=included.shape) + mu * included
    ranked = np.take_along_axis(included, np.argsort(scores, axis=1), axis=1)
    below, above = np.cumsum(~ranked, axis=1), np.cumsum(ranked[:, ::-1], axis=1)
    found = {}
    for guesses in candidates(num_canaries):
        right = below[:, guesses.excluded - 1] + above[:, guesses.included - 1]
        found[guesses] = one_run_epsilon(
            num_canaries, guesses.total, int(np.median(right)), delta, confidence
        )
    return found


def chosen_afterwards(
    scores: Float,
    included: Bool,
    choices: Sequence[Guesses],
    delta: float,
    confidence: float,
) -> tuple[Guesses, float]:
    """The best of several numbers of guesses, and a bound that pays for the choice."""
    corrected = 1 - (1 - confidence) / len(choices)
    bounds = [
        one_run_epsilon(
            len(scores),
            each.total,
            num_right(scores, included, each),
            delta,
            corrected,
        )
        for each in choices
    ]
    best = int(np.argmax(bounds))
    return choices[best], bounds[best]
