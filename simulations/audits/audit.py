"""One audit: attack a run, set what was achieved beside what was promised.

Simulations only. The run's own configuration runs again, with canaries or over random
halves of its users: a run that is over cannot be given any. A new attack is a module,
one entry in ``ATTACKS``, one record in ``records.py`` and one test.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from common.config import to_flat
from common.errors import ConfigError
from common.folders import (
    INTERACTIONS,
    STUDENT,
    STUDENT_TRANSFERRED,
    TEACHER,
    TEACHER_REFINED,
)
from common.promise import promise_of
from simulations.audits.canaries import DESIGNS
from simulations.audits.findings import CanaryRecord, Finding, finite
from simulations.audits.membership import MEMBERSHIP
from simulations.audits.one_run import audit_canaries
from simulations.audits.promised import Allowed
from simulations.audits.recording import record_canaries, record_membership
from simulations.audits.records import AuditReport, Claim, write_report
from simulations.audits.settings import AuditSettings, Tell
from simulations.audits.shadows import membership_trials
from simulations.audits.viewpoints import SHADOW_KNOWLEDGE, VIEWPOINTS
from simulations.audits.wording import limits, verdict
from simulations.audits.world import World, read_world
from simulations.collecting import FEDERATION, PACKAGES
from simulations.partition import CLIENTS
from simulations.results import record_promise
from simulations.shareable import shareable_config

#: In the run's folder: the audit's own, with ground truth; and the report in it.
AUDIT, AUDIT_REPORT = "audit", "audit.json"
#: δ at which the promise is stated beside the run's own.
DELTAS = (1e-4, 1e-5, 1e-6)

Attack = Callable[[World, AuditSettings, Path, Tell], Sequence[Finding]]


def _canaries(
    world: World, settings: AuditSettings, folder: Path, tell: Tell
) -> list[Finding]:
    return [
        record_canaries(each) for each in audit_canaries(world, settings, folder, tell)
    ]


def _membership(
    world: World, settings: AuditSettings, folder: Path, tell: Tell
) -> list[Finding]:
    del folder
    trials = membership_trials(world, settings, tell)
    allowed = Allowed(world.events)
    made = [
        (name, seen)
        for seen, each in trials.items()
        for name in MEMBERSHIP
        if name != "rmia" or each.population.shape[1]
    ]
    return [
        record_membership(
            name, seen, trials[seen], allowed, settings.confidence, len(made)
        )
        for name, seen in made
    ]


#: Name → attack; settings say which are made.
ATTACKS: dict[str, Attack] = {"canaries": _canaries, "membership": _membership}


def run_audit(
    run: Path,
    settings: AuditSettings,
    *,
    preset: str = "quick",
    command: str = "",
    tell: Tell = lambda text: None,
) -> AuditReport:
    """Audit a simulated run, and write the report into its folder.

    Args:
        run: a folder that a simulation wrote.
        preset: what the settings are called.
        command: what was typed, for the report.
        tell: hears what is being done.

    Raises:
        ConfigError: if the folder is no finished simulated run, or an attack or a
            design is unknown.
    """
    start = time.perf_counter()
    _check(settings)
    world = read_world(run)
    folder = run / AUDIT
    folder.mkdir(exist_ok=True)
    found = [
        finding
        for name in settings.attacks
        for finding in ATTACKS[name](world, settings, folder, tell)
    ]
    report = _report(world, settings, found, preset, command)
    report = report.model_copy(update={"seconds_total": time.perf_counter() - start})
    write_report(report, folder / AUDIT_REPORT)
    return report


def _check(settings: AuditSettings) -> None:
    for asked, known in ((settings.attacks, ATTACKS), (settings.designs, DESIGNS)):
        for name in asked:
            if name not in known:
                raise ConfigError(f"Expected one of {', '.join(known)}, got {name!r}.")
    if "canaries" in settings.attacks and settings.num_canaries < 2:
        raise ConfigError(f"Expected 2 canaries or more, got {settings.num_canaries}.")
    if "membership" in settings.attacks and settings.num_shadows < 4:
        raise ConfigError(
            f"Expected 4 shadow models or more, got {settings.num_shadows}."
        )


def _report(
    world: World,
    settings: AuditSettings,
    found: Sequence[Finding],
    preset: str,
    command: str,
) -> AuditReport:
    config = world.config
    strongest = _strongest(found)
    exceeds = any(each.exceeds for each in found)
    promise = promise_of(config, world.noise, seeded=config.run.seed >= 0)
    names = sorted({each.viewpoint for each in found})
    return AuditReport(
        run=config.run.name,
        preset=preset,
        command=command,
        seed=settings.seed,
        confidence=settings.confidence,
        promise=record_promise(promise),
        claims=_claims(world),
        viewpoints={name: VIEWPOINTS[name].sentence for name in names}
        | {"membership": f"membership inference: knows {SHADOW_KNOWLEDGE}."},
        findings=tuple(found),
        strongest=strongest,
        exceeds=exceeds,
        verdict=verdict(promise.epsilon, strongest, exceeds=exceeds),
        limits=limits(settings, found),
        hashes=_hashes(world),
        seconds_total=0.0,
        config=shareable_config(to_flat(config)),
        versions={"python": sys.version.split()[0]}
        | {package: version(package) for package in PACKAGES},
    )


def _strongest(found: Sequence[Finding]) -> CanaryRecord | None:
    canaries = [each for each in found if each.kind == "canaries"]
    return max(canaries, key=lambda each: each.epsilon_lower_joint, default=None)


def _claims(world: World) -> tuple[Claim, ...]:
    allowed, own = Allowed(world.events), world.config.privacy.delta
    deltas = [own, *[delta for delta in DELTAS if delta != own]]
    return tuple(
        Claim(
            delta=delta,
            epsilon_user=finite(allowed.epsilon(delta)),
            epsilon_interaction=finite(allowed.replacing(delta)),
        )
        for delta in deltas
    )


def _hashes(world: World) -> dict[str, str]:
    models = (STUDENT, STUDENT_TRANSFERRED, TEACHER, TEACHER_REFINED)
    rows = [f"{FEDERATION}/{CLIENTS}/{c.name}/{INTERACTIONS}" for c in world.clients]
    return {
        name: hashlib.sha256((world.run / name).read_bytes()).hexdigest()
        for name in (*models, *rows)
        if (world.run / name).is_file()
    }
