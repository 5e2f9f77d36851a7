"""What an attack's success proves: lower bounds on ε, as pure functions.

Simulations only: whoever counts right guesses knows who was a canary. One run:
Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846, theorem 5.2 and its appendix's code);
many runs: Nasr et al. 2023 (arXiv 2302.07956) for Gaussian mechanisms; intervals:
Clopper and Pearson 1934.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, binom, norm

from common.errors import ConfigError

#: No bound is looked for beyond: guesses enough for more would fill a disk.
MOST_EPSILON = 64.0
_STEPS = 32


def one_run_p_value(
    num_canaries: int, num_guesses: int, num_right: int, epsilon: float, delta: float
) -> float:
    """How likely an (ε, δ)-private mechanism allows so many right guesses.

    Args:
        num_canaries: m, each included with probability one half.
        num_guesses: r of them that were guessed, the others abstained from.
        num_right: v of the guesses.

    Raises:
        ConfigError: unless ``0 ≤ v ≤ r ≤ m``.
    """
    if not 0 <= num_right <= num_guesses <= num_canaries:
        raise ConfigError(
            "Expected 0 ≤ right guesses ≤ guesses ≤ canaries, got "
            f"{num_right}, {num_guesses} and {num_canaries}."
        )
    rate = 1.0 / (1.0 + math.exp(-epsilon))
    tail = float(binom.sf(num_right - 1, num_guesses, rate))
    below = np.cumsum(binom.pmf(np.arange(num_right - 1, -1, -1), num_guesses, rate))
    steepest = float((below / np.arange(1, num_right + 1)).max()) if num_right else 0.0
    return min(1.0, tail + 2 * num_canaries * delta * steepest)


@lru_cache(maxsize=4096)
def one_run_epsilon(
    num_canaries: int,
    num_guesses: int,
    num_right: int,
    delta: float,
    confidence: float,
) -> float:
    """The largest ε that so many right guesses refute at this confidence; 0 for none.

    Guesses must be fixed beforehand in number (k₊ and k₋), or the confidence be
    corrected for the choice (``guesses.py``).

    >>> round(one_run_epsilon(1000, 100, 95, 1e-5, 0.95), 3)
    2.165
    """

    def refuted(epsilon: float) -> bool:
        found = one_run_p_value(num_canaries, num_guesses, num_right, epsilon, delta)
        return found <= 1 - confidence

    if num_guesses == 0 or not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < MOST_EPSILON and refuted(high):
        low, high = high, high * 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def clopper_pearson(
    successes: int, trials: int, confidence: float
) -> tuple[float, float]:
    """The two-sided exact interval of a rate; (0, 1) without trials."""
    if not 0 <= successes <= trials:
        raise ConfigError(
            f"Expected 0 ≤ successes ≤ trials, got {successes} of {trials}."
        )
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = 1.0
    if successes < trials:
        high = beta.ppf(1 - tail, successes + 1, trials - successes)
    return float(low), float(high)


def gdp_mu(false_positive_rate: float, false_negative_rate: float) -> float:
    """μ of a Gaussian mechanism with these error rates; of upper bounds, a lower one.

    ``Φ⁻¹(1 − FPR) − Φ⁻¹(FNR)``, not below 0.
    """
    found = norm.isf(false_positive_rate) - norm.ppf(false_negative_rate)
    return max(0.0, float(found))


def gdp_delta(epsilon: float, mu: float) -> float:
    """δ(ε) of a μ-Gaussian-private mechanism (Dong, Roth, Su 2019, corollary 2.13)."""
    if mu <= 0:
        return 0.0
    first = norm.cdf(-epsilon / mu + mu / 2)
    # In logarithms: e^ε may be more than a float holds where the rest is nothing.
    second = math.exp(min(0.0, epsilon + norm.logcdf(-epsilon / mu - mu / 2)))
    return max(0.0, float(first - second))


def gdp_epsilon(mu: float, delta: float) -> float:
    """The ε of a μ-Gaussian-private mechanism at δ; ``inf`` for an infinite μ."""
    if mu <= 0 or gdp_delta(0.0, mu) <= delta:
        return 0.0
    if not math.isfinite(mu):
        return math.inf
    high = 1.0
    while gdp_delta(high, mu) > delta:
        high *= 2
    return float(brentq(lambda epsilon: gdp_delta(epsilon, mu) - delta, 0.0, high))


def gdp_mu_of(epsilon: float, delta: float) -> float:
    """The μ whose ε at δ is this one: the inverse of :func:`gdp_epsilon`."""
    if epsilon <= 0:
        return 0.0
    if not math.isfinite(epsilon):
        return math.inf
    high = 1.0
    while gdp_epsilon(high, delta) < epsilon:
        high *= 2
    return float(brentq(lambda mu: gdp_epsilon(mu, delta) - epsilon, 1e-9, high))


def gdp_epsilon_lower(
    false_positives: int,
    num_out: int,
    false_negatives: int,
    num_in: int,
    delta: float,
    confidence: float,
) -> float:
    """ε that errors of independent trials refute, for a Gaussian mechanism.

    Each error rate's upper end holds with half of what confidence leaves. Trials must
    be independent (one guess a run, or a mechanism that treats canaries apart), and
    the threshold fixed beforehand.
    """
    each = confidence  # the upper end of a two-sided interval has half of the rest
    fpr = clopper_pearson(false_positives, num_out, each)[1]
    fnr = clopper_pearson(false_negatives, num_in, each)[1]
    if fpr >= 1 or fnr >= 1:
        return 0.0
    return gdp_epsilon(gdp_mu(fpr, fnr), delta)
