"""Rényi divergences of Skellam and Gaussian noise, sampled, composed, as an ε.

In ``common`` for the same reason as ``accounting.py``, which decides when to count so:
no privacy loss distribution is known for Skellam noise in many dimensions, its Rényi
divergences are (Agarwal, Kairouz & Liu 2021, arXiv 2110.04995, corollary 4.1).

Poisson sampling: let Q and P be the outputs with and without a unit, all other
randomness fixed. With the unit in the sample with probability q, for integer orders a,

    E_P[((1 − q) + q·Q/P)^a] = Σ_k C(a, k) (1 − q)^(a−k) q^k E_P[(Q/P)^k],

exactly; each expectation is at most exp((k − 1)·ε(k)), and 1 for k ≤ 1 (Zhu & Wang
2019; Steinke 2022, arXiv 2210.00597, §6). The other direction is never larger where a
reflection swaps P and Q (Mironov, Talwar & Zhang 2019, arXiv 1908.10530, theorem 5),
as one does for symmetric noise. What was fixed mixes both sides alike, and divergences
are quasi-convex.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from common.events import DpEvent

Curve = npt.NDArray[np.float64]

#: Integer orders: all of the small ones, then about 6 % apart.
_FAR = np.geomspace(128, 16_384, 84).round().astype(np.int64)
ORDERS: npt.NDArray[np.int64] = np.unique(np.concatenate([np.arange(2, 128), _FAR]))


def epsilon_renyi(events: Sequence[DpEvent], delta: float) -> float:
    """The ε of all events together at ``delta``; every one has noise.

    From Rényi divergences to (ε, δ) by dp-accounting's conversion (Canonne, Kamath &
    Steinke 2020, arXiv 2004.00010, proposition 12).
    """
    return epsilon_of(sum((curve(event) for event in events), no_cost()), delta)


def epsilon_of(divergences: Curve, delta: float) -> float:
    """The ε of divergences at each of ``ORDERS``."""
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    if not divergences.any():
        return 0.0
    return float(compute_epsilon(ORDERS, divergences, delta)[0])


def no_cost() -> Curve:
    """The divergences of having released nothing."""
    return np.zeros(len(ORDERS))


def curve(event: DpEvent) -> Curve:
    """The divergences of an event, all its steps, at each of ``ORDERS``."""
    return _step_curve(event) * event.steps if event.steps else no_cost()


def divergence(event: DpEvent, orders: npt.NDArray[np.int64]) -> Curve:
    """A step's divergences without sampling, or a bound on them."""
    square = event.noise_multiplier**2
    found = orders / (2 * square)
    if event.mechanism == "skellam":
        variance = square * event.l2_sensitivity**2
        one = (2 * orders - 1) / (4 * square * variance)
        one += 6 * event.l1_sensitivity / (4 * variance**2)
        found += np.minimum(one, 3 * event.l1_sensitivity / (2 * variance))
    return np.asarray(found, dtype=np.float64)


def _step_curve(event: DpEvent) -> Curve:
    """A step's divergences with sampling; steps do not matter."""
    return _cached_curve(replace(event, steps=1))


@lru_cache(maxsize=64)
def _cached_curve(event: DpEvent) -> Curve:
    with np.errstate(over="ignore", divide="ignore"):
        if event.sample_rate == 1.0:
            return divergence(event, ORDERS)
        powers = np.arange(2, ORDERS[-1] + 1)
        moments = (powers - 1) * divergence(event, powers)
        excess = moments + np.log(-np.expm1(-moments))
        found = [_sampled(int(a), event.sample_rate, excess) for a in ORDERS]
    return np.array(found) / (ORDERS - 1)


def _sampled(order: int, rate: float, excess: Curve) -> float:
    """The log of the sum above; ``excess`` is log(moment − 1) from k = 2 on.

    The weights of the sum are a binomial's, which add up to 1.
    """
    from scipy.special import logsumexp

    terms = _log_binomial(order, rate) + excess[: order - 1]
    return float(np.logaddexp(0.0, logsumexp(terms)))


def _log_binomial(order: int, rate: float) -> Curve:
    """The log of C(order, k) rate^k (1 − rate)^(order − k), for k from 2 to order."""
    from scipy.special import gammaln

    k = np.arange(2, order + 1)
    choose = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    return np.asarray(choose + k * np.log(rate) + (order - k) * np.log1p(-rate))
