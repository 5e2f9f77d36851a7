"""What an audit reports: one versioned, frozen schema, and what it is worth.

Simulations only. ``docs/audits.md`` explains the fields. Infinity is null: nothing is
promised, or nothing blurs what an estimate is made of.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from common.durable_files import write_durably
from common.errors import ConfigError
from simulations.results import Count, NonNegative, PromiseRecord, Record

AUDIT_SCHEMA_VERSION: Literal[1] = 1

Rate = Annotated[float, Field(ge=0, le=1)]
#: Null where there is no such number, since it is infinite.
Epsilon = NonNegative | None


class CanaryRecord(Record):
    """One design of canaries from one viewpoint; ``one_run.OneRun`` as stored.

    Attributes:
        epsilon_lower: proved by this result alone, with ``confidence``.
        epsilon_lower_joint: proved with ``confidence`` together with all others.
        epsilon_power: what would typically be proved if all that is claimed leaked.
        epsilon_half_noise: and if the noise were half of what is claimed.
        epsilon_ceiling: what would be proved if every guess were right.
        epsilon_gaussian: a bound under assumptions: Gaussian noise, and canaries that
            do not blur each other; of no effect on ``exceeds``.
        epsilon_estimate: an estimate without confidence, and no bound.
        exceeds: whether the joint bound refutes the claim.
    """

    kind: Literal["canaries"] = "canaries"
    design: str
    viewpoint: str
    unit: Literal["user", "interaction"]
    num_canaries: Count
    num_included: Count
    guessed_in: Count
    guessed_out: Count
    num_right: Count
    delta: NonNegative
    confidence: Rate
    joint_confidence: Rate
    epsilon_claimed: Epsilon
    epsilon_lower: NonNegative
    epsilon_lower_joint: NonNegative
    epsilon_power: NonNegative
    epsilon_half_noise: NonNegative
    epsilon_ceiling: NonNegative
    epsilon_gaussian: Epsilon
    epsilon_estimate: Epsilon
    auc: Rate
    exceeds: bool


class RatePoint(Record):
    """An attack at one threshold, and what the promise allows any attack there.

    Attributes:
        target: the false positive rate asked for; ``fpr`` is what it came to.
        low, high: exact interval of ``tpr``.
        allowed: the most that the promise allows at ``fpr_high``.
        resolved: whether there were non-members enough to see such a rate.
    """

    target: Rate
    fpr: Rate
    fpr_low: Rate
    fpr_high: Rate
    tpr: Rate
    low: Rate
    high: Rate
    allowed: Rate
    resolved: bool


class MembershipRecord(Record):
    """One membership attack on one released object.

    Attributes:
        released: what of the run was attacked.
        quoted: at the false positive rates that are always quoted.
        curve: evenly in log FPR.
        exceeds: whether a rate lies above what is allowed, by intervals so wide that
            all attacks of the audit hold together with ``confidence``.
    """

    kind: Literal["membership"] = "membership"
    attack: str
    viewpoint: str
    released: str
    num_shadows: Count
    num_members: Count
    num_others: Count
    confidence: Rate
    auc: Rate
    quoted: tuple[RatePoint, ...]
    curve: tuple[RatePoint, ...]
    exceeds: bool


Finding = Annotated[CanaryRecord | MembershipRecord, Field(discriminator="kind")]


class Claim(Record):
    """What a run promises at one δ, the most of any client; null: nothing."""

    delta: NonNegative
    epsilon_user: Epsilon
    epsilon_interaction: Epsilon


class AuditReport(Record):
    """Everything that an audit reports.

    Attributes:
        viewpoints: threat models by name, each a sentence.
        claims: at the run's δ first, then at others.
        strongest: the largest joint bound, if canaries were used.
        exceeds: whether any finding refutes the promise.
        hashes: SHA-256 of models and rows, by name within the run's folder.
        limits: what the audit does not say.
    """

    schema_version: Literal[1] = AUDIT_SCHEMA_VERSION
    run: str
    preset: str
    command: str
    seed: int | None
    confidence: Rate
    promise: PromiseRecord
    claims: tuple[Claim, ...]
    viewpoints: dict[str, str]
    findings: tuple[Finding, ...]
    strongest: CanaryRecord | None
    exceeds: bool
    verdict: str
    limits: tuple[str, ...]
    hashes: dict[str, str]
    seconds_total: NonNegative
    config: dict[str, bool | int | float | str]
    versions: dict[str, str]


def finite(value: float) -> float | None:
    """The number, or null for infinity."""
    return value if math.isfinite(value) else None


def audit_schema() -> dict[str, Any]:
    """The JSON schema of an audit's report."""
    return AuditReport.model_json_schema()


def write_report(report: AuditReport, path: Path) -> None:
    """Write the report: the whole new file or the whole old one."""
    text = json.dumps(report.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_durably(path, f"{text}\n".encode(), mode=0o644)


def read_report(path: Path) -> AuditReport:
    """Read what :func:`write_report` wrote.

    Raises:
        ConfigError: if the file is missing, damaged or of another version.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"Expected an audit at {path}, found no file.") from None
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{path}: expected JSON, got a damaged file: {error}"
        ) from None
    version = tree.get("schema_version") if isinstance(tree, dict) else None
    if version != AUDIT_SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: expected an audit of schema_version {AUDIT_SCHEMA_VERSION}, got "
            f"{version!r}; read it with the version of Tutela that wrote it."
        )
    try:
        return AuditReport.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: damaged audit: {where}: {first['msg']}.") from None
