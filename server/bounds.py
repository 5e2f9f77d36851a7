"""How much a client's noised sums can hold, by public numbers alone.

Server only. Each user adds norm 1 at most, the declared number of users is public, and
so is the noise: an answer beyond all three is no answer, and costs only whoever sent
it. The bounds are those of users who all touched the very same items; real ones come
to less than half (MovieLens-100K: norms .42 and .20 of it), so that a client may have
twice the users that it declared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from flwr.app import RecordDict

from common.config import RunConfig
from common.errors import ProtocolError
from common.interactions import FloatArray
from common.plan import StatisticsNoise, statistics_noise
from common.statistics import Pairs, unpack_pairs, unpack_sketch

#: Deviations of noise that are let pass: beyond in one of 10^23 honest numbers, and of
#: norms (Laurent and Massart 2000, lemma 1) fewer.
DEVIATIONS = 10.0

#: Sums travel in single precision.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Bounds:
    """Public facts of a run that bound what one client can answer.

    Attributes:
        users: declared for a client.
        counts_share: of the norm, in (0, 1).
        noise: deviations of the noise in one number.
    """

    users: int
    counts_share: float
    noise: StatisticsNoise

    def pairs_of(self, content: RecordDict, num_chosen: int) -> Pairs:
        """Counts and pairs of a reply.

        Raises:
            ProtocolError: if they do not fit, or a number or their norm is too large.
        """
        found, share = unpack_pairs(content, num_chosen), self.counts_share
        self._check(found.counts, math.sqrt(share), self.noise.pairs)
        self._check(found.pairs, math.sqrt(1 - share), self.noise.pairs)
        return found

    def sketch_of(
        self, content: RecordDict, num_chosen: int, num_directions: int
    ) -> FloatArray:
        """The sketch of a reply.

        Raises:
            ProtocolError: as :meth:`pairs_of`.
        """
        found = unpack_sketch(content, num_chosen, num_directions)
        self._check(found, 1.0, self.noise.sketch)
        return found

    def _check(self, sums: FloatArray, norm: float, noise: float) -> None:
        """``norm`` is the most that a user adds, to any number and to all together."""
        numbers = sums.astype(np.float64)
        most = self.users * norm * (1 + ROUNDING)
        largest = np.abs(numbers).max(initial=0.0)
        together = math.sqrt(float((numbers**2).sum()))
        expected = noise * math.sqrt(numbers.size)
        if (
            largest > most + noise * DEVIATIONS
            or together > most + expected + noise * DEVIATIONS
        ):
            raise ProtocolError(
                "Expected sums within what privacy.declared-users users and the noise "
                "can give, got larger ones."
            )


def bounds_of(config: RunConfig) -> Bounds:
    """The bounds of a run."""
    return Bounds(
        config.privacy.declared_users,
        config.statistics.counts_share,
        statistics_noise(config),
    )
