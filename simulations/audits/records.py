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
from simulations.audits.findings import CanaryRecord, Epsilon, Finding, Rate
from simulations.results import NonNegative, PromiseRecord, Record

AUDIT_SCHEMA_VERSION: Literal[1] = 1


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
