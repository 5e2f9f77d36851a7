"""What a run is and what it asked: on disk before the first message leaves.

Server only. A client charges its ledger for a run, round, kind and nonce, and answers
the same again with the bytes it kept. So a server that was killed must ask the very
same question again: under the same logical run id, though the new process serves
another of Flower's runs, and with the same nonce. Both are written here, durably and
twice, before a question is sent; a write-ahead log of one line's worth. Two processes
on one run would ask its next rounds twice, so a process holds the run's folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from common.config import FlatConfig, RunConfig, to_flat
from common.durable_files import write_durably
from common.errors import ConfigError, DataFormatError, ProtocolError
from common.folders import CHECKPOINT
from common.wire import DELIVER

FORMAT = "tutela-run-1"
#: Written one after the other: at any moment one of them is whole.
NAMES = ("run.json", "run.copy.json")
#: Only the last can be open; a few more are there to be looked at.
KEPT_QUESTIONS = 16
RESUME = "run.resume"
#: Beside the journal; only who holds it works on the run. It stays when let go.
LOCK = ".lock"


@dataclass(frozen=True)
class Question:
    """What was asked; ``digest`` is of the records sent beside the header."""

    kind: str
    number: int
    nonce: str
    digest: str


@dataclass(frozen=True)
class RunFacts:
    """What the journal holds.

    Attributes:
        run: the logical run id, that of the first process's Flower run.
        config: flat, but for ``run.resume``.
        questions: the latest, in order.
        finished: whether the final student was delivered.
    """

    run: str
    config: FlatConfig
    questions: tuple[Question, ...] = ()
    finished: bool = False


class Journal:
    """A run's facts on disk; its state is which questions an earlier process asked."""

    def __init__(self, folder: Path, facts: RunFacts, *, resumed: bool) -> None:
        self._folder, self._facts, self.resumed = folder, facts, resumed
        self._earlier = {(q.kind, q.number): q for q in facts.questions}

    @property
    def run(self) -> str:
        """The logical run id."""
        return self._facts.run

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self._facts.finished

    def nonce(
        self, kind: str, number: int, digest: str, draw: Callable[[], str]
    ) -> str:
        """The nonce to ask under, on disk when this returns.

        Args:
            kind: Flower's message type.
            number: the round.
            digest: of the content.
            draw: gives a fresh nonce; not called if an earlier process asked this.

        Raises:
            ProtocolError: if an earlier process asked something else in its place:
                clients that answered would answer that again.
        """
        earlier = self._earlier.pop((kind, number), None)
        if earlier is not None and earlier.digest == digest:
            return earlier.nonce
        if earlier is not None and kind != DELIVER:
            raise ProtocolError(
                f"Round {number}: expected to ask {kind} again as it was asked before "
                "the run was interrupted, but its content came out otherwise (another "
                "version, machine or data?); start a run of another name."
            )
        question = Question(kind, number, draw(), digest)
        questions = (*self._facts.questions, question)[-KEPT_QUESTIONS:]
        self._write(RunFacts(self.run, self._facts.config, questions))
        return question.nonce

    def asked_before(self, kind: str, number: int) -> bool:
        """Whether an earlier process asked this, and this one has not yet."""
        return (kind, number) in self._earlier

    def finish(self) -> None:
        """Nothing is left to do."""
        facts = self._facts
        self._write(RunFacts(facts.run, facts.config, facts.questions, finished=True))

    def begin(self) -> None:
        """Write the run's facts for the first time."""
        self._write(self._facts)

    def _write(self, facts: RunFacts) -> None:
        self._facts = facts
        body = asdict(facts)
        text = json.dumps({"format": FORMAT, **body, "digest": _digest(body)}, indent=1)
        for name in NAMES:
            write_durably(self._folder / name, text.encode())


@contextmanager
def alone(out: Path, *, resume: bool) -> Iterator[None]:
    """Hold a run's folder: within the block no other process works on this run.

    The system lets go when the holder dies, however it does.

    Args:
        out: the run's folder, made if it is not there and nothing is to be resumed.

    Raises:
        ConfigError: if another process holds it; or there is no folder, and a run is
            to be resumed.
    """
    if resume and not out.is_dir():
        raise ConfigError(
            f"run.resume: expected a run to go on with in {out}, found none; set "
            "it to false to begin one."
        )
    folder = out / CHECKPOINT
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(folder / LOCK, timeout=0, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"{out}: another process works on this run; wait for its end, or end it, "
            "before you resume. Two would charge the clients twice."
        ) from None
    try:
        yield
    finally:
        lock.release()


def open_journal(out: Path, config: RunConfig, run: str) -> Journal:
    """The journal of a run's folder: begun, or the one to resume.

    Args:
        out: the run's folder.
        config: the run's; ``run.resume`` says whether to go on with what is there.
        run: Flower's id of this run; the logical one too where the folder is new.

    A run that ended before it wrote anything is resumed at its beginning.

    The caller holds the folder, see :func:`alone`.

    Raises:
        ConfigError: if the folder holds a run that is not to be resumed, or that has
            another configuration.
        DataFormatError: if the journal is damaged, or of another format.
    """
    folder = out / CHECKPOINT
    flat = to_flat(config)
    del flat[RESUME]
    if not holds_run(out):
        journal = Journal(folder, RunFacts(run, flat), resumed=False)
        journal.begin()
        return journal
    if not config.run.resume:
        raise ConfigError(
            f"run.resume: {out} holds a run already; set it to true to go on with "
            "that, or give this one another run.name or folder."
        )
    facts = read_facts(out)
    if different := _differences(facts.config, flat):
        raise ConfigError(
            "run.resume: expected the configuration that the run began with; "
            f"different are {', '.join(different)}."
        )
    return Journal(folder, facts, resumed=True)


def holds_run(out: Path) -> bool:
    """Whether a run in this folder asked anybody anything, or was about to."""
    # A file that a crash left half-written begins with a dot.
    names = {path.name for path in (out / CHECKPOINT).glob("[!.]*")}
    if names <= set(NAMES):
        return bool(names) and bool(read_facts(out).questions)
    return True


def is_finished(out: Path) -> bool:
    """Whether the run in this folder, if there is one, has nothing left to do."""
    return holds_run(out) and read_facts(out).finished


def read_facts(out: Path) -> RunFacts:
    """What a run's folder says of it.

    Raises:
        DataFormatError: if both copies are damaged, or their format is not ours.
    """
    for name in NAMES:
        found = _read(out / CHECKPOINT / name)
        if found is not None:
            return found
    raise DataFormatError(
        f"{out / CHECKPOINT / NAMES[0]}: expected a run's journal, it and its copy are "
        "damaged or missing; this run cannot be resumed. Start one of another name."
    )


def _read(path: Path) -> RunFacts | None:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        found, digest = tree.pop("format"), tree.pop("digest")
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    if found != FORMAT:
        raise DataFormatError(
            f"{path}: expected format {FORMAT}, got {found!r}; resume with the version "
            "of Tutela that wrote it."
        )
    return _facts(tree) if _digest(tree) == digest else None


def _facts(tree: dict[str, Any]) -> RunFacts:
    questions = tuple(Question(**each) for each in tree.pop("questions"))
    return RunFacts(questions=questions, **tree)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _differences(old: FlatConfig, new: FlatConfig) -> list[str]:
    return [
        f"{key} ({old.get(key)!r}, now {new.get(key)!r})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) or (key in old) != (key in new)
    ]
