"""What an audit reports: one versioned, frozen schema, and what it is worth.

Simulations only. ``docs/audits.md`` explains the fields. Infinity is null: nothing is
promised, or nothing blurs what an estimate is made of.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from common.durable_files import write_durably
from common.errors import ConfigError
from simulations.audits.findings import (
    CanaryRecord,
    CheckRecord,
    Epsilon,
    Finding,
    LeakRecord,
    MembershipRecord,
    Rate,
)
from simulations.results import Count, NonNegative, PromiseRecord, Record

AUDIT_SCHEMA_VERSION: Literal[1] = 1


class Claim(Record):
    """What a run promises at one δ, the most of any client; null: nothing.

    Attributes:
        epsilon_user: per unit of the promise, which in mode ``distributed`` may be a
            client.
        epsilon_interaction: what follows for one interaction, by group privacy.
    """

    delta: NonNegative
    epsilon_user: Epsilon
    epsilon_interaction: Epsilon


class Scope(Record):
    """What was audited, in public numbers, and what was done.

    Attributes:
        data_public, data_private: names of the data sets, without folders.
        attacks: keys of ``audit.ATTACKS``, as asked for.
        num_canaries: of each design, as asked for.
        num_shadows: runs over random halves of the users, as asked for.
    """

    data_public: str
    data_private: str
    num_clients: Count
    declared_users_per_client: Count
    num_items: Count
    rounds: Count
    attacks: tuple[str, ...]
    num_canaries: Count
    num_shadows: Count


class SpentRecord(Record):
    """What one client spent at one δ: in the audited run, and in all that it released.

    Null is infinite: something was released without noise.
    """

    delta: NonNegative
    epsilon_run: Epsilon
    epsilon_all: Epsilon


class ClientSpending(Record):
    """One client's ledger, composed.

    Attributes:
        client: name of its folder.
        ledger: ``verified``, or what is wrong with it.
        runs: how many runs charged it.
        releases: how many charges it holds.
        spent: empty where the ledger could not be verified.
    """

    client: str
    ledger: str
    runs: Count
    releases: Count
    spent: tuple[SpentRecord, ...]


class MostSpent(Record):
    """The most that any client spent at one δ, beside what the run planned."""

    delta: NonNegative
    epsilon_planned: Epsilon
    epsilon_run: Epsilon
    epsilon_all: Epsilon


class AllowedPoint(Record):
    """The most true positives that the promise allows any attack at a rate."""

    fpr: Rate
    tpr: Rate


class AuditReport(Record):
    """Everything that an audit reports.

    Attributes:
        made: when, UTC, in ISO 8601.
        tested: what was done, a sentence each.
        spent: the most of any client by ledger, at the δ of ``claims``; empty where no
            ledger could be verified.
        clients: the same client by client.
        allowed: the curve that no attack may pass, evenly in log FPR.
        viewpoints: threat models by name, each a sentence.
        claims: at the run's δ first, then at others.
        strongest: the largest joint bound, if canaries were used.
        exceeds: whether any finding refutes the promise.
        hashes: SHA-256 of models and rows, by name within the run's folder.
        limits: what the audit does not say.
    """

    schema_version: Literal[1] = AUDIT_SCHEMA_VERSION
    run: str
    made: str
    preset: str
    command: str
    seed: int | None
    confidence: Rate
    scope: Scope
    tested: tuple[str, ...]
    promise: PromiseRecord
    claims: tuple[Claim, ...]
    spent: tuple[MostSpent, ...]
    clients: tuple[ClientSpending, ...]
    allowed: tuple[AllowedPoint, ...]
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


def audit_schema() -> dict[str, Any]:
    """The JSON schema of an audit's report, as ``docs/schemas`` has it."""
    schema = AuditReport.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """The same as a file."""
    return json.dumps(audit_schema(), indent=2, ensure_ascii=False) + "\n"


def refuted(finding: Finding) -> bool:
    """Whether a finding by itself makes the promise false."""
    if isinstance(finding, CheckRecord):
        return finding.refutes and finding.finding == "deviates"
    if isinstance(finding, CanaryRecord | MembershipRecord | LeakRecord):
        return finding.exceeds
    return False


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
