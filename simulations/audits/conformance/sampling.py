"""Is everybody in a step with the claimed chance, independently of everybody else?

Simulations only. Users of one item each, which nobody shares, leave one mark each in
the bias' update; next to no noise blurs it, and the sampling is production's. How often
they are in is binomial. Batches of a fixed size are too even from step to step, users
drawn without replacement too even from user to user.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from common import wire
from simulations.audits.conformance.bench import Bench, arrays
from simulations.audits.conformance.noise import SLOW, denominator
from simulations.audits.conformance.observed import (
    Bounds,
    Observed,
    drawn_bounds,
    normal_bounds,
    scaled,
    share_bounds,
)

Float = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

ASSUMPTION = (
    "In each step every user is sampled with the claimed chance, independently of all "
    "others and of all other steps (Poisson)."
)
#: Answers, users, and steps of an answer at most.
ANSWERS, USERS, STEPS = 32, 47, 2
#: Noise in which a mark is plain, and the share of items that are masked.
NOISE, MASKED, CLIP = 0.08, 0.9999, 0.1
#: So many terms of a sum are normal enough.
MANY = 500


def check_sampling(bench: Bench) -> list[Observed]:
    """How often users are in steps, and how evenly."""
    rate = bench.world.config.privacy.sample_rate
    if not bench.is_private or wire.TRAIN not in bench.kinds or rate == 1.0:
        return []
    steps = min(STEPS, bench.world.config.training.local_steps)
    users = min(USERS, bench.world.num_items // 2)
    counts = np.stack([_counted(bench, users, steps) for _ in range(ANSWERS)])
    return list(figures(counts, steps, rate * MASKED))


def _counted(bench: Bench, users: int, steps: int) -> Counts:
    """In how many steps of an answer each user was, int64 ``[users]``."""
    clip = min(CLIP, bench.world.config.privacy.max_grad_norm)
    client = bench.client(
        [[user] for user in range(users)],
        seed=bench.seed,
        training__rounds=1,
        training__local_steps=steps,
        training__learning_rate=SLOW,
        training__target_fraction=MASKED,
        privacy__max_grad_norm=clip,
        privacy__noise_multiplier=NOISE,
    )
    update = arrays(bench.ask(client, wire.TRAIN), wire.TRAIN)["decoder.bias"]
    marks = _marks(bench, users, clip)
    total = update * (-denominator(bench) / SLOW)
    found, *_ = np.linalg.lstsq(marks.T, total, rcond=None)
    counts: Counts = np.rint(found).clip(0, steps).astype(np.int64)
    return counts


def _marks(bench: Bench, users: int, clip: float) -> Float:
    """Clipped gradients of the bias for users of one masked item, ``[users, n]``.

    Without a history a user's scores are the biases: ``softmax(bias) − target``.
    """
    bias = bench.world.start["decoder.bias"].numpy().astype(np.float64)
    chance = np.exp(bias - bias.max())
    found = np.tile(chance / chance.sum(), (users, 1))
    found[np.arange(users), np.arange(users)] -= 1.0
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    shortened: Float = found * np.minimum(1.0, clip / norms)
    return shortened


def figures(counts: Counts, steps: int, rate: float) -> Iterator[Observed]:
    """What counts of inclusions say of the sampling.

    Args:
        counts: in how many of an answer's steps each user was, ``[answers, users]``.
        steps: of each answer.
        rate: with which each user is said to be in each step.
    """
    answers, users = counts.shape
    trials = answers * users * steps
    yield _figure(
        "share of steps that a user is in",
        rate,
        float(counts.sum() / trials),
        share_bounds(trials, rate),
        refuting="above",
    )
    yield _figure(
        "dispersion of how many users are in an answer's steps, over the binomial",
        1.0,
        _dispersion(counts.sum(axis=1), users * steps, rate),
        _dispersed(answers, users * steps, rate),
    )
    yield _figure(
        "dispersion of how often each user is in, over the binomial",
        1.0,
        _dispersion(counts.sum(axis=0), answers * steps, rate),
        _dispersed(users, answers * steps, rate),
    )
    if steps > 1:
        yield _figure(
            "dispersion of how often a user is in the steps of one answer, over the "
            "binomial",
            1.0,
            _dispersion(counts.ravel(), steps, rate),
            _dispersed(answers * users, steps, rate),
        )
    yield _figure(
        "dependence of an answer's sample on the one before, in deviations",
        0.0,
        _dependence(counts, steps, rate),
        normal_bounds(),
    )


def _dispersion(totals: Counts, trials: int, rate: float) -> float:
    """Mean squared distance from the binomial's mean, over its variance."""
    variance = trials * rate * (1 - rate)
    return float(np.mean((totals - trials * rate) ** 2) / variance)


def _dispersed(groups: int, trials: int, rate: float) -> Bounds:
    """Of :func:`_dispersion` over so many independent binomials: drawn, or normal."""
    if groups > MANY:
        from scipy.stats import binom

        kurtosis = float(binom.stats(trials, rate, moments="k"))
        deviation = np.sqrt((kurtosis + 2) / groups)
        return scaled(normal_bounds(), float(deviation), 1.0)

    return drawn_bounds(lambda: _dispersions(groups, trials, rate))


#: Draws of a dispersion, whose distribution has no closed form.
DRAWS = 40_000


@lru_cache(maxsize=16)
def _dispersions(groups: int, trials: int, rate: float) -> Float:
    rng, total = np.random.default_rng(0), np.zeros(DRAWS)
    for _ in range(groups):
        total += (rng.binomial(trials, rate, DRAWS) - trials * rate) ** 2
    found: Float = total / (groups * trials * rate * (1 - rate))
    return found


def _dependence(counts: Counts, steps: int, rate: float) -> float:
    beyond = counts - steps * rate
    products = beyond[1:] * beyond[:-1]
    deviation = steps * rate * (1 - rate) * np.sqrt(products.size)
    return float(products.sum() / deviation)


def _figure(
    measure: str,
    expected: float,
    measured: float,
    bounds: Bounds,
    refuting: str = "both",
) -> Observed:
    return Observed(
        check="sampling",
        assumption=ASSUMPTION,
        measure=measure,
        expected=expected,
        measured=measured,
        bounds=bounds,
        detail=f"The {measure}: {measured:.4f}, where {expected:.4f} is expected.",
        refuting="above" if refuting == "above" else "both",
    )
