"""Faults of secure sums, planted as ``planted.py`` plants those of single answers."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np

import common.fixed_point
import common.secagg.keys
from common.integer_noise import sum_plan
from common.secagg.shares import SHARE_BYTES
from common.sections import Secagg
from tests.simulations.audits.planted import budget_reset


@contextmanager
def shares_of_dropped_clients_counted() -> Iterator[None]:
    """Noise is dealt to all, as if those who drop out added theirs as well."""
    everybody = property(lambda secagg: secagg.clients)
    # A plan is worked out once.
    sum_plan.cache_clear()
    try:
        with patch.object(Secagg, "honest", everybody):
            yield
    finally:
        sum_plan.cache_clear()


def masks_from_a_short_seed():
    """Sixteen bytes, of which twelve bits are drawn."""
    return patch.object(
        common.secagg.keys,
        "draw_seed",
        lambda: secrets.randbelow(1 << 12).to_bytes(SHARE_BYTES, "big"),
    )


def one_mask_seed():
    """Every client's the same, however long it is."""
    seed = secrets.token_bytes(SHARE_BYTES)
    return patch.object(common.secagg.keys, "draw_seed", lambda: seed)


def update_unclipped():
    """The whole update goes into the sum as it comes."""
    return patch.object(
        common.fixed_point,
        "clipped",
        lambda update, clip: np.nan_to_num(update, posinf=0.0, neginf=0.0),
    )


def budget_reset_of_sums():
    return budget_reset()


#: Fault → the check that catches it, and the run that it is planted in.
CAUGHT_SUMS: dict[Callable, tuple[str, str]] = {
    shares_of_dropped_clients_counted: ("noise", "devices"),
    update_unclipped: ("clip", "devices"),
    budget_reset_of_sums: ("ledger", "devices"),
    masks_from_a_short_seed: ("mask-seeds", "devices"),
    one_mask_seed: ("mask-seeds", "devices"),
}
