"""iALS: matrix factorisation of implicit feedback by alternating least squares.

Hu, Koren, Volinsky 2008, "Collaborative Filtering for Implicit Feedback Datasets";
well tuned it is still strong (Rendle et al. 2022, arXiv 2110.14037). Computed by the
package ``implicit``, of the extra ``benchmark``. Simulations only, for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from common.errors import ConfigError
from common.interactions import FloatArray
from simulations.baselines.model import Model


@dataclass(frozen=True)
class Ials:
    """Settings.

    Attributes:
        confidence: weight of what was touched, where the rest weighs 1.
        seed: of the start; the same seed gives the same factors.
    """

    factors: int = 64
    regularization: float = 30.0
    confidence: float = 2.0
    iterations: int = 15
    seed: int = 0


GRID = (
    Ials(64, 30.0, 2.0),
    Ials(64, 30.0, 4.0),
    Ials(32, 10.0, 2.0),
    Ials(32, 10.0, 4.0),
)


def fit(train: sp.csr_matrix, settings: Ials) -> Model:
    """Item factors from the training rows; a user's from its history, in closed form.

    Raises:
        ConfigError: if ``implicit`` is not installed.
    """
    implicit = implicit_als()
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # As implicit asks, which multiplies many small matrices: else it warns each time.
    with threadpool_limits(1, "blas"):
        als = implicit(
            factors=settings.factors,
            regularization=settings.regularization,
            alpha=settings.confidence,
            iterations=settings.iterations,
            random_state=settings.seed,
            num_threads=1,
        )
        als.fit(train.astype(np.float32), show_progress=False)

    def score(history: sp.csr_matrix) -> FloatArray:
        rows = history.astype(np.float32)
        users = als.recalculate_user(np.arange(history.shape[0]), rows)
        return np.asarray(users @ als.item_factors.T, dtype=np.float32)

    return score


def implicit_als() -> Any:
    """The class of ``implicit``.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ImportError:
        raise ConfigError(
            "iALS: expected the package implicit, found none; install the extra: "
            "pip install 'tutela[benchmark]'."
        ) from None
    return AlternatingLeastSquares
