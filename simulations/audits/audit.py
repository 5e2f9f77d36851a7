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
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from common.config import to_flat
from common.errors import ConfigError
from common.folders import (
    INTERACTIONS,
    STUDENT,
    STUDENT_TRANSFERRED,
    TEACHER,
    TEACHER_REFINED,
)
from simulations.audits.artefacts import Artefacts, read_artefacts
from simulations.audits.canaries import DESIGNS
from simulations.audits.conformance.checks import run_checks
from simulations.audits.deployed import (
    artefact_checks,
    artefact_limits,
    artefact_settings,
    attack_artefacts,
    seen_from,
    truth_hashes,
)
from simulations.audits.deviations import deviations
from simulations.audits.evidence import Evidence, gather
from simulations.audits.findings import CheckRecord, Finding, IntegrityRecord, finite
from simulations.audits.integrity.grid import audit_integrity
from simulations.audits.leaks.attack import find_leaks
from simulations.audits.membership import MEMBERSHIP
from simulations.audits.one_run import audit_canaries
from simulations.audits.promised import Allowed
from simulations.audits.recording import record_canaries, record_membership
from simulations.audits.records import (
    AllowedPoint,
    AuditReport,
    Claim,
    Scope,
    refuted,
    write_report,
)
from simulations.audits.settings import AuditSettings, Tell
from simulations.audits.shadows import membership_trials
from simulations.audits.spending import most_spent, spent_by_clients
from simulations.audits.viewpoints import SHADOW_KNOWLEDGE, VIEWPOINTS
from simulations.audits.wording import limits, strongest, tested, verdict
from simulations.audits.world import World, read_world
from simulations.audits.worst_off import worst_off
from simulations.collecting import FEDERATION, PACKAGES
from simulations.partition import CLIENTS
from simulations.results import record_promise
from simulations.shareable import shareable_config, without_folders

#: In the run's folder: the audit's own, with ground truth; and the report in it.
AUDIT, AUDIT_REPORT = "audit", "audit.json"
#: δ at which the promise is stated beside the run's own.
DELTAS = (1e-4, 1e-5, 1e-6)
#: False positive rates of the curve that is allowed: from, to, how many.
CURVE = (1e-5, 1.0, 61)

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
    found: list[Finding] = [
        record_membership(
            name,
            seen,
            trials[seen],
            allowed,
            settings.confidence,
            len(made) * settings.deciding,
        )
        for name, seen in made
    ]
    return [*found, *worst_off(world, trials, settings.confidence)]


#: Name → attack; settings say which are made.
ATTACKS: dict[str, Attack] = {
    "canaries": _canaries,
    "membership": _membership,
    "integrity": audit_integrity,
    "leaks": find_leaks,
    "checks": run_checks,
}


def run_audit(
    run: Path,
    settings: AuditSettings,
    *,
    preset: str = "quick",
    command: str = "",
    tell: Tell = lambda text: None,
    truths: Sequence[Path] = (),
    rows: Sequence[Path] = (),
) -> AuditReport:
    """Audit a run, and write the report into its folder.

    A simulated run is made again with canaries. Of a deployment's, and wherever truths
    are given, what it left is attacked as it is (``deployed.py``).

    Args:
        run: a folder that a simulation or a deployment's server wrote.
        preset: what the settings are called.
        command: what was typed, for the report.
        tell: hears what is being done.
        truths: of canaries that owners planted before the run.
        rows: folders of some of these clients.

    Raises:
        ConfigError: if the folder is no finished run, or an attack or a
            design is unknown.
    """
    start = time.perf_counter()
    _check(settings)
    folder = run / AUDIT
    if truths or rows or not (run / FEDERATION).is_dir():
        artefacts = read_artefacts(run, truths, rows)
        folder.mkdir(exist_ok=True)
        report = _of_artefacts(artefacts, settings, preset, command, tell)
    else:
        world = read_world(run)
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


def _of_artefacts(
    artefacts: Artefacts, settings: AuditSettings, preset: str, command: str, tell: Tell
) -> AuditReport:
    found = attack_artefacts(artefacts, settings, tell)
    done = artefact_settings(artefacts, settings)
    checks = partial(artefact_checks, artefacts)
    report = _report(artefacts.world, done, found, preset, command, checks)
    own = {
        "viewpoints": seen_from(artefacts, found),
        "limits": artefact_limits(artefacts, settings),
        "hashes": report.hashes | truth_hashes(artefacts),
    }
    return report.model_copy(update=own)


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
    checks: Callable[[Evidence], Sequence[CheckRecord]] = deviations,
) -> AuditReport:
    config, seen = world.config, gather(world)
    found = (*found, *checks(seen))
    allowed = Allowed(world.events)
    claims = _claims(allowed, config.privacy.delta)
    deltas = [each.delta for each in claims]
    clients = spent_by_clients(seen.ledgers, seen.run, deltas)
    names = sorted(
        {
            each.viewpoint
            for each in found
            if not isinstance(each, CheckRecord | IntegrityRecord)
        }
    )
    return AuditReport(
        run=config.run.name,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        preset=preset,
        command=command,
        seed=settings.seed,
        confidence=settings.confidence,
        scope=_scope(world, settings),
        tested=tested(found),
        promise=record_promise(seen.promise),
        claims=claims,
        spent=most_spent(clients, world.events, deltas),
        clients=clients,
        allowed=_curve(allowed),
        viewpoints={name: VIEWPOINTS[name].sentence for name in names}
        | {"membership": f"membership inference: knows {SHADOW_KNOWLEDGE}."},
        findings=found,
        strongest=strongest(found),
        exceeds=any(refuted(each) for each in found),
        verdict=verdict(seen.promise.epsilon, found),
        limits=limits(settings, found),
        hashes=_hashes(world),
        seconds_total=0.0,
        config=shareable_config(to_flat(config)),
        versions={"python": sys.version.split()[0]}
        | {package: version(package) for package in PACKAGES},
    )


def _scope(world: World, settings: AuditSettings) -> Scope:
    config = world.config
    return Scope(
        data_public=without_folders(config.data.public),
        data_private=without_folders(config.data.private),
        num_clients=len(world.clients),
        declared_users_per_client=config.privacy.declared_users,
        num_items=world.num_items,
        rounds=config.training.rounds,
        attacks=settings.attacks,
        num_canaries=settings.num_canaries,
        num_shadows=settings.num_shadows,
    )


def _claims(allowed: Allowed, own: float) -> tuple[Claim, ...]:
    deltas = [own, *[delta for delta in DELTAS if delta != own]]
    return tuple(
        Claim(
            delta=delta,
            epsilon_user=finite(allowed.epsilon(delta)),
            epsilon_interaction=finite(allowed.replacing(delta)),
        )
        for delta in deltas
    )


def _curve(allowed: Allowed) -> tuple[AllowedPoint, ...]:
    rates = np.geomspace(*CURVE)
    most = allowed.true_positive_rate(rates)
    pairs = zip(rates.tolist(), most.tolist(), strict=True)
    return tuple(AllowedPoint(fpr=min(1.0, fpr), tpr=tpr) for fpr, tpr in pairs)


def _hashes(world: World) -> dict[str, str]:
    models = (STUDENT, STUDENT_TRANSFERRED, TEACHER, TEACHER_REFINED)
    rows = [f"{FEDERATION}/{CLIENTS}/{c.name}/{INTERACTIONS}" for c in world.clients]
    return {
        name: hashlib.sha256((world.run / name).read_bytes()).hexdigest()
        for name in (*models, *rows)
        if (world.run / name).is_file()
    }
