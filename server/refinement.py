"""Refinement: the teacher made anew from what clients released of their pairs.

Server only. Everything after the noise is post-processing. The clients' noisy counts
and pairs give main directions of taste; pairs along these, asked in a second question
with far fewer numbers, sharpen them; public users' own pairs stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import ArpackError, svds

from common.config import RunConfig
from common.errors import ProtocolError
from common.plan import statistics_noise
from common.sections import Statistics
from common.statistics import Chosen, FloatArray
from server.robust import noise_spread
from server.settings import PublicData
from server.taste import Evidence, Float, find_tastes, leading
from server.teacher.factors import Factors, fit_factors

AnyFloat = TypeVar("AnyFloat", Float, FloatArray)

#: Rounds of coordinate ascent after the first question, and after the second.
FIRST, SECOND = 10, 8

#: Tastes of public users that stand beside the clients'.
PUBLIC_RANK = 64

#: Tastes to look for where there is no noise (mode off).
NOISELESS_RANK = 200

#: Items a taste at least: with fewer, rounds of ascent overshoot, each one further.
ITEMS_A_TASTE = 4

#: No count is taken for less: it is a variance.
LEAST_COUNT = 2.0

#: Without noise the factorisation is told of a little, to know what a taste is.
LEAST_NOISE = 0.05


class RefinementFailed(ProtocolError):
    """What clients answered makes no teacher: nothing that can be computed with."""


@dataclass(frozen=True)
class Summed:
    """A sum over the clients that answered.

    Attributes:
        arrays: float64 each.
        num_clients: how many, each with its own noise.
    """

    arrays: tuple[Float, ...]
    num_clients: int


class Census(Protocol):
    """Whoever asks the clients for their statistics (``strategy.py``)."""

    def pairs(self, chosen: Chosen) -> Summed:
        """Counts ``[m]`` and pairs ``[m (m − 1) / 2]`` over the clients."""
        ...

    def sketch(self, chosen: Chosen, directions: FloatArray) -> Summed:
        """Pairs along the directions, ``[m, q]``, over the clients."""
        ...


def refine(
    census: Census,
    public: PublicData,
    features: npt.NDArray[np.float32],
    config: RunConfig,
) -> Factors:
    """Ask the clients, once or twice, and make a teacher of the answers.

    Args:
        census: who asks.
        public: rows that teach beside them.
        features: what is known of the items, ``[n, F]``.
        config: ``statistics`` and, for the noise, ``privacy``.

    Raises:
        RefinementFailed: if the answers make no teacher; the one before stays.
        ProtocolError: if no client answered.
    """
    settings = config.statistics
    chosen = choose_items(public, settings.most_items)
    noise = statistics_noise(config)
    robust = config.aggregation
    # Without noise nothing hides a taste, however weak.
    rank = settings.rank if noise.pairs else max(settings.rank, NOISELESS_RANK)
    rank = max(1, min(rank, int(chosen.sum()) // ITEMS_A_TASTE))
    pairs = census.pairs(chosen)
    spread = noise_spread(pairs.num_clients, robust, rows=2)
    first = read_pairs(
        pairs, noise.pairs * spread, settings, _known(features, public)[chosen]
    )
    with _solving():
        tastes = _finite(find_tastes(first, leading(first.pairs, rank), FIRST))
    if settings.sketch_share:
        with _solving():
            directions = main_directions(tastes, settings.directions)
        answer = census.sketch(chosen, directions)
        second = replace(
            first,
            sketch=answer.arrays[0],
            sketch_noise=_deviation(
                noise.sketch * noise_spread(answer.num_clients, robust),
                answer.num_clients,
            ),
        )
        with _solving():
            tastes = _finite(find_tastes(second, tastes, SECOND))
    with _solving():
        teacher = teacher_of(tastes, first.popularity, chosen, public, settings)
        for table in (teacher.inputs, teacher.outputs):
            _finite(table)
    return teacher


def choose_items(public: PublicData, most: int) -> Chosen:
    """All items, or where there are too many those that public users touched most."""
    counts = np.asarray((public.teaching > 0).sum(axis=0)).ravel()
    chosen = np.zeros(len(counts), dtype=np.bool_)
    chosen[np.argsort(-counts, kind="stable")[:most]] = True
    return chosen


def read_pairs(
    answer: Summed, noise: float, settings: Statistics, features: Float
) -> Evidence:
    """The first answer, its counts and pairs each brought to their own scale."""
    counts, upper = answer.arrays
    share = settings.counts_share
    pairs = np.zeros((len(counts), len(counts)), dtype=np.float32)
    pairs[np.triu_indices(len(counts), 1)] = upper / math.sqrt(1 - share)
    deviation = _deviation(noise, answer.num_clients) / math.sqrt(1 - share)
    return Evidence(
        np.maximum(counts / math.sqrt(share), LEAST_COUNT),
        features,
        pairs + pairs.T,
        max(deviation, LEAST_NOISE),
    )


def main_directions(tastes: Float, count: int) -> FloatArray:
    """The tastes' orthonormal directions after the first, float32 ``[m, q]``.

    The first is how popular items are, which the counts have told already.
    """
    left = np.linalg.svd(tastes, full_matrices=False)[0]
    count = min(count, left.shape[1] - 1)
    first = 1 if count else 0
    return np.ascontiguousarray(left[:, first : count + 1], dtype=np.float32)


def teacher_of(
    tastes: Float,
    popularity: Float,
    chosen: Chosen,
    public: PublicData,
    settings: Statistics,
) -> Factors:
    """A linear teacher from the clients' tastes and the public users' own."""
    size = len(chosen)
    private, diagonal = np.zeros((size, tastes.shape[1])), np.full(size, settings.l2)
    private[chosen] = tastes
    diagonal[chosen] += settings.popularity_l2 * popularity
    beside = math.sqrt(settings.public_weight) * public_tastes(public.teaching)
    return fit_factors(np.hstack([private, beside]), diagonal)


def public_tastes(rows: sp.csr_matrix) -> Float:
    """Leading factors of public users' pairs, weighed as a client weighs its own."""
    seen = (rows > 0).astype(np.float64)
    length = np.maximum(np.diff(seen.indptr), 1)
    weighted = sp.diags(np.sqrt(math.sqrt(2) / length)) @ seen
    rank = min(PUBLIC_RANK, min(weighted.shape) - 1)
    if rank < 1 or not weighted.nnz:
        return np.zeros((rows.shape[1], 0))
    start = np.ones(min(weighted.shape))
    _, values, right = svds(weighted, k=rank, v0=start)
    found: Float = right.T * values
    return found


def _known(features: npt.NDArray[np.float32], public: PublicData) -> Float:
    """Features, whether the public knows an item, and a one for all."""
    ones = np.ones((len(features), 1))
    return np.hstack([ones, features.astype(np.float64), public.known[:, None]])


@contextmanager
def _solving() -> Iterator[None]:
    """Whatever arithmetic makes of the answers, a run goes on."""
    try:
        with np.errstate(all="ignore"):
            yield
    # Beside its own kind numpy, and scipy, raise ValueError for what is not finite.
    except (np.linalg.LinAlgError, ArpackError, ValueError):
        raise RefinementFailed(
            "The clients' statistics made no teacher: they are out of any proportion. "
            "The public teacher stays."
        ) from None


def _finite(found: AnyFloat) -> AnyFloat:
    if not np.isfinite(found).all():
        raise ValueError("Expected finite numbers.")
    return found


def _deviation(noise: float, num_clients: int) -> float:
    """Each client adds its own noise; without any, a little to go by."""
    return max(noise * math.sqrt(num_clients), LEAST_NOISE)
