"""A run's state on disk, after each round and within it: what resuming starts from.

Server only. One safetensors file a checkpoint, its facts as JSON in the metadata and
a digest over all of it; written, synced, then renamed, and the one before is kept.
Teacher and soft labels change seldom and are large: files of their own, which a
checkpoint names with their digests. A round has two: ``trained`` once the updates are
in the student, so that nobody is asked for them again, and ``ended``. With two kept,
whichever is damaged, the one before leads to the same student from the same replies.
There is no state of a random generator: every draw of the server starts from a public
constant or from ``run.seed``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import RecordDict
from safetensors.numpy import save
from safetensors.torch import load

from common.durable_files import write_durably
from common.errors import DataFormatError
from common.folders import CHECKPOINT
from common.soft_labels import SoftLabels
from common.student import StateDict
from common.wire import (
    SOFT_LABELS,
    pack_soft_labels,
    pack_state,
    unpack_arrays,
    unpack_soft_labels,
)
from server.aggregation import OptimiserState
from server.checkpoint_file import arrays_of, decode, encode, read_facts
from server.records import RoundRecord
from server.teacher import Teacher
from server.teacher.checkpoint import load_teacher, save_teacher

TRAINED, ENDED = "trained", "ended"
STAGES = (TRAINED, ENDED)
#: The latest, and the one before.
KEPT = 2
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Progress:
    """What changes from round to round; the only state of a federation."""

    student: StateDict
    optimiser: OptimiserState = field(default_factory=OptimiserState)
    average: StateDict = field(default_factory=dict)
    num_averaged: int = 0

    @property
    def released(self) -> StateDict:
        """The averaged iterate once averaging began, before it the latest."""
        return self.average or self.student


@dataclass(frozen=True)
class Checkpoint:
    """Where the rounds are.

    Attributes:
        round: 0 before the first.
        stage: ``trained`` or ``ended``.
        start: the student before the first round, which the safeguard weighs against.
        progress: the rounds' own state.
        record: of this round as far as it is.
    """

    round: int
    stage: str
    start: StateDict
    progress: Progress
    record: RoundRecord

    @classmethod
    def before_the_first(cls, start: StateDict) -> Checkpoint:
        """Where a run begins."""
        return cls(0, ENDED, start, Progress(start), RoundRecord(0, 0.0))


@dataclass(frozen=True)
class Saved:
    """A checkpoint as read back.

    Attributes:
        teacher: in office then, refined and refreshed as it was.
        labels: its soft labels, bit for bit.
        receipts: the clients' acknowledgements then, by node.
        damaged: files that were newer, and not whole.
    """

    checkpoint: Checkpoint
    teacher: Teacher
    labels: SoftLabels | None
    receipts: Mapping[str, str]
    damaged: tuple[str, ...] = ()


class Checkpoints:
    """The checkpoints of a run's folder; remembers which teacher is on disk."""

    def __init__(self, out: Path, catalogue: str) -> None:
        self._folder, self._catalogue = out / CHECKPOINT, catalogue
        self._teacher: Teacher | None = None
        self._tutor: dict[str, str] = {}

    def save(
        self,
        checkpoint: Checkpoint,
        teacher: Teacher,
        labels: SoftLabels | None,
        receipts: Mapping[str, str],
    ) -> None:
        """Write a checkpoint, durable when this returns; keep the one before."""
        if teacher is not self._teacher:
            self._tutor = self._save_tutor(checkpoint, teacher, labels)
            self._teacher = teacher
        facts = {
            "round": checkpoint.round,
            "stage": checkpoint.stage,
            "step": checkpoint.progress.optimiser.step,
            "num_averaged": checkpoint.progress.num_averaged,
            "record": asdict(checkpoint.record),
            "receipts": dict(receipts),
            "tutor": self._tutor,
        }
        groups = _groups(checkpoint)
        facts["names"] = {name: list(state) for name, state in groups.items()}
        content = encode(facts, groups)
        name = f"{checkpoint.round:06d}-{checkpoint.stage}{_SUFFIX}"
        write_durably(self._folder / name, content)
        self._remove_older()

    def latest(self) -> Saved | None:
        """The newest whole checkpoint, ``None`` if none was ever written.

        Raises:
            DataFormatError: if there are some and none is whole, or one is of another
                format.
        """
        damaged: list[str] = []
        for path in self._newest_first():
            saved = self._read(path, tuple(damaged))
            if saved is not None:
                return saved
            damaged.append(path.name)
        if damaged:
            raise DataFormatError(
                f"{self._folder}: expected a whole checkpoint, all are damaged "
                f"({', '.join(damaged)}); start a run of another name."
            )
        return None

    def forget(self) -> None:
        """Remove them all: a finished run has its files."""
        for path in self._folder.glob(f"*{_SUFFIX}"):
            path.unlink()

    def _save_tutor(
        self, checkpoint: Checkpoint, teacher: Teacher, labels: SoftLabels | None
    ) -> dict[str, str]:
        """Files of this teacher, by name with the digest of their bytes."""
        stem = f"{checkpoint.round:06d}-{checkpoint.stage}"
        path = self._folder / f"teacher-{stem}{_SUFFIX}"
        save_teacher(path, teacher, self._catalogue)
        found = {path.name: _digest_of(path.read_bytes())}
        if labels is not None:
            content = save(arrays_of(unpack_arrays(pack_soft_labels(labels))))
            path = self._folder / f"labels-{stem}{_SUFFIX}"
            write_durably(path, content)
            found[path.name] = _digest_of(content)
        return found

    def _read(self, path: Path, damaged: tuple[str, ...]) -> Saved | None:
        """What a file holds, ``None`` if it or what it names is not whole."""
        found = decode(path)
        if found is None:
            return None
        facts, groups = found
        tutor = facts["tutor"]
        for name, digest in tutor.items():
            part = self._folder / name
            if not part.is_file() or _digest_of(part.read_bytes()) != digest:
                return None
        teacher, labels = self._read_tutor(tutor)
        self._teacher, self._tutor = teacher, tutor
        checkpoint = _checkpoint(facts, groups)
        return Saved(checkpoint, teacher, labels, facts["receipts"], damaged)

    def _read_tutor(
        self, tutor: Mapping[str, str]
    ) -> tuple[Teacher, SoftLabels | None]:
        paths = {name.partition("-")[0]: self._folder / name for name in tutor}
        teacher = load_teacher(paths["teacher"], self._catalogue)
        if "labels" not in paths:
            return teacher, None
        tensors = load(paths["labels"].read_bytes())
        content = RecordDict({SOFT_LABELS: pack_state(tensors)})
        return teacher, unpack_soft_labels(content)

    def _newest_first(self) -> list[Path]:
        found = [
            path
            for stage in STAGES
            for path in self._folder.glob(f"[0-9]*-{stage}{_SUFFIX}")
        ]
        return sorted(found, key=_place, reverse=True)

    def _remove_older(self) -> None:
        """All but the last two checkpoints, and teachers that neither names."""
        paths = self._newest_first()
        for path in paths[KEPT:]:
            path.unlink()
        named = set(self._tutor)
        for path in paths[:KEPT]:
            named |= set(read_facts(path).get("tutor", ()))
        for path in [*self._folder.glob("teacher-*"), *self._folder.glob("labels-*")]:
            if path.name not in named:
                path.unlink()


def _groups(checkpoint: Checkpoint) -> dict[str, StateDict]:
    progress = checkpoint.progress
    return {
        "start": checkpoint.start,
        "student": progress.student,
        "mean": progress.optimiser.mean,
        "square": progress.optimiser.square,
        "average": progress.average,
    }


def _checkpoint(
    facts: Mapping[str, Any], groups: Mapping[str, StateDict]
) -> Checkpoint:
    optimiser = OptimiserState(facts["step"], groups["mean"], groups["square"])
    return Checkpoint(
        facts["round"],
        facts["stage"],
        groups["start"],
        Progress(
            groups["student"], optimiser, groups["average"], facts["num_averaged"]
        ),
        RoundRecord(**facts["record"]),
    )


def _place(path: Path) -> tuple[int, int]:
    number, _, stage = path.name.removesuffix(_SUFFIX).partition("-")
    return int(number), STAGES.index(stage)


def _digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
