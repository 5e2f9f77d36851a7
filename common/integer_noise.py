"""What mode ``distributed`` adds to a sum, and the ring it is summed in.

In ``common`` because clients, the server and reports derive it from the same public
configuration. Every client of a round adds a share of Skellam noise, so sized that the
shares of the honest ones among the least number of survivors are the noise that is
accounted; more survivors only add to it. A client whose own coin leaves it out of the
sample, or which has no rows, sends its share alone: nobody, the server included, sees
who is in the sample, which is what sampling's amplification rests on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from common.config import RunConfig
from common.errors import ConfigError
from common.events import DpEvent, Unit
from common.fixed_point import Float, Grid, Integer, encode
from common.rotation import block
from common.secagg.terms import Policy
from common.sections import Secagg
from common.skellam import draw, skellam_table

#: Of an integer of the ring.
LEAST_BITS, MOST_BITS = 8, 48
#: Probability of a larger sample than a ring is made for.
LARGER_SAMPLE = 1e-12


class Randomness(Protocol):
    """Where a client's noise and roundings come from."""

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Uniform 64-bit words."""

    def uniform(self, count: int) -> Float:
        """Uniform numbers in (0, 1)."""


@dataclass(frozen=True)
class SumPlan:
    """One round's sum in public numbers.

    Attributes:
        share: variance of a client's noise in each coordinate, in steps of the grid.
        least: clients whose vectors have to be in the sum.
        rate: probability that a client is in the sample.
        expected: clients in the sample on average: the mean's denominator.
        bits: of the ring's integers, signed.
        wrap: the sum wraps around with a probability of at most this.
    """

    grid: Grid
    share: float
    least: int
    rate: float
    expected: float
    bits: int
    wrap: float


def grid_of(config: RunConfig) -> Grid:
    """The grid that updates of this run are encoded on."""
    secagg = config.secagg
    return Grid(
        config.privacy.max_grad_norm,
        secagg.parameters,
        secagg.granularity,
        secagg.beta,
    )


def policy_of(config: RunConfig) -> Policy:
    """Against whom a round's sum is protected, as ``common/secagg`` has it."""
    secagg = config.secagg
    return Policy(
        active=secagg.roster,
        corrupt=secagg.corrupt,
        dropped=secagg.dropped,
        # A server that lies may try graphs until it likes one.
        security_bits=80 if secagg.roster else 40,
        degree=secagg.neighbours,
    )


def unit_of(config: RunConfig) -> Unit:
    """Whom mode ``distributed`` protects: the user, where clients have one each."""
    return "user" if config.privacy.declared_users == 1 else "client"


def sum_event(config: RunConfig, noise_multiplier: float) -> DpEvent:
    """What one round's sum costs, by the noise of the honest survivors alone."""
    grid = grid_of(config)
    return DpEvent(
        noise_multiplier,
        config.privacy.sample_rate,
        1,
        "skellam",
        unit_of(config),
        l2_sensitivity=grid.l2,
        l1_sensitivity=float(grid.l1),
    )


def share_variance(event: DpEvent, honest: int) -> float:
    """Of one client's noise: so many of them make up the event's."""
    whole = (event.noise_multiplier * event.l2_sensitivity) ** 2
    # Never less than accounted for the last digits' sake.
    return whole / honest * (1 + 2.0**-40)


@lru_cache(maxsize=8)
def sum_plan(config: RunConfig, noise_multiplier: float, dim: int) -> SumPlan:
    """The plan of every round's sum of this run.

    Args:
        noise_multiplier: of training, see ``plan.noise_multiplier``.
        dim: parameters of the student.

    Raises:
        ConfigError: if the student has more parameters than declared, or no ring is
            large enough.
    """
    secagg, grid = config.secagg, grid_of(config)
    if not 0 < dim <= secagg.parameters:
        raise ConfigError(
            "secagg.parameters: expected at least the student's number of "
            f"parameters, {dim}, got {secagg.parameters}."
        )
    rate = config.privacy.sample_rate
    share = share_variance(sum_event(config, noise_multiplier), secagg.honest)
    noise = share * secagg.clients
    bits, wrap = _ring(secagg, Load(grid.norm, secagg.clients, rate, noise, dim))
    expected = rate * secagg.clients
    return SumPlan(grid, share, secagg.least, rate, expected, bits, wrap)


def in_sample(plan: SumPlan, randomness: Randomness) -> bool:
    """A client's own coin for this round, drawn anew each time and told to nobody.

    Not even by how long an answer takes: a device trains whatever its coin says.
    """
    return bool(randomness.uniform(1)[0] < plan.rate)


def contribution(
    update: Float | None, dim: int, plan: SumPlan, seed: bytes, randomness: Randomness
) -> Integer:
    """What a client puts into the sum, int64 ``[dim]``: to be masked, never sent bare.

    Args:
        update: float64 ``[dim]``; ``None`` for a client outside the sample.
        seed: of the round's rotation, public.
        randomness: the operating system's, or a seed's in simulations.
    """
    noise = draw(skellam_table(plan.share), dim, randomness.words)
    # Zeros are encoded as well, to zeros: leaving that out would tell by the clock.
    held = np.zeros(dim) if update is None else update
    return noise + encode(held, plan.grid, seed, randomness.uniform)


def rotation_seed(run: str, number: int) -> bytes:
    """The public seed of a round's rotation.

    Args:
        run: the run's id.
        number: the round, from 1.
    """
    return f"{run}\x1f{number}".encode()


@dataclass(frozen=True)
class Load:
    """What a ring has to hold.

    Attributes:
        norm: L2 norm of a client's vector before rounding at most.
        clients: at most; each in the sum with probability ``rate``.
        noise: variance of the whole noise in a coordinate, nobody dropped.
        dim: coordinates.
    """

    norm: float
    clients: int
    rate: float
    noise: float
    dim: int


def wrap_probability(load: Load, bits: int) -> float:
    """A bound on the probability that some coordinate of the sum wraps around.

    Over the sample, the rotation's signs and the noise, for honest clients, whatever
    their updates: in the worst case all the same. Up to a quantile of the sample's
    size, roundings move a coordinate by less than 1 a client; the rest is a sum of
    fair signs and Skellam noise, under one Chernoff bound, and a union bound over
    the coordinates. A wrapped sum is a useless one; it costs no privacy.
    """
    from scipy.stats import binom

    most = int(binom.isf(LARGER_SAMPLE, load.clients, load.rate))
    beyond = float(binom.sf(most, load.clients, load.rate))
    height = 2.0 ** (bits - 1) - 1 - most
    if height <= 0:
        return 1.0
    proxy = (load.norm * most) ** 2 / block(load.dim)
    exponent = _chernoff(height, proxy, load.noise)
    return min(1.0, beyond + 2 * load.dim * math.exp(-min(exponent, 700.0)))


def _chernoff(height: float, proxy: float, noise: float) -> float:
    """−log of a bound on P[signs + Skellam ≥ height].

    The largest of λ·height − λ²·proxy/2 − noise·(cosh λ − 1), where its derivative
    is 0.
    """
    from scipy.optimize import brentq

    def slope(rate: float) -> float:
        return rate * proxy + noise * math.sinh(rate) - height

    most = math.asinh(height / noise)
    best = float(brentq(slope, 0.0, most)) if slope(most) > 0 else most
    gain = best * height - best**2 * proxy / 2
    return gain - 2 * noise * math.sinh(best / 2) ** 2


def _ring(secagg: Secagg, load: Load) -> tuple[int, float]:
    """Bits, as configured or the least that do, and the bound that they leave."""
    widths = [secagg.bits] if secagg.bits else range(LEAST_BITS, MOST_BITS + 1)
    for bits in widths:
        wrap = wrap_probability(load, bits)
        if wrap <= secagg.wrap:
            return bits, wrap
    raise ConfigError(
        "secagg.bits: expected 0 or more bits, so that a sum wraps around with a "
        f"probability of at most {secagg.wrap:g}; got {secagg.bits}."
    )
