"""The integrity audit: attacks by lying clients against each aggregator.

Simulations only. Every run of one trust model shares its dealing and its noise: runs
differ by plot and aggregator alone, so that small differences count.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from common.errors import ConfigError
from common.sections import check_possible
from simulations.audits.findings import IntegrityRecord
from simulations.audits.integrity.dealing import under
from simulations.audits.integrity.lies import LIES
from simulations.audits.integrity.malicious import Kept, Plot, federate
from simulations.audits.integrity.measuring import Outcome, measure
from simulations.audits.integrity.scenes import (
    DISTRIBUTED,
    OFF,
    TARGETS,
    Scene,
    false_users,
    make_scene,
)
from simulations.audits.settings import AuditSettings, Tell
from simulations.audits.shadows import one_thread_each, single_thread
from simulations.audits.world import World, write_clients

#: False users with true code; the one attack that is no lie of :data:`LIES`.
SHILLING = "shilling"
AGGREGATORS = ("none", "trimmed-mean", "median", "multi-krum", "norm-bound")


@dataclass(frozen=True)
class Grid:
    """What is tried.

    Attributes:
        shares: clients, and how many of them lie.
        attacks: against every aggregator.
        further: against no robust aggregator.
        also_off: whether the mode ``off`` is tried beside the run's own.
    """

    shares: tuple[tuple[int, int], ...]
    attacks: tuple[str, ...]
    further: tuple[str, ...] = ()
    also_off: bool = False


GRIDS = {
    "quick": Grid(((20, 2),), ("push",), ("push-quiet", SHILLING)),
    "full": Grid(
        ((20, 1), (20, 2), (50, 5), (100, 1)),
        (*LIES, SHILLING),
        also_off=True,
    ),
}


def audit_integrity(
    world: World, settings: AuditSettings, folder: Path, tell: Tell
) -> list[IntegrityRecord]:
    """Every attack of the grid, and what no server can do under a sum alone.

    Raises:
        ConfigError: if there is no such grid, or the run does not run again.
    """
    del folder
    if settings.integrity not in GRIDS:
        raise ConfigError(
            f"Expected an integrity grid of {', '.join(GRIDS)}, got "
            f"{settings.integrity!r}."
        )
    grid = GRIDS[settings.integrity]
    seed = secrets.randbits(31) if settings.seed is None else settings.seed
    modes: list[str] = [world.config.privacy.mode]
    if grid.also_off and OFF not in modes:
        modes.append(OFF)
    found: list[IntegrityRecord] = []
    with tempfile.TemporaryDirectory(prefix="tutela-integrity-") as name:
        scenes = [
            make_scene(world, mode, share, Path(name) / f"{mode}-{index}", seed)
            for mode in modes
            for index, share in enumerate(_shares(grid, mode))
        ]
        arms = [arm for scene in scenes for arm in _arms(scene, grid)]
        for arm, made in zip(arms, _computed(arms, settings.workers), strict=True):
            found += made
            tell(f"integrity: {arm.scene.liars_of} lie, {arm.name}")
    return [*found, *_impossible(found[0], grid)]


@dataclass(frozen=True)
class Arm:
    """One aggregator in one scene, and the attacks that it is put to."""

    scene: Scene
    attacks: tuple[str, ...]

    @property
    def name(self) -> str:
        """Trust model and aggregator."""
        config = self.scene.world.config
        return f"{config.privacy.mode}, {config.aggregation.robust}"


def _shares(grid: Grid, mode: str) -> tuple[tuple[int, int], ...]:
    return grid.shares[:1] if mode == DISTRIBUTED else grid.shares


def _arms(scene: Scene, grid: Grid) -> Iterator[Arm]:
    """Under a sum alone no aggregator is robust, and no answer is seen to be a lie."""
    summed = scene.world.config.privacy.mode == DISTRIBUTED
    for aggregator in ("none",) if summed else AGGREGATORS:
        robust = {"aggregation.robust": aggregator}
        attacks = grid.attacks + (grid.further if aggregator == "none" else ())
        yield Arm(
            replace(scene, world=under(scene.world, robust)),
            (SHILLING,) if summed else attacks,
        )


def _computed(arms: Sequence[Arm], workers: int) -> Iterator[list[IntegrityRecord]]:
    """In their order; in processes of one thread each, or in this one."""
    if not workers:
        yield from map(attacked, arms)
        return
    with (
        one_thread_each(),
        ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=single_thread
        ) as pool,
    ):
        yield from pool.map(attacked, arms)


def attacked(arm: Arm) -> list[IntegrityRecord]:
    """An aggregator without an attack, and with each."""
    kept: Kept = {}
    with tempfile.TemporaryDirectory(prefix="tutela-integrity-") as name:
        place = Path(name)
        bare = _run(arm.scene, Plot(), place / "bare", kept)
        return [
            _compare(arm.scene, attack, place, kept, bare) for attack in arm.attacks
        ]


def _compare(
    scene: Scene, attack: str, place: Path, kept: Kept, bare: Path
) -> IntegrityRecord:
    targets = scene.lowered if attack.startswith("nuke") else scene.raised
    plot = Plot(scene.liars, LIES.get(attack), targets, scene.popularity)
    folder = place / "attacked"
    run = _run(scene, plot, folder, kept)
    before, after = (measure(each, scene.heldout, targets) for each in (bare, run))
    shutil.rmtree(folder)
    return _record(scene, attack, before, after)


def _run(scene: Scene, plot: Plot, folder: Path, kept: Kept) -> Path:
    false = set(plot.clients) if plot.lie is None else set()
    clients = [
        false_users(scene, client, plot.targets) if client.name in false else client
        for client in scene.world.clients
    ]
    write_clients(scene.world, clients, folder, scene.seed)
    return federate(scene.world, plot, folder, kept, scene.seed)


def _record(
    scene: Scene, attack: str, before: Outcome, after: Outcome
) -> IntegrityRecord:
    config, note = scene.world.config, scene.dealing
    if attack == SHILLING:
        note += " False users through true code: nothing tells them from people."
    if config.privacy.mode == DISTRIBUTED:
        note += " Lies under the masks were not tried."
    if _is_public(after, scene):
        note += " The safeguard released the public teacher's student"
        note += ", as without the attack." if _is_public(before, scene) else "."
    return IntegrityRecord(
        attack=attack,
        mode=config.privacy.mode,
        aggregator=config.aggregation.robust,
        malicious=len(scene.liars),
        num_clients=len(scene.world.clients),
        num_targets=TARGETS,
        rank_before=before.rank,
        rank_after=after.rank,
        exposure_before=before.exposure,
        exposure_after=after.exposure,
        quality_before=before.quality,
        quality_after=after.quality,
        possible=True,
        note=note,
    )


def _is_public(outcome: Outcome, scene: Scene) -> bool:
    """Whether nothing that clients answered is in the released student."""
    refined = scene.world.config.statistics.share > 0
    return outcome.start == "transferred" and (refined or outcome.weight == 0)


def _impossible(like: IntegrityRecord, grid: Grid) -> Iterator[IntegrityRecord]:
    """What a server cannot do that sees only the sum: said for every aggregator."""
    for aggregator in AGGREGATORS:
        try:
            check_possible(DISTRIBUTED, aggregator)
        except ConfigError as error:
            yield IntegrityRecord(
                attack=grid.attacks[0],
                mode=DISTRIBUTED,
                aggregator=aggregator,
                malicious=like.malicious,
                num_clients=like.num_clients,
                num_targets=like.num_targets,
                rank_before=None,
                rank_after=None,
                exposure_before=None,
                exposure_after=None,
                quality_before=None,
                quality_after=None,
                possible=False,
                note=str(error),
            )
