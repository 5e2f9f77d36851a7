"""All checks of a run, and their records.

Simulations only. A new check is a module beside this one, one entry in ``CHECKS`` and
one test. Each lists only what the run's configuration has.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from simulations.audits.conformance.bench import Bench
from simulations.audits.conformance.channels import check_channels
from simulations.audits.conformance.clip import check_clip
from simulations.audits.conformance.constants import check_constants
from simulations.audits.conformance.ledger import check_ledger
from simulations.audits.conformance.noise import check_noise
from simulations.audits.conformance.observed import Observed, judged
from simulations.audits.conformance.sampling import check_sampling
from simulations.audits.conformance.shape import check_shape
from simulations.audits.conformance.streams import check_streams
from simulations.audits.conformance.sum_records import (
    check_mask_seeds,
    check_sum_ledger,
)
from simulations.audits.conformance.sums import check_sum_clip, check_sum_noise
from simulations.audits.findings import CheckRecord
from simulations.audits.settings import AuditSettings, Tell
from simulations.audits.world import World

Check = Callable[[Bench], list[Observed]]

#: Name → check, in the order of a report.
CHECKS: dict[str, Check] = {
    "noise": check_noise,
    "shape": check_shape,
    "clip": check_clip,
    "sampling": check_sampling,
    "ledger": check_ledger,
    "streams": check_streams,
    "channels": check_channels,
    "constants": check_constants,
}
#: Likewise in mode ``distributed``, where a client is seen in a sum alone.
SUM_CHECKS: dict[str, Check] = {
    "noise": check_sum_noise,
    "clip": check_sum_clip,
    "ledger": check_sum_ledger,
    "mask-seeds": check_mask_seeds,
}


def run_checks(
    world: World, settings: AuditSettings, folder: Path, tell: Tell
) -> list[CheckRecord]:
    """Every check of a run; their alarms are false together as rarely as one bound.

    Args:
        folder: the audit's; nothing is kept there.
    """
    del folder
    share = (1 - settings.confidence) / settings.deciding
    found = judged(observe(world, settings.seed, tell), 1 - share)
    return [*found, _not_asked()] if checks_of(world) is SUM_CHECKS else found


def checks_of(world: World) -> dict[str, Check]:
    """The checks that the run's mode has."""
    return SUM_CHECKS if world.config.privacy.mode == "distributed" else CHECKS


def _not_asked() -> CheckRecord:
    return CheckRecord(
        check="conformance",
        assumption="A client does in private what the promise assumes.",
        source="rerun",
        finding="unknown",
        measure="",
        expected=None,
        measured=None,
        low=None,
        high=None,
        detail="In mode distributed no client answers by itself: its coin, whether "
        "streams of noise are independent, and what else could leave under a mask, "
        "were not looked at.",
        refutes=False,
    )


def observe(
    world: World,
    seed: int | None,
    tell: Tell = lambda text: None,
    names: tuple[str, ...] = (),
) -> list[Observed]:
    """What the checks see.

    Args:
        seed: of clients' noise and sampling where a check takes one.
        names: of :func:`checks_of`; all unless given.
    """
    found: list[Observed] = []
    checks = checks_of(world)
    for name in names or tuple(checks):
        tell(f"checks: {name}")
        with tempfile.TemporaryDirectory(prefix="tutela-checks-") as place:
            found += checks[name](Bench(world, Path(place), seed))
    return found
