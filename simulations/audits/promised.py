"""What a promise allows an attack: ε at several δ, and the ROC curve.

Simulations only: an audit sets it beside what attacks achieved. Computed by
dp-accounting's own accountant from the run's events, not by the code that the run
calibrates its noise with: the two check each other. Of integer noise no loss
distribution is known: wherever an event has it, all of them are composed by Rényi
divergences, as the promise is, and dp-accounting turns those into δ at each ε.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from common.events import DpEvent
from common.renyi import ORDERS, curve, epsilon_of, no_cost

Float = npt.NDArray[np.float64]

GRID = 1e-3
#: Where δ(ε) is looked up for the ROC curve.
_EPSILONS = np.concatenate([np.linspace(0.0, 4.0, 41), np.linspace(4.25, 24.0, 80)])


@dataclass(frozen=True)
class Allowed:
    """What a run's events allow against one unit.

    Attributes:
        events: all that is released of a client's rows, composed.
    """

    events: tuple[DpEvent, ...]

    @property
    def is_bare(self) -> bool:
        """Whether something is released without noise, so that all is allowed."""
        return any(event.noise_multiplier == 0 and event.steps for event in self.events)

    @property
    def is_integer(self) -> bool:
        """Whether integer noise is among them, so that divergences are composed."""
        return any(event.mechanism == "skellam" for event in self.events)

    def delta(self, epsilon: float) -> float:
        """The δ of all events at an ε; 1 where nothing is promised."""
        if self.is_bare:
            return 1.0
        if self.is_integer:
            return _delta_of(self._divergences, epsilon)
        return float(self._accountant.get_delta(epsilon))

    def epsilon(self, delta: float) -> float:
        """The ε of all events at a δ; ``inf`` where nothing is promised."""
        if self.is_bare:
            return math.inf
        if self.is_integer:
            return epsilon_of(self._divergences, delta)
        return float(self._accountant.get_epsilon(delta))

    def replacing(self, delta: float) -> float:
        """The ε of *replacing* a unit's rows, by group privacy from add or remove.

        A row more or less of one user is a replacement. Two steps of (ε, δ′) are
        (2ε, δ′(1 + e^ε)); δ′ is chosen so that the latter is the δ asked for. ``inf``
        also where that δ′ is smaller than what the accountant resolves.
        """
        if self.is_bare:
            return math.inf

        def excess(log_delta: float) -> float:
            found = self.epsilon(math.exp(log_delta))
            return float(log_delta + np.logaddexp(0.0, found) - math.log(delta))

        low = math.log(delta) - 1.0
        while (beyond := excess(low)) > 0:
            if not math.isfinite(beyond):
                # Below what the accountant resolves: group privacy says nothing more.
                return math.inf
            low -= 4.0
        if excess(math.log(delta)) <= 0:
            return 2 * self.epsilon(delta)
        log_delta = float(brentq(excess, low, math.log(delta), xtol=1e-3))
        return 2 * self.epsilon(math.exp(log_delta))

    def true_positive_rate(self, false_positive_rate: Float) -> Float:
        """The most that any attack may reach at these false positive rates.

        At each ε, ``TPR ≤ e^ε·FPR + δ(ε)`` and ``1 − FPR ≤ e^ε·(1 − TPR) + δ(ε)``
        (Kairouz, Oh, Viswanath 2015); the least of all of them.
        """
        rates = np.asarray(false_positive_rate, dtype=np.float64)
        if self.is_bare:
            return np.ones_like(rates)
        growth, deltas = np.exp(_EPSILONS)[:, None], self._deltas[:, None]
        left = (growth * rates + deltas).min(axis=0)
        right = (1 - (1 - rates - deltas) / growth).min(axis=0)
        most: Float = np.clip(np.minimum(left, right), 0.0, 1.0)
        return most

    @cached_property
    def _deltas(self) -> Float:
        return np.asarray([self.delta(epsilon) for epsilon in _EPSILONS])

    @cached_property
    def _divergences(self) -> Float:
        return sum((curve(event) for event in self.events), no_cost())

    @cached_property
    def _accountant(self) -> Any:
        from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
        from dp_accounting.pld import PLDAccountant

        accountant = PLDAccountant(value_discretization_interval=GRID)
        for event in self.events:
            one = GaussianDpEvent(event.noise_multiplier)
            if event.sample_rate < 1:
                one = PoissonSampledDpEvent(event.sample_rate, one)
            if event.steps:
                accountant.compose(one, event.steps)
        return accountant


def _delta_of(divergences: Float, epsilon: float) -> float:
    """The δ at an ε of divergences at ``ORDERS`` (Canonne, Kamath & Steinke 2020)."""
    from dp_accounting.rdp.rdp_privacy_accountant import compute_delta

    if not divergences.any():
        return 0.0
    return min(1.0, float(compute_delta(ORDERS, divergences, epsilon)[0]))


def epsilons(allowed: Allowed, deltas: Sequence[float]) -> dict[float, float]:
    """ε by δ; ``inf`` where nothing is promised."""
    return {delta: allowed.epsilon(delta) for delta in deltas}
