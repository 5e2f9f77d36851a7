"""What ``results.json`` holds: one versioned, frozen schema for everything reported.

In ``simulations`` because only an experiment sees all arms of a run side by side.
Table, plots and report read nothing else; ``docs/results.md`` explains each field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from common.durable_files import write_durably
from common.errors import ConfigError
from common.intervals import Estimate
from common.promise import NOT_PRIVATE, Promise
from simulations.personal_record import PersonalGains
from simulations.results_migrations import STEPS, migrated

SCHEMA_VERSION: Literal[4] = 4

ModelName = Literal[
    "popularity",
    "popularity_nonprivate",
    "teacher",
    "teacher_refined",
    "student_transferred",
    "student_private",
    "student_nonprivate",
    "student_scratch",
    "ensemble",
    "puresvd_nonprivate",
    "item_knn_nonprivate",
    "ials_nonprivate",
    "fedmf",
]
Count = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Record(BaseModel):
    """A part of the results: frozen, unknown fields and NaN refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(Record):
    """A metric of a model, and its 95 % interval over held-out users."""

    value: float
    low: float
    high: float

    @model_validator(mode="after")
    def _ends_are_ordered(self) -> Interval:
        if self.low > self.high:
            raise ValueError(f"expected low ≤ high, got {self.low} > {self.high}")
        return self


class ModelNote(Record):
    """Whether a model's use of private rows is covered by the promise."""

    private: bool
    stamp: Literal["", "NOT PRIVATE"]

    @model_validator(mode="after")
    def _stamp_says_so(self) -> ModelNote:
        if self.private == bool(self.stamp):
            raise ValueError(f"expected the stamp {NOT_PRIVATE!r} iff not private")
        return self


class PromiseRecord(Record):
    """``common.promise.Promise`` as stored: ``epsilon`` is null for no promise."""

    epsilon: NonNegative | None
    delta: NonNegative
    unit: str
    relation: str
    mode: str
    trust: str
    accountant: str
    sampling: str
    released: str
    seeded: bool
    sentence: str


class RoundRecord(Record):
    """One round; ``epsilon`` is spent so far, bytes are one client's.

    Attributes:
        client_metrics: from noised sums over the clients' own users, if released.
        teacher_gain: NDCG@100 that the teacher gained on public validation users by
            learning from the released student, if it did.
    """

    round: Annotated[int, Field(ge=1)]
    epsilon: NonNegative | None
    bytes_down_per_client: Count
    bytes_up_per_client: Count
    seconds: dict[str, NonNegative]
    validation: float | None
    heldout: float | None
    client_metrics: dict[str, float] | None = None
    teacher_gain: float | None = None
    survivors: Count
    num_clients: Count


class StatisticsRecord(Record):
    """One question for noised sums before the first round; bytes are one client's.

    Attributes:
        question: ``pairs`` (counts and pairs of items) or ``sketch`` (pairs along
            directions).
    """

    question: Literal["pairs", "sketch"]
    bytes_down_per_client: Count
    bytes_up_per_client: Count
    survivors: Count
    num_clients: Count


class CurvePoint(Record):
    """A weight between transferred (0) and trained (1) student, and its worth."""

    weight: Annotated[float, Field(ge=0, le=1)]
    validation: float


class Verdict(Record):
    """What the run shows; null where an arm to compare with was not run."""

    beats_transferred: bool | None
    beats_popularity: bool | None
    text: str


class Federation(Record):
    """Who took part: declared, public sizes only."""

    num_clients: Count
    declared_users_per_client: Count
    public_users: Count
    heldout_users: Count
    num_items: Count


class GroupRecord(Record):
    """Users who share an attribute; ``cost`` is no noise minus private, paired."""

    group: str
    num_users: Count
    models: dict[ModelName, Interval]
    cost: Interval | None


class GapRecord(Record):
    """The largest difference between groups, and how often chance makes as large."""

    value: NonNegative
    best: str
    worst: str
    chance: Annotated[float, Field(ge=0, le=1)]


class AttributeRecord(Record):
    """A metric by the groups of one attribute; ``suppressed`` are too small.

    No groups at all: fewer than two were left to compare.
    """

    attribute: str
    metric: str
    groups: tuple[GroupRecord, ...]
    gaps: dict[ModelName, GapRecord]
    suppressed: tuple[str, ...]


class Results(Record):
    """Everything a run reports.

    Attributes:
        suppressed: what was left out since too few users stand behind it.
        groups: held-out users by what the set says of them, so that an unequal cost
            of privacy is seen.
        personal: what personal parameters gain each user on the devices.
        transfer: whether the transferred start helped or harmed, on public users.
        refinement: why the statistics made no teacher, where they did not.
        secure_sums: whether the sums of mode ``distributed`` were the plain ones, where
            a simulation could compare them.
        statistics: what was asked before the first round; empty where nothing was,
            and in files of version 3, which left it to ``metrics.jsonl``.
    """

    schema_version: Literal[4] = SCHEMA_VERSION
    name: str
    status: Literal["complete", "interrupted"]
    engine: str
    seed: int | None
    command: str = ""
    primary_metric: str = "ndcg@10"
    models: dict[ModelName, dict[str, Interval]]
    model_notes: dict[ModelName, ModelNote]
    promise: PromiseRecord
    verdict: Verdict | None
    suppressed: str = ""
    groups: tuple[AttributeRecord, ...] = ()
    personal: PersonalGains | None = None
    transfer: str = ""
    refinement: str = ""
    secure_sums: str = ""
    statistics: tuple[StatisticsRecord, ...] = ()
    rounds: tuple[RoundRecord, ...]
    interpolation_weight: Annotated[float, Field(ge=0, le=1)] | None
    interpolation_curve: tuple[CurvePoint, ...] = ()
    federation: Federation
    peak_memory_bytes: Count
    seconds_total: NonNegative
    config: dict[str, bool | int | float | str]
    versions: dict[str, str]

    @model_validator(mode="after")
    def _every_model_is_noted(self) -> Results:
        if missing := sorted(set(self.models) - set(self.model_notes)):
            raise ValueError(f"expected a note on each model, none on {missing}")
        return self

    @model_validator(mode="after")
    def _no_promise_no_private_student(self) -> Results:
        note = self.model_notes.get("student_private")
        if self.promise.epsilon is None and note is not None and note.private:
            raise ValueError(f"expected student_private stamped {NOT_PRIVATE!r}")
        return self


def record_promise(promise: Promise) -> PromiseRecord:
    """The promise as ``results.json`` stores it."""
    return PromiseRecord(
        epsilon=promise.epsilon if math.isfinite(promise.epsilon) else None,
        delta=promise.delta,
        unit=promise.unit,
        relation=promise.relation,
        mode=promise.mode,
        trust=promise.trust,
        accountant=promise.accountant,
        sampling=promise.sampling,
        released=promise.released,
        seeded=promise.seeded,
        sentence=promise.sentence,
    )


def record_estimates(estimates: Mapping[str, Estimate]) -> dict[str, Interval]:
    """One model's estimates as ``results.json`` stores them."""
    return {
        metric: Interval(value=found.value, low=found.low, high=found.high)
        for metric, found in estimates.items()
    }


def model_note(*, private: bool) -> ModelNote:
    """The note on a model, stamped ``NOT PRIVATE`` unless it is private."""
    return ModelNote(private=private, stamp="" if private else "NOT PRIVATE")


def results_schema() -> dict[str, Any]:
    """The JSON schema of ``results.json``."""
    return Results.model_json_schema()


def write_results(results: Results, path: Path) -> None:
    """Write ``results.json``: the whole new file or the whole old one, never half."""
    tree = results.model_dump(mode="json")
    text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    write_durably(path, text.encode(), mode=0o644)


def read_results(path: Path) -> Results:
    """Read ``results.json``, of this version or of an earlier one.

    Raises:
        ConfigError: if the file is missing, is not JSON, has another
            ``schema_version`` or a field that does not fit; the message names it.
    """
    tree = _read_json(path)
    version = tree.get("schema_version")
    if type(version) is not int or version not in (*STEPS, SCHEMA_VERSION):
        raise ConfigError(
            f"{path}: expected results of schema_version {SCHEMA_VERSION}, got "
            f"{version!r}; read them with the version of Tutela that wrote them."
        )
    try:
        return Results.model_validate(migrated(tree))
    except ValidationError as error:
        faults = "; ".join(map(_explain, error.errors()))
        raise ConfigError(f"{path}: damaged results: {faults}.") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"Expected results at {path}, found no file.") from None
    except (ValueError, OSError, RecursionError) as error:
        message = f"{path}: expected JSON, the file is damaged: {error}"
        raise ConfigError(message) from None
    return tree if isinstance(tree, dict) else {}


def _explain(fault: ErrorDetails) -> str:
    where = ".".join(str(part) for part in fault["loc"]) or "results"
    return f"{where}: {fault['msg']}"
