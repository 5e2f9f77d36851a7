"""Is the noise as large as claimed? Answers minus exact sums, in deviations claimed.

Simulations only. Of sums of statistics the exact sum is worked out by ``exact.py``; of
training, clients are asked whose users touch the output bias alone, and clients without
a user, whose answers are nothing but noise. A sum of squares of Gaussian noise is
chi-squared: intervals are exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from common import wire
from common.plan import statistics_noise
from simulations.audits.conformance.bench import Bench, Items, arrays
from simulations.audits.conformance.exact import pair_sums, sketch_sum
from simulations.audits.conformance.observed import Observed, deviation_bounds

Float = npt.NDArray[np.float64]

ASSUMPTION = (
    "Every number that leaves carries Gaussian noise of the claimed deviation, whoever "
    "is at the client."
)
#: Users of an exact sum, users that touch the bias alone, answers of metrics.
USERS, SINGLES, METRICS = 64, 24, 32
#: Local steps of a round at most: more are more of the same.
STEPS = 4
NOBODY, SOMEBODY = "without users", "with users"


def check_noise(bench: Bench) -> list[Observed]:
    """The deviation of each channel's noise, and of each tensor's, over the claimed."""
    if not bench.is_private:
        return []
    found: list[Observed] = []
    if wire.STATISTICS in bench.kinds:
        found += _statistics(bench, wire.STATISTICS)
    if wire.SKETCH in bench.kinds:
        found += _statistics(bench, wire.SKETCH)
    if wire.TRAIN in bench.kinds:
        found += _updates(bench)
    if wire.EVALUATE in bench.kinds:
        found.append(_metrics(bench))
    return found


def _statistics(bench: Bench, kind: str) -> Iterator[Observed]:
    noise = statistics_noise(bench.world.config)
    claimed = noise.pairs if kind == wire.STATISTICS else noise.sketch
    for who, rows in ((NOBODY, []), (SOMEBODY, bench.real[:USERS])):
        answer = arrays(bench.ask(bench.client(rows, seed=bench.seed), kind), kind)
        for name, total in _exact(bench, kind, rows).items():
            yield _observed(name, who, (answer[name] - total) / claimed)


def _exact(bench: Bench, kind: str, rows: Sequence[Items]) -> dict[str, Float]:
    if kind == wire.STATISTICS:
        share = bench.world.config.statistics.counts_share
        return pair_sums(rows, bench.chosen, share)
    return sketch_sum(rows, bench.chosen, bench.directions)


def _updates(bench: Bench) -> Iterator[Observed]:
    config = bench.world.config
    steps = min(STEPS, config.training.local_steps)
    deviation = bench.world.noise * config.privacy.max_grad_norm * math.sqrt(steps)
    singles = [[item] for item in range(min(SINGLES, bench.world.num_items))]
    for who, rows in ((NOBODY, []), (SOMEBODY, singles)):
        # So slow that steps start from one student: what a step adds does not depend
        # on the steps before.
        client = bench.client(
            rows,
            seed=bench.seed,
            training__local_steps=steps,
            training__learning_rate=SLOW,
        )
        answer = arrays(bench.ask(client, wire.TRAIN), wire.TRAIN)
        for name, values in answer.items():
            # A user of one item touches the bias, and nothing else.
            if who == NOBODY or name != "decoder.bias":
                scaled = values * (denominator(bench) / SLOW / deviation)
                yield _observed(f"update, {name}", who, scaled)


#: A learning rate that moves a student by next to nothing.
SLOW = 1e-6


def denominator(bench: Bench) -> float:
    """What a step's sum is divided by: public constants alone."""
    privacy = bench.world.config.privacy
    return privacy.sample_rate * privacy.declared_users


def _metrics(bench: Bench) -> Observed:
    """Few numbers an answer: many answers, of clients without users."""
    noise = bench.world.config.client_metrics.noise_multiplier
    found = [
        arrays(
            bench.ask(bench.client([], seed=bench.seed), wire.EVALUATE), wire.EVALUATE
        )
        for _ in range(METRICS)
    ]
    sums = np.concatenate([each["sums"] for each in found])
    return _observed("metrics", NOBODY, sums / (noise * math.sqrt(3)))


def _observed(channel: str, who: str, scaled: Float) -> Observed:
    measured = math.sqrt(float(np.mean(np.square(scaled))))
    return Observed(
        check="noise",
        assumption=ASSUMPTION,
        measure=f"deviation of the noise over the claimed: {channel}, {who}",
        expected=1.0,
        measured=measured,
        bounds=deviation_bounds(scaled.size),
        detail=f"Noise of {channel}, {who}: {measured:.4f} of what is claimed, in "
        f"{scaled.size} numbers.",
        refuting="below",
    )
