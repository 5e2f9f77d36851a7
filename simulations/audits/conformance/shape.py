"""Is the noise Gaussian, in every number? How many numbers are large, how many tiny.

Simulations only. Noise of the right size protects nothing where it is bounded, or where
some numbers have none and others more. Answers of a client without users are nothing
but noise; over their own root mean square each number's square follows a beta
distribution, and their counts vary less than independent ones: binomial bounds hold.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from common import wire
from simulations.audits.conformance.bench import Bench, arrays
from simulations.audits.conformance.observed import Observed, Side, share_bounds

Float = npt.NDArray[np.float64]

ASSUMPTION = (
    "The noise is Gaussian, which alone is what is accounted for, and no number is "
    "without it."
)
#: In deviations: of Gaussian noise 4.6 % is beyond the first, .8 % within the second.
FAR, NEAR = 2.0, 0.01


def check_shape(bench: Bench) -> list[Observed]:
    """How many numbers of each kind of answer are far from zero, and how many near."""
    if not bench.is_private:
        return []
    return [
        each
        for kind in bench.kinds
        if kind != wire.EVALUATE
        for each in shape_of(kind, _noise(bench, kind))
    ]


def _noise(bench: Bench, kind: str) -> Float:
    client = bench.client([], seed=bench.seed, training__local_steps=1)
    found = arrays(bench.ask(client, kind), kind)
    return np.concatenate([values.ravel() for values in found.values()])


def shape_of(kind: str, values: Float) -> Iterator[Observed]:
    """The two shares of some noise, each beside the one of a Gaussian."""
    from scipy.stats import beta

    size = values.size
    square = np.square(values) / max(float(np.mean(np.square(values))), 1e-300)
    law = beta(0.5, (size - 1) / 2)
    yield _observed(
        f"share of noise beyond {FAR:g} deviations: {kind}",
        float(law.sf(FAR**2 / size)),
        float(np.mean(square > FAR**2)),
        size,
        "both",
    )
    yield _observed(
        f"share of noise within {NEAR:g} deviations: {kind}",
        float(law.cdf(NEAR**2 / size)),
        float(np.mean(square < NEAR**2)),
        size,
        "above",
    )


def _observed(
    measure: str, expected: float, measured: float, size: int, refuting: Side
) -> Observed:
    return Observed(
        check="shape",
        assumption=ASSUMPTION,
        measure=measure,
        expected=expected,
        measured=measured,
        bounds=share_bounds(size, expected),
        detail=f"The {measure}: {measured:.4f} of {size} numbers, where "
        f"{expected:.4f} is expected.",
        refuting=refuting,
    )
