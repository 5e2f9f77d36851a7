"""Is all noise fresh? Answers of clients without users, correlated with each other.

Simulations only. Such answers are nothing but noise. Noise that two clients, rounds,
tensors or restarts share would cancel in a difference, at whatever offset it stands:
correlations are taken at every lag at which half of the numbers meet. Under
independence each one's distribution is exact (Student's t of a correlation about 0).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from common import wire
from simulations.audits.conformance.asking import Client
from simulations.audits.conformance.bench import Bench, arrays
from simulations.audits.conformance.observed import Bounds, Observed

Float = npt.NDArray[np.float64]
#: Name → noise.
Noises = Mapping[str, Float]

ASSUMPTION = (
    "Noise is drawn afresh for each client, message and number, and in production from "
    "no seed."
)
#: Numbers of an array that are looked at, and the fewest worth it.
MOST, FEWEST = 1 << 15, 32


def check_streams(bench: Bench) -> list[Observed]:
    """The largest correlation of noise that has to be independent."""
    if not bench.is_private:
        return []
    nonce = bench.nonce()
    first = _answers(bench, "0000", nonce)
    groups = {
        "between clients": (first, _answers(bench, "0001", nonce)),
        "after a restart, same message": (first, _answers(bench, "0000", nonce)),
    }
    found = [_observed(between, _across(*pair)) for between, pair in groups.items()]
    found.append(
        _observed("between arrays", list(itertools.combinations(first.values(), 2)))
    )
    if wire.TRAIN in bench.kinds and bench.world.config.training.rounds > 1:
        found.append(_observed("between rounds", _across(*_rounds(bench))))
    return found


def _answers(bench: Bench, name: str, nonce: str) -> Noises:
    """What a client without users answers to each kind of message once."""
    client = bench.client([], name=name, training__local_steps=1)
    found: dict[str, Float] = {}
    for kind in bench.kinds:
        if kind != wire.EVALUATE:
            found |= arrays(bench.ask(client, kind, nonce=nonce), kind)
    return {key: value.ravel()[:MOST] for key, value in found.items()}


def _rounds(bench: Bench) -> tuple[Noises, Noises]:
    """Two rounds' updates of one client under one nonce: a server may send it twice."""
    client = bench.client([], training__local_steps=1)
    nonce = bench.nonce()
    return _round(bench, client, 1, nonce), _round(bench, client, 2, nonce)


def _round(bench: Bench, client: Client, number: int, nonce: str) -> Noises:
    answer = bench.ask(client, wire.TRAIN, number=number, nonce=nonce)
    found = arrays(answer, wire.TRAIN)
    return {key: value.ravel()[:MOST] for key, value in found.items()}


def _across(one: Noises, other: Noises) -> list[tuple[Float, Float]]:
    """Pairs of arrays, like with like and crosswise."""
    return [(a, b) for a in one.values() for b in other.values()]


def _observed(between: str, pairs: list[tuple[Float, Float]]) -> Observed:
    fit = [(a, b) for a, b in pairs if min(len(a), len(b)) >= FEWEST]
    found = [strongest(a, b) for a, b in fit]
    worst = min(found, key=lambda each: each.p_value, default=None)
    tests = sum(each.lags for each in found)
    return Observed(
        check="streams",
        assumption=ASSUMPTION,
        measure=f"correlation of noise {between}",
        expected=0.0,
        measured=None if worst is None else worst.correlation,
        bounds=_bounds(0 if worst is None else worst.overlap, tests),
        detail=(
            f"Noise {between}: the least likely of {tests} correlations (every pair, "
            f"every lag) is "
            f"{worst.correlation:.4f} over {worst.overlap} numbers."
            if worst
            else "There are too few numbers to correlate."
        ),
    )


def _bounds(overlap: int, tests: int) -> Bounds:
    def bounds(alpha: float) -> tuple[float, float]:
        from scipy.stats import t

        if not tests:
            return -1.0, 1.0
        limit = float(t.isf(alpha / (2 * tests), overlap - 1))
        most = limit / float(np.sqrt(limit**2 + overlap - 1))
        return -most, most

    return bounds


class Strongest:
    """The least likely correlation of two arrays over all lags."""

    def __init__(self, correlation: float, overlap: int, lags: int) -> None:
        from scipy.stats import t

        self.correlation, self.overlap, self.lags = correlation, overlap, lags
        rest = max(1e-300, 1 - correlation**2)
        score = abs(correlation) * np.sqrt((overlap - 1) / rest)
        self.p_value = float(t.sf(score, overlap - 1))


def strongest(a: Float, b: Float) -> Strongest:
    """Correlate at every lag at which half of the shorter array meets the other."""
    from scipy.signal import correlate, correlation_lags
    from scipy.stats import t

    products = correlate(a, b, mode="full", method="fft")
    lags = correlation_lags(len(a), len(b), mode="full")
    start, stop = np.maximum(0, lags), np.minimum(len(a), len(b) + lags)
    overlap = stop - start
    squares = _energy(a, start, stop) * _energy(b, start - lags, stop - lags)
    seen = (overlap >= min(len(a), len(b)) / 2) & (squares > 0)
    if not seen.any():
        # Noise that is not there is the other checks' business.
        return Strongest(0.0, 2, 1)
    r = np.clip(products[seen] / np.sqrt(squares[seen]), -1.0, 1.0)
    size = overlap[seen]
    score = np.abs(r) * np.sqrt((size - 1) / np.maximum(1 - r**2, 1e-300))
    place = int(np.argmin(t.logsf(score, size - 1)))
    return Strongest(float(r[place]), int(size[place]), len(r))


def _energy(
    values: Float, start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]
) -> Float:
    total = np.concatenate([[0.0], np.cumsum(values**2)])
    found: Float = total[stop] - total[start]
    return found
