"""The comparison rows of one experiment, on its own federation's folders.

Simulations only: it reads all clients' rows at once, as no party of a real
federation can. Settings are chosen on some of these rows' users, never on held-out
ones; FedMF's are fixed.
"""

from __future__ import annotations

import math
from pathlib import Path

import scipy.sparse as sp

from common.config import RunConfig
from common.metrics import Scorer
from simulations.baselines import BASELINES, fedmf, scorer_of, tune
from simulations.baselines.model import Model
from simulations.evaluation import HeldOut, private_rows

FEDMF = "fedmf"
NONPRIVATE = "_nonprivate"
_SEED = 0


def comparison_scorers(
    federation: Path, heldout: HeldOut, config: RunConfig, target_epsilon: float
) -> dict[str, Scorer]:
    """Models of ``BASELINES`` fitted to all private rows, and FedMF under the same ε.

    All but FedMF are NOT PRIVATE and named so.

    Args:
        federation: the run's folders.
        heldout: whom the models rank for.
        config: whose δ, clients and declared users are FedMF's too.
        target_epsilon: what FedMF may spend, the run's whole ε; ``inf`` in mode
            ``off``, where it is NOT PRIVATE either.

    Raises:
        ConfigError: if ``implicit`` is not installed.
    """
    train = private_rows(federation, heldout.catalogue)
    found = {}
    for name, baseline in BASELINES.items():
        if name != "popularity":
            settings = tune(baseline.fit, baseline.grid, train, seed=_SEED)
            model = baseline.fit(train, settings)
            found[name + NONPRIVATE] = scorer_of(model, heldout.shown)
    model = _fedmf(train, config, target_epsilon)
    return found | {FEDMF: scorer_of(model, heldout.shown)}


def _fedmf(train: sp.csr_matrix, config: RunConfig, target_epsilon: float) -> Model:
    privacy, num_clients = config.privacy, config.partition.num_clients
    settings, noise = fedmf.FedMF(), 0.0
    if math.isfinite(target_epsilon):
        noise = fedmf.noise_for(settings, target_epsilon, privacy.delta)
    return fedmf.fit(
        train,
        settings,
        noise_multiplier=noise,
        declared_users=privacy.declared_users * num_clients,
        seed=_SEED,
        num_clients=num_clients,
    )
