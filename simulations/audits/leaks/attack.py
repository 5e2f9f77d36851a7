"""What else a recommender leaks: the attacks one after another.

Simulations only. The run's configuration runs once more over the run's own rows; its
messages serve both inference of items and reconstruction.
"""

from __future__ import annotations

from pathlib import Path

from simulations.audits.findings import Finding
from simulations.audits.leaks.attributes import audit_attributes
from simulations.audits.leaks.interactions import audit_interactions
from simulations.audits.leaks.measures import unknown
from simulations.audits.leaks.reconstruction import audit_reconstruction
from simulations.audits.leaks.serving import audit_serving
from simulations.audits.one_run import recorded
from simulations.audits.settings import AuditSettings, Tell
from simulations.audits.world import World


def find_leaks(
    world: World, settings: AuditSettings, folder: Path, tell: Tell
) -> list[Finding]:
    """Items, histories, attributes, and what the service on a device says."""
    del folder
    found = [
        *_of_messages(world, settings, tell),
        *audit_attributes(world, settings, tell),
    ]
    return [*found, *audit_serving(world, settings, tell)]


def _of_messages(world: World, settings: AuditSettings, tell: Tell) -> list[Finding]:
    """What is told from what clients answer, and servers send."""
    if world.config.privacy.mode == "distributed":
        detail = (
            "In mode distributed no client's answer is seen by itself, and sums under "
            "the run's own noise are not read yet; clear sums are, in other modes."
        )
        return [unknown("items and histories", detail)]
    tell("leaks: the run again")
    with recorded(world, world.clients, settings.seed) as messages:
        tell("leaks: items touched")
        found = audit_interactions(world, messages, settings)
        return [*found, *audit_reconstruction(world, messages, settings, tell)]
